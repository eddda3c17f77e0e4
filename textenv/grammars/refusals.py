"""What does not go together with a grammar."""

from collections.abc import Sequence
from typing import Any

from textenv.errors import GrammarError


def check_grammar(min_new_tokens: int, stop_strings: Sequence[str], world: Any = None) -> None:
    """Refuse what would end answers, or keep them from ending, against their grammar.

    Args:
        min_new_tokens: Answers may not stop before.
        stop_strings: Texts that end answers.
        world: What replies, or None.

    Raises:
        GrammarError: One of them was given.
    """
    if min_new_tokens:
        raise GrammarError(
            f"min_new_tokens={min_new_tokens} keeps an answer from stopping where its grammar may "
            "demand it: write the length into the grammar, as in Regex('[a-z]{8,}')"
        )
    if stop_strings:
        raise GrammarError(
            f"stop_strings={stop_strings!r} end an answer wherever they come, and with a grammar "
            "the grammar says where it ends: leave them out, or put them into the grammar"
        )
    if world is not None:
        raise GrammarError(
            "grammar= is for environments of one answer, and a world or tools make conversations: "
            "leave one of them out; policy.generate(prompts, grammar=...) writes single turns"
        )
