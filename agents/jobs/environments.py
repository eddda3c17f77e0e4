"""The environment in which a policy answers, and prompts that fit into it."""

from typing import Any

from rich.console import Console

from agents.commands.shared import Masked
from policies import Policy, tokenizer_of
from textenv import ListPrompts, PromptSource, TextVectorEnv
from textenv.encoding import PromptEncoder
from textenv.errors import OptionError, PromptTooLongError
from textenv.long_prompts import cut_long, drop_long
from textenv.masks import forbidden_marks, mask_table, token_marks
from textenv.stop_strings import StopStrings
from textenv.tokenizers import stop_tokens_of

LONG = {"cut": cut_long, "drop": drop_long}


def fit_prompts(
    prompts: PromptSource, policy: Policy, room: int, how: str, console: Console
) -> PromptSource:
    """Prompts that leave a policy the room for its answers.

    Args:
        prompts: All of them, so that all that are too long are listed together.
        policy: Who is to answer.
        room: Tokens that a prompt may have.
        how: A value of `--long-prompts`.
        console: Is told how many of a list were cut or dropped.

    Raises:
        PromptTooLongError: Some are too long and `how` is "error"; the message lists them.
        EmptyPromptsError: All of them were dropped.
    """
    assert policy.tokenizer is not None
    if how == "error":
        try:
            PromptEncoder(policy.tokenizer, prompts, room)
        except PromptTooLongError as error:
            raise PromptTooLongError(
                error.which,
                f"answers and a context of {policy.context} tokens leave room for {room}; shorten "
                "the prompts, lower --max-new-tokens, or give --long-prompts cut, which keeps "
                "their ends, or --long-prompts drop",
            ) from error
        return prompts
    fitting = LONG[how](prompts, policy.tokenizer, room)
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


def rules_of(masks: Masked, policy: Policy, max_new_tokens: int) -> dict[str, Any]:
    """What may be chosen, as arguments of an environment and of `generate`.

    Raises:
        OptionError: A token is not in the vocabulary of `policy`, or nothing is left to choose.
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
    }
    stops = stop_tokens_of(policy.tokenizer)
    try:
        forbidden = forbidden_marks(
            vocab_size, rules["forbidden_tokens"], rules["allowed_tokens"], stops
        )
        mask_table(token_marks(stops, vocab_size, "stop_tokens"), forbidden, shortest)
        StopStrings(rules["stop_strings"], tokenizer_of(policy))
    except ValueError as error:
        raise OptionError(str(error)) from error
    return rules


def environment_for(
    policy: Policy,
    prompts: Any,
    reward: Any,
    *,
    rows: int,
    max_new_tokens: int,
    masks: Masked,
    group_size: int = 1,
) -> TextVectorEnv:
    """An environment of `policy`'s vocabulary, whose context limits the prompts.

    Args:
        policy: Who is to answer.
        prompts: Anything that `TextVectorEnv` takes.
        reward: The same.
        rows: Answers written at a time.
        max_new_tokens: Longest answer.
        masks: Which tokens may be chosen.
        group_size: Answers to each drawn prompt.

    Raises:
        PromptTooLongError: The answers leave no room for a prompt.
        OptionError: The masks do not fit the policy.
    """
    return TextVectorEnv(
        rows,
        prompts=prompts,
        reward=reward,
        tokenizer=policy.tokenizer,
        max_new_tokens=max_new_tokens,
        max_prompt_tokens=room_for_prompts(policy, max_new_tokens),
        group_size=group_size,
        **rules_of(masks, policy, max_new_tokens),
    )
