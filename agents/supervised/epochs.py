"""Fine-tuning for many epochs, with a checkpoint each, of which the best is chosen afterwards.

Ouyang et al. (2022), section 3.5: 16 epochs, chosen by the score of a reward model on held-out
questions. There the held-out loss rises from the second epoch on while answers still become better.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import numpy as np

from agents.distribution import Ranks
from agents.distribution.gathering import gathered, save_whole
from agents.runs.checkpoints import write_whole
from agents.supervised.fitting import FitStep
from agents.supervised.sft import Example
from policies import Policy, RewardModel, tokenizer_of
from textenv.errors import PromptError
from textenv.frames import Frame, Message
from textenv.masks import ends_of_answers

CURVE, FOLDER = "epochs.json", "epochs"
"""File of the curve, and folder of the checkpoints, in the folder of a run."""

Measure = Callable[[Policy], float]
"""A number that says how good a policy is."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the examples led to.

    Attributes:
        number: Number of the epoch, from 1; 0 is the policy before.
        loss: Mean loss of its steps; NaN before the first.
        measured: What was measured after it, by name.
        folder: Where the policy was saved; None before the first.
    """

    number: int
    loss: float
    measured: Mapping[str, float]
    folder: str | None = None


@dataclass
class Curve:
    """All epochs so far, and how far the next one is: what `by_epoch` goes on from.

    Attributes:
        epochs: From number 0 on.
        losses: Of the steps of the epoch that is not done.
    """

    epochs: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """From what `state` gave."""
        return cls([Epoch(**epoch) for epoch in state["epochs"]], list(state["losses"]))


def by_epoch(
    policy: Policy,
    steps: Iterable[FitStep],
    steps_an_epoch: int,
    measures: Mapping[str, Measure],
    folder: Path,
    curve: Curve | None = None,
) -> Iterator[Epoch]:
    """Train, and measure and save the policy after every epoch; the curve is kept in `folder`.

    Args:
        policy: The policy that `steps` train.
        steps: Such as those of `sft_steps`.
        steps_an_epoch: Such as `steps_of(examples, 1, batch_size)`.
        measures: What to measure, by name.
        folder: Where the curve and the checkpoints are written.
        curve: Of a run that goes on: what it had done. It is kept up to date.

    Yields:
        Epoch 0, before any step, and each epoch at its end; of a run that goes on, those that are
        done too.
    """
    curve, ranks = curve or Curve(), Ranks.found()
    if not curve.epochs:
        measured = _measured(policy, measures)
        curve.epochs.append(Epoch(0, math.nan, measured))
    yield from curve.epochs
    for step in steps:
        curve.losses.append(step.loss)
        if step.number % steps_an_epoch:
            continue
        number = step.number // steps_an_epoch
        place = folder / FOLDER / f"{number:02}"
        saved = save_whole(policy, place)
        measured = _measured(policy, measures)
        mean = sum(curve.losses) / len(curve.losses)
        curve.epochs.append(Epoch(number, mean, measured, str(saved.relative_to(folder))))
        curve.losses.clear()
        ranks.by_first(lambda: write_curve(folder, curve.epochs))
        yield curve.epochs[-1]


def _measured(policy: Policy, measures: Mapping[str, Measure]) -> dict[str, float]:
    with gathered(policy) as whole:
        return {name: measure(whole) for name, measure in measures.items()}


def best_epoch(curve: Sequence[Epoch], name: str, *, largest: bool) -> Epoch:
    """The epoch with the best measure of that name; of equal ones the first.

    Args:
        curve: Epochs; number 0 cannot be chosen.
        name: Name of the measure.
        largest: Whether larger numbers are better.

    Raises:
        PromptError: No epoch has a number there.
    """
    known = [e for e in curve if e.number and not math.isnan(e.measured[name])]
    if not known:
        raise PromptError(f"no epoch can be chosen by its {name}: nothing was held out to measure")
    return min(known, key=lambda epoch: (-1 if largest else 1) * epoch.measured[name])


def reward_model_score(
    model: RewardModel, examples: Sequence[Example], max_new_tokens: int, seed: int = 0
) -> Measure:
    """A measure: the mean score of the policy's answers to the examples' questions.

    Every policy is asked the same questions with the same random numbers, at temperature 1.

    Args:
        model: The reward model; of the policy's vocabulary or another one.
        examples: Held-out examples. Questions that leave no room for an answer are left out.
        max_new_tokens: Longest answer.
        seed: Seed of the sampling.
    """

    def measure(policy: Policy) -> float:
        tokenizer = tokenizer_of(policy)
        asked: list[str | list[Message]] = []
        prompts = []
        for example in examples:
            ids, learned = example.encode(tokenizer, policy.context)
            if any(learned) and learned.index(True) + max_new_tokens <= policy.context:
                asked.append(_asked(example) if model.frame is not None else example.question)
                prompts.append(ids[: learned.index(True)])
        if not prompts:
            return math.nan
        frame = next((e.template for e in examples if isinstance(e.template, Frame)), None)
        answers = policy.generate(
            prompts,
            max_new_tokens,
            # A template may end its turns in another id than the tokenizer names.
            stop_tokens=ends_of_answers(tokenizer, None, frame.end_of_turn if frame else None),
            forbidden_tokens=frame.role_tokens if frame else (),
            generator=np.random.default_rng(seed),
        )
        return float(model.score_texts(asked, answers).mean())

    return measure


def _asked(example: Example) -> str | list[Message]:
    """What a reward model with a template reads as the prompt."""
    if example.messages is None:
        return example.question
    return list(takewhile(lambda message: message["role"] != "assistant", example.messages))


def write_curve(
    folder: Path, curve: Sequence[Epoch], by: str | None = None, chosen: Epoch | None = None
) -> None:
    """Keep the curve, and which epoch was chosen by what, in the folder of a run."""
    rows = [asdict(epoch) for epoch in curve]
    for row in rows:  # JSON has no NaN
        row["loss"] = None if math.isnan(row["loss"]) else row["loss"]
        row["measured"] = {k: None if math.isnan(v) else v for k, v in row["measured"].items()}
    known = {"by": by, "chosen": None if chosen is None else chosen.number, "epochs": rows}
    write_whole(folder / CURVE, json.dumps(known, indent=2))
