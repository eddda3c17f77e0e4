"""Corrections for answers of another policy than the one that is trained: where each one ends.

The task is that of `benchmarks.exact`: 40 answers, a KL leash of `BETA`. The policy is a table of
logits, one row for each beginning of an answer. What samples differs from it in one of three ways
that are the same for all: fixed noise in its logits with a standard deviation of 0.02 or 0.06 nats,
as another precision or engine makes it, or a temperature of 0.8.

The expected update of a correction is a sum over the 40 answers. Its fixed point is solved for and
compared with the best policy; a run of `RLOO` on sampled answers is compared with the fixed point.
Both distances are total variations. Only exact corrections end at the best policy.

Run: python -m benchmarks.corrections --threads 1
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import root
from torch import Tensor

from agents import Rollout
from agents.algorithms import RLOO
from agents.optimisation.corrections import (
    Correction,
    Masked,
    Truncated,
    by_geometric_mean,
    by_sequence,
)
from benchmarks.common import command_line, report
from benchmarks.exact import ANSWERS, BETA, LETTERS, MASK, TOKENS
from policies import PolicyOutputs
from textenv.testing import exact

GROUP, ANSWERS_EACH = 8, 256


@dataclass(frozen=True)
class Uncorrected:
    """Takes the sampler's answers for the policy's own."""

    def weights(self, logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor) -> Tensor:
        """1 everywhere."""
        return torch.ones_like(logprobs)


CORRECTIONS: dict[str, Correction] = {
    "none": Uncorrected(),
    "answer's ratio (exact)": Truncated(math.inf, by_sequence),
    "token, cap 2 (TIS)": Truncated(2.0),
    "token, no cap (decoupled PPO)": Truncated(math.inf),
    "answer, cap 2": Truncated(2.0, by_sequence),
    "geometric mean, cap 2": Truncated(2.0, by_geometric_mean),
    "token, masked above 2": Masked(0.0, 2.0),
    "IcePop 0.5 to 5": Masked(0.5, 5.0),
    "answer, masked 0.5 to 2": Masked(0.5, 2.0, by_sequence),
    "geometric mean, masked 0.9 to 1.1": Masked(0.9, 1.1, by_geometric_mean),
}


def _beginnings() -> tuple[Tensor, int]:
    """Row of the table for each chosen token, (n, L), and the number of rows."""
    rows = torch.zeros(MASK.shape, dtype=torch.int64)
    known: dict[tuple[int, ...], int] = {}
    for answer, (tokens, mask) in enumerate(zip(TOKENS, MASK, strict=True)):
        for place in mask.nonzero().flatten().tolist():
            text = tuple(tokens[:place].tolist())
            rows[answer, place] = known.setdefault(text, len(known))
    return rows, len(known)


PLACES, BEGINNINGS = _beginnings()
CHOSEN = TOKENS.clamp(max=LETTERS)  # padding is no token of the table


def _noise(scale: float) -> Callable[[Tensor], Tensor]:
    drawn = torch.randn(
        BEGINNINGS, LETTERS + 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    return lambda table: table + scale * drawn


MISMATCHES: dict[str, Callable[[Tensor], Tensor]] = {
    "noise 0.02": _noise(0.02),
    "noise 0.06": _noise(0.06),
    "temperature 0.8": lambda table: table / 0.8,
}
"""The sampler's logits from the policy's."""

REFERENCE = torch.randn(
    BEGINNINGS, LETTERS + 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64
)
SCORES = torch.from_numpy(ANSWERS.rewards)


def token_logprobs(table: Tensor) -> Tensor:
    """Of every answer's tokens, (n, L), 0 elsewhere."""
    logs = table.log_softmax(-1)[PLACES].gather(-1, CHOSEN[..., None]).squeeze(-1)
    return torch.where(MASK, logs, 0.0)


REF_LOGPROBS = token_logprobs(REFERENCE)


@dataclass(frozen=True)
class Way:
    """How answers of the sampler are learned from.

    Attributes:
        sampler: Its logits from the policy's.
        by: The correction.
        anew: The KL penalty is made of the policy's own log-probabilities, computed anew; else of
            those that the sampler reports.
        in_loss: It stands in the loss (k2 of the whole answer, weighed like the rest) and passes no
            baseline.
    """

    sampler: Callable[[Tensor], Tensor]
    by: Correction
    anew: bool = True
    in_loss: bool = False


def expected_update(table: Tensor, way: Way) -> Tensor:
    """The mean of RLOO's update over what the sampler may answer, the table's shape.

        sum over answers of q(y) (R(y) - E_q[R]) sum_t w_t grad log pi(a_t),
        R = score - beta log(pi(y) / pi_ref(y)), or with q(y) in place of pi(y)

    With the penalty in the loss, R is the score, and beta log(pi(y) / pi_ref(y)) is subtracted from
    the advantage.
    """
    own = table.detach().clone().requires_grad_()
    logprobs = token_logprobs(own)
    sampled = token_logprobs(way.sampler(own.detach()))
    q = sampled.sum(1).exp()
    fixed = logprobs.detach()
    penalties = BETA * ((fixed if way.anew else sampled) - REF_LOGPROBS).sum(1)
    weights = way.by.weights(fixed, sampled, MASK)
    compared = SCORES if way.in_loss else SCORES - penalties
    advantages = compared - (q * compared).sum() - (penalties if way.in_loss else 0.0)
    value = (q[:, None] * advantages[:, None] * weights * logprobs).sum()
    return torch.autograd.grad(value, own)[0]


def fixed_point(way: Way) -> tuple[Tensor, float]:
    """The table at which the expected update is 0, and the largest entry of what is left of it.

    Followed from the reference as training would, then solved for. Steps are measured by how often
    a beginning is reached: where the update is 0 does not change, and no token is lost for good by
    a step that is too long.
    """
    table = REFERENCE.clone()
    for _ in range(1000):
        reached = torch.zeros(BEGINNINGS, dtype=torch.float64)
        chances = token_logprobs(table).sum(1).exp()[:, None] * MASK
        reached.index_add_(0, PLACES[MASK], chances[MASK])
        table = table + expected_update(table, way) / (reached[:, None] + 1e-2)

    def update(flat: Any) -> Any:
        found = expected_update(torch.from_numpy(flat).view_as(table), way)
        return found.flatten().numpy()

    started = np.abs(update(table.flatten().numpy())).max()
    solved = root(update, table.flatten().numpy(), method="lm", options={"maxiter": 1000})
    near = torch.from_numpy(solved.x).view_as(table)
    left = np.abs(update(solved.x)).max()
    # Where weights jump, a solver may run away from where the training goes.
    moved = exact.total_variation(answers(near), answers(table))
    return (near, float(left)) if left < started and moved < 0.05 else (table, float(started))


def sampled_run(way: Way, updates: int, seed: int) -> Tensor:
    """The table after a training with `RLOO` on sampled answers."""
    generator = torch.Generator().manual_seed(seed)
    table = REFERENCE.clone().requires_grad_()
    optimizer = torch.optim.Adam([table], lr=0.05)
    algorithm = RLOO()
    groups = torch.arange(ANSWERS_EACH) // GROUP
    for number in range(updates):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - number / updates)
        sampled = token_logprobs(way.sampler(table.detach()))
        drawn = torch.multinomial(
            sampled.sum(1).exp(), ANSWERS_EACH, replacement=True, generator=generator
        )
        logprobs = token_logprobs(table)[drawn]
        fixed, mask = logprobs.detach(), MASK[drawn]
        penalties = BETA * ((fixed if way.anew else sampled[drawn]) - REF_LOGPROBS[drawn])
        rollout = replace(
            Rollout.from_log(TOKENS[drawn], mask, SCORES[drawn], groups),
            logprobs=fixed,
            penalties=None if way.in_loss else penalties,
            importance_weights=way.by.weights(fixed, sampled[drawn], mask),
        )
        advantages = algorithm.advantages(rollout) - (penalties.sum(1) if way.in_loss else 0.0)
        rollout = replace(rollout, advantages=advantages)
        loss = algorithm.loss(rollout, PolicyOutputs(logprobs, logprobs, logprobs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return table.detach()


def answers(table: Tensor) -> exact.Floats:
    """Log-probabilities of all answers, (n,)."""
    return token_logprobs(table).sum(1).numpy()


def ways(sampler: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, Way]]:
    """Every correction with both places of the penalty, and three with the sampler's penalty."""
    for name, by in CORRECTIONS.items():
        yield name, Way(sampler, by)
    for name, by in CORRECTIONS.items():
        yield f"{name}; penalty in the loss", Way(sampler, by, in_loss=True)
    for name in list(CORRECTIONS)[:3]:
        yield f"{name}; penalty of the sampler", Way(sampler, CORRECTIONS[name], anew=False)


def rows(mismatches: list[str], updates: int, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """A row for each mismatch and way."""
    best = exact.optimum(REF_LOGPROBS.sum(1).numpy(), ANSWERS.rewards, BETA)
    for mismatch in mismatches:
        for name, way in ways(MISMATCHES[mismatch]):
            point, left = fixed_point(way)
            runs = [answers(sampled_run(way, updates, seed)) for seed in seeds]
            to_point = [exact.total_variation(run, answers(point)) for run in runs]
            to_best = [exact.total_variation(run, best) for run in runs]
            yield {
                "mismatch": mismatch,
                "correction": name,
                "fixed point to best": f"{exact.total_variation(answers(point), best):.4f}",
                "run to fixed point": f"{np.mean(to_point):.4f}",
                "worst": f"{max(to_point):.4f}",
                "run to best": f"{np.mean(to_best):.4f}",
                "update left": f"{left:.0e}",
            }


def main() -> None:
    """The table."""
    parser = command_line(__doc__)
    parser.add_argument("--mismatches", nargs="+", choices=MISMATCHES, default=list(MISMATCHES))
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(
        f"corrections, KL leash of {BETA}",
        rows(arguments.mismatches, arguments.updates, arguments.seeds),
        seeds=arguments.seeds,
        updates=arguments.updates,
    )


if __name__ == "__main__":
    main()
