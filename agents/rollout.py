"""Trajectories, each stored once.

Observations of one episode are prefixes of one another. A rollout stores every sequence once and
marks the places at which the agent chose the token: O(T) memory, and one causal pass reads all
steps.
Every array is aligned with the tokens: entry [s, p] belongs to the choice of token p of sequence s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from policies.sampling import unpacked
from textenv.errors import AnnotationError, UnmetNeedError
from textenv.prompts import columns_as_json
from textenv.records import short
from textenv.starts import Start

EXTRA = "extra."
"""Before a name of `Rollout.extra`, where it stands beside the fields."""

TOLD = ("records", "starts", "texts")
"""Fields with one entry for each sequence that is no number."""


@dataclass(frozen=True)
class Rollout:
    """S sequences of at most L tokens, and what happened at each chosen token.

    A sequence is an episode, or the part of one that was collected so far. Tokens chosen in an
    earlier rollout are in the text but not in the mask.

    Attributes:
        tokens: Prompt and answer, shape (S, L), int64, right-padded.
        mask: True at the tokens chosen in this rollout, shape (S, L), bool.
        logprobs: Log-probability of each chosen token when it was sampled, shape (S, L), float32;
            if `sampled_logprobs` is set, under the policy at the start of the update instead.
        values: Value of the text before each chosen token at sampling, shape (S, L), float32.
        rewards: Reward for each chosen token, less the KL penalty once the learner has subtracted
            it, shape (S, L), float64: rewards near 1e8 that differ by 1 are equal in float32.
        bootstrap_values: Value after the last chosen token, 0 where terminated, shape (S,).
        terminated: The episode ended and was scored, shape (S,), bool.
        truncated: The episode was cut short, shape (S,), bool. If neither is set, it is running.
        scores: Sum of the environment's rewards over the whole episode so far, shape (S,), float64;
            NaN if the reward applies to no part of it, or its world failed. The learner drops
            such episodes.
        groups: Equal for episodes that answer the same drawn prompt, shape (S,), int64.
        prompt_lengths: Tokens before the episode's first chosen one, which may be in an earlier
            rollout, shape (S,), int64; used to show the texts to people.
        ref_logprobs: Log-probabilities under the reference policy, shape (S, L).
        penalties: KL penalty that was subtracted from each reward, shape (S, L).
        sampled_logprobs: Log-probabilities under the weights and in the precision that sampled,
            where the update begins with others, shape (S, L); None where `logprobs` are these.
        importance_weights: What each chosen token weighs because of that, shape (S, L); None where
            all weigh 1. See `losses.truncated_ratios`.
        present_logprobs: Log-probabilities under the policy at the start of an update, shape
            (S, L); set for algorithms that learn again from rollouts of the past.
        advantages: The algorithm's advantages, shape (S, L) or (S,).
        value_targets: What the values are fitted to, shape (S, L).
        mask_ids: Row of `mask_table` that applied to each chosen token, shape (S, L), int64.
        mask_table: Which tokens could be chosen, each different mask once: shape (K, V), bool, or
            packed by `numpy.packbits`, shape (K, ceil(V / 8)), uint8; None without action masks.
        mask_size: V, where the table is packed.
        turns: Number of the turn in the episode, from 1, to which each chosen token belongs, -1
            where nobody chose, shape (S, L), int64. Without a world all are of turn 1.
        mid_turn: The last turn is not over and goes on in the next rollout, shape (S,), bool.
        records: The drawn prompt's record of each sequence, its text as `prompt`, S mappings; None
            if the environment does not tell (`infos["record"]`).
        extra: Whatever an `annotate` hook has added, such as scores of a teacher, by name; shape
            (S,) or (S, L).
        endings: What else is known of each episode, by name, shape (S,), float64: `tokens`, chosen
            so far in the whole episode; `by_budget`, 1 if the token budget ended it and 0 if not;
            `failed`, 1 if its world failed;
            `component.NAME`, what each component of a sum of rewards paid, unweighted. NaN where it
            is not known, such as the end of an episode that goes on.
        starts: Where each sequence starts, with the seeds of its random numbers, S of them; None
            from an environment that cannot play on from anywhere.
        texts: What the environment says the answer is in words, S of them; empty while it runs.
        progress: Share of the training that was done when it is learned from, 0 to 1.
        parents: Of a tree of answers the sequence that each one branches off, shape (S,), int64; -1
            for one that does not, or whose parent is not here. It does so before its own first
            chosen token. None if there is no tree; see `branched`.
    """

    tokens: Tensor
    mask: Tensor
    logprobs: Tensor
    values: Tensor
    rewards: Tensor
    bootstrap_values: Tensor
    terminated: Tensor
    truncated: Tensor
    scores: Tensor
    groups: Tensor
    prompt_lengths: Tensor | None = None
    ref_logprobs: Tensor | None = None
    penalties: Tensor | None = None
    sampled_logprobs: Tensor | None = None
    importance_weights: Tensor | None = None
    present_logprobs: Tensor | None = None
    advantages: Tensor | None = None
    value_targets: Tensor | None = None
    mask_ids: Tensor | None = None
    mask_table: Tensor | None = None
    mask_size: int | None = None
    turns: Tensor | None = None
    mid_turn: Tensor | None = None
    records: tuple[Mapping[str, Any], ...] | None = None
    extra: dict[str, Tensor] | None = None
    endings: dict[str, Tensor] | None = None
    starts: tuple[Start, ...] | None = None
    texts: tuple[str, ...] | None = None
    progress: float = 0.0
    parents: Tensor | None = None

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.tokens)

    @property
    def num_tokens(self) -> int:
        """Number of chosen tokens."""
        return int(self.mask.sum())

    @property
    def finished(self) -> Tensor:
        """Sequences whose episode is over, shape (S,), bool."""
        return self.terminated | self.truncated

    @property
    def episode_returns(self) -> Tensor:
        """Undiscounted return of each sequence, shape (S,).

        The score of the whole episode less the KL penalty of the tokens chosen in this rollout.
        """
        return self.scores - self.episode_penalties

    @property
    def token_penalties(self) -> Tensor:
        """`penalties`, or zeros where nothing was subtracted, shape (S, L)."""
        return torch.zeros_like(self.rewards) if self.penalties is None else self.penalties

    @property
    def episode_penalties(self) -> Tensor:
        """KL penalty of the tokens chosen in this rollout, shape (S,)."""
        return self.token_penalties.sum(1)

    @property
    def behaviour_logprobs(self) -> Tensor:
        """Log-probabilities under the policy that chose, shape (S, L)."""
        return self.logprobs if self.sampled_logprobs is None else self.sampled_logprobs

    def weighed(self, per_token: Tensor) -> Tensor:
        """An array of shape (S, L), or (S,) for whole sequences, times `importance_weights`.

        The advantages of a loss come through here. The array itself if all weigh 1.
        """
        if self.importance_weights is None:
            return per_token
        spread = per_token if per_token.dim() == 2 else per_token[:, None]
        return spread * self.importance_weights

    @property
    def action_masks(self) -> Tensor | None:
        """What could be chosen at each chosen token, (num_tokens, V), in the mask's order."""
        if self.mask_ids is None or self.mask_table is None:
            return None
        numbers = self.mask_ids[self.mask]
        alike = len(numbers) > 0 and bool((numbers == numbers[0]).all())
        chosen = self.mask_table[numbers[:1] if alike else numbers]
        if self.mask_size is not None:
            chosen = unpacked(chosen, self.mask_size)
        return chosen.expand(len(numbers), -1) if alike else chosen  # not copied for each token

    def start(self, sequence: int, position: int) -> Start:
        """The text before a choice, as a start; `collector.collect_from` plays on from it.

        Args:
            sequence: Number of the sequence.
            position: Place of a token that was chosen in this rollout.

        Raises:
            ValueError: The token there was not chosen in this rollout.
            UnmetNeedError: The environment cannot play on from anywhere.
        """
        if self.starts is None:
            raise UnmetNeedError(
                "the rollout does not know how its episodes start: collect it from a TextVectorEnv"
            )
        chosen = self.mask[sequence].cpu().numpy()
        if not chosen[position]:
            raise ValueError(
                f"position {position} of sequence {sequence} is none of those chosen in this "
                f"rollout, {chosen.nonzero()[0].tolist()}"
            )
        assert self.turns is not None  # as it knows its starts
        places = chosen[: position + 1].nonzero()[0]
        turn_of = self.turns[sequence].cpu().numpy()[places]
        # Where the agent's ids of a turn end, and where those of the next begin.
        ends = (turn_of[1:] > turn_of[:-1]).nonzero()[0]
        turns = [(int(places[e]) + 1, int(places[e + 1])) for e in ends.tolist()]
        ids = self.tokens[sequence, :position].cpu().numpy()
        return self.starts[sequence].grown(ids, turns)

    def branched(
        self,
        at: Sequence[tuple[int, int]],
        n: int,
        collect_from: Callable[[Sequence[Start], int], Rollout],
    ) -> Rollout:
        """These sequences, and behind them n continuations from each of the given places.

        A continuation's mask holds its own tokens alone, so that every token of the tree is chosen
        once. Its group is that of its parent. One without a score is left out.

        Args:
            at: Pairs of a sequence and of the place of a token that was chosen in it; the
                continuations choose another one there. The sequence may be a continuation itself.
            n: Continuations from each place.
            collect_from: Plays on from starts, such as `collector.collect_from`.

        Returns:
            A rollout with `parents`.

        Raises:
            ValueError: A place holds no token that was chosen, or the continuations lack a field
                that this rollout has, such as `ref_logprobs`.
            UnmetNeedError: The environment cannot play on from anywhere.
        """
        parents = self.parents
        if parents is None:
            parents = torch.full_like(self.groups, -1)
        trunk = dataclasses.replace(self, parents=parents)
        if not at:
            return trunk
        played = collect_from([self.start(sequence, place) for sequence, place in at], n)
        played = played.select((~played.scores.isnan()).nonzero().squeeze(1))
        if not len(played):
            return trunk
        of = torch.tensor([sequence for sequence, _ in at], device=parents.device)[played.groups]
        if self.prompt_lengths is not None:
            played = dataclasses.replace(played, prompt_lengths=self.prompt_lengths[of])
        joined = Rollout.cat([trunk, dataclasses.replace(played, parents=of)])
        return dataclasses.replace(
            joined,
            groups=torch.cat([self.groups, self.groups[of]]),
            parents=torch.cat([parents, of]),
        )

    @staticmethod
    def from_log(tokens: Tensor, mask: Tensor, scores: Tensor, groups: Tensor) -> Rollout:
        """Finished answers about which nothing else is known, for losses without old probabilities.

        Args:
            tokens: Prompts and answers, shape (S, L), int64, right-padded.
            mask: True at the answers' tokens, shape (S, L), bool.
            scores: How good each answer is, shape (S,); integers become float64.
            groups: Equal for answers that are compared, shape (S,), int64.
        """
        nothing = torch.zeros(mask.shape, dtype=torch.float32, device=tokens.device)
        none = nothing.new_zeros(len(tokens))
        return Rollout(
            tokens=tokens,
            mask=mask,
            logprobs=nothing,
            values=nothing,
            rewards=nothing,
            bootstrap_values=none,
            terminated=~none.bool(),
            truncated=none.bool(),
            scores=scores if scores.is_floating_point() else scores.double(),
            groups=groups,
        )

    def with_extra(self, arrays: Mapping[str, Tensor]) -> Rollout:
        """The same with more arrays in `extra`, on this rollout's device.

        Args:
            arrays: By name, of shape (S,) or (S, L).

        Raises:
            AnnotationError: One is no tensor, or has another shape.
        """
        for name, array in arrays.items():
            if not isinstance(array, Tensor) or array.shape not in (
                self.scores.shape,
                self.mask.shape,
            ):
                found = f"shape {tuple(array.shape)}" if isinstance(array, Tensor) else short(array)
                raise AnnotationError(
                    f"the array {name!r} is {found}; it must be a tensor of shape "
                    f"{tuple(self.scores.shape)}, one entry for each sequence, or "
                    f"{tuple(self.mask.shape)}, one for each token"
                )
        moved = {name: _to(array.detach(), self.tokens.device) for name, array in arrays.items()}
        return dataclasses.replace(self, extra={**(self.extra or {}), **moved})

    def select(self, sequences: Tensor) -> Rollout:
        """These sequences alone, cut to the longest of them; `sequences` is (k,) int64."""
        # Up to the last chosen token: what stands behind it is never read.
        places = torch.arange(self.mask.shape[1], device=self.mask.device)
        length = int((self.mask[sequences] * places).max()) + 1 if len(sequences) else 0
        parts: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                parts[field.name] = tuple(value[s] for s in sequences.tolist())
            elif value is not None and field.name not in ("mask_table", "mask_size", "progress"):
                chosen = _each(value, lambda array: array[sequences])
                parts[field.name] = _each(chosen, lambda a: a[:, :length] if a.dim() == 2 else a)
        if self.parents is not None:  # those that are not selected are not here
            now = torch.full((len(self) + 1,), -1, device=sequences.device)  # the last entry: none
            now[sequences] = torch.arange(len(sequences), device=sequences.device)
            parts["parents"] = now[parts["parents"]]
        return dataclasses.replace(self, **parts)

    def with_answers_of_others(self, context: int) -> Rollout:
        """Each prompt with the answer of the sequence half a batch away, which has another prompt.

        The next sequence would not do: answers to the same prompt stand side by side.

        Args:
            context: Longer sequences lose their end. An answer is everything from the first chosen
                token on.
        """
        length, away = self.tokens.shape[1], len(self) // 2
        begins = self.mask.int().argmax(1, keepdim=True)
        # A long prompt and another's long answer may need twice the room.
        places = torch.arange(min(2 * length, context), device=self.tokens.device)
        # At each place, which place of the other sequence goes there.
        others = places - begins + begins.roll(away, 0)
        answers = (places >= begins) & (others < length)
        others = others.clamp(0, length - 1)

        # A roll by half a batch brings the other sequence here, the gather shifts it along.
        def moved(values: Tensor) -> Tensor:
            return values.roll(away, 0).gather(1, others)

        prompts = self.tokens[:, places.clamp(max=length - 1)]
        tokens = torch.where(answers, moved(self.tokens), prompts)
        log = Rollout.from_log(tokens, answers & moved(self.mask), self.scores, self.groups)
        if self.mask_ids is None:
            return log
        return dataclasses.replace(
            log,
            mask_ids=moved(self.mask_ids),
            mask_table=self.mask_table,
            mask_size=self.mask_size,
        )

    @staticmethod
    def cat(rollouts: Sequence[Rollout]) -> Rollout:
        """One rollout of all their sequences; groups of different rollouts stay apart.

        Raises:
            ValueError: One has a field, such as `ref_logprobs`, that another lacks.
        """
        length = max(rollout.tokens.shape[1] for rollout in rollouts)
        endings = _cat_endings(rollouts)
        rollouts = _packed_alike(rollouts)
        tables = [r.mask_table for r in rollouts if r.mask_table is not None]
        sizes = [r.mask_size for r in rollouts if r.mask_size is not None]
        parts: list[dict[str, Tensor]] = []
        first_group = first_mask = first_sequence = 0
        for rollout in rollouts:
            arrays = rollout.arrays()
            arrays.pop("endings", None)
            added = arrays.pop("extra", {})
            arrays |= {f"{EXTRA}{name}": value for name, value in added.items()}
            # Both numberings start at 0 in every rollout: shifted, they cannot be confused.
            arrays["groups"] = arrays["groups"] + first_group
            first_group = int(arrays["groups"].max()) + 1
            if rollout.parents is not None:
                there = rollout.parents >= 0
                arrays["parents"] = (rollout.parents + first_sequence).where(there, -1)
            first_sequence += len(rollout)
            if tables and rollout.mask_table is None:  # no mask: every token could be chosen
                arrays["mask_ids"] = torch.zeros_like(rollout.tokens)
                arrays["mask_table"] = torch.full_like(tables[0][:1], 255 if sizes else 1)
            if tables:
                arrays["mask_ids"] = arrays["mask_ids"] + first_mask
                first_mask += len(arrays["mask_table"])
            for name, value in arrays.items():
                if value.dim() == 2 and name != "mask_table":  # its columns are tokens to choose
                    nobody = -1 if name == "turns" else 0
                    arrays[name] = F.pad(value, (0, length - value.shape[1]), value=nobody)
            parts.append(arrays)
            if different := set(arrays) ^ set(parts[0]):
                raise ValueError(f"some rollouts have {sorted(different)}, others do not")
        together: dict[str, Any] = {
            name: torch.cat([part[name] for part in parts]) for name in parts[0]
        }
        added = {n.removeprefix(EXTRA): together.pop(n) for n in [*together] if n.startswith(EXTRA)}
        told: dict[str, Any] = {name: _cat_told(rollouts, name) for name in TOLD}
        size = sizes[0] if sizes else None
        return Rollout(**together, extra=added or None, endings=endings, mask_size=size, **told)

    def arrays(self) -> dict[str, Any]:
        """Its arrays by name, without those that are None; some are dicts of arrays."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = (Tensor, dict)
        return {name: value for name, value in named.items() if isinstance(value, arrays)}

    def state_dict(self) -> dict[str, Any]:
        """Its arrays and records; where its sequences start, and their texts, are left out.

        Raises:
            PromptError: A record holds something that JSON cannot.
        """
        records = None if self.records is None else [*map(columns_as_json, self.records)]
        return self.arrays() | {"records": records, "mask_size": self.mask_size}

    @staticmethod
    def from_state_dict(state: Mapping[str, Any]) -> Rollout:
        """The rollout of which `state_dict` gave the state."""
        records = state.get("records")
        rollout = Rollout(**{**state, "records": None if records is None else tuple(records)})
        if rollout.turns is not None:
            return rollout
        # Of an earlier version, which had no conversations: everything was chosen in turn 1.
        none_cut = torch.zeros_like(rollout.terminated)
        turns = torch.where(rollout.mask, 1, -1)
        return dataclasses.replace(rollout, turns=turns, mid_turn=none_cut)

    def to(self, device: torch.device | str) -> Rollout:
        """The same on another device."""
        arrays = self.arrays()
        moved = {name: _each(arrays[name], lambda a: _to(a, device)) for name in arrays}
        return dataclasses.replace(self, **moved)


def _each(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`function` of an array, or of each one in a dict."""
    if isinstance(value, dict):
        return {name: function(array) for name, array in value.items()}
    return function(value)


def _to(array: Tensor, device: torch.device | str) -> Tensor:
    if array.dtype == torch.float64 and torch.device(device).type == "mps":  # it has no float64
        array = array.float()
    return array.to(device)


def _packed_alike(rollouts: Sequence[Rollout]) -> Sequence[Rollout]:
    """The rollouts with all tables of masks packed if one is."""
    if all(rollout.mask_size is None for rollout in rollouts):
        return rollouts
    alike = []
    for rollout in rollouts:
        table = rollout.mask_table
        if table is not None and rollout.mask_size is None:
            bits = torch.from_numpy(np.packbits(table.cpu().numpy(), axis=1)).to(table.device)
            rollout = dataclasses.replace(rollout, mask_table=bits, mask_size=table.shape[1])
        alike.append(rollout)
    return alike


def _cat_endings(rollouts: Sequence[Rollout]) -> dict[str, Tensor] | None:
    """The endings of all sequences; NaN where a rollout does not tell."""
    told = [rollout.endings or {} for rollout in rollouts]
    names = dict.fromkeys(name for endings in told for name in endings)
    if not names:
        return None
    unknown = [torch.full_like(rollout.scores, float("nan")) for rollout in rollouts]
    return {
        name: torch.cat([e.get(name, nan) for e, nan in zip(told, unknown, strict=True)])
        for name in names
    }


def _cat_told(rollouts: Sequence[Rollout], name: str) -> tuple[Any, ...] | None:
    """What is told of all sequences, such as their records; None if a rollout does not tell."""
    told = [getattr(rollout, name) for rollout in rollouts]
    known = [records for records in told if records is not None]
    return tuple(chain.from_iterable(known)) if len(known) == len(told) else None
