"""Where an episode starts: a prompt, or any prefix of token ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.errors import PromptError, ResetOptionsError
from textenv.prompts import ListPrompts, Prompt


@dataclass(frozen=True)
class Start:
    """The beginning of an episode.

    Attributes:
        prompt: The prompt; its `tokens`, where given, may go on into the answer.
        prompt_length: How many of the tokens are the prompt; all of them if None.
    """

    prompt: Prompt
    prompt_length: int | None = None


def starts_from_options(
    options: Mapping[str, Any], count: int, pad_token: int
) -> list[Start] | None:
    """The starts that reset options ask for, or None where they ask for nothing.

    Args:
        options: `prompt` or `tokens`, `prompt_length` and `columns`, as `TextVectorEnv` describes them.
        count: Number of rows to start; one value serves them all, a list has one a row.
        pad_token: Padding at the right end of `tokens`, as observations have it, is dropped.

    Raises:
        ResetOptionsError: An unknown key, both kinds at once, or the wrong number of values.
    """
    extras = {"prompt_length", "columns"}
    unknown = set(options) - {"prompt", "tokens"} - extras
    if unknown or {"prompt", "tokens"} <= set(options) or (options and set(options) <= extras):
        raise ResetOptionsError(
            f"reset options {sorted(options)} cannot be used: give 'prompt', or 'tokens' with or "
            "without 'prompt_length' and 'columns', and 'reset_mask' if you like"
        )
    if "prompt" in options:
        if extras & set(options):
            raise ResetOptionsError(
                "'prompt_length' and 'columns' belong to 'tokens'; a prompt brings its columns as "
                "a record, {'prompt': text, 'answer': ...}"
            )
        return [Start(prompt) for prompt in _prompts(options["prompt"], count)]
    if "tokens" not in options:
        return None
    rows = _token_rows(options["tokens"], count, pad_token)
    lengths = np.broadcast_to(np.asarray(options.get("prompt_length", -1)), (count,))
    columns = options.get("columns", {})
    columns = [columns] * count if isinstance(columns, Mapping) else columns
    return [
        Start(Prompt("", own, ids), None if length < 0 else int(length))
        for ids, length, own in zip(rows, lengths, columns, strict=True)
    ]


def _prompts(given: Any, count: int) -> tuple[Prompt, ...]:
    one = isinstance(given, str | Mapping | Prompt)
    try:
        prompts = ListPrompts([given] if one else given).prompts
    except PromptError as error:
        raise ResetOptionsError(f"options['prompt'] cannot be used: {error}") from error
    if not one and len(prompts) != count:
        raise ResetOptionsError(f"options['prompt'] holds {len(prompts)} prompts for {count} rows")
    return prompts * count if one else prompts


def _token_rows(given: Any, count: int, pad_token: int) -> list[NDArray[np.int64]]:
    one = np.ndim(given[0]) == 0 if len(given) else True
    rows = [given] * count if one else list(given)
    if len(rows) != count:
        raise ResetOptionsError(f"options['tokens'] holds {len(rows)} rows for {count}")
    ids = [np.asarray(row, dtype=np.int64) for row in rows]
    return [row[row != pad_token] for row in ids]
