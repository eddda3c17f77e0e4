"""All stages of a run on the same held-out prompts: one row of figures each."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation import (
    Evaluation,
    compare_answers,
    evaluate,
    perplexity,
)
from agents.feedback import sample_answers
from agents.jobs.recipe.caching import cached, key_of, made_from, seconds_of
from agents.jobs.recipe.pipeline import STAGES, Recipe
from agents.runs.samples import Sample
from policies import RewardModel, TransformerPolicy
from textenv import Episode, Prompt
from textenv.rewards import EpisodeReward, shared
from textenv.tokenizers import encode_answer, encode_prompt

BASE, SFT, PPO, PPO_PTX, DPO = "prompted base", "SFT", "PPO", "PPO-ptx", "DPO"
SHOTS = 2
"""Examples that are shown to the base model."""
SHOWN_SAMPLES = 6


@dataclass(frozen=True)
class Result:
    """What a run has shown; all of it plain, so that it can be kept as JSON.

    Attributes:
        settings: Of the run.
        rows: Figures of each stage by its name, from `Row.numbers`.
        reward_model: Its accuracy and calibration on held-out rankings.
        sft_loss: Of held-out demonstrations, in nats per token of the answer.
        history: `updates` and `points` of `ppo` and `ppo_ptx`; see `Recipe.ppo`.
        best_of: The points (KL, reward model's score, judge's) of best-of-n for n = 1, 2, 4, ...
        samples: Answers of each stage to the first prompts.
        seconds: How long each stage took.
    """

    settings: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    reward_model: Mapping[str, Any]
    sft_loss: float
    history: Mapping[str, Any]
    best_of: Sequence[Sequence[float]]
    samples: Sequence[Mapping[str, str]]
    seconds: Mapping[str, float]

    @property
    def best_of_name(self) -> str:
        """How the row of best-of-n is called."""
        return f"best of {self.settings['best_of']}"


def examine(recipe: Recipe) -> Result:
    """Let every stage of a finished run answer the held-out prompts; once, as all stages."""
    folder = recipe.folder / "results"
    seconds = {name: seconds_of(recipe.folder / name) for name in STAGES}

    def make(empty: Path) -> None:
        numbers = _measured(recipe) | {"settings": asdict(recipe.settings), "seconds": seconds}
        (empty / "result.json").write_text(json.dumps(numbers), encoding="utf-8")

    made = [made_from(recipe.folder / name) for name in STAGES]
    cached(folder, key_of(made, recipe.settings.eval_prompts, recipe.settings.best_of), make)
    return Result(**json.loads((folder / "result.json").read_text(encoding="utf-8")))


def _measured(recipe: Recipe) -> dict[str, Any]:
    """The fields of a `Result` that have to be measured."""
    s, language = recipe.settings, recipe.language
    model, sft = recipe.reward_model(), recipe.sft()
    prompts = recipe.evaluation_prompts()
    reward = _score_of_opening(model)
    stages: dict[str, TransformerPolicy] = {
        SFT: sft,
        PPO: recipe.ppo("ppo"),
        PPO_PTX: recipe.ppo("ppo_ptx"),
        DPO: recipe.dpo(),
    }
    base = recipe.pretrained()
    evaluations: dict[str, Evaluation] = {}
    total = len(prompts) * (len(stages) + 1)
    with recipe.stages.bar("Evaluation", total, "answers") as advance:

        def answers(
            policy: TransformerPolicy, asked: Sequence[Prompt], compared: bool
        ) -> Evaluation:
            before = len(prompts) * len(evaluations)
            return evaluate(
                policy,
                recipe.environment(policy, reward, [prompts[0].text]),
                asked,
                reference=sft if compared else None,
                temperature=s.temperature,
                seed=s.seed,
                on_answers=lambda count: advance(before + count),
            )

        evaluations[BASE] = answers(base, _with_examples(recipe, prompts), compared=False)
        evaluations[BASE] = _asked(evaluations[BASE], prompts)
        for name, policy in stages.items():
            evaluations[name] = answers(policy, prompts, compared=True)
    best, curve = _best_of(recipe, model, sft, prompts)
    evaluations[f"best of {s.best_of}"] = best
    held_out = recipe.stream("held_out")
    rows = compare_answers(
        evaluations,
        judge=language.judge,
        perplexities={
            name: perplexity(policy, held_out) for name, policy in {BASE: base, **stages}.items()
        },
    )
    samples = [
        {"prompt": prompt.text} | {name: e.samples[i].text for name, e in evaluations.items()}
        for i, prompt in enumerate(prompts[:SHOWN_SAMPLES])
    ]
    return {
        "rows": {row.name: row.numbers() for row in rows},
        "reward_model": recipe.numbers("reward_model"),
        "sft_loss": recipe.numbers("sft")["loss"],
        "history": {name: recipe.numbers(name, "history") for name in ("ppo", "ppo_ptx")},
        "best_of": curve,
        "samples": samples,
    }


def _with_examples(recipe: Recipe, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts behind demonstrations with stop tokens between, as text stands in pretraining."""
    tokenizer = recipe.vocabulary()
    assert tokenizer.stop_token is not None
    shown: list[int] = []
    room = recipe.settings.context - recipe.settings.max_new_tokens
    longest = max(len(encode_prompt(tokenizer, prompt.text)) for prompt in prompts)
    # The shortest of some demonstrations: two of them have to fit beside every prompt.
    some = sorted(recipe.language.demonstrations(20), key=lambda parts: len("".join(parts)))
    for opening, rest in some[:SHOTS]:
        answer = encode_answer(tokenizer, rest)
        ids = [*encode_prompt(tokenizer, opening), *answer, tokenizer.stop_token]
        if len(shown) + len(ids) + longest <= room:
            shown += ids
    return [
        Prompt("", {"opening": p.text}, np.array([*shown, *encode_prompt(tokenizer, p.text)]))
        for p in prompts
    ]


def _asked(evaluation: Evaluation, prompts: Sequence[Prompt]) -> Evaluation:
    """The same with the openings alone as prompts."""
    pairs = zip(prompts, evaluation.samples, strict=True)
    return replace(evaluation, samples=[Sample(p.text, s.text, s.score) for p, s in pairs])


def _score_of_opening(model: RewardModel) -> EpisodeReward:
    """The reward model on the opening and the answer, without examples that stood before them."""

    def score(episodes: Sequence[Episode]) -> Any:
        openings = [str(e.columns.get("opening", e.prompt)) for e in episodes]
        return model.score_texts(openings, [e.text for e in episodes])

    return shared(score, "reward_model")


def _best_of(
    recipe: Recipe, model: RewardModel, sft: TransformerPolicy, prompts: Sequence[Prompt]
) -> tuple[Evaluation, list[list[float]]]:
    """The SFT model's best answers of n by the reward model, and its curve for smaller n.

    KL(best of n || SFT) is log n - (n - 1) / n where no two answers score the same (Stiennon et
    al., 2020, appendix G.3).
    """
    s = recipe.settings
    openings = [prompt.text for prompt in prompts]
    with recipe.stages.bar("Best of n", len(openings) * s.best_of, "answers") as advance:
        answers = sample_answers(
            sft,
            openings,
            s.best_of,
            max_new_tokens=s.max_new_tokens,
            temperature=s.temperature,
            seed=s.seed,
            on_answers=advance,
        )
    scores = np.stack(
        [model.score_texts([o] * s.best_of, a) for o, a in zip(openings, answers, strict=True)]
    )
    curve = []
    for n in [2**power for power in range(int(math.log2(s.best_of)) + 1)]:
        best = scores[:, :n].argmax(1)
        judged = [
            recipe.language.judge(o, a[i]) for o, a, i in zip(openings, answers, best, strict=True)
        ]
        kl = math.log(n) - (n - 1) / n
        curve.append([kl, float(scores[:, :n].max(1).mean()), float(np.mean(judged))])
    best = scores.argmax(1)
    texts = [some[i] for some, i in zip(answers, best, strict=True)]
    assert sft.tokenizer is not None
    unknown = np.full(len(texts), np.nan)
    evaluation = Evaluation(
        [Sample(o, t, float(x)) for o, t, x in zip(openings, texts, scores.max(1), strict=True)],
        [np.array(sft.tokenizer.encode(text)) for text in texts],
        unknown,
        unknown,
    )
    return evaluation, curve
