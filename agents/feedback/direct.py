"""A policy from ranked answers alone, without a reward model: DPO and IPO on a file of rankings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from agents.algorithms.preferences import DPO
from agents.distribution import Ranks
from agents.distribution.optimizers import restore, written_state
from agents.evaluation import Interval, bootstrap_interval
from agents.feedback.preferences import Ranking, preference_rollout
from agents.feedback.reward_modelling import with_pairs
from agents.optimisation.settings import PrecisionName, falling
from agents.preference_losses import ranked_pairs, sequence_log_ratios
from agents.rollout import Rollout
from agents.runs.state_files import read_state, write_state
from agents.supervised.fitting import read_trained, write_trained
from agents.supervised.sft import batches, steps_of
from agents.trainer import Trainer
from policies import Policy, tokenizer_of
from textenv.frames import Frame

STATE = "preferences"
"""Name of the files of what is saved on the way."""


@dataclass(frozen=True)
class DirectStep:
    """What one optimiser step did.

    Attributes:
        number: Its number, from 1.
        loss: The loss before it.
        accuracy: Share of the step's pairs in which the policy has raised the better answer more
            than the worse one.
    """

    number: int
    loss: float
    accuracy: float


class DirectPreferences:
    """Rankings that a policy learns from directly.

    Args:
        policy: The policy that learns; it must have a tokenizer.
        reference: What it began as, frozen.
        algorithm: `DPO` or `IPO`.
        batch_size: Rankings of an optimiser step.
        learning_rate: Learning rate at the start; it falls linearly to a tenth.
        precision: dtype of the matrix products.
        micro_batch_tokens: Tokens that go through the network at once; see `Optimisation`.
        frame: What wraps messages; None for texts as they are.
        seed: Seed of the order.

    Attributes:
        done: Optimiser steps so far.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy,
        algorithm: DPO,
        *,
        batch_size: int = 16,
        learning_rate: float = 1e-4,
        precision: PrecisionName | torch.dtype = "float32",
        micro_batch_tokens: int | None = None,
        frame: Frame | None = None,
        seed: int = 0,
    ):
        self.policy, self.batch_size, self.seed = policy, batch_size, seed
        self.frame, self.done = frame, 0
        self._trainer = Trainer(
            policy,
            algorithm,
            reference=reference,
            learning_rate=partial(falling, learning_rate),
            precision=precision,
            micro_batch_tokens=micro_batch_tokens,
            seed=seed,
        )

    def steps(self, rankings: Sequence[Ranking], epochs: int = 1) -> Iterator[DirectStep]:
        """Learn from the rankings, one optimiser step at a time; after `load` those that are left.

        Args:
            rankings: The data; rankings of nothing but ties teach nothing and are left out.
            epochs: Passes over all of them, each in another order.

        Raises:
            PromptError: No ranking says that one answer is better than another.
        """
        rollout = self._with_reference(rankings)
        count, total = int(rollout.groups.max()) + 1, self.count(rankings, epochs)
        for batch in islice(batches(count, epochs, self.batch_size, self.seed), self.done, None):
            part = rollout.select(_rows(rollout, batch))
            _, metrics = self._trainer.learn_from(part, self.done / total)
            self.done += 1
            yield DirectStep(self.done, metrics["loss"], metrics["pair_accuracy"])

    def count(self, rankings: Sequence[Ranking], epochs: int = 1) -> int:
        """How many optimiser steps `steps` takes from the beginning.

        Raises:
            PromptError: No ranking says that one answer is better than another.
        """
        return steps_of(len(with_pairs(rankings)), epochs, self.batch_size)

    def save(self, folder: Path) -> None:
        """Write what is trained, the optimiser and the number of steps, for a `Checkpoints.save`.

        Of several processes all call it; the first one writes.
        """
        write_trained(self.policy, folder)
        trainer = self._trainer
        state = {
            "done": self.done,
            "optimizer": written_state(folder, self.policy, trainer.optimizer),
            "trainer": trainer.runtime_state(),
        }
        Ranks.found().by_first(lambda: write_state(folder, STATE, state))

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote, with the same arguments and rankings.

        Raises:
            CheckpointError: It cannot be read, or belongs to another policy.
        """
        state = read_state(folder, STATE)
        read_trained(self.policy, folder)
        trainer = self._trainer
        restore(folder, self.policy, trainer.optimizer, state["optimizer"])
        trainer.load_runtime_state(state["trainer"])
        self.done = state["done"]

    def accuracy(self, rankings: Sequence[Ranking]) -> Interval:
        """Share of pairs in which the policy has raised the better answer more than the worse.

        The margin is the difference of log(policy / reference), summed over each answer: the reward
        that the policy stands for, up to a factor (Rafailov et al., 2023, equation 5). At the
        beginning all margins are 0, which counts half. The mean is over rankings, and the bootstrap
        resamples them.

        Raises:
            PromptError: No ranking says that one answer is better than another.
        """
        rollout = self._with_reference(rankings)
        shares = []
        for group in range(int(rollout.groups.max()) + 1):
            part = rollout.select(_rows(rollout, [group]))
            outputs = self._trainer.fixed_outputs(part)
            assert part.ref_logprobs is not None
            ratios = sequence_log_ratios(outputs.logprobs, part.ref_logprobs, part.mask)
            better, worse = ranked_pairs(part.scores, part.groups)
            margins = ratios[better] - ratios[worse]
            shares.append(float(((margins > 0) + 0.5 * (margins == 0)).float().mean()))
        return bootstrap_interval(shares)

    def _with_reference(self, rankings: Sequence[Ranking]) -> Rollout:
        """All answers with the reference's log-probabilities, which no step changes."""
        decided, policy = with_pairs(rankings), self.policy
        rollout = preference_rollout(decided, tokenizer_of(policy), policy.context, self.frame)
        rollout = rollout.to(policy.device)
        # In parts, since the answers of a whole file may not fit into memory at once.
        logprobs = torch.zeros(rollout.mask.shape, device=policy.device)
        for begin in range(0, len(decided), self.batch_size):
            rows = _rows(rollout, range(begin, min(begin + self.batch_size, len(decided))))
            part = self._trainer.with_reference(rollout.select(rows))
            assert part.ref_logprobs is not None
            logprobs[rows, : part.ref_logprobs.shape[1]] = part.ref_logprobs
        return replace(rollout, ref_logprobs=logprobs)


def _rows(rollout: Rollout, groups: Sequence[int] | range) -> torch.Tensor:
    """The sequences of these groups, (k,) int64."""
    wanted = torch.tensor(list(groups), device=rollout.groups.device)
    return torch.isin(rollout.groups, wanted).nonzero().squeeze(1)
