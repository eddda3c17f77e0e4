"""What `check_loss` says of a loss."""

from __future__ import annotations

from dataclasses import dataclass

from agents.testing.laws import Law

TOLERANCE = 1e-3
"""Relative error up to which a gradient is that of a formula; float32 and epsilons are below."""


@dataclass(frozen=True)
class LossReport:
    """What `check_loss` found.

    Attributes:
        name: Whose loss it is.
        multiple: The expected update is this multiple of the exact gradient, plus `error`.
        error: What is left of the expected update beside that multiple, as a share of its norm.
        law: The formula whose weights of tokens are those of the loss; None if none is.
        law_error: How far the nearest formula's weights are, as a share of the norm of them all.
        scale: The weights are this multiple of the formula's.
        kl_weight: The KL term's weight as a multiple of the one that was asked for; None without.
        ratio: The importance ratio in front of the weights on answers of an older policy.
        clipped: Share of tokens that have no gradient on stale answers (log-ratios of 0.5).
        aside: Share of the gradient that does not go through the chosen tokens' log-probabilities,
            such as an entropy bonus.
        biases: Documented ones.
        faults: What no paper states.
    """

    name: str
    multiple: float
    error: float
    law: Law | None
    law_error: float
    scale: float
    kl_weight: float | None
    ratio: str
    clipped: float
    aside: float
    biases: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def unbiased(self) -> bool:
        """The expected update is a positive multiple of the exact gradient."""
        return self.error < TOLERANCE and self.multiple > 0

    @property
    def healthy(self) -> bool:
        """No fault was found; a documented bias is none."""
        return not self.faults

    def __str__(self) -> str:
        """The report to read."""
        verdict = "unbiased" if self.unbiased else "biased"
        lines = [
            f"{self.name}: {verdict}, {'; '.join(self.faults) or 'no fault'}",
            f"  expected update: {self.multiple:.4g} times the exact gradient, "
            f"error {self.error:.2g} of its norm",
            f"  law: {self.law or 'none that is known'} "
            f"(error {self.law_error:.2g}, scale {self.scale:.4g})",
            f"  ratio: {self.ratio}; without gradient on stale answers: {self.clipped:.0%}",
        ]
        if self.kl_weight is not None:
            lines.append(f"  KL term: {self.kl_weight:.4g} times the weight asked for")
        if self.aside > TOLERANCE:
            lines.append(f"  beside the chosen tokens' log-probabilities: {self.aside:.0%}")
        return "\n".join(lines + [f"  bias: {bias}" for bias in self.biases])
