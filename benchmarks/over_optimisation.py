"""Over-optimisation of a reward model: its score rises, and what it stands for falls.

After Gao et al., "Scaling Laws for Reward Model Overoptimization" (2022), arXiv:2210.10760, in a
world so small that a run takes seconds. An answer is 20 letters. Each pair of neighbouring letters
is worth something by a table, but only the first time: saying again what was good earns nothing.
Answers of the first policy, which is nearly uniform, seldom say anything twice, so a reward model
of a few hundred comparisons cannot know. PPO without a leash finds what it likes and repeats it.
The program's verdict (gold) is measured on the same answers as the reward model's score (proxy).

Labels are wrong in a quarter of the comparisons, as in Coste et al. (2023). Scores are scaled to
deviation 1 on the answers that were compared, so proxies can be told in one figure.

Run: taskset -c 0 python -m benchmarks.over_optimisation --threads 1 --figures docs/figures
"""

import copy
import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from agents import PPO, Collector, Learner
from agents.evaluation import best_of_n, best_of_n_kl
from agents.feedback import (
    Ranking,
    laid_flat,
    pair_accuracy,
    reward_model_steps,
    standardise,
)
from agents.report.figures import curve_svg
from agents.report.parts import Curve, Point
from agents.runs.endings import COMPONENT
from agents.runs.stopping import BeyondKL, PastBest, until
from agents.runs.update import Update
from benchmarks.common import command_line, report
from policies import (
    MeanLessSpread,
    RewardModel,
    RewardModelEnsemble,
    TransformerConfig,
    TransformerPolicy,
    worst_case,
)
from policies.reward_ensemble import Combine
from textenv import TextVectorEnv
from textenv.rewards import per_text, weighted
from textenv.tokenizers import CharacterTokenizer

LETTERS, PROMPT, LENGTH = "abcdefghijklmnop", ":", 20
TOKENIZER = CharacterTokenizer(LETTERS + PROMPT)
ROWS, UPDATES, RATE = 128, 36, 5e-4
SIZES, DATA, SIZE, COMPARISONS = (16, 64, 128), (100, 300, 1000), 64, 300
MEMBERS, PENALTY, LEASH = 4, 3.0, 0.15
WRONG = 0.25
"""Share of the comparisons whose label is turned round."""
NUMBERS = tuple(2**power for power in range(10))
"""n of best-of-n."""
DRAWN = 4096
"""Answers of the first policy from which best-of-n chooses."""
LATEST = 3
"""Updates whose answers are taken together where a policy is measured."""

# -------------------------------------------------------------------- the world


@functools.cache
def worth() -> NDArray[np.float64]:
    """What the pair of a first and a second letter is worth, shape (16, 16), 0 on average."""
    rng = np.random.default_rng(7)
    table = 0.7 * rng.normal(size=len(LETTERS)) + 0.7 * rng.normal(size=(len(LETTERS),) * 2)
    centred: NDArray[np.float64] = table - table.mean()
    return centred


def gold(text: str) -> float:
    """The program's verdict: the worth of all different pairs of neighbouring letters."""
    table = worth()
    pairs = Counter(pairwise(LETTERS.index(letter) for letter in text))
    return float(sum(table[pair] for pair in pairs))


def make_envs(reward: Any) -> TextVectorEnv:
    """Answers of 20 letters; the verdict is reported beside the reward, and not paid."""
    return TextVectorEnv(
        ROWS,
        prompts=[PROMPT],
        reward=weighted(proxy=(1.0, reward), gold=(0.0, per_text(gold))),
        tokenizer=TOKENIZER,
        max_new_tokens=LENGTH,
        stop_tokens=(),
        forbidden_tokens=(len(LETTERS), len(LETTERS) + 1),
    )


def network(size: int, seed: int) -> TransformerPolicy:
    """A new transformer of two layers."""
    shape = TransformerConfig(TOKENIZER.vocab_size, LENGTH + 2, n_layer=2, n_head=2, n_embd=size)
    return TransformerPolicy(shape, tokenizer=TOKENIZER, seed=seed)


def first_answers(policy: TransformerPolicy, count: int, seed: int) -> list[str]:
    """Answers of a policy that has not learned yet."""
    envs = make_envs(per_text(gold))
    rollout = Collector(copy.deepcopy(policy), envs, seed=seed).collect_episodes(count)
    return [
        TOKENIZER.decode(tokens[chosen].tolist())
        for tokens, chosen in zip(rollout.tokens, rollout.mask, strict=True)
    ]


def compared(answers: Sequence[str], wrong: float, seed: int) -> list[Ranking]:
    """Each two answers in a row compared by the program, with a share of wrong labels."""
    turned = np.random.default_rng([seed, 1]).random(len(answers) // 2) < wrong
    rankings = []
    for number, flip in enumerate(turned):
        pair = answers[2 * number : 2 * number + 2]
        better = gold(pair[0]) > gold(pair[1])
        rankings.append(Ranking(PROMPT, tuple(pair), (1, 2) if better != flip else (2, 1)))
    return rankings


# -------------------------------------------------------------------- reward models


class Proxy(NamedTuple):
    """A reward model, or an ensemble.

    Attributes:
        size: Width of the network.
        comparisons: How many it has learned from.
        combine: How four members are combined; None for one model alone.
        leash: Weight of the KL to the first policy in PPO's reward, per nat.
    """

    size: int = SIZE
    comparisons: int = COMPARISONS
    combine: Combine | None = None
    leash: float = 0.0

    @property
    def name(self) -> str:
        """For tables and figures."""
        name = f"d={self.size}, {self.comparisons} comparisons"
        if self.combine is not None:
            name += ", worst of 4" if self.combine is worst_case else ", 4 less spread"
        return name + (f", leash {self.leash:g}" if self.leash else "")


MIDDLE = Proxy()
LESS_SPREAD = Proxy(combine=MeanLessSpread(PENALTY))
WORST = Proxy(combine=worst_case)
LEASHED = Proxy(leash=LEASH)
TRAINED = (
    *dict.fromkeys([Proxy(size=size) for size in SIZES] + [Proxy(comparisons=n) for n in DATA]),
    LESS_SPREAD,
    WORST,
    LEASHED,
)
"""What PPO is trained on, and what best-of-n chooses by."""


class World:
    """What a seed draws, made when asked for: the first policy, comparisons, reward models."""

    def __init__(self, seed: int):
        self.seed = seed
        self._made: dict[tuple[int, int, int], RewardModel] = {}

    @functools.cached_property
    def first(self) -> TransformerPolicy:
        """The policy before it has learned anything."""
        return network(SIZE, self.seed)

    @functools.cached_property
    def answers(self) -> list[str]:
        """Its answers: those to compare, then those that best-of-n chooses from."""
        return first_answers(self.first, 2 * max(DATA) + DRAWN, self.seed)

    @property
    def drawn(self) -> list[str]:
        """What best-of-n chooses from."""
        return self.answers[2 * max(DATA) :]

    @functools.cached_property
    def rankings(self) -> list[Ranking]:
        """All comparisons to learn from."""
        return compared(self.answers[: 2 * max(DATA)], WRONG, self.seed)

    def accuracy(self, proxy: Proxy) -> float:
        """Share of 500 other pairs that a proxy orders as the program does."""
        others = compared(self.drawn[:1000], 0.0, self.seed)
        return pair_accuracy(self.reward(proxy), others).mean

    def model(self, size: int, comparisons: int, member: int = 0) -> RewardModel:
        """A reward model fitted to the first comparisons."""
        key = (size, comparisons, member)
        if key not in self._made:
            seed = 1000 * self.seed + member
            model = RewardModel.with_fresh_head(network(size, seed + 1), seed)
            learned = self.rankings[:comparisons]
            for _ in reward_model_steps(
                model, learned, epochs=3, batch_size=32, learning_rate=2e-3, seed=seed
            ):
                pass
            standardise(model, *laid_flat(learned))
            self._made[key] = model
        return self._made[key]

    def reward(self, proxy: Proxy) -> RewardModel | RewardModelEnsemble:
        """The model or the ensemble."""
        if proxy.combine is None:
            return self.model(proxy.size, proxy.comparisons)
        members = [self.model(proxy.size, proxy.comparisons, m) for m in range(MEMBERS)]
        return RewardModelEnsemble(members, proxy.combine)


# -------------------------------------------------------------------- optimisation


class Run(NamedTuple):
    """PPO against a proxy; U updates, each on the answers that the policy gave before it.

    Attributes:
        kl: KL to the first policy, in nats per answer, shape (U,).
        proxy: The reward model's scores, shape (U, ROWS).
        gold: The program's verdicts on the same answers, shape (U, ROWS).
        accuracy: Share of held-out pairs that the proxy orders rightly, ().
        chosen: Best-of-n of the first policy with the same proxy: KL, proxy and gold for each of
            `NUMBERS`, shape (N, 3); empty where PPO has a leash.
    """

    kl: NDArray[np.float64]
    proxy: NDArray[np.float64]
    gold: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    chosen: NDArray[np.float64]


def run(world: World, proxy: Proxy) -> Run:
    """Everything about one proxy."""
    kls, proxies, golds = [], [], []
    for update in train(world, proxy):
        assert update.rollout is not None and update.rollout.endings is not None
        assert update.kl is not None and update.scores is not None
        kls.append(update.kl * LENGTH)
        proxies.append(update.scores)
        golds.append(update.rollout.endings[COMPONENT + "gold"].numpy())
    chosen = [] if proxy.leash else best_of(world, proxy)
    found = (kls, proxies, golds, world.accuracy(proxy), chosen)
    return Run(*(np.array(x, dtype=np.float64) for x in found))


def kept(world: World, proxy: Proxy, folder: Path | None) -> Run:
    """`run`, once: what the folder has is read, so a benchmark that was stopped goes on."""
    if folder is None:
        return run(world, proxy)
    path = folder / f"{world.seed}, {proxy.name}.npz"
    if not path.exists():
        found = run(world, proxy)
        with (folder / f"{path.stem}.tmp").open("wb") as file:
            np.savez(file, **found._asdict())
        Path(file.name).rename(path)
    with np.load(path) as arrays:
        return Run(**arrays)


def train(world: World, proxy: Proxy) -> Iterator[Update]:
    """PPO against a proxy."""
    policy = copy.deepcopy(world.first)
    learner = Learner(
        policy,
        make_envs(world.reward(proxy)),
        PPO(n_epochs=4, minibatch_tokens=640),
        reference=policy.frozen_copy(),
        kl_coef=proxy.leash,
        learning_rate=RATE,
        n_steps=LENGTH,
        seed=world.seed,
    )
    return learner.updates(UPDATES * ROWS * LENGTH)


def best_of(world: World, proxy: Proxy) -> list[tuple[float, float, float]]:
    """Best-of-n of the first policy's answers: KL, proxy and gold for each n, exactly."""
    model = world.reward(proxy)
    scores = model.score_texts([PROMPT] * len(world.drawn), world.drawn)
    golds = [gold(text) for text in world.drawn]
    return [
        (best_of_n_kl(n), best_of_n(scores, scores, n), best_of_n(scores, golds, n))
        for n in NUMBERS
    ]


# -------------------------------------------------------------------- what has happened


class Verdict(NamedTuple):
    """A run of PPO in figures; gold and proxy of the best place and the end, with deviations.

    The best place is where gold is highest on one half of the answers; all figures are of the
    other half, so that the best one is not flattered by having been chosen.

    Attributes:
        best_kl: Where gold is best, in nats per answer.
        best: Gold there.
        end_kl: Where the training ends.
        end: Gold there.
        fall: Gold at the best place less that at the end.
        fall_error: 95% interval of it, to either side.
        rise: The proxy at the end less that at the best place.
        rise_error: 95% interval of it, to either side.
    """

    best_kl: float
    best: float
    end_kl: float
    end: float
    fall: float
    fall_error: float
    rise: float
    rise_error: float

    @property
    def shown(self) -> bool:
        """Whether gold has fallen while the proxy has risen, both beyond chance."""
        return self.fall > self.fall_error and self.rise > self.rise_error


def verdict(run: Run) -> Verdict:
    """Compare the best updates of a run with its last ones."""
    places = [slice(begin, begin + LATEST) for begin in range(len(run.kl) - LATEST + 1)]
    best = max(places, key=lambda place: run.gold[place, ::2].mean())
    last = places[-1]
    a, b = (run.gold[place, 1::2].ravel() for place in (best, last))
    p, q = (run.proxy[place, 1::2].ravel() for place in (best, last))
    return Verdict(
        float(run.kl[best].mean()),
        float(a.mean()),
        float(run.kl[last].mean()),
        float(b.mean()),
        float(a.mean() - b.mean()),
        _error(a, b),
        float(q.mean() - p.mean()),
        _error(p, q),
    )


def _error(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Half the 95% interval of a difference of means."""
    return 1.96 * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))


FAR, JUDGED = 15.0, 16
"""Where a training is stopped early: nats an answer, and verdicts bought for each update."""


def stopped(run: Run) -> dict[str, float]:
    """Gold where early stopping ends the run, on answers that no rule has seen.

    By distance, it is that of the last policy; by verdicts on a few answers of each update, that of
    the policy after the best update.
    """
    updates = [
        Update(i + 1, 0, 0, 0.0, kl / LENGTH, 0.0, 0.0, {}, tokens_per_answer=float(LENGTH))
        for i, kl in enumerate(run.kl)
    ]
    judged = PastBest(lambda u: float(run.gold[u.number - 1, :JUDGED].mean()), patience=3)
    places = {f"stopped beyond {FAR:g} nats": len(list(until(updates, BeyondKL(FAR))))}
    list(until(updates, judged))
    places[f"stopped by {JUDGED} verdicts an update"] = judged.best_update
    latest = len(run.kl) - LATEST
    return {
        name: float(run.gold[min(place, latest) :][:LATEST].mean())
        for name, place in places.items()
    }


# -------------------------------------------------------------------- tables and figures


Runs: TypeAlias = Mapping[Proxy, Sequence[Run]]
"""A run for each seed."""


def rows(runs: Runs) -> Iterator[Mapping[str, Any]]:
    """A row for each proxy: means over the seeds, and in how many over-optimisation was shown."""
    for proxy in TRAINED:
        found = [verdict(run) for run in runs[proxy]]
        mean = {name: float(np.mean([getattr(v, name) for v in found])) for name in Verdict._fields}
        yield {
            "reward model": proxy.name,
            "accuracy": float(np.mean([run.accuracy for run in runs[proxy]])),
            "best gold": mean["best"],
            "at KL": mean["best_kl"],
            "gold at the end": mean["end"],
            "at end KL": mean["end_kl"],
            "fall": mean["fall"],
            "proxy's rise": mean["rise"],
            "seeds": f"{sum(v.shown for v in found)} of {len(found)}",
        }
    best = float(np.mean([verdict(run).best for run in runs[MIDDLE]]))
    unknown = float("nan")
    for name in stopped(runs[MIDDLE][0]):
        end = float(np.mean([stopped(run)[name] for run in runs[MIDDLE]]))
        yield {
            "reward model": f"{MIDDLE.name}, {name}",
            "accuracy": unknown,
            "best gold": best,
            "at KL": unknown,
            "gold at the end": end,
            "at end KL": unknown,
            "fall": best - end,
            "proxy's rise": unknown,
            "seeds": "",
        }


def averaged(lines: Sequence[Sequence[Point]], points: int = 40) -> list[Point]:
    """The mean line over seeds, on places that all of them have reached."""
    # A run may step back: its points are read in the order of their x.
    ordered = [sorted(line) for line in lines]
    low, high = max(line[0][0] for line in ordered), min(line[-1][0] for line in ordered)
    places = np.linspace(low, high, points)
    values = [np.interp(places, *zip(*line, strict=True)) for line in ordered]
    return list(zip(places.tolist(), np.mean(values, 0).tolist(), strict=True))


def figure(title: str, series: Mapping[str, Sequence[Sequence[Point]]]) -> Curve:
    """Lines against the root of the KL, as Gao et al. draw them."""
    label = "root of the KL to the first policy (nats an answer)"
    return Curve(title, label, "score", {name: averaged(lines) for name, lines in series.items()})


def figures(runs: Runs) -> dict[str, Curve]:
    """All figures by the name of their file."""

    def ppo(proxy: Proxy, column: str) -> list[list[Point]]:
        return [
            list(zip(np.sqrt(run.kl.clip(0)), getattr(run, column).mean(1), strict=True))
            for run in runs[proxy]
        ]

    def best_of_n_gold(proxy: Proxy) -> list[list[Point]]:
        return [list(zip(np.sqrt(c[:, 0]), c[:, 2], strict=True)) for _, _, _, _, c in runs[proxy]]

    shown = {"one model": MIDDLE, "4 less spread": LESS_SPREAD, "worst of 4": WORST}
    by_size = [Proxy(size=size) for size in SIZES]
    by_data = [Proxy(comparisons=count) for count in DATA]
    both = {
        f"{name}, {column}": ppo(proxy, column)
        for name, proxy in shown.items()
        for column in ("proxy", "gold")
    }
    return {
        "over_optimisation": figure("PPO: proxy and gold", both),
        "over_optimisation_by_size": figure(
            "PPO: gold by size", {f"d={p.size}": ppo(p, "gold") for p in by_size}
        ),
        "over_optimisation_by_data": figure(
            "PPO: gold by data", {f"{p.comparisons} comparisons": ppo(p, "gold") for p in by_data}
        ),
        "over_optimisation_best_of_n": figure(
            "Best of n: gold",
            {p.name: best_of_n_gold(p) for p in dict.fromkeys([*by_size, *by_data, LESS_SPREAD])},
        ),
    }


def main() -> None:
    """Train, measure, and show."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--figures", type=Path, help="a folder for the figures")
    parser.add_argument("--kept", type=Path, help="a folder for what is done; it is not done again")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs: dict[Proxy, list[Run]] = {proxy: [] for proxy in TRAINED}
    for seed in arguments.seeds:
        world = World(seed)
        for proxy, done in runs.items():
            done.append(kept(world, proxy, arguments.kept))
            print(f"seed {seed}, {proxy.name}: {verdict(done[-1])}", flush=True)
    if arguments.figures is not None:
        for name, curve in figures(runs).items():
            svg = curve_svg(curve, name)
            (arguments.figures / f"{name}.svg").write_text(svg, encoding="utf-8")
    by_seed = {p.name: [verdict(run)._asdict() for run in runs[p]] for p in TRAINED}
    best = {p.name: np.mean([r.chosen for r in runs[p]], 0).tolist() for p in runs if not p.leash}
    report("over_optimisation", rows(runs), seeds=arguments.seeds, by_seed=by_seed, best_of_n=best)


if __name__ == "__main__":
    main()
