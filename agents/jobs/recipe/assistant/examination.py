"""All stages of a run on the same held-out dialogues, by the program's verdicts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.evaluation import Conduct, assistant_exam, bootstrap_interval, examine, gain
from agents.jobs.recipe.assistant.measures import best_of, in_dialogues, likeliest, scores
from agents.jobs.recipe.assistant.pipeline import STAGES, AssistantRecipe
from agents.jobs.recipe.caching import cached, key_of, made_from, seconds_of
from textenv.tasks import assistant

BASE, CUT = "prompted base", "base, cut"
SFT, PPO, PPO_PTX = "SFT", "PPO", "PPO-ptx"
DPO, RLAIF, ONLINE = "DPO", "RLAIF", "online"
SHOTS = 3
"""Examples that are shown to the base model."""
ENDS = ("\n",)
"""Where the answers of the base model are cut, which hardly ever ends one: its best form."""
TRANSCRIPTS = 8
"""Held-out dialogues that are kept word by word: the first ones."""
SUCCESS = "correct, all"


@dataclass(frozen=True)
class Result:
    """What a run has shown; all of it plain, so that it can be kept as JSON.

    Attributes:
        settings: Of the run.
        conduct: What each stage did in the exam; see `Conduct.numbers`.
        likeliest: The same of answers of the likeliest tokens; questions of the exam alone, and
            the base cut.
        dialogues: The same in whole dialogues with the policy's own answers as the history.
        gains: Paired differences in the share of correct answers to held-out questions of trained
            kinds, by "one - other", with their 95% intervals.
        likeliest_gains: The same of `likeliest`.
        reward: The reward model's mean score of each stage's answers.
        kl: KL of a token to the SFT model in dialogues, in nats.
        reward_model: Its accuracy and calibration on held-out rankings.
        judge: The agreement of the SFT model as a judge with the program's verdicts.
        sft_loss: Of held-out demonstrations, in nats per token of the answer.
        curves: Of each stage of PPO: tokens, score, KL and entropy of every update.
        transcripts: The first held-out dialogues with each stage: questions and answers.
        seconds: How long each stage took.
    """

    settings: Mapping[str, Any]
    conduct: Mapping[str, Mapping[str, Any]]
    likeliest: Mapping[str, Mapping[str, Any]]
    dialogues: Mapping[str, Mapping[str, float]]
    gains: Mapping[str, Mapping[str, float]]
    likeliest_gains: Mapping[str, Mapping[str, float]]
    reward: Mapping[str, float]
    kl: Mapping[str, float]
    reward_model: Mapping[str, Any]
    judge: Mapping[str, Any]
    sft_loss: float
    curves: Mapping[str, Any]
    transcripts: Mapping[str, Sequence[Sequence[Sequence[str]]]]
    seconds: Mapping[str, float]


def examination(recipe: AssistantRecipe) -> Result:
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
    exam = assistant_exam(s.language, s.eval_dialogues)
    talks = assistant.dialogues(s.language, "held_out", s.eval_dialogues, seed=0)
    sft, model = recipe.sft(), recipe.reward_model()
    base = recipe.pretrained()
    policies = {
        BASE: base,
        SFT: sft,
        PPO: recipe.ppo("ppo"),
        PPO_PTX: recipe.ppo("ppo_ptx"),
        DPO: recipe.dpo(),
        RLAIF: recipe.rlaif(),
        ONLINE: recipe.online(),
    }
    examined = {BASE: base, CUT: base, **policies}
    best = f"best of {s.best_of}"
    conducts: dict[str, Conduct] = {}
    with recipe.stages.bar("Evaluation", 2 * len(policies) + 2, "parts") as advance:
        for name, policy in examined.items():
            conducts[name] = examine(
                policy,
                recipe.template,
                exam,
                shots=SHOTS if policy is base else 0,
                compared_shots=(0, 1, SHOTS) if name in (CUT, SFT) else (),
                max_new_tokens=s.max_new_tokens,
                temperature=s.temperature,
                stop_strings=ENDS if name == CUT else (),
                seed=s.seed,
            )
            advance(len(conducts))
        conducts[best] = best_of(recipe, sft, exam, model)
        played = {}
        for name, policy in policies.items():
            played[name] = in_dialogues(recipe, policy, talks, sft)
            advance(len(conducts) + len(played))
    surest = {
        name: likeliest(recipe, policy, exam, *((SHOTS, ENDS) if name == CUT else ()))
        for name, policy in examined.items()
        if name != BASE
    }
    compared = [
        *((SFT, name) for name in (BASE, CUT)),
        *((name, SFT) for name in conducts if name not in (BASE, CUT, SFT)),
    ]
    return {
        "conduct": {name: conduct.numbers() for name, conduct in conducts.items()},
        "likeliest": {name: conduct.numbers() for name, conduct in surest.items()},
        "dialogues": {
            n: bootstrap_interval(shares)._asdict() for n, (shares, _, _) in played.items()
        },
        "gains": {
            f"{one} - {other}": gain(conducts[one], conducts[other], SUCCESS)._asdict()
            for one, other in compared
        },
        "likeliest_gains": {
            f"{one} - {other}": gain(surest[one], surest[other], SUCCESS)._asdict()
            for one, other in compared
            if {one, other} <= surest.keys()
        },
        "reward": {name: scores(model, exam, conduct) for name, conduct in conducts.items()},
        "kl": {name: kl for name, (_, _, kl) in played.items()},
        "reward_model": recipe.numbers("reward_model"),
        "judge": recipe.numbers("ai_preferences"),
        "sft_loss": recipe.numbers("sft")["loss"],
        "curves": {
            name: recipe.numbers(name, "history")["updates"]
            for name in ("ppo", "ppo_ptx", "online")
        },
        "transcripts": {name: said[:TRANSCRIPTS] for name, (_, said, _) in played.items()},
    }
