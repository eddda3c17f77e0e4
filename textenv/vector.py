"""Token generation as a vectorised Gymnasium environment."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from textenv.episode import Episode
from textenv.errors import (
    ActionError,
    EmptyPromptsError,
    EpisodeOverError,
    PromptError,
    PromptTooLongError,
    ResetOptionsError,
)
from textenv.infos import masked_info
from textenv.prompts import ListPrompts, Prompt, PromptSource, load_prompts
from textenv.resets import Start, starts_from_options
from textenv.rewards import StepBatch, reward_terms, score_episodes, score_steps
from textenv.seeding import draw_seeds, row_keys
from textenv.tokenizers import Tokenizer, load_tokenizer

STOP, LENGTH = "stop", "length"
"""Values of `info["finish_reason"]`: a stop token was chosen, or the token budget was used up."""


class TextVectorEnv(VectorEnv[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]):
    """`num_envs` texts that grow by one token at every step.

    ## Description
    An episode starts with a prompt. Every action appends one token. The episode ends with a stop
    token or when `max_new_tokens` have been chosen, and is then scored by the reward.

    ## Action space
    `Discrete(V)`: the id of the next token, V being the size of the vocabulary.

    ## Observation space
    `Box(0, V, (max_prompt_tokens + max_new_tokens,), int64)`: the ids of the prompt and of the
    answer so far, right-padded with `PAD = V`, which is not an action.

    ## Rewards
    What `reward` returns for the finished episode, at its last step; 0 before. Dense rewards
    (`textenv.rewards.dense`) are added at every step.

    ## Starting state
    A prompt drawn from `prompts`. `reset(options=...)` starts from anything else:
    `{"prompt": text or record}` or `{"tokens": ids}`, one for all rows or a list with one a row;
    with `"prompt_length": n` the ids after the first n count as an answer begun already, so an
    observation can be continued, and `"columns"` gives the reward its record. `"reset_mask"` (bool, (num_envs,)) limits the reset to some rows.

    ## Episode end
    The stop token and the spent budget both set `terminated`, since the score has been paid;
    `info["finish_reason"]` is `"stop"` or `"length"`. With `budget="truncate"` a spent budget sets
    `truncated` instead, for learners that bootstrap there.

    ## Info
    At a start: `prompt`. At an end: `finish_reason`, `text` (the answer), `reward_components` (each
    component's unweighted value, summed over the episode) and, if `group_size > 1`, `group` (equal
    for the episodes that share one drawn prompt). At every step, where some actions are ruled out:
    `action_mask`. Vectors are laid out as Gymnasium's `SyncVectorEnv` does it, `final_obs` and
    `final_info` included.

    Args:
        num_envs: Number of rows.
        prompts: A list of texts or records (`{"prompt": ..., "answer": ...}`), a `.txt` or `.jsonl`
            file, a callable that takes a `numpy.random.Generator`, or a `PromptSource`.
        reward: A callable on finished episodes, `Sequence[Episode] -> Sequence[float]`, something
            made by `textenv.rewards`, or a string such as `"package.module:function"`.
        tokenizer: Name of a tokenizer or the object; see `textenv.tokenizers.load_tokenizer`.
        max_new_tokens: Token budget of an answer.
        max_prompt_tokens: Room for the prompt; the longest prompt of a list if None.
        min_new_tokens: Stop tokens are masked until the answer has this many tokens. Masks are
            advice to the policy: a masked action that is chosen all the same is carried out.
        stop_tokens: Ids that end an answer; the tokenizer's own if None, none if empty.
        forbidden_tokens: Ids that are always masked.
        budget: Which flag a spent budget sets.
        group_size: So many neighbouring rows are given the same prompts, for algorithms that
            compare answers to one prompt; must divide `num_envs`.
        autoreset_mode: What happens to a row whose episode is over: restarted in the same step, at
            the next step, or never.
        render_mode: None or `"ansi"`.

    Raises:
        PromptError: There is no prompt, or one is too long (which one, and its length).
        TokenizerError: The tokenizer cannot be loaded.
        ObjectNotFoundError: A reward or prompt source given as a string cannot be imported.
        ValueError: A number is out of its range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (declared so by VectorEnv)
        "render_modes": ["ansi"],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    BUDGETS: ClassVar = ("terminate", "truncate")

    def __init__(
        self,
        num_envs: int = 1,
        *,
        prompts: PromptSource | Any,
        reward: Any,
        tokenizer: Tokenizer | str | Any = "bytes",
        max_new_tokens: int = 64,
        max_prompt_tokens: int | None = None,
        min_new_tokens: int = 0,
        stop_tokens: Sequence[int] | None = None,
        forbidden_tokens: Sequence[int] = (),
        budget: Literal["terminate", "truncate"] = "terminate",
        group_size: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ):
        _check_numbers(num_envs, max_new_tokens, min_new_tokens, group_size)
        if budget not in self.BUDGETS:
            raise ValueError(f"budget is {budget!r}; it must be one of {self.BUDGETS}")
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode is {render_mode!r}; a vector of texts knows 'ansi' only")
        self.num_envs = num_envs
        self.group_size = group_size
        self.budget = budget
        self.max_new_tokens = max_new_tokens
        self.min_new_tokens = min_new_tokens
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}

        self.tokenizer = load_tokenizer(tokenizer)
        self.pad_token = vocab_size = self.tokenizer.vocab_size
        self.prompts = load_prompts(prompts)
        self._encoded = self._encode_list(self.prompts)
        self.max_prompt_tokens = self._prompt_room(max_prompt_tokens)
        self._terms = reward_terms(reward)
        self._dense = any(term.dense for term in self._terms)

        length = self.max_prompt_tokens + max_new_tokens
        self.single_action_space = spaces.Discrete(vocab_size)
        self.single_observation_space = spaces.Box(0, vocab_size, (length,), np.int64)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

        if stop_tokens is None:
            own = self.tokenizer.stop_token
            stop_tokens = () if own is None else (own,)
        self.stop_tokens = tuple(stop_tokens)
        self._is_stop = _marks(self.stop_tokens, vocab_size, "stop_tokens")
        self._mask_table = self._make_mask_table(forbidden_tokens)
        self._masked = not self._mask_table.all()

        # The whole state: arrays with one entry a row, updated under masks.
        self._tokens = np.full((num_envs, length), self.pad_token, dtype=np.int64)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._prompt_lengths = np.zeros(num_envs, dtype=np.int64)
        self._over = np.ones(num_envs, dtype=bool)
        self._keys = np.zeros(num_envs, dtype=np.uint64)
        self._draws = np.zeros(num_envs, dtype=np.uint64)
        self._component_sums = np.zeros((num_envs, len(self._terms)))
        self._prompts = [Prompt("")] * num_envs
        self._seeded = False
        self._rows = np.arange(num_envs)
        self._every_row = np.ones(num_envs, dtype=bool)

    # ---------------------------------------------------------------- the Gymnasium interface

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Start new episodes in every row, or in those of `options["reset_mask"]`.

        Args:
            seed: Row i draws its prompts from the stream of `seed + i`, or of `seed[i]`. Without a
                seed the streams go on.
            options: See "Starting state" above.

        Returns:
            Observations, shape (num_envs, L), int64, and infos.

        Raises:
            ResetOptionsError: The options make no start.
            PromptTooLongError: A prompt does not fit.
        """
        options = dict(options or {})
        mask = self._reset_mask(options.pop("reset_mask", None))
        self._seed(seed)
        rows = np.flatnonzero(mask)
        starts = starts_from_options(options, len(rows), self.pad_token)
        if starts is None:
            starts = self._draw(rows)
        self._begin(rows, starts)
        return self._tokens.copy(), self._start_info(rows)

    def step(
        self, actions: ArrayLike
    ) -> tuple[
        NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Append one token to every row.

        Args:
            actions: Token ids, shape (num_envs,), any integer dtype.

        Returns:
            Observations (num_envs, L) int64, rewards (num_envs,) float64, terminated and truncated
            (num_envs,) bool, and infos.

        Raises:
            ActionError: An action is not in `range(V)`, or the shape or dtype is wrong.
            EpisodeOverError: A row is over and autoreset is disabled, or `reset` was never called.
            RewardError: The reward raised, or returned something else than one finite number for
                each finished episode.
        """
        actions = self._checked(actions)
        waiting = self._over
        if waiting.any():
            return self._step_with_waiting_rows(actions, waiting)
        rewards, ended, stopped = self._append(self._rows, actions)
        terminated, truncated = self._flags(ended, stopped)
        if not ended.any():
            return self._tokens.copy(), rewards, terminated, truncated, self._mask_info()
        return self._finish(rewards, terminated, truncated, stopped)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which tokens may be chosen next, shape (num_envs, V), bool."""
        may_stop = self._lengths - self._prompt_lengths >= self.min_new_tokens
        return self._mask_table[may_stop.astype(np.intp)]

    def render(self) -> tuple[str, ...] | None:
        """The texts so far, prompt dimmed, one string a row; None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(self.row_text(row) for row in range(self.num_envs))

    def row_text(self, row: int) -> str:
        """Prompt (dimmed by an ANSI code) and answer of one row."""
        start, end = self._prompt_lengths[row], self._lengths[row]
        answer = self.tokenizer.decode(self._tokens[row, start:end].tolist())
        return f"\x1b[2m{self._prompts[row].text}\x1b[0m{answer}"

    def state_dict(self) -> dict[str, Any]:
        """The state of all rows as numpy arrays and plain types; `load_state_dict` restores it."""
        return {
            "tokens": self._tokens.copy(),
            "lengths": self._lengths.copy(),
            "prompt_lengths": self._prompt_lengths.copy(),
            "over": self._over.copy(),
            "keys": self._keys.copy(),
            "draws": self._draws.copy(),
            "component_sums": self._component_sums.copy(),
            "prompts": [prompt.to_json() for prompt in self._prompts],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> NDArray[np.int64]:
        """Go on from a state saved by `state_dict`; returns the observations at that point.

        Raises:
            ValueError: The state has another number of rows, or another length of text.
        """
        if np.shape(state["tokens"]) != self._tokens.shape:
            raise ValueError(
                f"the state holds texts of shape {np.shape(state['tokens'])}, this environment's "
                f"have {self._tokens.shape}: use the same num_envs, max_prompt_tokens and "
                "max_new_tokens"
            )
        for name in ("tokens", "lengths", "prompt_lengths", "over", "keys", "draws"):
            getattr(self, f"_{name}")[...] = state[name]
        self._component_sums[...] = state["component_sums"]
        self._prompts = [Prompt.from_json(prompt) for prompt in state["prompts"]]
        self._seeded = True
        return self._tokens.copy()

    # ---------------------------------------------------------------- transitions

    def _append(
        self, rows: NDArray[np.intp], actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Put one token behind each of `rows`: dense rewards, ended and stopped, each (num_envs,).

        `actions` has an entry for every row of the environment, used or not.
        """
        self._tokens[rows, self._lengths[rows]] = actions[rows]
        self._lengths[rows] += 1
        moved = self._every_row if len(rows) == self.num_envs else _marks_rows(rows, self.num_envs)
        stopped = self._is_stop[actions] & moved
        spent = (self._lengths - self._prompt_lengths >= self.max_new_tokens) & moved
        ended = stopped | spent
        rewards = np.zeros(self.num_envs)
        if self._dense:
            rewards[rows] = self._score_steps(rows, actions, ended)
        return rewards, ended, stopped

    def _flags(
        self, ended: NDArray[np.bool_], stopped: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if self.budget == "terminate":
            return ended, np.zeros(self.num_envs, dtype=bool)
        return stopped, ended & ~stopped

    def _finish(
        self,
        rewards: NDArray[np.float64],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        stopped: NDArray[np.bool_],
    ) -> tuple[
        NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Score the rows that ended and, in SAME_STEP mode, start them anew."""
        rows = np.flatnonzero(terminated | truncated)
        self._over[rows] = True
        rewards[rows] += self._score_episodes(rows, stopped)
        infos = self._end_info(rows, stopped)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            final_obs = np.full(self.num_envs, None, dtype=object)
            for row in rows:
                final_obs[row] = self._tokens[row].copy()
            if self._masked:
                masks = self.action_masks()
                infos["action_mask"] = np.where(self._over[:, None], masks, False)
                infos["_action_mask"] = self._over.copy()
            infos = masked_info({"final_obs": final_obs, "final_info": infos}, self._over)
            self._begin(rows, self._draw(rows))
            infos |= self._start_info(rows)
        infos |= self._mask_info()
        return self._tokens.copy(), rewards, terminated, truncated, infos

    def _step_with_waiting_rows(
        self, actions: NDArray[np.int64], waiting: NDArray[np.bool_]
    ) -> tuple[
        NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """A step in which some rows are over: restart them if the mode says so, move the others."""
        if self.autoreset_mode is not AutoresetMode.NEXT_STEP or not self._seeded:
            raise EpisodeOverError(
                f"rows {np.flatnonzero(waiting).tolist()} have no running episode: call reset() "
                "first, or reset(options={'reset_mask': mask}) for those rows alone"
            )
        restarting, moving = np.flatnonzero(waiting), np.flatnonzero(~waiting)
        self._begin(restarting, self._draw(restarting))
        rewards, ended, stopped = self._append(moving, actions)
        terminated, truncated = self._flags(ended, stopped)
        start_info = self._start_info(restarting)
        if not ended.any():
            return self._tokens.copy(), rewards, terminated, truncated, start_info
        observations, rewards, terminated, truncated, infos = self._finish(
            rewards, terminated, truncated, stopped
        )
        return observations, rewards, terminated, truncated, start_info | infos

    def _begin(self, rows: NDArray[np.intp], starts: Sequence[Start]) -> None:
        """Fill `rows` with their first tokens."""
        room, budget = self.max_prompt_tokens, self.max_new_tokens
        begun = []
        for start in starts:  # all are checked before the first row changes
            ids = self._ids(start.prompt)
            length = len(ids) if start.prompt_length is None else start.prompt_length
            answer = ids[length:]
            if length > room:
                raise PromptTooLongError(
                    f"the prompt {start.prompt.text[:60]!r} has {length} tokens, max_prompt_tokens "
                    f"is {room}: shorten it or make the environment with more room"
                )
            if len(answer) >= budget or self._is_stop[answer].any():
                raise ResetOptionsError(
                    f"the answer begun already has {len(answer)} tokens of {budget}"
                    f"{', a stop token among them' if len(answer) < budget else ''}: "
                    "nothing is left to generate"
                )
            begun.append((ids, length))
        for row, start, (ids, length) in zip(rows, starts, begun, strict=True):
            prompt = start.prompt
            if prompt.tokens is not None:  # the text of ids is for people and rewards to read
                head = ids[:length]
                text = self.tokenizer.decode(head.tolist())
                prompt = Prompt(text, prompt.columns, head)
            self._tokens[row, : len(ids)] = ids
            self._tokens[row, len(ids) :] = self.pad_token
            self._lengths[row] = len(ids)
            self._prompt_lengths[row] = length
            self._prompts[row] = prompt
        self._over[rows] = False
        self._component_sums[rows] = 0.0

    def _draw(self, rows: NDArray[np.intp]) -> list[Start]:
        prompts = self.prompts.draw(draw_seeds(self._keys[rows], self._draws[rows]))
        self._draws[rows] += np.uint64(1)
        return [Start(prompt) for prompt in prompts]

    # ---------------------------------------------------------------- scores and infos

    def _score_episodes(
        self, rows: NDArray[np.intp], stopped: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Weighted sum of the episode rewards of the rows that ended, shape (len(rows),)."""
        total = np.zeros(len(rows))
        episodes = [self._episode(row, bool(stopped[row])) for row in rows]
        for column, term in enumerate(self._terms):
            if not term.dense:
                scores = score_episodes(term, episodes)
                self._component_sums[rows, column] = scores
                total += term.weight * scores
        return total

    def _score_steps(
        self, rows: NDArray[np.intp], actions: NDArray[np.int64], ended: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Weighted sum of the dense rewards of the rows that moved, shape (len(rows),)."""
        batch = StepBatch(
            tokens=self._tokens[rows],
            lengths=self._lengths[rows],
            prompt_lengths=self._prompt_lengths[rows],
            actions=actions[rows],
            ended=ended[rows],
            tokenizer=self.tokenizer,
        )
        total = np.zeros(len(rows))
        for column, term in enumerate(self._terms):
            if term.dense:
                scores = score_steps(term, batch)
                self._component_sums[rows, column] += scores
                total += term.weight * scores
        return total

    def _episode(self, row: int, stopped: bool) -> Episode:
        start, end = self._prompt_lengths[row], self._lengths[row]
        prompt = self._prompts[row]
        return Episode(
            prompt=prompt.text,
            prompt_tokens=self._tokens[row, :start].copy(),
            tokens=self._tokens[row, start:end].copy(),
            finish_reason=STOP if stopped else LENGTH,
            columns=prompt.columns,
            tokenizer=self.tokenizer,
        )

    def _end_info(self, rows: NDArray[np.intp], stopped: NDArray[np.bool_]) -> dict[str, Any]:
        ended = _marks_rows(rows, self.num_envs)
        reasons = np.full(self.num_envs, None, dtype=object)
        texts = np.full(self.num_envs, None, dtype=object)
        for row in rows:
            reasons[row] = STOP if stopped[row] else LENGTH
            end = self._lengths[row] - int(stopped[row])
            texts[row] = self.tokenizer.decode(
                self._tokens[row, self._prompt_lengths[row] : end].tolist()
            )
        components = {
            term.name: np.where(ended, self._component_sums[:, column], 0.0)
            for column, term in enumerate(self._terms)
        }
        info: dict[str, Any] = {
            "finish_reason": reasons,
            "text": texts,
            "reward_components": masked_info(components, ended),
        }
        if self.group_size > 1:
            groups = self.num_envs // self.group_size
            drawn = self._draws.astype(np.int64) - 1
            info["group"] = np.where(ended, drawn * groups + self._rows // self.group_size, 0)
        return masked_info(info, ended)

    def _start_info(self, rows: NDArray[np.intp]) -> dict[str, Any]:
        prompts = np.full(self.num_envs, None, dtype=object)
        for row in rows:
            prompts[row] = self._prompts[row].text
        info = masked_info({"prompt": prompts}, _marks_rows(rows, self.num_envs))
        return info | self._mask_info()

    def _mask_info(self) -> dict[str, Any]:
        if not self._masked:
            return {}
        return masked_info({"action_mask": self.action_masks()}, self._every_row)

    # ---------------------------------------------------------------- checks and set-up

    def _checked(self, actions: ArrayLike) -> NDArray[np.int64]:
        given = np.asarray(actions)
        if given.shape != (self.num_envs,) or given.dtype.kind not in "iu":
            raise ActionError(
                f"actions have shape {given.shape} and dtype {given.dtype}; "
                f"they must be {self.num_envs} integers"
            )
        ids = given.astype(np.int64, copy=False)
        # Seen as unsigned, a negative id is a huge one: one comparison finds both mistakes.
        outside = ids.view(np.uint64) >= self.pad_token
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise ActionError(
                f"the action of row {row} is {given[row]}; tokens are 0 to {self.pad_token - 1}"
            )
        return ids

    def _seed(self, seed: int | Sequence[int | None] | None) -> None:
        if seed is None and self._seeded:
            return
        if seed is None or isinstance(seed, int | np.integer):
            super().reset(seed=None if seed is None else int(seed))
            first = None if seed is None else int(seed)
            seeds = [None if first is None else first + row for row in range(self.num_envs)]
        else:
            seeds = list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"{len(seeds)} seeds were given for {self.num_envs} rows")
        leaders = row_keys(seeds[:: self.group_size])
        self._keys = np.repeat(leaders, self.group_size)
        self._draws[:] = 0
        self._seeded = True

    def _reset_mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return self._every_row
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ResetOptionsError(
                f"options['reset_mask'] is {mask!r}; it must be a boolean array of shape "
                f"({self.num_envs},) with at least one True"
            )
        return mask

    def _ids(self, prompt: Prompt) -> NDArray[np.int64]:
        if prompt.tokens is not None:
            ids = prompt.tokens
        elif prompt.text in self._encoded:
            ids = self._encoded[prompt.text]
        else:
            ids = np.array(self.tokenizer.encode(prompt.text), dtype=np.int64)
        if len(ids) == 0:
            raise EmptyPromptsError(
                f"the prompt {prompt.text!r} has no token, and a policy needs one to begin from: "
                "use a newline, or {'tokens': [the stop token]}"
            )
        if ids.max() >= self.pad_token or ids.min() < 0:
            raise PromptError(
                f"a prompt has the token {ids[(ids < 0) | (ids >= self.pad_token)][0]}; tokens are "
                f"0 to {self.pad_token - 1}"
            )
        return ids

    def _encode_list(self, source: PromptSource) -> dict[str, NDArray[np.int64]]:
        """Ids of the prompts that are known beforehand, by their text."""
        self._encoded = {}
        if not isinstance(source, ListPrompts):
            return {}
        return {p.text: self._ids(p) for p in source.prompts if p.tokens is None}

    def _prompt_room(self, max_prompt_tokens: int | None) -> int:
        if not isinstance(self.prompts, ListPrompts):
            if max_prompt_tokens is None:
                raise PromptError(
                    "max_prompt_tokens is needed where prompts are drawn from a function: the "
                    "environment cannot know the longest one"
                )
            return max_prompt_tokens
        lengths = [len(self._ids(prompt)) for prompt in self.prompts.prompts]
        longest = max(lengths)
        if max_prompt_tokens is None:
            return longest
        if longest > max_prompt_tokens:
            number = lengths.index(longest)
            raise PromptTooLongError(
                f"prompt {number} ({self.prompts.prompts[number].text[:60]!r}) has {longest} "
                f"tokens, max_prompt_tokens is {max_prompt_tokens}: shorten it or allow more"
            )
        return max_prompt_tokens

    def _make_mask_table(self, forbidden: Sequence[int]) -> NDArray[np.bool_]:
        """Allowed tokens, shape (2, V): row 0 while the answer may not stop yet, row 1 after."""
        allowed = ~_marks(forbidden, self.pad_token, "forbidden_tokens")
        early = allowed & ~self._is_stop if self.min_new_tokens > 0 else allowed
        if not early.any():
            raise ValueError("forbidden_tokens and min_new_tokens leave no token to choose")
        return np.stack([early, allowed])


def _check_numbers(num_envs: int, max_new_tokens: int, min_new: int, group_size: int) -> None:
    if num_envs < 1 or max_new_tokens < 1:
        raise ValueError(
            f"num_envs is {num_envs} and max_new_tokens {max_new_tokens}; both must be 1 or more"
        )
    if not 0 <= min_new <= max_new_tokens:
        raise ValueError(f"min_new_tokens is {min_new}; it must be within 0..{max_new_tokens}")
    if group_size < 1 or num_envs % group_size:
        raise ValueError(f"group_size {group_size} does not divide num_envs {num_envs}")


def _marks(tokens: Sequence[int], vocab_size: int, name: str) -> NDArray[np.bool_]:
    """Boolean table over the vocabulary, True at `tokens`."""
    marks = np.zeros(vocab_size, dtype=bool)
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise ValueError(f"{name} holds {token}; tokens are 0 to {vocab_size - 1}")
        marks[token] = True
    return marks


def _marks_rows(rows: NDArray[np.intp], num_envs: int) -> NDArray[np.bool_]:
    marks = np.zeros(num_envs, dtype=bool)
    marks[rows] = True
    return marks
