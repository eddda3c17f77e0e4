"""The environment in which a policy answers, and prompts that fit into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from agents.commands.shared import Conversation, Masked
from agents.partners import TwoPlayers
from policies import Policy, tokenizer_of
from policies.templates import template_of
from textenv import ListPrompts, PromptSource, TextVectorEnv
from textenv.encoding import PromptEncoder
from textenv.errors import FrameError, OptionError, PromptTooLongError, UnframedError
from textenv.frames import CHAT, ChatTemplate, Frame, FrameArgument, ModelTemplate, load_frame
from textenv.grammars import AnswerGrammar, load_grammar
from textenv.grammars.refusals import check_grammar
from textenv.loading import load_object
from textenv.long_prompts import cut_long, drop_long
from textenv.masks import forbidden_marks, mask_table, token_marks
from textenv.records import short
from textenv.rewards import terms_of_all
from textenv.stop_strings import StopStrings
from textenv.tokenizers import stop_tokens_of
from textenv.tools import Tools

LONG = {"cut": cut_long, "drop": drop_long}


def fit_prompts(
    prompts: PromptSource,
    policy: Policy,
    room: int,
    how: str,
    console: Console,
    frame: Frame | None = None,
) -> PromptSource:
    """Prompts that leave a policy the room for its answers.

    Args:
        prompts: All of them, so that all that are too long are listed together.
        policy: Who is to answer.
        room: Tokens that a prompt may have.
        how: A value of `--long-prompts`.
        console: Is told how many of a list were cut or dropped.
        frame: How prompts are wrapped; None for prompts that are read as they are.

    Raises:
        UnframedError: There are messages and there is no frame.
        PromptTooLongError: Some are too long and `how` is "error"; the message lists them.
        EmptyPromptsError: All of them were dropped.
    """
    assert policy.tokenizer is not None
    if how == "error":
        try:
            PromptEncoder(policy.tokenizer, prompts, room, frame)
        except PromptTooLongError as error:
            raise PromptTooLongError(
                error.which,
                f"answers and a context of {policy.context} tokens leave room for {room}; shorten "
                "the prompts, lower --max-new-tokens, or give --long-prompts cut, which keeps "
                "their ends, or --long-prompts drop",
            ) from error
        return prompts
    fitting = LONG[how](prompts, policy.tokenizer, room, frame)
    if isinstance(prompts, ListPrompts) and isinstance(fitting, ListPrompts):
        kept = {id(prompt) for prompt in fitting.prompts}
        long = sum(id(prompt) not in kept for prompt in prompts.prompts)
        if long:
            done = "cut to their ends" if how == "cut" else "dropped"
            console.print(
                f"{long} of {len(prompts.prompts)} prompts have more than {room} tokens and are "
                f"{done}."
            )
    return fitting


def room_for_prompts(policy: Policy, max_new_tokens: int) -> int:
    """Tokens that a prompt may have where `policy` answers.

    Raises:
        PromptTooLongError: The answers leave no room.
    """
    room = policy.context - max_new_tokens
    if room < 1:
        raise PromptTooLongError(
            f"answers of {max_new_tokens} tokens leave no room for a prompt in the policy's "
            f"context of {policy.context}"
        )
    return room


# -------------------------------------------------------------------- conversations


def check_conversation(talk: Conversation, prompts: str | None, pays: bool) -> None:
    """Find what cannot be a conversation before anything is loaded.

    Args:
        talk: The options.
        prompts: The value of `--prompts`.
        pays: Whether a reward or a judge is named.

    Raises:
        OptionError: Options do not go together.
        ObjectNotFoundError: There is no such world, tool or template.
        ToolError: A function cannot be used as a tool.
    """
    if not talk.has_turns:
        for name in ("max_turns", "max_turn_tokens", "reply_timeout", "world_wait"):
            if getattr(talk, name) != getattr(Conversation(), name):
                flag = "--" + name.replace("_", "-")
                raise OptionError(
                    f"{flag} is about turns, and an answer has one: name what replies, with "
                    f"--world or --tools, or leave {flag} out"
                )
    if talk.tools:
        if talk.world is not None:
            raise OptionError(
                "--tools are a world of their own: leave --world out, or give your world the "
                "tools, as a class derived from textenv.tools.ToolWorld does"
            )
        if prompts is None:
            raise OptionError("--tools begin no conversation: give --prompts")
        if not pays:
            raise OptionError("--tools pay nothing: give --reward or --reward-model")
    schemas_of(talk)
    if talk.frame not in (None, CHAT):
        load_object(talk.frame)


def schemas_of(talk: Conversation) -> Any:
    """The JSON schemas of the tools that a frame tells of."""
    if talk.tools:
        return Tools(talk.tools).tools
    return () if talk.world is None else getattr(load_object(talk.world), "tools", ())


def world_of(talk: Conversation, policy: Policy) -> Any:
    """The world that `--world` names, or None.

    The empty seat of a `TwoPlayers` is taken by the policy itself, with its present weights.
    """
    if talk.world is None:
        return None
    found = load_object(talk.world)
    if isinstance(found, TwoPlayers) and found.partner is None:
        found = found.another()  # the named one stays as it is, for other policies
        found.partner = policy
    return found


def named_template(name: str | None, policy: Policy) -> FrameArgument:
    """The template that `--frame` names: that of the policy's dialogues, or the user's own.

    Raises:
        FrameError: The policy has learned from no dialogue.
        ObjectNotFoundError: There is no such template.
    """
    if name is None:
        return None
    if name != CHAT:
        own: FrameArgument = load_object(name)
        return own
    template = template_of(policy)
    if template is None:
        raise FrameError(
            "--frame chat: the policy has learned from no dialogue, and its tokenizer has no chat "
            "template: leave --frame out, name a textenv.frames.ChatTemplate of yours as --frame "
            "file.py:template, or take a policy of textenv sft"
        )
    return template


def chat_template_named(name: str, policy: Policy) -> ChatTemplate | ModelTemplate:
    """The template that `--frame` names, where no frame of another kind will do.

    Raises:
        FrameError: It is another one, or the policy has none.
        ObjectNotFoundError: There is no such template.
    """
    template = named_template(name, policy)
    if not isinstance(template, ChatTemplate | ModelTemplate):
        raise FrameError(f"--frame {name} is {short(template)}, not a textenv.frames.ChatTemplate")
    return template


def template_of_records(
    name: str | None, policy: Policy, has_messages: bool
) -> ChatTemplate | ModelTemplate | None:
    """What wraps the records that a command reads; None for texts as they are.

    Args:
        name: The value of `--frame`.
        policy: Who reads them.
        has_messages: Whether there are messages among them, which something must wrap: the
            template of the policy if `--frame` is not given, or plain text if it has none.

    Raises:
        FrameError: `--frame` names no template of ours, or the policy has none.
        ObjectNotFoundError: There is no such template.
    """
    if name is not None:
        return chat_template_named(name, policy)
    return (template_of(policy) or ChatTemplate()) if has_messages else None


def frame_of(talk: Conversation, policy: Policy) -> Frame | None:
    """What wraps the prompts of a policy, for measuring them; raises as `named_template`."""
    return load_frame(named_template(talk.frame, policy), tokenizer_of(policy), schemas_of(talk))


@contextmanager
def frame_by_option() -> Iterator[None]:
    """Messages that need a frame are refused with the option that gives one.

    Raises:
        FrameError: There are some.
    """
    try:
        yield
    except UnframedError as error:
        raise FrameError(
            f"{error.which}: give --frame chat for the template of the dialogues that the policy "
            "has learned from, or --frame file.py:template for a ChatTemplate of yours"
        ) from error


# -------------------------------------------------------------------- the environment


def rules_of(masks: Masked, policy: Policy, max_new_tokens: int) -> dict[str, Any]:
    """What may be chosen, as arguments of an environment and of `generate`.

    Raises:
        OptionError: A token is not in the vocabulary of `policy`, nothing is left to choose, or the
            grammar cannot be used.
    """
    shortest, vocab_size = masks.min_new_tokens, policy.vocab_size
    if shortest > max_new_tokens:
        raise OptionError(
            f"--min-new-tokens {shortest} is more than an answer may have, {max_new_tokens}"
        )
    rules: dict[str, Any] = {
        "min_new_tokens": shortest,
        "forbidden_tokens": tuple(masks.forbidden_tokens),
        "allowed_tokens": tuple(masks.allowed_tokens) or None,
        "stop_strings": tuple(masks.stop_strings),
        "grammar": None if masks.grammar is None else load_grammar(masks.grammar),
    }
    stops = stop_tokens_of(policy.tokenizer)
    try:
        forbidden = forbidden_marks(
            vocab_size, rules["forbidden_tokens"], rules["allowed_tokens"], stops
        )
        mask_table(token_marks(stops, vocab_size, "stop_tokens"), forbidden, shortest)
        StopStrings(rules["stop_strings"], tokenizer_of(policy))
        if rules["grammar"] is not None:
            check_grammar(shortest, rules["stop_strings"])
            never = forbidden.nonzero()[0].tolist()
            AnswerGrammar(rules["grammar"], tokenizer_of(policy), stops, never, max_new_tokens)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return rules


def environment_for(
    policy: Policy, prompts: Any, reward: Any, *, rows: int, group_size: int = 1, **options: Any
) -> TextVectorEnv:
    """An environment of `policy`'s vocabulary, whose context limits the prompts.

    Args:
        policy: Who is to answer.
        prompts: Anything that `TextVectorEnv` takes.
        reward: The same; None if the world pays.
        rows: Answers written at a time.
        group_size: Answers to each drawn prompt.
        **options: As `environment_arguments`, like the errors.
    """
    arguments = environment_arguments(policy, prompts, reward, **options)
    return TextVectorEnv(rows, group_size=group_size, **arguments)


def environment_arguments(
    policy: Policy,
    prompts: Any,
    reward: Any,
    *,
    max_new_tokens: int,
    masks: Masked,
    talk: Conversation,
) -> dict[str, Any]:
    """The arguments of an environment of any number of rows.

    Args:
        policy: Who is to answer.
        prompts: Anything that `TextVectorEnv` takes.
        reward: The same; None if the world pays.
        max_new_tokens: Longest answer; of a conversation all turns and replies.
        masks: Which tokens may be chosen.
        talk: What replies, and how messages are wrapped.

    Raises:
        PromptTooLongError: The answers leave no room for a prompt.
        OptionError: The masks do not fit the policy, or the reward not the waiting.
        FrameError: The policy has learned from no dialogue.
    """
    terms = () if reward is None else terms_of_all([reward])
    if talk.world_wait == "async" and any(term.dense for term in terms):
        raise OptionError(
            "--world-wait async: the reward is dense and is asked at every step, and an episode "
            "may end in a step that chose nothing: let the world pay, or leave --world-wait out"
        )
    return {
        "prompts": prompts,
        "reward": reward,
        "world": world_of(talk, policy),
        "tools": talk.tools or None,
        "frame": named_template(talk.frame, policy),
        "tokenizer": policy.tokenizer,
        "max_turns": talk.max_turns,
        "max_turn_tokens": talk.max_turn_tokens,
        "reply_timeout": talk.reply_timeout,
        "world_wait": talk.world_wait,
        "max_new_tokens": max_new_tokens,
        "max_prompt_tokens": room_for_prompts(policy, max_new_tokens),
        **rules_of(masks, policy, talk.longest_turn(max_new_tokens)),
    }
