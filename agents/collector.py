"""Stepping a policy through a vector environment and writing down what it chose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from agents.distribution import Ranks
from agents.rollout import Rollout
from agents.runs.endings import ending_of, is_scored, together
from policies import Policy, Step
from policies.cache import PrefixCache
from policies.drafts import Drafts
from policies.sampling import Sampler, sample
from textenv.errors import SharedEnvironmentError, UnmetNeedError, VocabularyMismatchError
from textenv.prompts import columns_as_json
from textenv.reward_terms import check_paid
from textenv.seeding import draw_seed, keyed_generator, stream_key
from textenv.starts import Start

P = ParamSpec("P")


class RolloutSource(Protocol):
    """What a learner asks of its collector; `Collector` says what each method does."""

    world_error: str

    def collect_steps(self, n_steps: int) -> Rollout: ...  # noqa: D102
    def collect_episodes(self, n_episodes: int) -> Rollout: ...  # noqa: D102
    def collect_from(self, starts: Sequence[Start], n: int = 1) -> Rollout: ...  # noqa: D102
    def forget(self) -> None: ...  # noqa: D102
    def report(self) -> dict[str, float]: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state: dict[str, Any]) -> None: ...  # noqa: D102


def _counted(collect: Callable[P, Rollout]) -> Callable[P, Rollout]:
    """Let `Collector.report` tell how many tokens the network reads in a method."""

    @wraps(collect)
    def counting(*args: P.args, **kwargs: P.kwargs) -> Rollout:
        collector: Any = args[0]
        before = collector.policy.encoded_tokens
        rollout = collect(*args, **kwargs)
        collector._encoded += collector.policy.encoded_tokens - before
        return rollout

    return counting


_PER_TOKEN = ("mask", "logprobs", "values", "rewards", "mask_ids", "turns")


class Collector:
    """Collects rollouts from any vector environment whose observations are padded token ids.

    Each row's running episode is kept in arrays aligned with its observation. When the episode or
    the rollout ends, they become a sequence of the rollout. An episode that is cut by the end of a
    rollout continues in the next one.

    Args:
        policy: The policy that acts.
        envs: A vector environment in any autoreset mode.
        temperature: Logits are divided by this before sampling.
        seed: Seed of the environment's first reset and of the choices.
        ranks: Processes that collect together, each in its share of the rows; all get the whole
            rollout. Alone if None.

    Raises:
        VocabularyMismatchError: The policy and the environment have different tokens.
        ValueError: The policy's context is shorter than an observation.

    Collecting raises:
        SharedEnvironmentError: Somebody else has stepped or reset the environment meanwhile.
        RewardValueError: A reward is too large to learn from.
    """

    def __init__(
        self,
        policy: Policy,
        envs: VectorEnv[Any, Any, Any],
        temperature: float = 1.0,
        seed: int | None = None,
        ranks: Ranks | None = None,
    ):
        _check_fit(policy, envs)
        self.ranks = ranks or Ranks()
        self.policy, self.envs, self.temperature = policy, envs, temperature
        self.mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        shape = envs.observation_space.shape
        assert shape is not None
        rows, length = shape
        self.cache = policy.new_cache(rows, length)
        self._rows = np.arange(rows)
        self._observations, infos = envs.reset(seed=seed)
        self._moved()
        self._action_mask = _action_mask(infos)
        self._waiting = np.zeros(rows, dtype=bool)  # NEXT_STEP: the next step only resets
        self._listening = np.zeros(rows, dtype=bool)  # the world's reply has not come
        self._due = np.zeros(rows, dtype=bool)  # the next episode has not begun
        self._last = np.zeros(rows, dtype=np.int64)  # place of the token chosen last
        self._scores = np.zeros(rows)
        self._answer_tokens = np.zeros(rows, dtype=np.int64)
        self._prompt_lengths = np.full(rows, -1)  # -1: the episode has no chosen token yet
        self._turns = np.ones(rows, dtype=np.int64)  # to which the next chosen token belongs
        self._records: list[Mapping[str, Any] | None] = [None] * rows
        # The uniform number for the choice at each place; those of an episode depend on nothing
        # but the seed and the episode.
        self._uniforms = np.empty(shape)
        self._sampler: Sampler = sample
        self._seed, self._episodes = seed or 0, np.zeros(rows, dtype=np.int64)
        self._starts: list[Start | None] = [None] * rows
        self._drafts: Mapping[int | None, NDArray[np.int64]] = {}
        self._begin_episodes(self._rows, infos)
        self._open: dict[str, NDArray[Any]] = {
            "actions": np.zeros(shape, dtype=np.int64),
            "mask": np.zeros(shape, dtype=bool),
            "logprobs": np.zeros(shape, dtype=np.float32),
            "values": np.zeros(shape, dtype=np.float32),
            "rewards": np.zeros(shape),
            "mask_ids": np.zeros(shape, dtype=np.int64),
            "turns": np.zeros(shape, dtype=np.int64),
        }
        # Packed action mask -> row of the mask table. Row 0 allows every token. Few masks differ,
        # so a number for each token takes the place of V bits.
        self._masks = {np.packbits(np.ones(policy.vocab_size, dtype=bool)).tobytes(): 0}
        self._closed: list[dict[str, Any]] = []
        self._clock = 0  # steps so far
        self._continued = self._encoded = 0
        self.world_error = ""  # what went wrong in the last conversation whose world failed

    # ---------------------------------------------------------------- collecting

    @_counted
    def collect_steps(self, n_steps: int) -> Rollout:
        """Step every row `n_steps` times; running episodes are cut and continue next time."""
        for _ in range(n_steps):
            self._step()
        # NEXT_STEP: every row only reset; or all wait for their replies.
        while not self._has_something():
            self._step()
        # The value of the text so far stands for the rewards that a cut episode has yet to get.
        values = self.policy.value(self._observations, self.cache).cpu().numpy()
        # A row that waits for its reply stays open: the reply's reward belongs to its last token.
        cut = self._open["mask"].any(1) & ~self._listening
        for row in np.flatnonzero(cut).tolist():
            self._close(row, self._observations[row], bootstrap=float(values[row]))
            if (start := self._starts[row]) is not None:  # the next sequence starts here
                self._starts[row] = self._start_of(row, start.episode_seed)
        closed, self._closed = self._closed, []
        rollout = self._rollout(self._of_all(closed))
        self._forget_masks()
        return rollout

    @_counted
    def collect_episodes(self, n_episodes: int) -> Rollout:
        """Step until `n_episodes` have ended, in whole groups where the environment has groups.

        Running episodes are not cut: their tokens come with the rollout in which they end, with
        the log-probabilities under which they were sampled.

        Raises:
            ValueError: `n_episodes` would split a group.
        """
        if n_episodes % self._group_size:
            raise ValueError(
                f"n_episodes is {n_episodes}; it must be a multiple of group_size, which is "
                f"{self._group_size}"
            )
        alike = 0  # steps in which no rank's episode can end
        while True:
            if alike:
                alike -= 1
                self._step()
                continue
            ready, early = _whole_groups(self._closed, self._group_size)
            of_all = self.ranks.numbers_later(len(ready), self._steps_to_an_end())
            # While the others are heard, the next choice is made. If it is not wanted, nothing has
            # happened: it depends on the observation alone, and so does what the cache keeps.
            step = self._choose(self._positions()) if self.ranks.size > 1 else None
            counts, steps = zip(*of_all(), strict=True)
            if sum(counts) >= n_episodes:
                break
            ended = len(self._closed)
            self._step(step)
            if self.ranks.size > 1:
                alike = min(steps) - 1
            while len(self._closed) == ended and self.ranks.size == 1:
                self._step()
        whole = self._of_all(ready)
        if self._group_size > 1:  # older prompts first
            whole.sequences.sort(key=lambda sequence: sequence["groups"])
        rest = whole.sequences[n_episodes:]
        del whole.sequences[n_episodes:]
        mine = [s["of"][1] for s in rest if s["of"][0] == self.ranks.rank]
        self._closed = [ready[number] for number in mine] + early
        rollout = self._rollout(whole)
        self._forget_masks()
        return rollout

    def _steps_to_an_end(self) -> int:
        """See `TextVectorEnv.steps_to_an_end`; wrappers may end episodes when they like."""
        inner: Any = self.envs
        return int(getattr(inner, "steps_to_an_end", 1)) if inner is self.envs.unwrapped else 1

    def _has_something(self) -> bool:
        """Whether any rank has chosen a token that a rollout could hold."""
        some = bool(self._closed or self._open["mask"][~self._listening].any())
        return self.ranks.total(some) > 0

    def _of_all(self, closed: list[dict[str, Any]]) -> Closed:
        """The ended sequences of all ranks, in the order in which one process would have them."""
        numbered = [{**s, "of": (self.ranks.rank, number)} for number, s in enumerate(closed)]
        return together_in_order(self.ranks.objects(Closed(numbered, list(self._masks))))

    @_counted
    def collect_from(self, starts: Sequence[Start], n: int = 1) -> Rollout:
        """Answers that play on from given starts; the running episodes go on as if nothing was.

        The starts are played in an environment of their own, made with the arguments of `envs`. A
        sequence's score and rewards are what the continuation earned.

        Args:
            starts: Where to start; `rollout.start(sequence, position)` and `envs.start_of(row)`
                give some, `Start(prompt)` is that of a prompt. Those without an `episode_seed` get
                one from the collector's seed and the number of continuations before.
            n: How many answers each of them gets. If a start has an `episode_seed`, its first
                answer is that episode's, and each of the others has a seed made of it.

        Returns:
            A rollout of `len(starts) * n` whole episodes: the n answers of the first start, then
            those of the second, and so on. The group of an answer is the number of its start.

        Raises:
            UnmetNeedError: The environment cannot play on from anywhere.
            ResetOptionsError: There is no start, or one leaves nothing to choose.
            ReplayError: A world did not reply as before, or may not be told turns again.
        """
        queue = numbered(starts, n, self._seed, self._continued)
        self._continued += len(queue)
        # The longest of texts that begin alike first: the others copy what it has encoded.
        mine = sorted(
            range(self.ranks.rank, len(queue), self.ranks.size),
            key=lambda place: queue[place].ids,
            reverse=True,
        )
        played = Closed([], [])
        if mine or not queue:
            own = [queue[place] for place in mine]
            playing = collector_from(self.policy, self.envs, own, self.temperature, self._seed)
            played = playing.play_all(len(own))
            for sequence in played.sequences:  # numbered among all starts
                sequence["groups"] = mine[sequence["groups"]]
        rollout = in_order(self._rollout(together_in_order(self.ranks.objects(played))))
        return replace(rollout, groups=rollout.groups // n)

    def branch(self, rollout: Rollout, at: Sequence[tuple[int, int]], n: int = 1) -> Rollout:
        """A rollout with n continuations from each of the given places of its sequences.

        The whole is one rollout that knows its tree; see `Rollout.branched` and `collect_from`,
        whose errors it raises.

        Args:
            rollout: From this collector, or from `branch` itself: trees grow level by level.
            at: Pairs of a sequence and of the place of a token that was chosen in it.
            n: Continuations from each place.
        """
        return rollout.branched(at, n, self.collect_from)

    def play_all(self, n_episodes: int) -> Closed:
        """The sequences of so many episodes, of an environment that plays no more than these."""
        while len(self._closed) < n_episodes:
            self._step()
        return Closed(self._closed, list(self._masks))

    def _positions(self) -> NDArray[np.int64]:
        """Where each row's next token will stand: observations are padded."""
        places: NDArray[np.int64] = (self._observations != self.policy.pad_token).sum(1)
        return places

    def _step(self, step: Step | None = None) -> None:
        """Step every row, with choices that were made of its present observation if given."""
        self._check_alone()
        positions = self._positions()  # counted before the step
        step = step or self._choose(positions)
        # A row that only resets or waits ignores its action, so nothing of it is written down.
        chosen = ~(self._waiting | self._listening)
        following, rewards, terminated, truncated, infos = self.envs.step(step.actions)
        self._moved()
        self._clock += 1
        check_paid(rewards)
        # Written while `_action_mask` is still the one that the actions were sampled under.
        self._write(chosen, positions, step, rewards)
        if self._listening.any():
            late = self._rows[self._listening]
            self._open["rewards"][late, self._last[late]] += rewards[late]
            self._scores[late] += rewards[late]
        self._observations = following
        self._action_mask = _action_mask(infos)
        self._note_turns(self._rows, infos)
        over = (terminated | truncated) & ~self._waiting
        self._listening = np.array(infos.get("waiting", np.zeros(len(self._rows), dtype=bool)))
        if over.any():
            infos = self._end_episodes(over, terminated, infos)
        # A row whose next episode cannot begin is told to wait; it begins when it no longer does.
        self._due |= self._waiting if self.mode is AutoresetMode.NEXT_STEP else over
        self._begin_episodes((self._due & ~self._listening).nonzero()[0], infos)
        self._due &= self._listening
        if self.mode is AutoresetMode.NEXT_STEP:
            self._waiting = over

    def _choose(self, positions: NDArray[np.int64]) -> Step:
        """The policy's choice in every row that may choose; 0 in those that wait for a reply."""
        # A full row waits for its reset, and its choice is ignored.
        places = positions.clip(max=self._observations.shape[1] - 1)
        uniforms = self._uniforms[self._rows, places]
        if not self._listening.any():
            return self._act(self._observations, self.cache, self._action_mask, uniforms)
        rows, count = (~self._listening).nonzero()[0], len(self._rows)
        none = np.zeros(count, np.float32)
        step = Step(np.zeros(count, np.int64), none, none.copy())
        if len(rows):
            mask = self._action_mask
            step.actions[rows], step.logprobs[rows], step.values[rows] = self._act(
                self._observations[rows],
                self.cache.some(rows),
                None if mask is None else mask[rows],
                uniforms[rows],
            )
        return step

    def _act(
        self,
        observations: NDArray[Any],
        cache: PrefixCache,
        action_masks: NDArray[np.bool_] | None,
        uniforms: NDArray[np.float64],
    ) -> Step:
        return self.policy.act(
            observations,
            cache,
            temperature=self.temperature,
            action_masks=action_masks,
            uniforms=uniforms,
            sampler=self._sampler,
        )

    def _note_turns(self, rows: NDArray[np.intp], infos: dict[str, Any]) -> None:
        """What is chosen next in a row in which a turn has ended belongs to the turn after it."""
        if "turn" in infos:
            for row in rows.tolist():
                ended = _told(infos, "turn", row)
                if isinstance(ended, int | np.integer):  # else the name of a player, or such
                    self._turns[row] = ended + 1

    def _begin_episodes(self, rows: NDArray[np.intp], infos: dict[str, Any]) -> None:
        """Note what is known of episodes that have just begun, and give them random numbers."""
        self._turns[rows] = 1
        self._note_turns(rows, infos)  # of an episode that begins behind turns
        for row in rows.tolist():
            self._records[row] = _told(infos, "record", row)
            number = _told(infos, "episode_seed", row)
            if number is None:  # nothing is numbered: the row and how many it has played
                number = int(self._episodes[row]) * len(self._rows) + row
            self._episodes[row] += 1
            self._starts[row] = self._start_of(row, int(number))
            self._uniforms[row] = self._numbers_for(row, int(number))
            self._give_draft(row)

    def read_ahead(self, drafts: Mapping[int | None, NDArray[np.int64]]) -> Drafts:
        """Encode whole answers that are probably coming; the choices stay what they are.

        It pays where few rows play and most of a draft is what the policy chooses, since one pass
        over an answer takes the place of a step for each token; see `policies.drafts`.

        Args:
            drafts: Answers by the `episode_seed` of the episodes, int64; the first turn's, in a
                conversation.

        Returns:
            What counts how much of them was kept.
        """
        self._drafts, ahead = drafts, Drafts(*self.cache.shape)
        self.cache.drafts = ahead
        for row in self._rows.tolist():
            self._give_draft(row)
        return ahead

    def _give_draft(self, row: int) -> None:
        """Let the episode that has begun in `row` have its draft, if there is one."""
        start, ahead = self._starts[row], self.cache.drafts
        draft = None if start is None else self._drafts.get(start.episode_seed)
        if ahead is None or draft is None:
            return
        text, begun = self._observations[row], self._prompt_lengths[row]
        prompt = text[:begun] if begun >= 0 else text[text != self.policy.pad_token]
        ahead.give(row, np.concatenate([prompt, draft]))

    def _numbers_for(self, row: int, number: int) -> NDArray[np.float64]:
        """The random numbers of episode `number`, which begins in `row`, one for each place."""
        return keyed_generator(self._seed, number).random(self._uniforms.shape[1])

    def _start_of(self, row: int, episode_seed: int | None) -> Start | None:
        """The text of a row as a start, if the environment can play on from one."""
        envs: Any = self.envs.unwrapped
        if not hasattr(envs, "start_of"):
            return None
        start: Start = envs.start_of(row, save_world=False)
        return replace(start, episode_seed=episode_seed)

    def _write(
        self,
        chosen: NDArray[np.bool_],
        positions: NDArray[np.int64],
        step: Step,
        rewards: NDArray[Any],
    ) -> None:
        rows, at = self._rows[chosen], positions[chosen]
        # A place that is taken means that the text did not grow by the last chosen token.
        again = self._open["mask"][rows, at]
        if again.any():
            raise _not_grown(int(rows[again][0]), at[again][:1])
        begun = self._prompt_lengths[rows]
        self._prompt_lengths[rows] = np.where(begun < 0, at, begun)
        self._open["actions"][rows, at] = step.actions[chosen]
        self._open["mask"][rows, at] = True
        self._last[rows] = at
        self._open["logprobs"][rows, at] = step.logprobs[chosen]
        self._open["values"][rows, at] = step.values[chosen]
        self._open["rewards"][rows, at] = rewards[chosen]
        self._open["turns"][rows, at] = self._turns[rows]
        if self._action_mask is not None:
            masks = np.asarray(self._action_mask)
            shared = masks.strides[0] == 0  # one in memory for all rows
            rows_of = masks if chosen.all() else masks[chosen]
            packed = np.packbits(masks[:1] if shared else rows_of, axis=1)
            numbers = [self._masks.setdefault(one.tobytes(), len(self._masks)) for one in packed]
            self._open["mask_ids"][rows, at] = numbers
        self._scores[chosen] += rewards[chosen]
        self._answer_tokens += chosen

    def _end_episodes(
        self, over: NDArray[np.bool_], terminated: NDArray[np.bool_], infos: dict[str, Any]
    ) -> dict[str, Any]:
        """Close the episodes that are over; returns the infos that came with the next ones."""
        same_step = self.mode is AutoresetMode.SAME_STEP
        ends = infos["final_info"] if same_step else infos
        for row in np.flatnonzero(over).tolist():
            # In SAME_STEP mode the row holds the next episode's prompt already.
            final = infos["final_obs"][row] if same_step else self._observations[row]
            bootstrap = 0.0
            if not terminated[row]:
                # Without the cache: this text is over, and the row's entry belongs to the next.
                bootstrap = float(self.policy.value(final[None])[0])
            group = ends["group"][row] if "group" in ends else None
            ending = ending_of(ends, row)
            if not is_scored(ends, row) or "failed" in ending:  # says nothing of the answer
                self._scores[row] = np.nan
            if "world_error" in ends and ends["world_error"][row]:
                self.world_error = str(ends["world_error"][row])
            self._close(
                row,
                final,
                bootstrap,
                bool(terminated[row]),
                not terminated[row],
                group,
                ending,
                str(ends["text"][row]) if "text" in ends else "",
            )
            self._scores[row] = 0.0
            self._answer_tokens[row] = 0
            self._prompt_lengths[row] = -1
        if self.mode is AutoresetMode.DISABLED:
            self._observations, infos = self.envs.reset(options={"reset_mask": over})
            self._moved()
            # The reset speaks of the rows it restarted; the others keep the mask of their step.
            before, mask = self._action_mask, _action_mask(infos)
            if before is not None:
                mask = np.where(over[:, None], True if mask is None else mask, before)
            self._action_mask = mask
        return infos

    def _close(
        self,
        row: int,
        tokens: NDArray[Any],
        bootstrap: float,
        terminated: bool = False,
        truncated: bool = False,
        group: int | None = None,
        ending: Mapping[str, float] | None = None,
        text: str = "",
    ) -> None:
        """Turn a row's arrays into a sequence and clear them."""
        # Compared with the text itself, so that no action is learned at a wrong place.
        differ = self._open["mask"][row] & (tokens != self._open["actions"][row])
        if differ.any():
            raise _not_grown(row, np.flatnonzero(differ))
        self._closed.append(
            {name: self._open[name][row].copy() for name in _PER_TOKEN}
            | {
                "tokens": np.asarray(tokens).astype(np.int64),
                "bootstrap_values": bootstrap,
                "terminated": terminated,
                "truncated": truncated,
                "scores": float(self._scores[row]),
                "groups": -1 if group is None else int(group),
                "prompt_lengths": int(self._prompt_lengths[row]),
                # Cut sequences stand behind those that ended by themselves.
                "at": 2 * self._clock + (not (terminated or truncated)),
                "mid_turn": not (terminated or truncated)
                and int(self._open["turns"][row].max()) == int(self._turns[row]),
                "records": self._records[row],
                "endings": {"tokens": float(self._answer_tokens[row]), **(ending or {})},
                "start": self._starts[row],
                "text": text,
            }
        )
        for array in self._open.values():
            array[row] = 0

    def _moved(self) -> None:
        """Note that the environment moved by our doing."""
        envs: Any = self.envs.unwrapped
        if not hasattr(type(envs), "moves"):  # not one of ours: those who collect from it count
            envs.moves = getattr(envs, "moves", 0) + 1
        self._moves = envs.moves

    def _check_alone(self) -> None:
        """Refuse to go on from observations that are no longer those of the environment.

        Raises:
            SharedEnvironmentError: Somebody else has moved it.
        """
        moves = self.envs.unwrapped.moves  # type: ignore[attr-defined]
        if moves != self._moves:
            raise SharedEnvironmentError(
                f"the environment {type(self.envs.unwrapped).__name__} was stepped or reset by "
                "somebody else since this learner's last step, so its episodes are not those that "
                "the learner is in the middle of. Two learners, and a learner and a loop of yours, "
                "each need an environment of their own: make another one with the same arguments. "
                "To go on with this one, make the learner anew"
            )

    # ---------------------------------------------------------------- for the learner

    def forget(self) -> None:
        """Drop what is encoded: the weights have changed."""
        self.cache.forget()

    def report(self) -> dict[str, float]:
        """Numbers since the last report, for an update's metrics: the tokens that were encoded."""
        encoded, self._encoded = self._encoded, 0
        return {"rollout_encoded_tokens": float(self.ranks.total(encoded))}

    # ---------------------------------------------------------------- the rollout

    @property
    def _group_size(self) -> int:
        return int(getattr(self.envs.unwrapped, "group_size", 1))

    def _rollout(self, of_all: Closed) -> Rollout:
        closed = of_all.sequences
        endings = together([c["endings"] for c in closed])
        told = ("records", "start", "text")
        records, starts, texts = (tuple(c[name] for c in closed) for name in told)
        names = [name for name in closed[0] if name not in ("endings", "at", "of", *told)]
        arrays = {name: np.stack([np.asarray(c[name]) for c in closed]) for name in names}
        arrays["turns"] = np.where(arrays["mask"], arrays["turns"], -1)
        # A Python float of the policy's, which is float32.
        arrays["bootstrap_values"] = arrays["bootstrap_values"].astype(np.float32)
        tensors: dict[str, Any] = {name: torch.from_numpy(x) for name, x in arrays.items()}
        # A sequence without a group gets one of its own, and so does one that is still running:
        # the environment names the group at the end.
        groups = tensors["groups"]
        alone = groups < 0
        groups[alone] = groups.max() + 1 + torch.arange(int(alone.sum()))
        table = None
        if len(of_all.masks) > 1:
            table = torch.from_numpy(
                np.stack([np.frombuffer(mask, np.uint8) for mask in of_all.masks])
            )
        else:
            del tensors["mask_ids"]
        rollout = Rollout(
            **tensors,
            mask_table=table,
            mask_size=None if table is None else self.policy.vocab_size,
            endings=endings,
            records=None if None in records else tuple(map(dict, records)),
            starts=None if None in starts else starts,
            texts=texts,
        )
        return rollout.to(self.policy.device)

    def _forget_masks(self) -> None:
        """Keep the masks to which a token refers that is not in a rollout yet, and the first."""
        arrays = [self._open["mask_ids"], *(sequence["mask_ids"] for sequence in self._closed)]
        used = np.unique(np.concatenate([[0], *map(np.ravel, arrays)]))
        new = np.zeros(len(self._masks), dtype=np.int64)
        new[used] = np.arange(len(used))
        masks = list(self._masks)
        self._masks = {masks[old]: number for number, old in enumerate(used.tolist())}
        self._open["mask_ids"][...] = new[self._open["mask_ids"]]
        for sequence in self._closed:
            sequence["mask_ids"] = new[sequence["mask_ids"]]

    # ---------------------------------------------------------------- saving

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next rollout depends on, as arrays and plain types.

        The environment's own state is part of it if it has a `state_dict`, as ours have. The cache
        is not: it is keyed by content and fills again.

        Raises:
            SharedEnvironmentError: Somebody else has moved the environment.
        """
        self._check_alone()
        inner: Any = self.envs.unwrapped
        saves = hasattr(inner, "state_dict")

        def saved(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
            return columns_as_json(record) if saves and record is not None else None

        return {
            "observations": np.array(self._observations),
            "action_mask": None if self._action_mask is None else np.array(self._action_mask),
            "waiting": self._waiting.copy(),
            "listening": self._listening.copy(),
            "due": self._due.copy(),
            "last": self._last.copy(),
            "scores": self._scores.copy(),
            "answer_tokens": self._answer_tokens.copy(),
            "prompt_lengths": self._prompt_lengths.copy(),
            "uniforms": self._uniforms.copy(),
            "episodes": self._episodes.copy(),
            "turns": self._turns.copy(),
            "records": list(map(saved, self._records)),
            "open": {name: array.copy() for name, array in self._open.items()},
            "masks": [np.frombuffer(mask, np.uint8).copy() for mask in self._masks],
            "closed": [
                {**c, "records": saved(c["records"]), "start": _plain(c["start"])}
                for c in self._closed
            ],
            "starts": [_plain(start) for start in self._starts],
            "continued": self._continued,
            "clock": self._clock,
            "env": inner.state_dict() if saves else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; an environment that cannot be restored starts anew."""
        if state["env"] is None:
            return
        inner: Any = self.envs.unwrapped
        inner.load_state_dict(state["env"])
        self._moved()
        self._observations = state["observations"]
        self._action_mask = state["action_mask"]
        self._waiting = state["waiting"]
        self._listening = state.get("listening", np.zeros(len(self._rows), dtype=bool))
        self._due = state.get("due", np.zeros(len(self._rows), dtype=bool))
        self._last = state.get("last", np.zeros(len(self._rows), dtype=np.int64))
        self._scores = state["scores"]
        self._prompt_lengths = state["prompt_lengths"]
        # Those of earlier versions lack the random numbers too: their episodes get new ones.
        self._uniforms = state.get("uniforms", self._uniforms)
        self._episodes = state.get("episodes", self._episodes)
        # Checkpoints of earlier versions lack this count and the endings: both are only reported.
        unknown = np.zeros(len(self._rows), dtype=np.int64)
        self._answer_tokens = state.get("answer_tokens", unknown)
        # Earlier versions had no conversations: everything was chosen in turn 1.
        self._turns = state.get("turns", np.ones_like(self._answer_tokens))
        self._records = state.get("records", [None] * len(self._rows))
        opened = {"turns": state["open"]["mask"], **state["open"]}
        for name, array in self._open.items():  # rewards of earlier versions are float32
            array[...] = opened[name]
        self._masks = {mask.tobytes(): number for number, mask in enumerate(state["masks"])}
        self._closed = [_restored_sequence(saved) for saved in state["closed"]]
        self._starts = [_restored(s) for s in state.get("starts", [None] * len(self._rows))]
        self._continued, self._clock = state.get("continued", 0), state.get("clock", 0)
        self.cache.forget()


def _restored_sequence(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A sequence that was saved; those of earlier versions lack some of it."""
    lacking = {"endings": {}, "records": None, "mid_turn": False, "turns": 1 * saved["mask"]}
    lacking |= {"start": None, "text": "", "at": 0}
    sequence = {**saved, **{name: lacking[name] for name in lacking.keys() - saved.keys()}}
    return {**sequence, "start": _restored(sequence["start"])}


def numbered(starts: Sequence[Start], n: int, seed: int, before: int) -> list[Start]:
    """What `collect_from` plays: each start n times, with an `episode_seed` for each time.

    Args:
        starts: Where to start.
        n: How many answers each of them gets.
        seed: Seed of the collector.
        before: How many continuations it has played.
    """
    key = draw_seed(int(stream_key(seed)), -1)
    queue: list[Start] = []
    for start in starts:
        number = before + len(queue)
        if start.draw_seed is None:  # a draw of its own, which its n answers share
            start = replace(start, draw_seed=draw_seed(key, number) >> 1)
        for copied in range(n):
            own = start.episode_seed
            if own is None:
                own = draw_seed(key, number + copied) >> 1
            elif copied:
                own = draw_seed(own, copied) >> 1
            queue.append(replace(start, episode_seed=own))
    return queue


class Closed(NamedTuple):
    """Ended sequences, and what their action masks are numbered by.

    Attributes:
        sequences: Arrays and plain values of each; `at` is when it ended.
        masks: The packed action masks, by their numbers.
    """

    sequences: list[dict[str, Any]]
    masks: list[bytes]


def together_in_order(parts: Sequence[Closed]) -> Closed:
    """The sequences that were ended in shares of an environment, as the whole one would end them.

    Args:
        parts: Of each share, in the order of the rows; all have taken the same steps.
    """
    if len(parts) == 1:
        return parts[0]
    masks: dict[bytes, int] = {}
    sequences = []
    for part in parts:
        numbers = np.array([masks.setdefault(mask, len(masks)) for mask in part.masks])
        sequences += [{**s, "mask_ids": numbers[s["mask_ids"]]} for s in part.sequences]
    # Within a step the rows' order is that of the parts, which sorting keeps.
    return Closed(sorted(sequences, key=lambda sequence: sequence["at"]), list(masks))


def in_order(rollout: Rollout) -> Rollout:
    """The answers of a rollout in the order of the starts that they play on from."""
    return rollout.select(rollout.groups.argsort())


def collector_from(
    policy: Policy,
    envs: VectorEnv[Any, Any, Any],
    starts: Sequence[Start],
    temperature: float = 1.0,
    seed: int = 0,
    uniforms: NDArray[np.float64] | None = None,
    sampler: Sampler = sample,
) -> Collector:
    """A collector of one answer from each start; `envs` itself is left alone.

    Args:
        policy: The policy that answers.
        envs: A `TextVectorEnv`, wrapped or not, whose arguments are used.
        starts: Where to start, each with its `episode_seed`.
        temperature: Logits are divided by this before sampling; 0 takes the likeliest tokens, with
            their log-probabilities at temperature 1.
        seed: Seed of the choices, with the episode's own.
        uniforms: Random numbers for the choices instead, in [0, 1), one row for each start, from
            its first choice on; shape (len(starts), k) with k places or more for an answer.
        sampler: How given numbers become tokens; see `Policy.act`.

    Raises:
        UnmetNeedError: `envs` cannot play on from anywhere.
        ResetOptionsError: There is no start, or one leaves nothing to choose.
        ReplayError: A world did not reply as before, or may not be told turns again.
    """
    inner: Any = envs.unwrapped
    if not hasattr(inner, "playing"):
        raise UnmetNeedError(
            f"{type(inner).__name__} cannot play on from anywhere: only a textenv.TextVectorEnv can"
        )
    # Wrappers are copied around the new environment: their rewards and masks hold there too.
    made: Any = copy.deepcopy(envs, {id(inner): inner.playing(starts)})
    if temperature == 0:
        return _Likeliest(policy, made, seed=seed)
    if uniforms is None:
        return Collector(policy, made, temperature, seed)
    numbers = {start.episode_seed: row for start, row in zip(starts, uniforms, strict=True)}
    return _GivenNumbers(policy, made, temperature, numbers, sampler)


def share_of(envs: VectorEnv[Any, Any, Any], index: int, of: int) -> VectorEnv[Any, Any, Any]:
    """Part `index` of `of` equal parts of an environment, wrappers included.

    Raises:
        UnmetNeedError: It cannot be divided.
    """
    if of == 1:
        return envs
    inner: Any = envs.unwrapped
    if not hasattr(inner, "share"):
        raise UnmetNeedError(
            f"{type(inner).__name__} cannot be divided among {of} processes: only a "
            "textenv.TextVectorEnv has shares"
        )
    divided: Any = copy.deepcopy(envs, {id(inner): inner.share(index, of)})
    return divided


class _Likeliest(Collector):
    """A collector whose policy takes the likeliest token."""

    def _act(
        self,
        observations: NDArray[Any],
        cache: PrefixCache,
        action_masks: NDArray[np.bool_] | None,
        uniforms: NDArray[np.float64],
    ) -> Step:
        return self.policy.act(observations, cache, action_masks=action_masks, deterministic=True)


class _GivenNumbers(Collector):
    """A collector whose episodes use given random numbers from their first choice on."""

    def __init__(
        self,
        policy: Policy,
        envs: VectorEnv[Any, Any, Any],
        temperature: float,
        numbers: Mapping[int | None, NDArray[np.float64]],
        sampler: Sampler,
    ):
        self._numbers = numbers
        super().__init__(policy, envs, temperature)
        self._sampler = sampler

    def _numbers_for(self, row: int, number: int) -> NDArray[np.float64]:
        placed = np.zeros(self._uniforms.shape[1])
        begin = int((self._observations[row] != self.policy.pad_token).sum())
        given = self._numbers[number][: len(placed) - begin]
        placed[begin : begin + len(given)] = given
        return placed


def _plain(start: Start | None) -> dict[str, Any] | None:
    return None if start is None else start.to_json()


def _restored(start: Mapping[str, Any] | None) -> Start | None:
    return None if start is None else Start.from_json(start)


def _check_fit(policy: Policy, envs: VectorEnv[Any, Any, Any]) -> None:
    vocab_size = int(envs.single_action_space.n)  # type: ignore[attr-defined]
    theirs, own = getattr(envs.unwrapped, "tokenizer", None), policy.tokenizer
    same = own is None or theirs is None or own.fingerprint == theirs.fingerprint
    if vocab_size != policy.vocab_size or not same:
        raise VocabularyMismatchError(
            f"the policy has {policy.vocab_size} tokens of {own!r}, the environment has "
            f"{vocab_size} of {theirs!r}: make the policy with TransformerPolicy.for_env(envs), or "
            "the environment with tokenizer=policy.tokenizer"
        )
    length = envs.single_observation_space.shape
    if length is None or len(length) != 1 or length[0] > policy.context:
        raise ValueError(
            f"observations of shape {length} do not fit the policy's context of {policy.context}"
        )


def _not_grown(row: int, positions: NDArray[np.int64]) -> ValueError:
    return ValueError(
        f"row {row}: the observation does not hold the chosen tokens at positions "
        f"{positions.tolist()}; observations must grow by the chosen token, and nobody else may "
        "step or reset the environment"
    )


def _told(infos: Mapping[str, Any], name: str, row: int) -> Any:
    """What infos tell of a row under a name; None if they do not."""
    values, told = infos.get(name), infos.get(f"_{name}")
    return None if values is None or (told is not None and not told[row]) else values[row]


def _action_mask(infos: dict[str, Any]) -> NDArray[np.bool_] | None:
    """What each row may choose, shape (num_rows, V); a row without a mask may choose anything."""
    mask, told = infos.get("action_mask"), infos.get("_action_mask")
    if mask is None or told is None or told.all():
        return mask
    return np.asarray(mask | ~told[:, None])


def _whole_groups(
    closed: list[dict[str, Any]], group_size: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Episodes of complete groups, group by group, older prompts first; and the others."""
    # Older first: taking whichever group is complete first would prefer quick, short answers.
    if group_size == 1:
        return closed, []
    groups: dict[int, list[dict[str, Any]]] = {}
    for episode in closed:
        groups.setdefault(episode["groups"], []).append(episode)
    in_order = [groups[number] for number in sorted(groups)]
    ready = [e for group in in_order if len(group) == group_size for e in group]
    early = [e for group in in_order if len(group) < group_size for e in group]
    return ready, early
