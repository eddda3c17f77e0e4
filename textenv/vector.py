"""Token generation as a vectorised Gymnasium environment."""

import copy
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from textenv.arguments import (
    check_answers,
    check_episode_steps,
    check_numbers,
    check_turn_limits,
    check_waiting,
    check_words,
    world_of_tools,
)
from textenv.components import RewardComponents
from textenv.conversations import ERROR, Conversations
from textenv.encoding import PromptEncoder, check_answer
from textenv.episode import GRAMMAR_UNFINISHED, LENGTH, STOP, Episode
from textenv.errors import (
    ActionError,
    CheckpointError,
    EpisodeOverError,
    GrammarError,
    ReplayError,
    ResetOptionsError,
    UnmetNeedError,
    VocabularyMismatchError,
    WorldError,
)
from textenv.frames import FrameArgument, load_frame
from textenv.grammars import AnswerGrammar, GrammarRows, load_grammar
from textenv.grammars.refusals import check_grammar
from textenv.grammars.sentences import Sentence
from textenv.infos import joined, masked_info, object_array, row_marks
from textenv.masks import ends_of_answers, forbidden_marks, mask_table, token_marks
from textenv.prompts import NoPrompts, Prompt, PromptSource, Record, load_prompts
from textenv.replays import check_turns, resume
from textenv.resets import rows_to_reset, starts_from_options
from textenv.rewards import StepBatch, terms_of_all
from textenv.seeding import GivenStarts, PromptStreams
from textenv.spec import SharedRewardSpec
from textenv.starts import OpeningText, Start
from textenv.stop_strings import StopStrings
from textenv.texts import EVERY_ROW, GrowingTexts
from textenv.tokenizers import (
    Tokenizer,
    decode_answer,
    decode_prompt,
    load_tokenizer,
    unused_tokens_of,
)
from textenv.tokenizers.texts import certain
from textenv.tools.world import Tool
from textenv.worlds import (
    BatchedWorld,
    Reply,
    TurnRules,
    WorldArgument,
    load_world,
    reward_of,
)

T = TypeVar("T")


class TextVectorEnv(VectorEnv[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]):
    """`num_envs` texts; each grows by one token at every step.

    ## Description
    An episode starts with a prompt. Every action appends one token. The episode ends with a stop
    token, or when `max_new_tokens` have been chosen. The reward then scores it.

    ## Action space
    `Discrete(V)`: the id of the next token. V is the size of the vocabulary.

    ## Observation space
    `Box(0, V, (max_prompt_tokens + max_new_tokens,), int64)`: the ids of the prompt and of the
    answer so far, right-padded with `PAD = V`, which is not an action.

    ## Rewards
    What `reward` returns for the finished episode, at its last step; 0 before. Dense rewards
    (`textenv.rewards.dense`) are added at every step.

    ## Starting state
    A prompt drawn from `prompts`. `reset(options=...)` starts from anything else:
    `{"prompt": text or record}` or `{"tokens": ids}`, one for all rows or a list with one for each.
    With `"prompt_length": n` the ids after the first n count as the beginning of the answer, so an
    observation can be continued. `"columns"` gives the reward its record. `{"start": start}` plays
    on from a `textenv.Start`, which `start_of(row)` gives: the middle of an answer, or any place in
    a conversation, whose world is told the same turns again. `"reset_mask"` (bool, shape
    (num_envs,)) limits the reset to some rows; lists then have one entry for each of those.

    ## Episode end
    The stop token and the spent budget both set `terminated`, since the score has been paid.
    `info["finish_reason"]` is `"stop"` or `"length"`, or with a grammar `"grammar_unfinished"`: the
    answer is no whole text of it. A token that the grammar cannot take ends it at once. A
    conversation ends with `"world"` (it said
    so), `"turns"`, `"length"` or `"error"` (the world failed). With `budget="truncate"` a spent
    budget sets `truncated` instead, for learners that bootstrap there.

    ## Info
    At a start: `prompt`, the text; `record`, the columns of what was drawn and as `prompt` its text
    or messages; and `episode_seed`, an integer for random numbers that belong to this episode
    wherever it is played. At an end: `finish_reason`, `text` (the answer), `reward_components`
    (each component's unweighted value, summed over the episode) and, if `group_size > 1`, `group`.
    The group is equal for episodes that share one drawn prompt, and -1 for an episode started from
    options. Where a turn of a conversation ended: `turn` (its number), `reply` and `reply_tokens`,
    the ids that were appended; at the end of one: `turns`, `world_info` (the info of the last
    reply, if it has one), and `world_error` if its world failed. A row whose action will be ignored
    is told in `waiting`; `begin_error` says why its world could not begin, which is tried again at
    every step. With rewards that may abstain (those of TRL), `scored` is False for an episode to
    which none applies: its reward is 0 and means nothing. If some tokens may not be chosen,
    `action_mask` comes for every row after every reset and step. Ids that stand for no token are
    masked too, but do not make it come. Infos have the layout of Gymnasium's `SyncVectorEnv`, with
    `final_obs` and `final_info`.

    ## Version history
    - v0: the first version.

    Args:
        num_envs: Number of rows.
        prompts: A list of texts or records (`{"prompt": ..., "answer": ...}`), a `.txt` or `.jsonl`
            file, a callable that takes a `numpy.random.Generator` and returns a text or a record,
            or a `PromptSource`. Of one that is told what was scored, such as
            `textenv.curriculum.Curriculum`, the environment has a copy, `envs.prompts`: its state
            is saved with the environment's, and a seed for every row takes it back to its
            beginning.
        reward: A callable on finished episodes, `Sequence[Episode] -> Sequence[float]`, something
            made by `textenv.rewards`, or a string such as `"package.module:function"`.
        world: What replies when a turn ends, which makes the episode a conversation: a class
            derived from `textenv.World`, a `BatchedWorld`, or a string that names either. `prompts`
            and `reward` are optional then; docs/conversations.md describes it.
        tools: Python functions that the model may call in its text, or strings such as
            `"package.module:function"`: a world that carries out the calls. `textenv.tools.Tools`
            makes one with other settings, for `world`.
        frame: How prompts, turns and replies are wrapped: `"chat"` for the tokenizer's own chat
            template, a `textenv.frames.ChatTemplate` with texts of one's own, or None for nothing.
        tokenizer: Name of a tokenizer, or a tokenizer; see `textenv.tokenizers.load_tokenizer`.
        max_new_tokens: Token budget of an answer; of a conversation that of all that stands behind
            its opening, replies included.
        max_prompt_tokens: Room for the prompt; the length of the longest prompt of a list if None.
            Longer prompts are refused; `textenv.long_prompts` cuts or drops them.
        min_new_tokens: Stop tokens are masked until the answer has this many tokens. Masks are
            advice to the policy: the environment carries out a masked action too.
        stop_tokens: Ids that end an answer; None takes the tokenizer's own and the end of a frame's
            turns, and warns if there is none.
        stop_strings: Texts that end an answer, wherever tokens begin and end. The string and what
            stands behind it stay in the ids and are not part of the text.
        forbidden_tokens: Ids that are always masked.
        allowed_tokens: Ids beside which all are masked, except the stop tokens; None allows all.
        grammar: Which texts an answer may be: a `textenv.grammars.Regex`, `JsonSchema` or `Lark`,
            an `OfRecord` for a grammar of each prompt's own, or a string such as `"regex:[0-9]+"`;
            None for any text. What it rules out is masked, and docs/grammars.md describes it.
        budget: Which flag a spent budget sets.
        max_turns: Turns of a conversation; None sets no limit but `max_new_tokens`.
        max_turn_tokens: Token budget of one turn of a conversation; None sets none.
        reply_timeout: Seconds that an `async` reply of a world may take; None waits.
        world_wait: `"all"` lets a step wait for all replies. With `"async"` a row whose `async`
            reply has not come says so in `infos["waiting"]`; its action is ignored and its text
            does not change. What other rows meanwhile do depends on how long replies take, so that
            mode is not reproducible.
        group_size: How many answers each drawn prompt gets, for algorithms that compare answers to
            one prompt. This many neighbouring rows form a group; the prompt goes to whichever of
            them start next. It must divide `num_envs`.
        autoreset_mode: When a row whose episode is over is restarted: in the same step, at the next
            step, or never.
        render_mode: None or `"ansi"`.
        max_episode_steps: None. Every step is a token, so `max_new_tokens` says where an answer
            ends; `gymnasium.make` would cut it before the reward is paid.

    Raises:
        PromptError: There is no prompt, or one is too long (which one, and its length).
        TokenizerError: The tokenizer cannot be loaded.
        ToolError: A function cannot be used as a tool, or there is a world beside the tools.
        GrammarError: The grammar cannot be used with this vocabulary, budget or other arguments.
        ObjectNotFoundError: A reward or prompt source given as a string cannot be imported.
        ValueError: A number is out of its range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (declared so by VectorEnv)
        "render_modes": ["ansi"],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    moves = 0
    """How often it was stepped, reset or restored: a learner sees whether it is alone with it."""
    spec: Any = SharedRewardSpec()

    def __init__(
        self,
        num_envs: int = 1,
        *,
        prompts: PromptSource | Any = None,
        reward: Any = None,
        world: WorldArgument | None = None,
        tools: Sequence[Tool | str] | None = None,
        frame: FrameArgument = None,
        tokenizer: Tokenizer | str | Any = "bytes",
        max_new_tokens: int = 64,
        max_prompt_tokens: int | None = None,
        min_new_tokens: int = 0,
        stop_tokens: Sequence[int] | None = None,
        stop_strings: Sequence[str] = (),
        forbidden_tokens: Sequence[int] = (),
        allowed_tokens: Sequence[int] | None = None,
        grammar: Any = None,
        budget: Literal["terminate", "truncate"] = "terminate",
        max_turns: int | None = None,
        max_turn_tokens: int | None = None,
        reply_timeout: float | None = None,
        world_wait: Literal["all", "async"] = "all",
        group_size: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        max_episode_steps: None = None,
    ):
        check_numbers(num_envs, max_new_tokens, min_new_tokens, group_size)
        check_turn_limits(max_turns, max_turn_tokens, reply_timeout)
        check_words(budget=budget, render_mode=render_mode, world_wait=world_wait)
        check_episode_steps(max_episode_steps)
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
        if tools is not None:
            world = world_of_tools(tools, world)
        if world is None:
            check_answers(prompts, reward, max_turns, max_turn_tokens)
        self.world, self.world_wait = world, world_wait
        replies = None if world is None else load_world(world)
        wrapping = load_frame(frame, self.tokenizer, getattr(replies, "tools", ()), stop_tokens)
        self.prompts = NoPrompts() if prompts is None else load_prompts(prompts)
        if hasattr(self.prompts, "scored"):  # its state is this environment's
            self.prompts = copy.deepcopy(self.prompts)
        self._encoder = PromptEncoder(self.tokenizer, self.prompts, max_prompt_tokens, wrapping)
        self.max_prompt_tokens = self._encoder.room

        length = self.max_prompt_tokens + max_new_tokens
        self.single_action_space = spaces.Discrete(vocab_size)
        self.single_observation_space = spaces.Box(0, vocab_size, (length,), np.int64)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

        self.stop_strings = StopStrings(stop_strings, self.tokenizer)
        self.stop_tokens = ends_of_answers(
            self.tokenizer,
            stop_tokens,
            None if wrapping is None else wrapping.end_of_turn,
            self.stop_strings,
        )
        self._is_stop = token_marks(self.stop_tokens, vocab_size, "stop_tokens")
        self._is_stop.flags.writeable = False  # dense rewards are handed it
        if wrapping is not None:
            forbidden_tokens = [*forbidden_tokens, *wrapping.role_tokens]
        is_forbidden = forbidden_marks(
            vocab_size, forbidden_tokens, allowed_tokens, self.stop_tokens
        )
        self._mask_table = mask_table(self._is_stop, is_forbidden, min_new_tokens)
        self._grammar: AnswerGrammar | None = None
        if grammar is not None:
            check_grammar(min_new_tokens, stop_strings, world)
            self._grammar = AnswerGrammar(
                load_grammar(grammar),
                self.tokenizer,
                self.stop_tokens,
                is_forbidden.nonzero()[0].tolist(),
                max_new_tokens,
            )
        self._masked = grammar is not None or not self._mask_table.all()
        # These come with no info by themselves: a mask of V entries a row is dear, and a policy
        # knows from its tokenizer that they are no tokens.
        self._mask_table[:, list(unused_tokens_of(self.tokenizer))] = False
        self._shared_mask = np.broadcast_to(self._mask_table[1], (num_envs, vocab_size))

        own = None if replies is None else reward_of(replies)
        self._terms = terms_of_all(given for given in (reward, own) if given is not None)
        check_waiting(world_wait, self._terms)
        self._talk = partial(
            Conversations,
            tokenizer=self.tokenizer,
            frame=wrapping,
            budget=max_new_tokens,
            cuts=budget == "truncate",
            max_turns=max_turns,
            max_turn_tokens=max_turn_tokens,
            waits=world_wait == "all",
            reply_timeout=reply_timeout,
        )
        self._rules = TurnRules(
            tokenizer=self.tokenizer,
            is_stop=self._is_stop,
            stop_strings=self.stop_strings,
            allowed=self._mask_table,
            min_tokens=min_new_tokens,
            max_tokens=max_turn_tokens,
            budget=max_new_tokens,
            rows=num_envs,
            length=length,
            frame=wrapping,
        )
        if replies is not None:
            replies.join(self._rules)
        # Numbers of rows that environments of one world have, first to end; shared by all of them.
        self._row_ends = {0: num_envs}
        self._first_row = 0  # of a share, its first row among all
        self._make_rows(PromptStreams(self.prompts, num_envs, group_size), replies)

    def _make_rows(
        self, streams: PromptStreams, world: BatchedWorld | None, first_row: int = 0
    ) -> None:
        """The whole state: arrays with one entry for each row."""
        self._streams = streams
        self._texts = GrowingTexts(
            self.num_envs, self.max_prompt_tokens, self.max_new_tokens, self.pad_token
        )
        self._over = np.ones(self.num_envs, dtype=bool)
        made = self._grammar
        self._grammars = None if made is None else GrammarRows(made, self.num_envs)
        # Rows whose world could not begin: the start that is tried again, and what went wrong.
        self._held_up: dict[int, tuple[Start, str]] = {}
        self._components = RewardComponents(self._terms, self.num_envs)
        self._conversations = None
        if world is not None:
            self._conversations = self._talk(world, self._texts, first_row=first_row)

    # ---------------------------------------------------------------- the Gymnasium interface

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Start new episodes in every row, or in those of `options["reset_mask"]`.

        Args:
            seed: Row i draws its prompts from the stream of `seed + i`, or of `seed[i]`. Processes
                that share the work therefore need seeds `num_envs` apart, as those of `share` are.
                With None the stream continues. A group has the seed of its first row.
            options: See "Starting state" above.

        Returns:
            Observations, shape (num_envs, L), int64, and infos.

        Raises:
            ResetOptionsError: The options do not describe a start.
            PromptError: A prompt is too long (which row, and its length) or has no token.
        """
        options = dict(options or {})
        rows = rows_to_reset(options.pop("reset_mask", None), self.num_envs)
        given = starts_from_options(options, len(rows), self.pad_token)
        # Rows in the middle of an episode leave their group for good, before others draw from it.
        leave = ~self._over
        leave[list(self._held_up)] = True
        self._streams.leave(rows[leave[rows]])
        self._held_up = {row: it for row, it in self._held_up.items() if row not in rows}
        self._seed(rows, seed)
        if given is None:
            rows, starts = self._draw(rows)
        else:
            starts = given
            self._streams.place(rows, starts)
        self._begin(rows, starts)
        self.moves += 1
        return self._texts.tokens.copy(), self._start_info(rows, starts) | self._mask_info()

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
            EpisodeOverError: A row's episode is over and the mode does not restart it, or the row
                was never reset.
            RewardError: The reward raised, or did not return one finite number for each finished
                episode. The rows that ended must then be reset.
        """
        actions = self._checked(actions)
        stopped = self._is_stop[actions]
        # A slice selects all rows without a copy: the usual step has no row to leave out.
        moving: NDArray[np.intp] | slice = EVERY_ROW
        infos: dict[str, Any] = {}
        talk, over = self._conversations, np.count_nonzero(self._over)
        some_wait = talk is not None and talk.some_wait
        if over or some_wait:
            idle = self._over if talk is None else self._over | talk.waiting
            moving = (~idle).nonzero()[0]
            stopped &= ~idle  # a row that only restarts or waits ignores its action
            if over:
                infos = self._restart_waiting_rows()
        self._texts.append(moving, actions[moving])
        ended = stopped | self._texts.spent()
        lost: list[int] = []  # rows whose answer can be no text of the grammar any more
        if self._grammars is not None:
            written = np.arange(self.num_envs)[moving], actions[moving], stopped[moving]
            lost = self._grammars.write(*(values.tolist() for values in written))
            ended[lost] = True
        # Of rows that a stop string has ended, the text before it.
        until: dict[int, str] = {}
        if self.stop_strings.strings:
            until = self._until_strings(moving, actions, stopped)
            ended[list(until)] = True
        if over and (self._streams.dealt or self._held_up):
            ended &= ~self._over  # rows for which no start is left, or whose world cannot begin
        some_ended = np.count_nonzero(ended)
        if talk is not None and (some_ended or some_wait):
            return self._take_turns(moving, actions, stopped, ended & ~talk.waiting, until, infos)
        if some_ended:  # before the reward, which may raise: no row may then grow past its budget
            self._over |= ended
        rewards = np.zeros(self.num_envs)
        if self._components.dense:
            batch = self._step_batch(moving, actions, ended, until)
            rewards[moving] = self._components.pay_step(moving, batch)
        if some_ended:
            rows = ended.nonzero()[0]
            stopped[list(until)] = True
            reasons = [STOP if stop else LENGTH for stop in stopped[rows].tolist()]
            if self._grammars is not None:
                reasons = self._grammar_reasons(rows, reasons, lost, until)
                stopped[lost] = True
            infos = joined(infos, self._finish(rows, ended, reasons, rewards, until))
        if over or some_ended:
            infos |= self._waiting_info()
        if self._masked:
            infos |= self._mask_info()
        self.moves += 1
        # A copy: what was returned belongs to the caller and must not change with the next step.
        observations = self._texts.tokens.copy()
        if self.budget == "truncate":
            return observations, rewards, stopped, ended & ~stopped, infos
        return observations, rewards, ended, np.zeros(self.num_envs, dtype=bool), infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Which tokens may be chosen next, shape (num_envs, V), bool; read-only."""
        if self._grammars is not None:
            return self._grammars.masks()
        # Two rows of a table serve all texts: too short to stop, or not. Where all have the same
        # one it is not copied: with 150,000 tokens that takes longer than the rest of the step.
        if self.min_new_tokens == 0:
            return self._shared_mask
        talk = self._conversations
        lengths = self._texts.answer_lengths if talk is None else talk.lengths
        may_stop = lengths >= self.min_new_tokens
        if may_stop.all():
            return self._shared_mask
        masks = self._mask_table[may_stop.astype(np.intp)]
        masks.flags.writeable = False
        return masks

    @property
    def answer_rules(self) -> dict[str, Any]:
        """What an answer, or a turn, keeps to here: budget, stop tokens and masks.

        They are arguments of `generate`: `policy.generate(prompts, **envs.answer_rules)` chooses
        from the same tokens as the environment's own masks allow.
        """
        budget, talk = self.max_new_tokens, self._conversations
        if talk is not None and talk.max_turn_tokens is not None:
            budget = min(budget, talk.max_turn_tokens)
        return {
            "max_new_tokens": budget,
            "stop_tokens": self.stop_tokens,
            "stop_strings": self.stop_strings.strings,
            "min_new_tokens": self.min_new_tokens,
            "action_masks": self._mask_table[1].copy(),
            **({} if self._grammar is None else {"grammar": self._grammar.grammar}),
        }

    @property
    def steps_to_an_end(self) -> int:
        """How many steps it takes at least until some row's episode ends; 1: the next may do."""
        if self._conversations is not None or self._grammar is not None:
            return 1
        may_stop = bool(self._is_stop.any()) or bool(self.stop_strings)
        fewest = self.min_new_tokens if may_stop else self.max_new_tokens
        return max(1, fewest - int(self._texts.answer_lengths.max()))

    @property
    def pays_every_step(self) -> bool:
        """Whether a part of the reward is dense, so that more than the last step may be paid."""
        return self._components.dense

    @property
    def encodes_replies(self) -> bool:
        """Whether what was appended so far is the encoding of replies' texts, and nothing else."""
        talk = self._conversations
        return talk is not None and self._rules.frame is None and not talk.gave_ids

    def render(self) -> tuple[str, ...] | None:
        """The texts so far, prompt dimmed, one string a row; None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(self.row_text(row) for row in range(self.num_envs))

    def row_text(self, row: int) -> str:
        """Prompt (dimmed by an ANSI code) and answer of one row, without a stop token."""
        ids = self._texts.answer(row).tolist()
        if ids and self._is_stop[ids[-1]]:
            del ids[-1]
        prompt = self._texts.prompts[row].text
        prompt_tokens = self._texts.prompt_tokens(row).tolist()
        answer = decode_answer(self.tokenizer, prompt_tokens, ids, prompt)
        return f"\x1b[2m{prompt}\x1b[0m{answer}"

    def start_of(self, row: int, save_world: bool = True) -> Start:
        """The text of one row as a start, to play on from here or anywhere else.

        What follows has new random numbers; `dataclasses.replace(start, episode_seed=...)` with
        the `episode_seed` of the infos gives it those of this episode.

        Args:
            row: Row number.
            save_world: Whether the state of a conversation's world comes along where it can be
                saved. Otherwise the start is played on from by telling a new world the same turns.

        Raises:
            EpisodeOverError: The row's episode is over, or none was begun, or its turn is over and
                the reply has not come.
        """
        talk = self._conversations
        if self._over[row] or (talk is not None and talk.waiting[row]):
            raise EpisodeOverError(
                f"row {row} has no running turn to play on from: reset it, or step until the "
                "world's reply has come"
            )
        return self._start_of(row, save_world)

    def _start_of(self, row: int, save_world: bool) -> Start:
        prompt, answer = self._texts.prompts[row], self._texts.answer(row)
        start = Start(
            prompt,
            answer=answer if len(answer) else None,
            opening=OpeningText(prompt.text, self._texts.prompt_tokens(row)),
            draw_seed=int(self._streams.draw_seeds[row]),
        )
        talk = self._conversations
        return start if talk is None else talk.start_of(row, start, save_world)

    def playing(self, starts: Sequence[Start]) -> "TextVectorEnv":
        """Another environment with the same arguments, whose episodes play on from given starts.

        Each start is played once, in order; a row that is over takes the next one in the same step.
        At an end `info["group"]` is the number of its start, and `episode_seed`, which each must
        have, seeds what follows.
        When none is left, the row waits: `infos["waiting"]` says so, its action is ignored, and its
        observation stays. Tokenizer, reward and a `BatchedWorld` are shared, nothing else.

        Args:
            starts: At least one. There are as many rows as starts, at most `num_envs`.

        Raises:
            ResetOptionsError: There is no start.
        """
        if not starts:
            raise ResetOptionsError("there is no start to play on from")
        count = min(self.num_envs, len(starts))
        other = self._with_rows(GivenStarts(starts, count), count)
        other.group_size = 1
        other.autoreset_mode = AutoresetMode.SAME_STEP
        other.metadata = {**self.metadata, "autoreset_mode": other.autoreset_mode}
        return other

    def share(self, index: int, of: int) -> "TextVectorEnv":
        """Another environment with the same arguments, for one of `of` equal parts of the rows.

        Processes that share the work each play one. `reset(seed=s)` gives row r of part k the seed
        s + k * rows + r, where `rows` is `num_envs` of a part: prompts, groups and `episode_seed`
        are those which the whole environment has in that row. Tokenizer, reward and a
        `BatchedWorld` are shared as in `playing`.

        Args:
            index: Number of the part, from 0.
            of: Number of parts.

        Raises:
            UnmetNeedError: The rows cannot be divided so, or what is drawn depends on the scores of
                all rows.
        """
        rows, remainder = divmod(self.num_envs, of)
        if remainder or rows % self.group_size:
            raise UnmetNeedError(
                f"{self.num_envs} rows in groups of {self.group_size} cannot be divided among {of} "
                f"processes: take a multiple of {of * self.group_size} rows"
            )
        if self._streams.adaptive:
            raise UnmetNeedError(
                f"{type(self.prompts).__name__} is told what was scored, and in {of} processes "
                "each would know of its own rows alone: train in one process, or draw prompts from "
                "a source without `scored`"
            )
        groups, mine = self._streams, rows // self.group_size
        streams = PromptStreams(
            self.prompts, rows, self.group_size, groups.before + index * mine, groups.of
        )
        other = self._with_rows(streams, rows)
        other._first_row = self._first_row + index * rows
        return other

    def _with_rows(self, streams: PromptStreams, count: int) -> "TextVectorEnv":
        """Another environment with the same arguments, of `count` rows that begin by `streams`."""
        other = copy.copy(self)
        other.num_envs = count
        other._shared_mask = self._shared_mask[:count]
        other.action_space = batch_space(self.single_action_space, count)
        other.observation_space = batch_space(self.single_observation_space, count)
        world, first_row = None, 0
        if self._conversations is not None:
            world = self._conversations.world.another()
            if world is self._conversations.world:  # it tells the rows of both apart
                first_row = max(self._row_ends.values())
                self._row_ends[first_row] = first_row + other.num_envs
                weakref.finalize(other, self._row_ends.pop, first_row, None).atexit = False
            else:
                world.join(replace(self._rules, rows=other.num_envs))
                other._row_ends = {0: other.num_envs}
        other._make_rows(streams, world, first_row)
        return other

    def state_dict(self) -> dict[str, Any]:
        """The state of all rows as numpy arrays and plain types; `load_state_dict` restores it.

        The prompts' columns must hold nothing but what JSON can hold.
        """
        return {
            "vocabulary": self.tokenizer.fingerprint,
            "streams": self._streams.state_dict(),
            "texts": self._texts.state_dict(),
            "over": self._over.copy(),
            "held_up": {str(row): start.to_json() for row, (start, _) in self._held_up.items()},
            "component_sums": self._components.sums.copy(),
            "conversations": self._conversations and self._conversations.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> NDArray[np.int64]:
        """Continue from a state saved by `state_dict`; returns the observations at that point.

        Raises:
            VocabularyMismatchError: The state was saved with another tokenizer.
            CheckpointError: The state has another number of rows or reward components, or another
                length of text.
        """
        if state["vocabulary"] != self.tokenizer.fingerprint:
            raise VocabularyMismatchError(
                f"the state was saved with another tokenizer than {self.tokenizer.name!r}: make "
                "the environment with that one"
            )
        for saved, own, arguments in (
            (state["texts"]["tokens"], self._texts.tokens, "max_prompt_tokens and max_new_tokens"),
            (state["component_sums"], self._components.sums, "reward"),
        ):
            if np.shape(saved) != own.shape:
                raise CheckpointError(
                    f"the state holds an array of shape {np.shape(saved)} where this environment "
                    f"has one of {own.shape}: use the same num_envs, {arguments}"
                )
        self._streams.load_state_dict(state["streams"])
        self._texts.load_state_dict(state["texts"])
        self._over[...] = state["over"]
        held_up = state.get("held_up", {})
        self._held_up = {int(row): (Start.from_json(it), "") for row, it in held_up.items()}
        talk = self._conversations
        if talk is not None:
            talk.load_state_dict(state["conversations"])
            lost = [row for row in talk.unsaved(state["conversations"]) if not self._over[row]]
            if lost:
                self._replay(talk, lost)
        if self._grammars is not None:  # told the same ids again, each has the same masks
            for row in range(self.num_envs):
                if self._over[row]:
                    self._grammars.end(row)
                else:
                    prompt, ids = self._texts.prompts[row], self._texts.answer(row).tolist()
                    self._grammars.begin(row, self._grammars.begun(prompt.columns, ids))
        self._components.sums[...] = state["component_sums"]
        self.moves += 1
        return self._texts.tokens.copy()

    # ---------------------------------------------------------------- transitions

    def _replay(self, talk: Conversations, rows: Sequence[int]) -> None:
        """Tell the worlds of `rows`, which were not saved, what they were told before."""
        asked = talk.pending(rows)
        starts = []
        for row in rows:
            start = self._start_of(row, False)
            if row in asked:  # a turn without a reply yet is told below
                answer = None if start.border == 0 else self._texts.answer(row)[: start.border]
                start = replace(start, answer=answer)
            starts.append(start)
        self._begin(np.array(rows), starts)
        for row, one in asked.items():
            self._texts.extend(row, one.turn.tokens.tolist())
            seeds = self._streams.episode_seeds[[row]]
            talk.ask(np.array([row]), [one.turn], [one.stopped], seeds)

    def _restart_waiting_rows(self) -> dict[str, Any]:
        """Restart the rows that are over, if the mode says so; returns the infos of the starts."""
        if self._streams.dealt and not self._held_up:
            return {}
        held_up = list(self._held_up)
        starts = [self._held_up[row][0] for row in held_up]
        waiting = np.setdiff1d(self._over.nonzero()[0], held_up)
        if len(waiting) and not self._streams.dealt:
            was_reset = self._texts.lengths[waiting].all()
            if self.autoreset_mode is not AutoresetMode.NEXT_STEP or not was_reset:
                raise EpisodeOverError(
                    f"rows {waiting.tolist()} have no running episode: call reset() first, or "
                    "reset(options={'reset_mask': mask}) for those rows alone"
                )
            waiting, drawn = self._draw(waiting)
            held_up, starts = [*held_up, *waiting.tolist()], [*starts, *drawn]
        infos = self._begin_or_hold(np.array(held_up, dtype=np.intp), starts)
        if self._held_up and self._over.all():  # nothing can move, so nothing is lost
            raise WorldError(next(iter(self._held_up.values()))[1])
        return infos

    def _take_turns(
        self,
        moving: NDArray[np.intp] | slice,
        actions: NDArray[np.int64],
        stopped: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        until: Mapping[int, str],
        infos: dict[str, Any],
    ) -> tuple[
        NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """The rest of `step` in a conversation: ended turns get their replies.

        Args:
            moving: Rows whose text has grown.
            actions: All rows' tokens, shape (num_envs,).
            stopped: Rows in which a stop token was chosen, shape (num_envs,), bool.
            ended: Those, and rows whose budget is spent, shape (num_envs,), bool.
            until: Of rows that a stop string has ended, the text before it.
            infos: What is to be told so far.
        """
        assert self._conversations is not None
        talk, rewards = self._conversations, np.zeros(self.num_envs)
        # A dense reward sees the text before anything is appended to it.
        batch = None
        if self._components.dense:
            batch = self._step_batch(moving, actions, ended, until)
        over, truncated, told = np.zeros((3, self.num_envs), dtype=bool)
        rows = ended.nonzero()[0]
        stops = stopped[rows].tolist()
        turns = [
            talk.turn(row, stop, until.get(row))
            for row, stop in zip(rows.tolist(), stops, strict=True)
        ]
        try:
            if len(rows):
                talk.ask(rows, turns, stops, self._streams.episode_seeds[rows])
            come = talk.come(self._over)
        except BaseException:  # interrupted: a turn has ended that no reply will follow
            self._over |= ended | talk.waiting
            talk.forget(np.arange(self.num_envs))
            raise
        reasons: dict[int, str] = {}
        replies: dict[int, Reply] = {}
        for row, (asked, outcome) in come.items():
            if isinstance(outcome, Reply):
                rewards[row] = outcome.reward
                replies[row] = outcome
            end = talk.end_or_go_on(row, outcome, asked.stopped)
            if end is None:
                told[row] = True
            else:
                reasons[row], truncated[row] = end
                over[row] = True
        if told.any():
            infos = joined(infos, masked_info(talk.info(told.nonzero()[0], replies), told))
        self._over |= over
        if batch is not None:
            batch = replace(batch, ended=over[moving])
            rewards[moving] += self._components.pay_step(moving, batch)
        if reasons:
            ends = np.array(list(reasons))
            infos = joined(infos, self._finish(ends, over, list(reasons.values()), rewards))
        infos |= self._waiting_info()
        infos |= self._mask_info()
        self.moves += 1
        return self._texts.tokens.copy(), rewards, over & ~truncated, truncated, infos

    def _until_strings(
        self,
        moving: NDArray[np.intp] | slice,
        actions: NDArray[np.int64],
        stopped: NDArray[np.bool_],
    ) -> dict[int, str]:
        """The answers' texts before a stop string that this step has completed, by row."""
        may = self.stop_strings.may_complete[actions] & ~stopped
        rows = np.arange(self.num_envs)[moving]
        found = {}
        for row in rows[may[rows]].tolist():
            text = self._until_string(row)
            if text is not None:
                found[row] = text
        return found

    def _until_string(self, row: int) -> str | None:
        """The answer's text before a stop string that its last token completes, if it does."""
        begin, end = self._answer_begins(row), self._texts.lengths[row]
        if end - begin < self.min_new_tokens:
            return None
        ids = self._texts.tokens[row, :end].tolist()
        return self.stop_strings.completed(ids[:begin], ids[begin:])

    def _ended_by(self, row: int) -> tuple[bool, str | None]:
        """Whether the last token of a turn is a stop token, and else the text before a string."""
        stopped = bool(self._is_stop[self._texts.tokens[row, self._texts.lengths[row] - 1]])
        return stopped, self._until_string(row) if self.stop_strings and not stopped else None

    def _answer_begins(self, row: int) -> int:
        """Place of the first token of the answer, or of a conversation's present turn."""
        said = 0 if self._conversations is None else self._conversations.starts[row]
        return int(self._texts.prompt_lengths[row] + said)

    def _finish(
        self,
        rows: NDArray[np.intp],
        ended: NDArray[np.bool_],
        reasons: Sequence[str],
        rewards: NDArray[np.float64],
        until: Mapping[int, str] = MappingProxyType({}),
    ) -> dict[str, Any]:
        """Score the rows that ended, into `rewards`, and restart them in SAME_STEP mode."""
        episodes = [
            self._episode(row, reason, until.get(row))
            for row, reason in zip(rows.tolist(), reasons, strict=True)
        ]
        rewards[rows] += self._components.pay_episodes(rows, episodes)
        if self._streams.adaptive:
            self._tell_source(rows, episodes)
        infos = self._end_info(rows, ended, episodes)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            return infos
        # From here on a row holds its next episode, so the end is copied first: its mask, its text.
        if self._masked:
            masks = np.zeros((self.num_envs, self.pad_token), dtype=bool)
            if self._grammars is None:
                masks[rows] = self.action_masks()[rows]
            else:
                masks[rows] = self._grammars.masks(rows)
            infos |= masked_info({"action_mask": masks}, ended)
        observations = object_array(
            self.num_envs, rows, [self._texts.tokens[r].copy() for r in rows]
        )
        infos = masked_info({"final_obs": observations, "final_info": infos}, ended)
        return infos | self._begin_or_hold(*self._draw(rows))

    def _grammar_reasons(
        self,
        rows: NDArray[np.intp],
        reasons: Sequence[str],
        lost: Sequence[int],
        until: dict[int, str],
    ) -> list[str]:
        """By what the answers of `rows` have ended, under their grammars.

        Args:
            rows: Row numbers.
            reasons: By what without a grammar.
            lost: Rows whose answer can be no text of the grammar any more.
            until: Filled with the text of answers that a stop token has ended where it could not.
        """
        assert self._grammars is not None
        told = []
        for row, reason in zip(rows.tolist(), reasons, strict=True):
            unfinished = row in lost or not self._grammars.finished(row)
            if unfinished and reason == STOP:
                prompt, ids = self._texts.prompt_tokens(row), self._texts.answer(row)[:-1]
                text = self._texts.prompts[row].text
                until[row] = decode_answer(self.tokenizer, prompt.tolist(), ids.tolist(), text)
            told.append(GRAMMAR_UNFINISHED if unfinished else reason)
            self._grammars.end(row)
        return told

    def _tell_source(self, rows: NDArray[np.intp], episodes: Sequence[Episode]) -> None:
        """Tell the source of the prompts what the episodes that ended in `rows` were paid."""
        counts = np.array([episode.finish_reason != ERROR for episode in episodes])
        if self._components.may_abstain:
            counts &= self._components.scored()[rows]
        paid = self._components.paid()[rows]
        if self._conversations is not None:
            paid += self._conversations.rewards[rows]
        self._streams.scored(rows[counts], _at(self._texts.prompts, rows[counts]), paid[counts])

    def _draw(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Sequence[Start]]:
        """The next starts, and the rows that they are for: all, or the first if few are left."""
        drawn = self._streams.draw(rows)
        starts = [one if isinstance(one, Start) else Start(one) for one in drawn]
        return rows[: len(starts)], starts

    def _begin(self, rows: NDArray[np.intp], starts: Sequence[Start]) -> None:
        """Fill `rows` with their first tokens.

        Raises:
            WorldError: The world could not begin.
        """
        opened = self._opened(rows, starts)
        for one in opened:
            if isinstance(one, WorldError):
                raise one
        self._fill(rows, starts, cast(Sequence[Start], opened))

    def _begin_or_hold(self, rows: NDArray[np.intp], starts: Sequence[Start]) -> dict[str, Any]:
        """Fill those of `rows` whose world can begin; the others are held up until the next step.

        Returns:
            The infos of the starts.
        """
        opened = self._opened(rows, starts)
        good = [place for place, one in enumerate(opened) if isinstance(one, Start)]
        for row, start, one in zip(rows.tolist(), starts, opened, strict=True):
            self._held_up.pop(row, None)
            if isinstance(one, WorldError):
                self._held_up[row] = start, str(one)
        rows, starts = rows[good], [starts[place] for place in good]
        self._fill(rows, starts, [cast(Start, opened[place]) for place in good])
        return self._start_info(rows, starts) if good else {}

    def _opened(
        self, rows: NDArray[np.intp], starts: Sequence[Start]
    ) -> Sequence[Start | WorldError]:
        """The starts with the texts that their worlds begin with, or why one cannot begin."""
        if self._conversations is None or not len(rows):
            return starts
        return self._conversations.opened(rows, starts, self._streams.draw_seeds[rows])

    def _fill(
        self, rows: NDArray[np.intp], starts: Sequence[Start], opened: Sequence[Start]
    ) -> None:
        """Fill `rows` with the first tokens of their episodes, which have begun."""
        if not len(rows):
            return
        talk = self._conversations
        # Everything is checked before the first row changes: an error leaves the state as it was.
        numbered = list(zip(rows.tolist(), starts, opened, strict=True))
        ids = [self._first_ids(row, start, begun) for row, start, begun in numbered]
        for row, start, _ in numbered:
            self._check_start(start, f"row {row}")
        texts = [self._begun_text(row, start, begun) for row, start, begun in numbered]
        for (row, start, begun), prompt_tokens, text in zip(numbered, ids, texts, strict=True):
            if self._grammars is not None and text is not None:
                self._grammars.begin(row, text)
            prompt = begun.prompt
            if prompt.tokens is not None and not prompt.text:  # rewards and people want a text
                decoded = decode_prompt(self.tokenizer, prompt_tokens.tolist())
                prompt = replace(prompt, text=decoded, tokens=prompt_tokens)
            answer = None if start.turns else start.answer
            self._texts.begin(row, prompt, prompt_tokens, answer)
        self._over[rows] = False
        self._components.sums[rows] = 0.0
        if talk is not None:
            talk.started(rows, starts)
            try:
                resume(talk, self._texts, rows.tolist(), starts, self._ended_by)
            except BaseException:  # refused or interrupted
                talk.forget(rows)
                self._over[rows] = True  # no text to go on from: they must be reset
                raise

    def _first_ids(self, row: int, start: Start, begun: Start) -> NDArray[np.int64]:
        """The ids that an episode begins with, shape (prompt_length,), int64.

        Args:
            row: Row number.
            start: What was asked for.
            begun: What it became, with what a world says first as its prompt.
        """
        prompt, known = begun.prompt, start.opening
        if known is not None and begun is start:  # no world spoke, so nothing is encoded again
            prompt = replace(prompt, tokens=known.tokens, messages=None)
        ids = self._encoder.encode(prompt, f"row {row}")
        if known is not None and not np.array_equal(ids, known.tokens):
            raise ReplayError(
                f"row {row}: the world began with {prompt.text!r}, the start with {known.text!r}. "
                "A world is begun anew with the start's record and draw_seed, and all it says must "
                "follow from them"
            )
        return ids

    def _begun_text(self, row: int, start: Start, begun: Start) -> Sentence | None:
        """What an answer that begins so is under its grammar; None without grammars.

        Raises:
            GrammarError: The record has no grammar that can be used.
            ResetOptionsError: The beginning that was asked for is none of a text of the grammar.
        """
        if self._grammars is None:
            return None
        answer = [] if start.answer is None else start.answer.tolist()
        try:
            return self._grammars.begun(begun.prompt.columns, answer)
        except GrammarError as error:
            if not answer:
                raise
            raise ResetOptionsError(f"row {row}: {error}") from error

    def _check_start(self, start: Start, name: str) -> None:
        """Refuse a start that leaves nothing to choose, or turns without a world."""
        if start.answer is not None:
            budget, border = self.max_new_tokens, start.border
            check_answer(start.answer, name, budget, self._is_stop, border)
        if self._conversations is not None:
            check_turns(self._conversations, start, name)
        elif start.turns:
            raise ResetOptionsError(
                f"{name}: the start has {len(start.turns)} turns of a conversation, and this "
                "environment has no world="
            )

    # ---------------------------------------------------------------- what goes to the outside

    def _step_batch(
        self,
        rows: NDArray[np.intp] | slice,
        actions: NDArray[np.int64],
        ended: NDArray[np.bool_],
        until: Mapping[int, str],
    ) -> StepBatch:
        """Copies of everything that a dense reward sees: it may keep them."""
        talk = self._conversations
        return StepBatch(
            tokens=np.array(self._texts.tokens[rows]),
            lengths=self._texts.lengths[rows],
            prompt_lengths=np.array(self._texts.prompt_lengths[rows]),
            actions=np.array(actions[rows]),
            ended=np.array(ended[rows]),
            tokenizer=self.tokenizer,
            prompts=_at(self._texts.prompts, rows),
            is_stop=self._is_stop,
            turns=() if talk is None else _at(talk.histories, rows),
            turn_starts=None if talk is None else np.array(talk.starts[rows]),
            until=until and dict(enumerate(_at([*map(until.get, range(self.num_envs))], rows))),
            drawn=() if talk is None else _at(talk.drawn, rows),
        )

    def _episode(self, row: int, reason: str, until: str | None) -> Episode:
        talk = self._conversations
        prompt = self._texts.prompts[row]
        return Episode(
            # Ids may leave a character incomplete, which then is the answer's.
            prompt=prompt.text if prompt.tokens is None else certain(prompt.text),
            prompt_tokens=self._texts.prompt_tokens(row),
            tokens=self._texts.answer(row),
            finish_reason=reason,
            columns=prompt.columns,
            tokenizer=self.tokenizer,
            turns=() if talk is None else tuple(talk.histories[row]),
            world=None if talk is None else talk.world_of(row),
            until=until,
        )

    def _end_info(
        self, rows: NDArray[np.intp], ended: NDArray[np.bool_], episodes: Sequence[Episode]
    ) -> dict[str, Any]:
        info: dict[str, Any] = {
            "finish_reason": object_array(self.num_envs, rows, [e.finish_reason for e in episodes]),
            "text": object_array(self.num_envs, rows, [e.text for e in episodes]),
            "reward_components": self._components.info(ended),
        }
        if self._conversations is not None:
            paid, more = self._conversations.end_info(ended)
            info["reward_components"] |= paid
            info |= more
        if self._components.may_abstain:
            info["scored"] = ended & self._components.scored()
        if self._streams.names_groups:
            info["group"] = np.where(ended, self._streams.groups, -1)
        return masked_info(info, ended)

    def _start_info(self, rows: NDArray[np.intp], starts: Sequence[Start]) -> dict[str, Any]:
        talk = self._conversations
        texts, records = np.empty((2, self.num_envs), dtype=object)
        for row, start in zip(rows.tolist(), starts, strict=True):
            begun = self._texts.prompts[row]  # with a world it is what the world began with
            texts[row] = begun.text
            records[row] = Record(begun if talk is None else _drawn(start, begun))
        marks = row_marks(self.num_envs, rows)
        seeds = np.where(marks, self._streams.episode_seeds, 0)
        told = masked_info({"prompt": texts, "record": records, "episode_seed": seeds}, marks)
        if talk is not None and talk.numbers[rows].any():  # it goes on behind these turns
            told |= masked_info({"turn": talk.numbers.copy()}, marks & (talk.numbers > 0))
        return told

    def _mask_info(self) -> dict[str, Any]:
        if not self._masked:
            return {}
        every_row = np.ones(self.num_envs, dtype=bool)
        return masked_info({"action_mask": self.action_masks()}, every_row)

    def _waiting_info(self) -> dict[str, Any]:
        """Rows whose action will be ignored, for want of a reply, of a start or of a beginning."""
        talk, held_up = self._conversations, self._held_up
        if not (held_up or self._streams.dealt or (talk is not None and talk.some_wait)):
            return {}
        waiting = np.zeros(self.num_envs, dtype=bool)
        if talk is not None:
            waiting |= talk.waiting
        if self._streams.dealt:
            waiting |= self._over
        waiting[list(held_up)] = True
        told = masked_info({"waiting": waiting}, waiting)
        if held_up:
            rows = np.array(list(held_up))
            errors = object_array(self.num_envs, rows, [error for _, error in held_up.values()])
            told |= masked_info({"begin_error": errors}, row_marks(self.num_envs, rows))
        return told

    # ---------------------------------------------------------------- checks

    def _checked(self, actions: ArrayLike) -> NDArray[np.int64]:
        given = np.asarray(actions)
        if given.shape != (self.num_envs,) or given.dtype.kind not in "iu":
            raise ActionError(
                f"actions have shape {given.shape} and dtype {given.dtype}; "
                f"they must be {self.num_envs} integers"
            )
        ids = given.astype(np.int64, copy=False)
        # As an unsigned number a negative id is huge, so the largest id shows both mistakes.
        row = int(ids.view(np.uint64).argmax())
        if not 0 <= ids[row] < self.pad_token:
            raise ActionError(
                f"the action of row {row} is {given[row]}; tokens are 0 to {self.pad_token - 1}"
            )
        return ids

    def _seed(self, rows: NDArray[np.intp], seed: int | Sequence[int | None] | None) -> None:
        if seed is None:
            return
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
            first = int(seed) + self._first_row
            seeds: list[int | None] = [first + row for row in range(self.num_envs)]
        else:
            seeds = [None if one is None else int(one) for one in seed]
            if len(seeds) != self.num_envs:
                raise ValueError(f"{len(seeds)} seeds were given for {self.num_envs} rows")
        self._streams.seed(rows, seeds)


def _at(values: Sequence[T], rows: NDArray[np.intp] | slice) -> Sequence[T]:
    return values[rows] if isinstance(rows, slice) else [values[row] for row in rows.tolist()]


def _drawn(start: Start, begun: Prompt) -> Prompt:
    """What was drawn, with the columns that a world has added to its record."""
    if begun.columns is start.prompt.columns:
        return start.prompt
    return replace(start.prompt, columns=begun.columns)
