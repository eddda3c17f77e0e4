"""The environment in which a policy answers."""

from typing import Any

from policies import Policy
from textenv import TextVectorEnv
from textenv.errors import PromptTooLongError


def environment_for(
    policy: Policy,
    prompts: Any,
    reward: Any,
    *,
    rows: int,
    max_new_tokens: int,
    group_size: int = 1,
) -> TextVectorEnv:
    """An environment of `policy`'s vocabulary, whose context limits the prompts.

    Args:
        policy: Who is to answer.
        prompts: Anything that `TextVectorEnv` takes.
        reward: The same.
        rows: Answers written at a time.
        max_new_tokens: Longest answer.
        group_size: Answers to each drawn prompt.

    Raises:
        PromptTooLongError: The answers leave no room for a prompt.
    """
    room = policy.context - max_new_tokens
    if room < 1:
        raise PromptTooLongError(
            f"answers of {max_new_tokens} tokens leave no room for a prompt in the policy's "
            f"context of {policy.context}"
        )
    return TextVectorEnv(
        rows,
        prompts=prompts,
        reward=reward,
        tokenizer=policy.tokenizer,
        max_new_tokens=max_new_tokens,
        max_prompt_tokens=room,
        group_size=group_size,
    )
