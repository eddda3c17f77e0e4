"""The learner: collect a rollout, get its advantages, take optimiser steps, repeat."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from gymnasium.vector import VectorEnv
from torch import Tensor
from torch.optim import Adam, Optimizer

from agents import losses, returns
from agents.algorithm import Algorithm
from agents.collector import Collector, RolloutSource, share_of
from agents.distribution.gathering import gathered, is_divided, plain_copy
from agents.distribution.rows import part_of
from agents.kl import FixedKL, KLController
from agents.optimisation.settings import OptimisationFields
from agents.rollout import Rollout
from agents.runs import progress
from agents.runs.checkpoints import Checkpoints
from agents.runs.endings import Played, summarise
from agents.runs.learner_checkpoint import load_learner, save_learner
from agents.runs.signals import Stopped
from agents.runs.update import Update
from agents.trainer import Annotate, Trainer, no_reference
from policies import Policy
from textenv.errors import (
    FailedWorldWarning,
    NotSavedWarning,
    PromptError,
    TextEnvError,
    UnmetNeedError,
    UnscoredError,
    WorldError,
)
from textenv.starts import Start

UNSCORED_ROLLOUTS = 5
"""After this many rollouts without one score that teaches something, the learner gives up."""

ROUNDING = 1e-6
"""A smaller mean KL, in nats per token, is the rounding of float32 log-probabilities."""


class Learner(Trainer):
    """Trains a policy on a vector environment.

    Args:
        policy: The policy that learns.
        envs: Any vector environment of padded token ids, such as `TextVectorEnv`. In a process
            group it is the whole one, the same in all processes; each plays its share of the rows.
        algorithm: PPO or any other `Algorithm`.
        reference: A frozen policy; `kl_coef * (logprob - reference logprob)` is subtracted from the
            reward of every token (Ziegler et al., 2019).
        kl_coef: A number, or a controller such as `AdaptiveKL` (its KL is in nats per token).
        n_steps: Environment steps of a rollout; running episodes are cut and continue next time.
        n_episodes: Instead of `n_steps`: a rollout is this many whole episodes.
        annotate: Called with each new rollout before its advantages; what it returns goes to
            `rollout.extra`, where an algorithm finds it: scores of a teacher or of steps.
        optimizer: Makes an optimiser from parameters and a learning rate.
        collector: Makes what collects from the policy, the environment, the temperature and the
            seed, such as `partial(agents.remote.RayCollectors, workers=4)`; None is a `Collector`.
        **settings: The fields of `Optimisation`, such as `learning_rate=3e-4`, `temperature` and
            `seed`, which is also that of the environment and of the sampling.

    Attributes:
        rescue_folder: Where `rescue` saves, a folder or the checkpoints of a run; None makes a new
            folder in `runs`.
        resume_command: What its note says to do then; None says how to load the folder.

    Raises:
        ValueError: Both or neither of `n_steps` and `n_episodes`, or `kl_coef` without `reference`.
        UnmetNeedError: The algorithm needs groups, whole episodes or a reference and there are
            none, or the collector's weights are older than the policy's and nothing corrects it.
        FrozenPolicyError: No parameter of the policy is trained.
    """

    def __init__(
        self,
        policy: Policy,
        envs: VectorEnv[Any, Any, Any],
        algorithm: Algorithm,
        *,
        reference: Policy | None = None,
        kl_coef: float | KLController = 0.0,
        n_steps: int | None = None,
        n_episodes: int | None = None,
        annotate: Annotate | None = None,
        optimizer: Callable[..., Optimizer] = Adam,
        collector: Callable[..., RolloutSource] | None = None,
        **settings: Unpack[OptimisationFields],
    ):
        if (n_steps is None) == (n_episodes is None):
            raise ValueError(
                f"n_steps is {n_steps} and n_episodes is {n_episodes}: give one of them, which "
                "says how long a rollout is"
            )
        self.kl_controller = FixedKL(kl_coef) if isinstance(kl_coef, int | float) else kl_coef
        if reference is None and self.kl_controller.coef != 0:
            raise ValueError(
                f"kl_coef is {self.kl_controller.coef} but there is no reference: pass "
                "reference=policy.frozen_copy()"
            )
        super().__init__(
            policy,
            algorithm,
            reference=reference,
            annotate=annotate,
            optimizer=optimizer,
            **settings,
        )
        self._check_needs(envs, n_episodes)
        self.ranks.check_same(num_envs=envs.num_envs, n_steps=n_steps, n_episodes=n_episodes)
        envs = share_of(envs, self.readers.rank, self.readers.size)
        self.envs, self.n_steps, self.n_episodes = envs, n_steps, n_episodes
        seed, temperature = self.settings.seed, self.settings.temperature
        self.collector: RolloutSource
        if collector is None:
            actor = plain_copy(policy)
            self.collector = Collector(actor, envs, temperature, seed, self.readers)
        else:
            self._check_alone()
            self.collector = collector(policy, envs, temperature, seed)
            self._check_staleness()
        self.updates_done = self.tokens_done = self.episodes_done = 0
        self.rescue_folder: Path | Checkpoints | None = None
        self.resume_command: str | None = None
        self._rescue_note = ""
        self._warned_of_worlds = False
        self._rollout_start: dict[str, Any] | None = None
        self._played: list[Played] = []
        # For the reference's and the proximal policy's part of the last `collect`.
        self._reference_seconds = self._proximal_seconds = 0.0

    # ---------------------------------------------------------------- the loop

    def updates(self, total_tokens: int) -> Iterator[Update]:
        """Train until `total_tokens` have been chosen in all, one update at a time.

        Whatever an update raises, Ctrl-C included, the learner is saved first; see `rescue`.

        Raises:
            RewardError: From the environment's reward.
            DivergedError: A loss or a gradient is not a finite number; the step was not taken.
        """
        while self.tokens_done < total_tokens:
            try:
                update = self.update(fraction_done=self.tokens_done / total_tokens)
            except (Exception, KeyboardInterrupt) as error:
                self.rescue(error)
                raise
            yield update

    def learn(self, total_tokens: int, **shown: Any) -> list[Update]:
        """Run `updates` to the end with a progress bar; see `agents.runs.progress.learn`."""
        return progress.learn(self, total_tokens, **shown)

    def update(self, fraction_done: float = 0.0) -> Update:
        """One rollout and the optimiser steps on it.

        Args:
            fraction_done: Share of the training done, for the learning rate.
        """
        begin = self._now()
        self._reference_seconds = self._proximal_seconds = 0.0
        rollout = self.collect()
        collected = self._now()
        learned, metrics = self.learn_from(rollout, fraction_done)
        self.collector.forget()
        kl = _mean_kl(rollout)
        passes = self._reference_seconds + self._proximal_seconds
        seconds = {"rollout_seconds": collected - begin - passes}
        if self.settings.importance_cap is not None:
            seconds["proximal_seconds"] = self._proximal_seconds
        if self.reference is not None:
            seconds["reference_seconds"] = self._reference_seconds
        metrics |= {"kl_coef": self.kl_controller.coef} | seconds | self.collector.report()
        failed = [
            p.endings["failed"].eq(1).sum().item() for p in self._played if "failed" in p.endings
        ]
        if failed:
            metrics["failed_worlds"] = float(sum(failed))
            self._warn_of_worlds(int(sum(failed)))
        # All that was played counts, even what the algorithm did not pick.
        tokens = sum(part.tokens for part in self._played)
        summary = summarise(self._played)
        self._rollout_start = None  # an error from here on finds the update done
        self.updates_done += 1
        self.tokens_done += tokens
        ended = sum(len(part.scores) for part in self._played)
        self.episodes_done += ended
        if kl is not None:
            self.kl_controller = self.kl_controller.update(kl, ended)
        end = self._now()
        return Update(
            number=self.updates_done,
            tokens=self.tokens_done,
            episodes=self.episodes_done,
            kl=kl,
            entropy=metrics.pop("entropy"),
            tokens_per_second=tokens / (end - begin),
            metrics=metrics | {"update_seconds": end - collected},
            rollout=learned,
            **summary._asdict(),
        )

    def _warn_of_worlds(self, failed: int) -> None:
        """Say once that worlds fail: what is learned from the others may be to make them fail."""
        if failed and not self._warned_of_worlds:
            self._warned_of_worlds = True
            warnings.warn(
                f"the world failed in {failed} conversations of this update, from which nothing is "
                f"learned; the last one: {self.collector.world_error}. It is not said again: see "
                'update.metrics["failed_worlds"]',
                FailedWorldWarning,
                stacklevel=3,
            )

    def collect(self) -> Rollout:
        """A rollout, with the reference's log-probabilities and the KL penalty in its rewards.

        `update` learns from what it returns. A subclass that overrides it calls it too, since it
        also counts what was played.
        """
        try:
            self._rollout_start = self.runtime_state()
        except (PromptError, WorldError) as error:  # no reason not to train
            self._rollout_start = None
            if not self.updates_done:
                warnings.warn(
                    f"this run can be neither saved nor resumed: {error}",
                    NotSavedWarning,
                    stacklevel=3,  # who called `update`
                )
        self._played.clear()
        rollout = self._with_penalty(self._with_proximal(self.algorithm.gather(self._play)))
        return self.algorithm.look_ahead(rollout, self._play_from)

    def with_replay(self, rollout: Rollout) -> Rollout:
        """As the trainer's; the KL penalty of past rollouts becomes that of the present policy.

        The penalty from sampling time does not know how far the policy has moved since. Without a
        new one, the policy would overshoot.
        """
        together = super().with_replay(rollout)
        if self.reference is None or together.present_logprobs is None:
            return together
        return self._penalised(together, together.present_logprobs)

    def _with_proximal(self, rollout: Rollout) -> Rollout:
        """See `with_proximal`, whose time is measured here."""
        if self.settings.importance_cap is None:
            return rollout
        begin = self._now()
        rollout = self.with_proximal(rollout)
        self._proximal_seconds += self._now() - begin
        return rollout

    def _with_penalty(self, rollout: Rollout) -> Rollout:
        """A new rollout with the reference's log-probabilities and the KL penalty, if any."""
        if self.reference is None:
            return rollout
        begin = self._now()
        rollout = self.with_reference(rollout)
        rollout = self._penalised(rollout, rollout.logprobs)
        self._reference_seconds += self._now() - begin
        return rollout

    def _penalised(self, rollout: Rollout, logprobs: Tensor) -> Rollout:
        """The rollout with the KL penalty of these log-probabilities in its rewards."""
        assert rollout.ref_logprobs is not None
        before = 0.0 if rollout.penalties is None else rollout.penalties
        ratios = torch.where(rollout.mask, logprobs - rollout.ref_logprobs, 0.0)
        penalties = self.kl_controller.coef * ratios
        return replace(rollout, rewards=rollout.rewards + before - penalties, penalties=penalties)

    def _play(self) -> Rollout:
        """A rollout of the environment, without the episodes that have no score."""
        if is_divided(self.trained):  # room for the weights; the next step would do it anyway
            self.optimizer.zero_grad(set_to_none=True)
        for _ in range(UNSCORED_ROLLOUTS):
            with gathered(self.policy):
                if self.n_steps is not None:
                    rollout = self.collector.collect_steps(self.n_steps)
                else:
                    assert self.n_episodes is not None
                    rollout = self.collector.collect_episodes(self.n_episodes)
            self._played.append(Played.of(rollout))
            self._check_worlds()
            unscored = rollout.scores.isnan()
            if not unscored.any():
                return rollout
            failed = (rollout.endings or {}).get("failed", torch.zeros_like(rollout.scores)) == 1
            self._check_unscored(int((unscored & ~failed).sum()), len(rollout))
            teaches = (~unscored).nonzero().squeeze(1)
            if self.algorithm.needs.groups:  # what is left of a group may be a single answer
                teaches = teaches[returns.group_sizes(rollout.groups[teaches]) > 1]
            if len(teaches):
                return rollout.select(teaches)
        raise UnscoredError(
            f"in {UNSCORED_ROLLOUTS} rollouts the reward gave None to every episode, or to all but "
            "one of every group, or their worlds failed: return a number where the reward applies, "
            "draw more prompts to which it does, or see failed_worlds"
        )

    def _play_from(self, starts: Sequence[Start], n: int) -> Rollout:
        """Continuations, with the KL penalty in their rewards; their tokens are counted."""
        with gathered(self.policy):
            rollout = self.collector.collect_from(starts, n)
        # They are no episodes of the environment's own: their scores are in no mean.
        self._played.append(Played(rollout.num_tokens, rollout.scores[:0].cpu(), {}))
        # Some are learned from: they need all that the answers from the prompt have.
        return self._with_penalty(self._with_proximal(rollout))

    def _check_worlds(self) -> None:
        """Refuse a rollout in which every episode that ended did so because its world failed."""
        played = self._played[-1]
        failed = played.endings.get("failed")
        if failed is not None and len(failed) and bool((failed == 1).all()):
            raise WorldError(
                f"the world failed in all {len(failed)} episodes that ended in a rollout, the last "
                f"time so: {self.collector.world_error}"
            )

    def _check_needs(self, envs: VectorEnv[Any, Any, Any], n_episodes: int | None) -> None:
        needs, name = self.algorithm.needs, type(self.algorithm).__name__
        group_size = int(getattr(envs.unwrapped, "group_size", 1))
        if needs.whole_episodes and n_episodes is None:
            raise UnmetNeedError(
                f"{name} learns from whole episodes, and n_steps cuts them: give the learner "
                "n_episodes, such as n_episodes=64, instead"
            )
        if needs.groups and group_size < 2:
            raise UnmetNeedError(
                f"{name} compares answers to the same prompt, and the environment's group_size is "
                f"{group_size}, so each answer would be compared with itself alone: make the "
                "environment with group_size=8, or another divisor of num_envs from 2 on"
            )
        if needs.reference and self.reference is None:
            raise no_reference(self.algorithm)

    def _check_alone(self) -> None:
        if self.ranks.size > 1:
            raise UnmetNeedError(
                f"a collector was given, and {self.ranks.size} processes train together, each of "
                "which would have one of its own: train in one process, or leave collector out"
            )

    def _check_staleness(self) -> None:
        behind = getattr(self.collector, "staleness", 0)
        if behind and self.settings.importance_cap is None:
            raise UnmetNeedError(
                f"with staleness={behind} rollouts are of older weights than those that learn from "
                "them: give the learner importance_cap=2.0, say, which weighs their tokens by "
                "ratios of at most that (float('inf') truncates none)"
            )

    def _check_unscored(self, count: int, of: int) -> None:
        """Refuse episodes without a score where values are fitted to scores."""
        if count and self.algorithm.needs.values:
            raise UnscoredError(
                f"{count} of {of} episodes have no score, since the reward gave None, and "
                f"{type(self.algorithm).__name__} fits values to scores: use an algorithm without "
                "a value head, such as RLOO or GRPO, or return a number for every episode"
            )

    def _now(self) -> float:
        """Seconds on a clock, read once the device has done all that it was asked to do."""
        if self.policy.device.type != "cpu":  # work there is queued, and would count later
            torch.accelerator.synchronize(self.policy.device)
        return time.perf_counter()

    # ---------------------------------------------------------------- saving

    def save(self, folder: str | Path) -> Path:
        """Write all that is needed to resume, whole or not at all.

        A learner that is in the folder is replaced once the new one is on the disk; see
        `agents.runs.learner_checkpoint.save_learner`.

        Raises:
            NotSavedError: It cannot be written; what was there is as it was.
        """
        return save_learner(self, folder)

    def load(self, folder: str | Path) -> None:
        """Resume from what `save` wrote; the learner was made with the same arguments.

        On a CPU the run continues bit for bit, if the environment has a `state_dict`.
        """
        load_learner(self, folder)

    def runtime_state(self) -> dict[str, Any]:
        """Everything but weights and optimiser, as arrays and plain types."""
        return super().runtime_state() | {
            "collector": self.collector.state_dict(),
            "kl": self.kl_controller.state(),
            "updates": self.updates_done,
            "tokens": self.tokens_done,
            "episodes": self.episodes_done,
        }

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `runtime_state` returned."""
        part = part_of(state["collector"], self.readers.rank, self.readers.size)
        self.collector.load_state_dict(part)
        super().load_runtime_state(state)
        self.kl_controller = self.kl_controller.with_state(state["kl"])
        self.updates_done, self.tokens_done = state["updates"], state["tokens"]
        self.episodes_done = state["episodes"]

    def rescue(self, error: BaseException) -> None:
        """Save what can be saved because of `error`, once, and say in a note of it where.

        The weights are saved as they are, everything else as it was at the start of the rollout
        that was interrupted. A mistake in the code, found before anything was learned, saves
        nothing: an error that is none of `textenv.errors`, before the first update is done. Nor
        does a signal that does not wait, since the weights may be those of half an update.
        """
        if isinstance(error, Stopped) or self.ranks.size > 1:  # others may be anywhere
            return
        known = isinstance(error, TextEnvError | KeyboardInterrupt)
        done = self._rescue_note in getattr(error, "__notes__", [])
        if done or not (known or self.updates_done):
            return
        place = self.rescue_folder
        if place is None:
            place = Path("runs") / time.strftime("interrupted-%Y%m%d-%H%M%S")
            if place.exists():  # of another learner, in this second
                place = place.with_name(f"{place.name}-{id(self):x}")
        self._rescue_note = self._saved_in(place)
        error.add_note(self._rescue_note)

    def _saved_in(self, place: Path | Checkpoints) -> str:
        """Save all, or else the policy; says what was saved and why the rest was not."""
        folder = place.folder if isinstance(place, Checkpoints) else place
        try:
            save_learner(self, place, self._rollout_start)
        except Exception as error:  # it must not hide the one that interrupted the run
            if folder.is_dir():  # what stands there is whole, and stays so
                folder = folder.with_name(f"{folder.name}.policy")
            try:
                self.policy.save(folder)
            except Exception:
                return f"Nothing could be saved in {folder}: {error}"
            return f"The policy was saved in {folder}; the whole learner cannot be: {error}"
        how = self.resume_command or (
            "make it again with the same arguments, call "
            f"learner.load({str(folder)!r}), and train on."
        )
        return f"The learner was saved in {folder}: {how}"


def _mean_kl(rollout: Rollout) -> float | None:
    if rollout.ref_logprobs is None:
        return None
    estimate = losses.kl_k1(rollout.logprobs, rollout.ref_logprobs, rollout.mask)
    mean = losses.masked_mean(rollout.weighed(estimate), rollout.mask).item()
    return mean if abs(mean) > ROUNDING else 0.0
