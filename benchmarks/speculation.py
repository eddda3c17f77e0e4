"""Rules for drafts: how much of a draft is kept, and what the law of the answers becomes.

A draft is an answer of an older policy q. The present policy p keeps its tokens up to a first one
that a rule rejects, puts another in its place and goes on alone. The task is that of
`benchmarks.exact`, with 40 answers, the policies are tables of logits, and the law of what is
sampled is a sum over answers and places where a draft may end: no sampling.

Fixed pairs of policies come first: q moved to p by noise in its logits, or towards the reward
(q exp(r / beta) / Z), to a distance KL(p || q) an answer. Then drafts that have been learned from:
p is q after a step of RLOO on the very drafts, so that p knows them. With two drafts all 1,600
pairs are listed, with more of them updates are sampled. Last, drafts that go through five updates,
each time as what the rule made of them.

Run: python -m benchmarks.speculation --threads 1
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from scipy.optimize import brentq
from torch import Tensor

from benchmarks.common import command_line, report
from benchmarks.corrections import BEGINNINGS, CHOSEN, PLACES, REFERENCE, SCORES
from benchmarks.exact import LETTERS, MASK

V, DISTANCES = LETTERS + 1, (0.02, 0.2, 2.0)
LENIENCE = math.exp(0.5)
"""SPEC-RL's."""


# ---------------------------------------------------------------- rules


class Verdict(NamedTuple):
    """What a rule does with a draft's token.

    Attributes:
        accept: Probability that each token is kept if the draft has it, shape (*, V).
        instead: What takes its place otherwise, for each token of the draft, shape (*, V, V).
    """

    accept: Tensor
    instead: Tensor


Rule = Callable[[Tensor, Tensor], Verdict]
"""From probabilities of the older policy and of the present one, both (*, V)."""


def with_residual(q: Tensor, p: Tensor) -> Verdict:
    """Speculative sampling: accept x with min(1, p/q), else draw from max(p - q, 0) / sum.

    Leviathan et al. (2023), arXiv:2211.17192; Chen et al. (2023), arXiv:2302.01318.
    """
    return Verdict((p / q).clamp(max=1), _for_all(_normalised((p - q).clamp(min=0), p)))


def without_residual(q: Tensor, p: Tensor, lenience: float = 1.0) -> Verdict:
    """SPEC-RL: accept x with min(1, lenience p/q), else draw from p itself.

    arXiv:2509.23232; its lenience is e^0.5.
    """
    return Verdict((lenience * p / q).clamp(max=1), _for_all(p))


def lenient(q: Tensor, p: Tensor) -> Verdict:
    """SPEC-RL with its own lenience."""
    return without_residual(q, p, LENIENCE)


def point_mass(q: Tensor, p: Tensor) -> Verdict:
    """The draft as a guess: accept x with p(x), else draw from p without x.

    Speculative sampling for a draft that is certain of its tokens, as from n-grams. To draw from p
    and to look whether it is the draft's token is the same.
    """
    return Verdict(p, _normalised(_for_all(p) * (1 - torch.eye(V, dtype=p.dtype)), _for_all(p)))


def point_mass_without_residual(q: Tensor, p: Tensor) -> Verdict:
    """Accept x with p(x), else draw from p, x included."""
    return Verdict(p, _for_all(p))


def same_uniforms(q: Tensor, p: Tensor) -> Verdict:
    """The present policy's own choice by the uniform number that the draft was drawn with.

    Both invert their cumulative distributions; the probability of a pair of tokens is the overlap
    of their intervals.
    """
    ends = [x.cumsum(-1) for x in (q, p)]
    begins = [end - x for end, x in zip(ends, (q, p), strict=True)]
    high = torch.minimum(ends[0][..., :, None], ends[1][..., None, :])
    low = torch.maximum(begins[0][..., :, None], begins[1][..., None, :])
    return _of_pairs((high - low).clamp(min=0), q)


def same_gumbels(q: Tensor, p: Tensor) -> Verdict:
    """The present policy's own choice by the Gumbel noise that the draft was drawn with.

    With exponential clocks E, token i is first under q and j under p if E_j / E_i = s lies between
    q_j / q_i and p_j / p_i, and all others are later:

        P(i, j) = integral over s of 1 / (1 + s + sum over k of max(q_k / q_i, s p_k / p_j))^2
        P(i, i) = 1 / sum over k of max(q_k / q_i, p_k / p_i)

    Daliri, Musco and Suresh (2024), arXiv:2408.07978, has the diagonal.
    """
    q, p = (x.clamp(min=1e-12) for x in (q, p))
    of_q = q[..., None, :] / q[..., :, None]  # [i, k]: q_k / q_i
    of_p = p[..., None, :] / p[..., :, None]
    pairs = torch.diag_embed(1 / torch.maximum(of_q, of_p).sum(-1))
    for i in range(V):
        for j in range(V):
            others = [k for k in range(V) if k not in (i, j)]
            a, b = of_q[..., i, others], of_p[..., j, others]
            low = of_q[..., i, j]
            high = torch.maximum(1 / of_p[..., j, i], low)
            # Between neighbouring edges the sum is linear in s: 1 + s + (sum of a) + s (sum of b).
            edges = torch.cat([low[..., None], a / b, high[..., None]], -1)
            edges = edges.clamp(low[..., None], high[..., None]).sort(-1).values
            middle = (edges[..., 1:] + edges[..., :-1])[..., None] / 2
            past = middle * b[..., None, :] > a[..., None, :]
            constant = 1 + (a[..., None, :] * ~past).sum(-1)
            slope = 1 + (b[..., None, :] * past).sum(-1)
            first, last = (constant + slope * s for s in (edges[..., :-1], edges[..., 1:]))
            if i != j:
                pairs[..., i, j] = ((1 / first - 1 / last) / slope).sum(-1)
    return _of_pairs(pairs, q)


def _of_pairs(pairs: Tensor, q: Tensor) -> Verdict:
    """From the probabilities of pairs (draft's token, own choice), (*, V, V)."""
    kept = pairs.diagonal(dim1=-2, dim2=-1)
    apart = pairs - torch.diag_embed(kept)
    return Verdict((kept / q).clamp(max=1), _normalised(apart, torch.ones_like(apart)))


def _for_all(x: Tensor) -> Tensor:
    """The same for each token of the draft, (*, V, V)."""
    return x[..., None, :].expand(*x.shape[:-1], V, V)


def _normalised(x: Tensor, empty: Tensor) -> Tensor:
    """Weights as probabilities, or `empty` where all are 0: nothing is ever rejected there."""
    total = x.sum(-1, keepdim=True)
    return torch.where(total > 0, x / total, empty / empty.sum(-1, keepdim=True))


def all_kept(q: Tensor, p: Tensor) -> Verdict:
    """The old answers as they are."""
    return Verdict(torch.ones_like(p), _for_all(p))


RULES: dict[str, Rule] = {
    "all kept": all_kept,
    "with residual": with_residual,
    "without residual (SPEC-RL)": without_residual,
    "SPEC-RL, lenience e^0.5": lenient,
    "point mass": point_mass,
    "point mass without residual": point_mass_without_residual,
    "same uniforms": same_uniforms,
    "same Gumbel noise": same_gumbels,
}


# ---------------------------------------------------------------- laws of answers

SAME = torch.stack(  # [d, y, t]: answers d and y agree before their t-th token
    [
        ((PLACES == PLACES[d]) & MASK & MASK[d]).index_select(1, MASK.any(0).nonzero().squeeze(1))
        for d in range(len(MASK))
    ]
)
INSIDE = MASK[:, MASK.any(0)]
AT, TOKEN = PLACES[:, MASK.any(0)], CHOSEN[:, MASK.any(0)]


def of_answers(table: Tensor) -> Tensor:
    """Probability of each token of each answer, (*, 40, T), 1 behind its end; `table` (*, B, V)."""
    return torch.where(INSIDE, table[..., AT, TOKEN], 1.0)


def law(table: Tensor) -> Tensor:
    """Probabilities of all answers, (*, 40), under probabilities of tokens."""
    return of_answers(table).prod(-1)


def table_of(answers: Tensor) -> Tensor:
    """Probabilities of tokens, (B, V), from those of all answers, (40,)."""
    mass = torch.zeros(BEGINNINGS, V, dtype=torch.float64)
    mass.index_put_((AT[INSIDE], TOKEN[INSIDE]), answers[:, None].expand_as(AT)[INSIDE], True)
    return mass / mass.sum(-1, keepdim=True)


def law_of_rule(q: Tensor, p: Tensor, rule: Rule) -> tuple[Tensor, float]:
    """Law of the answers, (40,), if drafts are answers of q, and the share of q's tokens kept."""
    accept, instead = rule(q, p)
    kept = q * accept
    replaced = (q[..., None] * (1 - accept)[..., None] * instead).sum(-2)
    of_kept, of_replaced, own = (of_answers(x) for x in (kept, replaced, p))
    drafted, free = torch.ones(len(MASK), dtype=torch.float64), torch.zeros(len(MASK))
    tokens = 0.0
    for t in range(INSIDE.shape[1]):
        free = free * own[:, t] + torch.where(INSIDE[:, t], drafted * of_replaced[:, t], 0.0)
        drafted = drafted * of_kept[:, t]
        # What p may say behind this token sums to 1: each beginning counts once.
        tokens += float((drafted * own[:, t + 1 :].prod(-1))[INSIDE[:, t]].sum())
    return drafted + free, tokens / float((law(q) * INSIDE.sum(1)).sum())


def laws_given(drafts: Tensor, q: Tensor, p: Tensor, rule: Rule) -> Tensor:
    """Law of the answer that each draft becomes, (M, n, 40), under M pairs of policies.

    Args:
        drafts: Numbers of answers, (M, n).
        q: Probabilities of tokens when they were drafted, (M, B, V).
        p: The same now.
        rule: The rule.
    """
    verdict = rule(q, p)
    updates = torch.arange(len(drafts))[:, None, None]
    at, token = AT[drafts], TOKEN[drafts]  # (M, n, T)
    accept = torch.where(INSIDE[drafts], verdict.accept[updates, at, token], 1.0)
    before = accept.cumprod(-1) / accept.clamp(min=1e-300)
    before[..., 1:] = accept.cumprod(-1)[..., :-1]
    before[..., 0] = 1.0
    rejected = before * (1 - accept)
    own = of_answers(p)  # (M, 40, T)
    rest = torch.ones_like(own)
    rest[..., :-1] = own.flip(-1).cumprod(-1).flip(-1)[..., 1:]
    found = torch.zeros(*drafts.shape, len(MASK), dtype=torch.float64)
    for t in range(INSIDE.shape[1]):
        instead = verdict.instead[updates[..., 0], at[..., t], token[..., t]]  # (M, n, V)
        chosen = instead[..., TOKEN[:, t]] * rest[:, None, :, t]
        found += torch.where(SAME[drafts, :, t], rejected[..., t, None] * chosen, 0.0)
    return found.scatter_add(-1, drafts[..., None], accept.prod(-1)[..., None])


# ---------------------------------------------------------------- moves

START = (-REFERENCE).softmax(-1)


def distance(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of answers in nats, (*,)."""
    own = law(p)
    return (torch.xlogy(own, own) - torch.xlogy(own, law(q))).sum(-1)


def by_noise(scale: float) -> Tensor:
    """The start with fixed noise in its logits."""
    noise = torch.randn(
        START.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    return (START.log() + scale * noise).softmax(-1)


def by_reward(scale: float) -> Tensor:
    """The best policy under a leash of beta = 1 / scale, as a training reaches it."""
    return table_of((law(START).log() + scale * SCORES).softmax(-1))


MOVES = {"noise": by_noise, "training": by_reward}


def moved(by: Callable[[float], Tensor], nats: float) -> Tensor:
    """Moved so far that the distance to the start is `nats`."""
    scale = brentq(lambda s: float(distance(by(s), START)) - nats, 1e-6, 100.0)
    return by(scale)


def stepped(q: Tensor, drafts: Tensor, rate: float) -> Tensor:
    """Policies (M, B, V) after a step of RLOO on their drafts (M, n), from q (M, B, V)."""
    n = drafts.shape[1]
    scores = SCORES[drafts]
    advantages = (scores - (scores.sum(1, keepdim=True) - scores) / (n - 1)) / n
    weights = advantages[..., None] * INSIDE[drafts]  # (M, n, T)
    gradient = torch.zeros_like(q)
    updates = torch.arange(len(drafts))[:, None, None].expand_as(weights)
    gradient.index_put_((updates, AT[drafts], TOKEN[drafts]), weights, True)
    gradient = gradient - gradient.sum(-1, keepdim=True) * q  # d log pi(a) / d logits = 1[a] - pi
    return (q.log() + rate * gradient).softmax(-1)


def all_pairs() -> tuple[Tensor, Tensor]:
    """All pairs of drafts, (1600, 2), and their probabilities under the start."""
    drafts = torch.cartesian_prod(torch.arange(len(MASK)), torch.arange(len(MASK)))
    return drafts, law(START)[drafts].prod(1)


def some(n: int, updates: int, seed: int = 6) -> tuple[Tensor, Tensor]:
    """Sampled sets of n drafts, (updates, n), and equal weights."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(law(START), updates * n, replacement=True, generator=generator)
    return drawn.view(updates, n), torch.full((updates,), 1 / updates, dtype=torch.float64)


def rate_for(n: int, nats: float) -> float:
    """The step on n drafts whose mean distance is `nats`."""
    drafts, weights = all_pairs() if n == 2 else some(n, 2000, seed=8)
    q = START.expand(len(drafts), -1, -1)

    def excess(log_rate: float) -> float:
        return float(weights @ distance(stepped(q, drafts, math.exp(log_rate)), q)) - nats

    return math.exp(brentq(excess, -6.0, 9.0, xtol=1e-6))


# ---------------------------------------------------------------- tables


def fixed(distances: list[float]) -> Iterator[dict[str, Any]]:
    """Rules on fixed pairs of policies."""
    for name, rule in RULES.items():
        row: dict[str, Any] = {"rule": name}
        for move, by in MOVES.items():
            for nats in distances:
                p = moved(by, nats)
                found, kept = law_of_rule(START, p, rule)
                off = float((found - law(p)).abs().sum() / 2)
                row[f"{move} {nats:g}"] = f"{off:.4f}, {kept:.2f}"
        yield row


def learned_from(distances: list[float], updates: int) -> Iterator[dict[str, Any]]:
    """Rules on drafts whose update made p, against the mean law of p over such updates."""
    for n in (2, 8, 32):
        drafts, weights = all_pairs() if n == 2 else some(n, updates * 8 // n)
        rates = {nats: rate_for(n, nats) for nats in distances}
        for name, rule in RULES.items():
            row: dict[str, Any] = {"drafts": n, "rule": name}
            for nats, rate in rates.items():
                row[f"{nats:g}"] = _shown(*after_step(drafts, weights, rate, rule), exact=n == 2)
            yield row


def after_step(drafts: Tensor, weights: Tensor, rate: float, rule: Rule) -> tuple[Tensor, Tensor]:
    """Law of what drafts become less the law of p, mean and its standard error, both (40,).

    What the draw of the drafts itself adds by chance is subtracted: its mean is known.
    """
    start, parts = law(START), []
    for part in drafts.split(1000):
        q = START.expand(len(part), -1, -1)
        p = stepped(q, part, rate)
        became = laws_given(part, q, p, rule).mean(1)
        each = torch.full(part.shape, 1 / part.shape[1], dtype=torch.float64)
        drawn = torch.zeros_like(became).scatter_add(1, part, each)
        parts.append(torch.stack([became - law(p), drawn - start]))
    differences, chance = torch.cat(parts, 1)
    if len(weights.unique()) == 1:
        differences = differences - (differences * chance).sum() / (chance**2).sum() * chance
    return weights @ differences, differences.std(0) / len(differences) ** 0.5


def reused(distances: list[float], updates: int, rounds: int = 5) -> Iterator[dict[str, Any]]:
    """Eight answers to a prompt, of which each update makes the drafts of the next one."""
    for name, rule in RULES.items():
        row: dict[str, Any] = {"drafts": 8, "rule": name}
        for nats in distances:
            generator = torch.Generator().manual_seed(7)
            rate, parts = rate_for(8, nats), []
            for answers in some(8, updates)[0].split(1000):
                p = START.expand(len(answers), -1, -1)
                for _ in range(rounds):
                    q, p = p, stepped(p, answers, rate)
                    became = laws_given(answers, q, p, rule)
                    answers = torch.multinomial(
                        became.flatten(0, 1).clamp(min=0), 1, generator=generator
                    ).view_as(answers)
                parts.append(became.mean(1) - law(p))
            differences = torch.cat(parts)
            error = differences.std(0) / len(differences) ** 0.5
            row[f"{nats:g}"] = _shown(differences.mean(0), error, exact=False)
        yield row


def _shown(mean: Tensor, error: Tensor, exact: bool) -> str:
    """Total variation, and the difference of the mean reward."""
    off, gain = float(mean.abs().sum() / 2), float(mean @ SCORES)
    # Half the sum of 40 absolute values of noise alone.
    by_chance = float(error.sum() / 2 * (2 / math.pi) ** 0.5)
    return f"{off:.4f}{'' if exact else f' (chance {by_chance:.4f})'}, {gain:+.4f}"


def main() -> None:
    """The tables."""
    parser = command_line(__doc__)
    parser.add_argument("--distances", nargs="+", type=float, default=list(DISTANCES))
    parser.add_argument("--updates", type=int, default=20_000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    nats, updates = arguments.distances, arguments.updates
    report("fixed policies: total variation, share kept", fixed(nats))
    told = "total variation, difference of the mean reward"
    report(f"drafts that p has learned from: {told}", learned_from(nats, updates), updates=updates)
    report(f"drafts through five updates: {told}", reused(nats, updates), updates=updates)


if __name__ == "__main__":
    main()
