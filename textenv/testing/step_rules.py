"""Rules about what steps return, for a single environment and a vector alike.

A rule takes a `Maker`. It raises `RuleBroken` with what it saw and the way out, or `SkipTest` with
the reason where it cannot be checked.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import SkipTest

import numpy as np
from gymnasium.vector import VectorEnv

from textenv.testing.making import AnyEnv, Maker, RuleBroken, require, single_spaces
from textenv.testing.playing import count_tokens, play
from textenv.tokenizers import decode_answer, encode_answer


def random_actions_never_raise(make: Maker) -> None:
    """Any token may be chosen at any time, even a masked one."""
    try:
        for seed in range(3):
            for _ in play(make, seed):
                pass
    except RuleBroken:
        pass  # another rule reports it
    except Exception as error:
        raise RuleBroken(
            f"random play raised {type(error).__name__}: {error}. Carry out every action of the "
            "action space; a mask is advice to the policy"
        ) from error


def observations_are_right_padded(make: Maker) -> None:
    """Observations are in their space: ids first, at least one, padding (V) behind them."""
    actions, observations = single_spaces(make())
    pad_token = int(actions.n)  # type: ignore[attr-defined]
    for step in play(make):
        for text in (step.before, step.after):
            count = count_tokens(text, pad_token)
            is_padded = 0 < count and (text[:count] != pad_token).all()
            if is_padded and text.dtype == observations.dtype and text in observations:
                continue  # the message below takes longer than the check
            raise RuleBroken(
                f"{step.where}: the observation is {text} ({text.dtype}). It must be in "
                f"{observations}: one id or more, then nothing but {pad_token}"
            )


def steps_append_the_chosen_token(make: Maker) -> None:
    """An observation is the one before it and the chosen token: earlier ids never change.

    In a conversation the world's ids may stand behind it.
    """
    actions, _ = single_spaces(make())
    talks = _in_conversation(make())
    for step in play(make):
        place = count_tokens(step.before, int(actions.n))  # type: ignore[attr-defined]
        expected = step.before.copy()
        expected[place : place + 1] = step.action
        if talks:
            expected[place + 1 :] = step.after[place + 1 :]
        differ = np.flatnonzero(expected != step.after)
        require(
            len(differ) == 0,
            f"{step.where}: {step.action} was chosen for place {place}, but places "
            f"{differ.tolist()} hold {step.after[differ].tolist()} instead of "
            f"{expected[differ].tolist()}. Append the chosen id and nothing else: do not encode "
            "the text again, and add no stop token that was not chosen",
        )


def replies_are_told(make: Maker) -> None:
    """What a world appends behind the chosen token is its reply, and the info tells it.

    The ids are `info["reply_tokens"]`; without them they are those of the text `info["reply"]`.
    An environment whose attribute `encodes_replies` is True, as ours have it without a frame and
    without ids from the world, must append those in any case.
    """
    env = make()
    if not _in_conversation(env):
        return  # nothing is appended: `steps_append_the_chosen_token`
    tokenizer = _attribute(env, "tokenizer")
    pad_token = int(single_spaces(env)[0].n)  # type: ignore[attr-defined]
    for step in play(make):
        place = count_tokens(step.before, pad_token)
        appended = step.after[place + 1 : count_tokens(step.after, pad_token)].tolist()
        told = step.info.get("reply")
        ids = step.info.get("reply_tokens")
        if ids is None and told is not None:
            ids = encode_answer(tokenizer, told)
        expected = [] if ids is None or told is None or step.over else np.asarray(ids).tolist()
        require(
            appended == expected,
            f"{step.where}: {len(appended)} ids stand behind the chosen token, and the reply that "
            f"is told, {told!r}, has {len(expected)}. Append the reply of a turn that has ended, "
            "encoded once, and nothing else; tell it as info['reply'], with a frame around it its "
            "ids as info['reply_tokens'] too",
        )
        if told is None or not expected or not _encodes_replies(step.env):
            continue
        encoded = list(encode_answer(tokenizer, told))
        require(
            expected == encoded,
            f"{step.where}: the reply {told!r} is appended as {expected}, and {encoded} is its "
            "encoding. Encode what the world says once, and append these ids",
        )


def the_first_step_does_not_truncate(make: Maker) -> None:
    """An episode that is truncated has two steps or more."""
    for step in play(make):
        require(
            step.number > 0 or not step.truncated,
            f"{step.where}: truncated. Allow two tokens or more, or let the budget terminate",
        )


def one_flag_ends_an_episode(make: Maker) -> None:
    """An end is terminated or truncated, not both."""
    for step in play(make):
        require(
            not (step.terminated and step.truncated),
            f"{step.where}: terminated and truncated. Set truncated only where the episode could "
            "go on; a TimeLimit must be below max_new_tokens",
        )


def finish_reason_tells_the_end(make: Maker) -> None:
    """An end has a finish_reason that agrees with its flags and its last token; steps have none."""
    stop_tokens = {int(token) for token in _attribute(make(), "stop_tokens")}
    talks = _in_conversation(make())
    for step in play(make):
        reason = step.info.get("finish_reason")
        is_stop = int(step.action) in stop_tokens
        if talks:  # a stop token ends a turn
            right = reason in ("world", "turns", "length", "error") if step.over else reason is None
        elif not step.over:
            right = reason is None and not is_stop
        elif is_stop:
            right = reason == "stop" and bool(step.terminated)
        else:  # a wrapper truncates without a reason
            right = reason == "length" or (reason is None and not step.terminated)
        require(
            right,
            f"{step.where}: after token {step.action} (stop tokens: {sorted(stop_tokens)[:5]}) "
            f"info['finish_reason'] is {reason!r} with terminated={step.terminated} and truncated="
            f"{step.truncated}. A chosen stop token, and nothing else, terminates with 'stop'; a "
            "spent budget ends with 'length'; before the end there is no reason. A conversation "
            "ends with 'world', 'turns', 'length' or 'error'",
        )


def text_is_the_answer(make: Maker) -> None:
    """The text of an end is what the chosen ids add to the prompt, without the stop token."""
    tokenizer = _attribute(make(), "tokenizer")
    if _in_conversation(make()):
        raise SkipTest("a conversation's text is the agent's last turn")
    for step in play(make):
        reason = step.info.get("finish_reason")
        if reason is None:
            continue
        count = step.prompt_length + step.number + 1 - (reason == "stop")
        ids = step.after[:count].tolist()
        answer = decode_answer(tokenizer, ids[: step.prompt_length], ids[step.prompt_length :])
        require(
            step.info.get("text") == answer,
            f"{step.where}: info['text'] is {step.info.get('text')!r}, the chosen ids are "
            f"{answer!r}. Decode the answer's ids behind the prompt's, without the stop token: "
            "textenv.tokenizers.decode_answer",
        )


def the_budget_counts_chosen_tokens(make: Maker) -> None:
    """The budget is max_new_tokens for every row, however long its prompt or the padding."""
    budget = _attribute(make(), "max_new_tokens")
    if _in_conversation(make()):
        raise SkipTest("a conversation's budget counts the world's tokens too")
    for step in play(make):
        chosen = step.number + 1
        spent = step.info.get("finish_reason") == "length" if step.over else False
        require(
            chosen == budget if spent else chosen < budget or step.over,
            f"{step.where}, after a prompt of {step.prompt_length}: {chosen} tokens were chosen of "
            f"max_new_tokens={budget}, and the budget {'ended' if spent else 'did not end'} the "
            "episode. Count chosen tokens, row by row, not the places of the observation",
        )


def values_are_finite(make: Maker) -> None:
    """No reward is NaN or infinite, nothing in an info is NaN."""
    for step in play(make):
        require(
            math.isfinite(step.reward),
            f"{step.where}: the reward is {step.reward}. Return a finite number",
        )
        for info in (step.before_info, step.info):
            for path in _nans(info, "info"):
                require(False, f"{step.where}: {path} is NaN. Leave the entry out, or use None")


def no_two_calls_share_an_observation(make: Maker) -> None:
    """Results belong to the caller: the next step does not change them."""
    env = make()
    first, _ = env.reset(seed=0)
    kept = np.array(first)
    actions = np.zeros(np.shape(env.action_space.sample()), dtype=np.int64)
    env.step(actions if isinstance(env, VectorEnv) else np.int64(0))
    require(
        np.array_equal(first, kept),
        "the step after reset(seed=0) changed the observation that reset had returned. Return a "
        "copy: learners keep what they are given",
    )


def _in_conversation(env: AnyEnv) -> bool:
    """Whether a world speaks in the environment too."""
    return getattr(_innermost(env), "world", None) is not None


def _encodes_replies(env: AnyEnv) -> bool:
    return bool(getattr(_innermost(env), "encodes_replies", False))


def _innermost(env: AnyEnv) -> Any:
    inner: Any = env.unwrapped
    rows = getattr(inner, "envs", None)  # of Gymnasium's vectors of single environments
    return rows[0].unwrapped if rows else inner


def _attribute(env: AnyEnv, name: str) -> Any:
    """An attribute that the environments of textenv have.

    Raises:
        SkipTest: This one has not.
    """
    if not hasattr(env.unwrapped, name):
        raise SkipTest(f"{type(env.unwrapped).__name__} has no attribute {name}")
    return getattr(env.unwrapped, name)


def _nans(value: Any, path: str) -> Iterator[str]:
    """The places of the NaNs in an info."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _nans(inner, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple) or (
        isinstance(value, np.ndarray) and value.dtype == object and value.ndim
    ):
        for index, inner in enumerate(value):
            yield from _nans(inner, f"{path}[{index}]")
    elif isinstance(value, float | np.floating | np.ndarray):
        if np.asarray(value).dtype.kind == "f" and np.isnan(value).any():
            yield path
