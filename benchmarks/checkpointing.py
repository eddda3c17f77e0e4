"""What a checkpoint costs: seconds and bytes of a save, and the share of a training that saves.

PPO with a reference, rows of 64 tokens. Each side is an update, a save (written, flushed to disk,
sealed with checksums, renamed), and the examination that a resumed run begins with. `--save-every`
as it is by default makes the interval the longer of two minutes and 50 times the seconds of a save,
so that the share of the time is at most 1/51; the table says what it is. The last row is a training
with the clock of `textenv train`, whose two minutes are cut to `--interval` seconds: of what it
took, the share that its saves took. The page cache of the machine is part of what is measured.

Run: python -m benchmarks.checkpointing --threads 1
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from agents import PPO, Learner
from agents.runs import saving
from agents.runs.checkpoints import Checkpoints, damage
from agents.runs.learner_checkpoint import write_learner
from benchmarks.common import command_line, make_policy, median, no_reward, random_prompts, report
from textenv import TextVectorEnv

ROWS, LENGTH = 32, 64


def learner_of(model: str) -> Learner:
    """PPO on model S (4.3M parameters) or M (30M), with a reference."""
    policy = make_policy(model)
    envs = TextVectorEnv(
        ROWS,
        prompts=[{"tokens": ids} for ids in random_prompts(256, policy.vocab_size)],
        reward=no_reward,
        tokenizer=policy.tokenizer,
        max_new_tokens=LENGTH,
    )
    reference = policy.frozen_copy()
    return Learner(policy, envs, PPO(), reference=reference, kl_coef=0.1, n_steps=LENGTH)


def cost(model: str, repeats: int, folder: Path) -> dict[str, float]:
    """Medians of seconds, and megabytes."""
    learner, checkpoints = learner_of(model), Checkpoints(folder / "checkpoint", keep=2)
    learner.update()  # the moments of Adam are made
    updates, saves, looks = [], [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        learner.update()
        updates.append(time.perf_counter() - begin)
        saves.append(checkpoints.save(lambda part: write_learner(learner, part)))
        begin = time.perf_counter()
        assert damage(checkpoints.folder) is None
        looks.append(time.perf_counter() - begin)
    files = [path for path in checkpoints.folder.rglob("*") if path.is_file()]
    took = median(saves)
    interval = max(saving.LEAST_SECONDS, saving.TIMES * took)
    return {
        "update s": median(updates),
        "save s": took,
        "examine s": median(looks),
        "MB": sum(path.stat().st_size for path in files) / 1e6,
        "every s": interval,
        "saves": float("nan"),
        "share %": 100 * took / (interval + took),
    }


def training(model: str, interval: float, intervals: int, folder: Path) -> dict[str, float]:
    """A training of some intervals, whose saves are timed."""
    learner, checkpoints = learner_of(model), Checkpoints(folder / "checkpoint", keep=2)
    least, saving.LEAST_SECONDS = saving.LEAST_SECONDS, interval
    begin = time.perf_counter()
    quiet = Console(quiet=True)
    try:
        with saving.Saving(
            checkpoints, lambda part: write_learner(learner, part), saving.Schedule(), quiet, ""
        ) as saved:
            while time.perf_counter() - begin < intervals * interval:
                learner.update()
                saved.after(learner.updates_done)
            saved.finish()
    finally:
        saving.LEAST_SECONDS = least
    seconds = time.perf_counter() - begin
    return {
        "update s": (seconds - saved.seconds) / learner.updates_done,
        "save s": saved.seconds / saved.saves,
        "examine s": float("nan"),
        "MB": float("nan"),
        "every s": interval,
        "saves": float(saved.saves),
        "share %": 100 * saved.seconds / seconds,
    }


def rows_of(given: argparse.Namespace) -> Iterator[dict[str, str | float]]:
    """A row for each model, and one for the training."""
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for model in given.models:
            place = Path(folder) / model
            yield {"what": f"model {model}", **cost(model, given.repeats, place)}
        place = Path(folder) / "training"
        measured = training("S", given.interval, given.intervals, place)
        yield {"what": "training of S", **measured}


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--models", nargs="+", default=["S", "M"])
    parser.add_argument("--interval", type=float, default=20.0)
    parser.add_argument("--intervals", type=int, default=3)
    parser.add_argument("--folder", default=".", help="on the disk that is to be measured")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    report("checkpointing", rows_of(given), rows_of_answers=ROWS, tokens_per_answer=LENGTH)


if __name__ == "__main__":
    main()
