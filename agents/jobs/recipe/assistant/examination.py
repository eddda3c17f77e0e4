"""All stages of a run on the same held-out dialogues, by the program's verdicts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation import bootstrap_interval, perplexity
from agents.jobs.recipe.assistant.dialogues import prompts_of
from agents.jobs.recipe.assistant.measures import (
    Answered,
    answered,
    best_of,
    history_gain,
    in_dialogues,
    row,
    verdicts,
    with_examples,
)
from agents.jobs.recipe.assistant.pipeline import STAGES, AssistantRecipe
from agents.jobs.recipe.caching import cached, key_of, made_from, seconds_of
from textenv.tasks import assistant

BASE, SFT, PPO, PPO_PTX = "prompted base", "SFT", "PPO", "PPO-ptx"
DPO, RLAIF, ONLINE = "DPO", "RLAIF", "online"
TRANSCRIPTS = 8
"""Held-out dialogues that are kept word by word: the first ones."""


@dataclass(frozen=True)
class Result:
    """What a run has shown; all of it plain, so that it can be kept as JSON.

    Attributes:
        settings: Of the run.
        rows: Figures of each stage by its name; see `measures.row`.
        gains: Paired differences in success on held-out questions, by "one - other", with their
            95% intervals.
        perplexity: Of each policy on held-out documents.
        dialogues: Of each policy, success in whole dialogues with its own answers as the history.
        history_gain: Of two policies, success on later questions with what was said before, and
            without it.
        reward_model: Its accuracy and calibration on held-out rankings.
        judge: Its agreement with the program's verdicts, of the SFT model that judges.
        sft_loss: Of held-out demonstrations, in nats per token of the answer.
        curves: Of each stage of PPO: tokens, score, KL and entropy of every update.
        transcripts: The first held-out dialogues with each stage: its name, questions and answers.
        seconds: How long each stage took.
    """

    settings: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    gains: Mapping[str, Mapping[str, float]]
    perplexity: Mapping[str, float]
    dialogues: Mapping[str, Mapping[str, float]]
    history_gain: Mapping[str, Mapping[str, Any]]
    reward_model: Mapping[str, Any]
    judge: Mapping[str, Any]
    sft_loss: float
    curves: Mapping[str, Any]
    transcripts: Mapping[str, Sequence[Sequence[Sequence[str]]]]
    seconds: Mapping[str, float]


def examine(recipe: AssistantRecipe) -> Result:
    """Let every stage of a finished run answer the held-out questions; once, as all stages."""
    folder = recipe.folder / "results"
    seconds = {name: seconds_of(recipe.folder / name) for name in STAGES}

    def make(empty: Path) -> None:
        numbers = _measured(recipe)
        numbers |= {"settings": asdict(recipe.settings), "seconds": seconds}
        (empty / "result.json").write_text(json.dumps(numbers), encoding="utf-8")

    s = recipe.settings
    made = [made_from(recipe.folder / name) for name in STAGES]
    cached(folder, key_of(made, s.eval_dialogues, s.best_of), make)
    return Result(**json.loads((folder / "result.json").read_text(encoding="utf-8")))


def _measured(recipe: AssistantRecipe) -> dict[str, Any]:
    """The fields of a `Result` that have to be measured."""
    s = recipe.settings
    talks = assistant.dialogues(s.language, "held_out", s.eval_dialogues, seed=0)
    others = assistant.dialogues(s.language, "held_out_kinds", s.eval_dialogues // 3, seed=0)
    prompts = prompts_of([*talks, *others])
    held_out = np.arange(len(prompts)) < len(prompts_of(talks))
    base, sft, model = recipe.pretrained(), recipe.sft(), recipe.reward_model()
    trained = {
        SFT: sft,
        PPO: recipe.ppo("ppo"),
        PPO_PTX: recipe.ppo("ppo_ptx"),
        DPO: recipe.dpo(),
        RLAIF: recipe.rlaif(),
        ONLINE: recipe.online(),
    }
    given: dict[str, Answered] = {}
    with recipe.stages.bar("Evaluation", len(trained) + 2, "stages") as advance:
        given[BASE] = answered(recipe, base, with_examples(recipe, prompts), model, None)
        for name, policy in trained.items():
            advance(len(given))
            given[name] = answered(recipe, policy, prompts, model, sft)
        advance(len(given))
        given[f"best of {s.best_of}"] = best_of(recipe, sft, prompts, model)
        played = {
            name: in_dialogues(recipe, policy, talks)
            for name, policy in {BASE: base, **trained}.items()
        }
    correct = {name: verdicts(prompts, some.texts)[1][held_out] for name, some in given.items()}
    compared = [(SFT, BASE), *((name, SFT) for name in given if name not in (BASE, SFT))]
    text = recipe.stream("held_out")
    return {
        "rows": {name: row(prompts, some, held_out) for name, some in given.items()},
        "gains": {
            f"{one} - {other}": bootstrap_interval(correct[one] - correct[other])._asdict()
            for one, other in compared
        },
        "perplexity": {
            name: perplexity(policy, text) for name, policy in {BASE: base, **trained}.items()
        },
        "dialogues": {
            name: bootstrap_interval(shares)._asdict() for name, (shares, _) in played.items()
        },
        "history_gain": {name: history_gain(recipe, trained[name], talks) for name in (SFT, PPO)},
        "reward_model": recipe.numbers("reward_model"),
        "judge": recipe.numbers("ai_preferences"),
        "sft_loss": recipe.numbers("sft")["loss"],
        "curves": {
            name: recipe.numbers(name, "history")["updates"]
            for name in ("ppo", "ppo_ptx", "online")
        },
        "transcripts": {name: said[:TRANSCRIPTS] for name, (_, said) in played.items()},
    }
