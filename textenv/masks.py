"""Tables over the vocabulary: which tokens end an answer, and which may be chosen."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textenv.errors import NoStopTokenWarning
from textenv.tokenizers.base import Tokenizer, stop_tokens_of


def ends_of_answers(
    tokenizer: Tokenizer | None,
    given: Sequence[int] | None,
    end_of_turn: int | None = None,
    stop_strings: object = (),
) -> tuple[int, ...]:
    """The stop tokens that were given, or those of the tokenizer if that is None.

    Args:
        tokenizer: Of the answers.
        given: Ids, or None.
        end_of_turn: The id that ends a turn in a frame: one more beside the tokenizer's.
        stop_strings: Texts that end answers too; false if there are none.

    Warns:
        NoStopTokenWarning: None were given, and the tokenizer has none.
    """
    if given is not None:
        return tuple(given)
    own = stop_tokens_of(tokenizer)
    if end_of_turn is not None and end_of_turn not in own:
        own = (end_of_turn, *own)
    if not own and not stop_strings:
        name = "there is no tokenizer, so no" if tokenizer is None else f"{tokenizer.name!r} has no"
        warnings.warn(
            f"{name} stop token: answers end with their budget alone. Pass stop_tokens=[ids that "
            "end an answer], or stop_tokens=() if this is what you want",
            NoStopTokenWarning,
            stacklevel=3,
        )
    return own


def forbidden_marks(
    vocab_size: int,
    forbidden_tokens: Sequence[int],
    allowed_tokens: Sequence[int] | None,
    stop_tokens: Sequence[int],
) -> NDArray[np.bool_]:
    """True at tokens that may not be chosen, shape (V,), bool.

    Args:
        vocab_size: Number of tokens, V.
        forbidden_tokens: These.
        allowed_tokens: All but these and the stop tokens, unless it is None.
        stop_tokens: Ids that end an answer.

    Raises:
        ValueError: A token is not in `range(vocab_size)`.
    """
    marks = token_marks(forbidden_tokens, vocab_size, "forbidden_tokens")
    if allowed_tokens is not None:
        allowed = token_marks(allowed_tokens, vocab_size, "allowed_tokens")
        allowed[list(stop_tokens)] = True
        marks |= ~allowed
    return marks


def token_marks(tokens: Sequence[int], vocab_size: int, name: str) -> NDArray[np.bool_]:
    """True at `tokens`, shape (V,), bool.

    Args:
        tokens: Ids.
        vocab_size: Number of tokens, V.
        name: Name of the argument, for an error.

    Raises:
        ValueError: A token is not in `range(vocab_size)`.
    """
    marks = np.zeros(vocab_size, dtype=bool)
    for token in tokens:
        if not isinstance(token, int | np.integer) or not 0 <= token < vocab_size:
            raise ValueError(f"{name} holds {token!r}; tokens are 0 to {vocab_size - 1}")
        marks[token] = True
    return marks


def mask_table(
    is_stop: NDArray[np.bool_], is_forbidden: NDArray[np.bool_], min_new_tokens: int
) -> NDArray[np.bool_]:
    """Allowed tokens, shape (2, V): row 0 while the answer is too short to stop, row 1 after.

    Args:
        is_stop: Tokens that end an answer, shape (V,), bool.
        is_forbidden: Tokens that are never allowed, shape (V,), bool.
        min_new_tokens: Length from which an answer may stop.

    Raises:
        ValueError: No token is left to choose.
    """
    allowed = ~is_forbidden
    early = allowed & ~is_stop if min_new_tokens > 0 else allowed
    if not early.any():
        raise ValueError(
            f"forbidden_tokens and allowed_tokens exclude {is_forbidden.sum()} of "
            f"{len(is_forbidden)} tokens and "
            f"min_new_tokens={min_new_tokens} excludes {is_stop.sum()} stop tokens: no token is "
            "left to choose"
        )
    return np.stack([early, allowed])
