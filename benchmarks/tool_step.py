"""One GRPO step on conversations of two turns with a tool: textenv's learner against TRL's trainer.

Both sides have the same fine-tuned model (see `benchmarks.tool_task`), questions, environment class
and chat template: 32 episodes in groups of 8, one epoch, AdamW, no KL. TRL takes the class as
`environment_factory`, textenv through `from_trl_environment`. A rate counts chosen tokens, not the
tool's; that of the rollout alone excludes, on TRL's side, resets and rewards. The learning rate is
so small that the model stays as it is. Sides are interleaved; medians of the rounds. It also shows
what each side played, and refuses figures if that differs by 5% or more.

Run (glibc's buffers kept, which is where TRL is at its strongest):

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 \
    MALLOC_TOP_PAD_=268435456 taskset -c 0 python -m benchmarks.tool_step --threads 1
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from agents import GRPO, Learner
from benchmarks.common import BF16, command_line, interleaved, median, ratio, report
from benchmarks.peers import clock, trl_config
from benchmarks.tool_task import (
    BUDGET,
    ENOUGH,
    QUESTIONS,
    Setting,
    Sums,
    checkpoint,
    environment,
    records,
)
from policies import HuggingFacePolicy
from policies.huggingface.loading import load_model, load_models_tokenizer

ROWS, GROUP, LEARNING_RATE, SEED = 32, 8, 1e-7, 1
MOST_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Played:
    """What one step of a side played, and how long it took.

    Attributes:
        episodes: Finished episodes.
        two_turns: Those in which the tool was called and the model spoke again.
        chosen: Tokens that the model chose.
        appended: Tokens of the tool's results and what the template writes around them.
        seconds: Of the whole step.
        rollout_seconds: Of the rollout.
    """

    episodes: int
    two_turns: int
    chosen: int
    appended: int
    seconds: float
    rollout_seconds: float


Round = list[Played]


def textenv_side(
    folder: Path, steps: int, rows: int, precision: torch.dtype
) -> Callable[[], Round]:
    """Steps of a learner that runs on from call to call."""
    policy = HuggingFacePolicy.from_pretrained(folder)
    policy.pack_weights()
    learner = Learner(
        policy,
        environment(policy.tokenizer, rows, GROUP, seed=SEED),
        GRPO(),
        learning_rate=LEARNING_RATE,
        optimizer=AdamW,
        n_episodes=rows,
        precision=precision,
    )

    def step() -> Played:
        begin = time.perf_counter()
        update = learner.update()
        seconds = time.perf_counter() - begin
        rollout = update.rollout
        assert rollout.turns is not None and rollout.prompt_lengths is not None
        lengths = (rollout.tokens != policy.pad_token).sum(1)
        behind_prompts = int((lengths - rollout.prompt_lengths).sum())
        return Played(
            episodes=len(rollout),
            two_turns=int((rollout.turns.amax(1) == 2).sum()),
            chosen=rollout.num_tokens,
            appended=behind_prompts - rollout.num_tokens,
            seconds=seconds,
            rollout_seconds=update.metrics["rollout_seconds"],
        )

    return lambda: [step() for _ in range(steps)]


def trl_side(folder: Path, steps: int, rows: int, **setting: Any) -> Callable[[], Round]:
    """Steps of TRL's trainer on a new copy of the model, the first step left out."""
    seeds = count(SEED)  # or each call would play the same
    return lambda: steps_of_trl(folder, steps + 1, rows, next(seeds), **setting)[1:]


def steps_of_trl(
    folder: Path,
    steps: int,
    rows: int,
    seed: int,
    *,
    dtype: torch.dtype = torch.float32,
    bf16: bool = False,
) -> Round:
    """What TRL's GRPO trainer plays in each of `steps` steps."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    rollouts: list[tuple[float, Sequence[Sequence[int]]]] = []

    class Watched(GRPOTrainer):  # type: ignore[misc]
        def _generate(self, prompts: Any) -> Any:
            begin = time.perf_counter()
            made = super()._generate(prompts)
            rollouts.append((time.perf_counter() - begin, made[2]))
            return made

    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        trainer = Watched(
            model=load_model(str(folder), dtype=dtype),
            args=trl_config(
                "GRPO",
                place,
                per_device_train_batch_size=rows,
                num_generations=GROUP,
                max_completion_length=BUDGET,
                max_tool_calling_iterations=1,
                max_steps=steps,
                learning_rate=LEARNING_RATE,
                bf16=bf16,
                gradient_checkpointing=False,
                seed=seed,
            ),
            train_dataset=Dataset.from_list(records(QUESTIONS, SEED)),
            processing_class=load_models_tokenizer(str(folder)),
            environment_factory=Sums,
            callbacks=[clock(seconds)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    played = []
    for whole, (part, masks) in zip(seconds, rollouts, strict=True):
        chosen = sum(map(sum, masks))
        appended = sum(map(len, masks)) - chosen
        # The mark of what was chosen comes back only where the model spoke behind a result.
        two = sum(0 in mask for mask in masks)
        played.append(Played(len(masks), two, chosen, appended, whole, part))
    return played


# -------------------------------------------------------------------- the table


def rate(played: Sequence[Played], seconds: str = "seconds") -> float:
    """Chosen tokens per second of a round's steps, the median."""
    return median([step.chosen / getattr(step, seconds) for step in played])


def counts(rounds: Sequence[Round]) -> dict[str, float]:
    """What a side played in all rounds, for an episode."""
    steps = [step for played in rounds for step in played]
    episodes = sum(step.episodes for step in steps)
    names = {"two turns": "two_turns", "chosen": "chosen", "appended": "appended"}
    return {n: sum(getattr(step, field) for step in steps) / episodes for n, field in names.items()}


def check_same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Refuse to compare sides that played something else.

    Raises:
        RuntimeError: A count differs by 5% or more.
    """
    for name, own in ours.items():
        if not abs(own - theirs[name]) < MOST_DIFFERENCE * theirs[name]:
            raise RuntimeError(f"{name}: {own:.3f} and {theirs[name]:.3f} are not the same task")


def compare(
    folder: Path, repeats: int, steps: int, rows: int, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Rows of the table; ratios are to the fastest of TRL's settings, round by round."""
    sides: dict[str, Callable[[], Round]] = {
        name: textenv_side(folder, steps, rows, OURS[name])
        if name in OURS
        else trl_side(folder, steps, rows, **PEERS[name])
        for name in names
    }
    rounds = interleaved(sides, repeats)
    played = {name: counts(of_side) for name, of_side in rounds.items()}
    steps_of = {name: [rate(r) for r in of_side] for name, of_side in rounds.items()}
    rollouts = {
        name: [rate(r, "rollout_seconds") for r in of_side] for name, of_side in rounds.items()
    }
    strongest = max((n for n in names if n in PEERS), key=lambda name: median(steps_of[name]))
    for name in names:
        yield {
            "side": name,
            **played[name],
            "step tokens/s": median(steps_of[name]),
            "rollout tokens/s": median(rollouts[name]),
            f"step over {strongest}": ratio(steps_of, name, strongest),
            "rollout": ratio(rollouts, name, strongest),
        }
    for name in names:
        check_same(played[name], played[strongest])


OURS = {"textenv fp32": torch.float32, "textenv bf16": torch.bfloat16}
PEERS: dict[str, dict[str, Any]] = {
    "TRL fp32": {},
    "TRL bf16": {"bf16": True},
    "TRL bf16 weights": {"bf16": True, "dtype": torch.bfloat16},
}


def main() -> None:
    """Measure the setting asked for."""
    parser = command_line(__doc__)
    usable = [name for name in (*OURS, *PEERS) if BF16 or "bf16" not in name]
    parser.add_argument("--sides", nargs="+", default=usable, choices=[*OURS, *PEERS])
    parser.add_argument("--steps", type=int, default=3, help="Steps of a round.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    folder, calls = checkpoint(Setting())
    print(f"first turns with a call that was carried out: {calls:.3f}")
    if calls < ENOUGH:
        raise SystemExit(f"the checkpoint in {folder} knows too little: less than {ENOUGH}")
    rows = compare(
        folder,
        arguments.repeats,
        arguments.steps,
        ROWS,
        arguments.sides,
    )
    kept = "MALLOC_MMAP_THRESHOLD_" in os.environ
    report("tool_step", rows, seed=SEED, repeats=arguments.repeats, buffers_kept=kept, calls=calls)


if __name__ == "__main__":
    main()
