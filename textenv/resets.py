"""Where an episode starts, as the options of a reset say it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.errors import PromptError, ResetOptionsError
from textenv.prompts import ListPrompts, Prompt
from textenv.records import short
from textenv.starts import Start


def rows_to_reset(mask: Any, count: int) -> NDArray[np.intp]:
    """Numbers of the rows at which a reset mask is True; all of `count` rows if it is None.

    Raises:
        ResetOptionsError: The mask is not a boolean array of shape (count,) with a True in it.
    """
    if mask is None:
        return np.arange(count)
    mask = np.asarray(mask)
    if mask.shape != (count,) or mask.dtype != bool or not mask.any():
        raise ResetOptionsError(
            f"options['reset_mask'] is {mask!r}; it must be a boolean array of shape ({count},) "
            "with at least one True"
        )
    return np.flatnonzero(mask)


def starts_from_options(
    options: Mapping[str, Any], count: int, pad_token: int
) -> list[Start] | None:
    """The starts that reset options ask for, or None if they ask for nothing.

    Args:
        options: `prompt`, or `start`, or `tokens` with or without `prompt_length` and `columns`,
            as `TextVectorEnv` describes them.
        count: Number of rows to start; one value serves them all, a list has one for each row.
        pad_token: Padding at the right end of `tokens` is dropped, so observations can be passed.

    Raises:
        ResetOptionsError: A key is unknown, both kinds are given, the number of values is wrong, or
            a value does not describe a start.
    """
    # Options that nobody reads would be a silent mistake, so every combination has to make sense.
    extras = {"prompt_length", "columns"}
    kinds = {"prompt", "start", "tokens"} & set(options)
    if set(options) - kinds - extras or len(kinds) > 1 or (options and not kinds):
        raise ResetOptionsError(
            f"reset options {sorted(map(str, options))} cannot be used: give 'prompt', or 'tokens' "
            "with or without 'prompt_length' and 'columns', or 'start'; 'reset_mask' may come with "
            "any of them"
        )
    if "tokens" not in kinds and extras & set(options):
        raise ResetOptionsError(
            "'prompt_length' and 'columns' belong to 'tokens'; give a prompt with columns as a "
            "record, {'prompt': text, 'answer': ...}"
        )
    if "prompt" in options:
        return [Start(prompt) for prompt in _prompts(options["prompt"], count)]
    if "start" in options:
        return _starts(options["start"], count)
    if "tokens" not in options:
        return None
    # "One value" looks different for each option: a flat list of ids, a number, a dict.
    rows = _one_a_row(options["tokens"], count, "tokens", is_one=_is_flat)
    lengths = _one_a_row(options.get("prompt_length"), count, "prompt_length", is_one=np.isscalar)
    columns = _one_a_row(
        options.get("columns", {}), count, "columns", is_one=lambda x: isinstance(x, Mapping)
    )
    return [
        _start(number, *parts, pad_token)
        for number, parts in enumerate(zip(rows, lengths, columns, strict=True))
    ]


def _starts(given: Any, count: int) -> list[Start]:
    starts = _one_a_row(given, count, "start", is_one=lambda one: isinstance(one, Start))
    for row, start in enumerate(starts):
        if not isinstance(start, Start):
            raise ResetOptionsError(
                f"options['start'], row {row}: {short(start)} is no textenv.Start; "
                "envs.start_of(row) and Start.from_json(data) give one"
            )
    return list(starts)


def _prompts(given: Any, count: int) -> Sequence[Prompt]:
    one = isinstance(given, str | Mapping | Prompt)
    try:
        prompts = ListPrompts([given] if one else given).prompts
    except PromptError as error:
        raise ResetOptionsError(f"options['prompt'] cannot be used: {error}") from error
    return _one_a_row(prompts[0] if one else prompts, count, "prompt", is_one=lambda _: one)


def _start(number: int, tokens: Any, prompt_length: Any, columns: Any, pad_token: int) -> Start:
    where = f"options['tokens'], row {number}"
    if not isinstance(columns, Mapping):
        raise ResetOptionsError(f"options['columns'], row {number}: {columns!r} is not a dict")
    try:
        ids = Prompt.from_row({"tokens": tokens}).tokens
        prompt = Prompt("", columns)
    except PromptError as error:
        raise ResetOptionsError(f"{where}: {error}") from error
    assert ids is not None
    # Cut after the last id that is not padding. Padding in the middle stays and is refused later.
    used = (ids != pad_token).nonzero()[0]
    if len(used) == 0:
        raise ResetOptionsError(f"{where}: the tokens are nothing but padding")
    ids = ids[: used[-1] + 1]
    if prompt_length is None:  # all of it is prompt, and the answer begins behind it
        return Start(replace(prompt, tokens=ids))
    if not isinstance(prompt_length, int | np.integer) or not 1 <= prompt_length <= len(ids):
        raise ResetOptionsError(
            f"options['prompt_length'], row {number}: {prompt_length!r} is not within "
            f"1..{len(ids)}, the number of tokens given"
        )
    return Start(replace(prompt, tokens=ids[:prompt_length]), ids[prompt_length:])


def _is_flat(tokens: Any) -> bool:
    return len(tokens) == 0 or np.ndim(tokens[0]) == 0


def _one_a_row(given: Any, count: int, name: str, is_one: Callable[[Any], bool]) -> Sequence[Any]:
    """One value for each row: `given` itself if it is a list, else `given` for every row."""
    try:
        if given is None or is_one(given):
            return [given] * count
        values = list(given)
    except (TypeError, KeyError, IndexError) as error:
        raise ResetOptionsError(f"options[{name!r}] is {given!r}, not a list") from error
    if len(values) != count:
        raise ResetOptionsError(
            f"options[{name!r}] holds {len(values)} values; {count} rows are to be reset"
        )
    return values
