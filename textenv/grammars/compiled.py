"""Grammars that are compiled for a vocabulary."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.errors import GrammarError
from textenv.grammars.completions import Search, allowed, count, numbers
from textenv.grammars.kinds import Grammar
from textenv.grammars.vocabulary import Vocabulary
from textenv.imports import optional
from textenv.records import short

RESERVE = 4
"""Tokens of a budget beyond the shortest completion from which on masks are narrowed, at least."""

STATES = 32
"""States with a choice in which it is looked at how much one token may add to the rest."""

_KEPT = 64
_made: "OrderedDict[Any, Compiled]" = OrderedDict()


class Compiled:
    """A grammar for one vocabulary; rows share it.

    Attributes:
        grammar: As given.
        vocabulary: Whose tokens write the texts.
        first: What may begin a text, packed, shape (words,), int32.
        completion: A shortest text with its stop token; None if none was found.
        reserve: Masks are narrowed where no more than this many tokens are left beyond what a
            completion needs.

    Raises:
        GrammarError: It does not compile, or no token of the vocabulary can begin a text.
        MissingExtraError: llguidance is not installed.
    """

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary):
        self.grammar, self.vocabulary, self.name = grammar, vocabulary, short(grammar)
        self._matcher = self._new(grammar)
        self.first = self.allowed(self._matcher)
        if not self.first.any():
            raise GrammarError(
                f"no token of the vocabulary {vocabulary.name!r} can begin a text of {self.name}: "
                "take a vocabulary that can write it, or allow the tokens that it needs"
            )
        self.search = Search(vocabulary)
        self.completion = self.search.find(self._matcher)
        self.reserve = RESERVE if self.completion is None else self._reserve(self.completion)

    def __reduce__(self) -> Any:
        return compiled, (self.grammar, self.vocabulary)

    def __deepcopy__(self, memo: object) -> "Compiled":
        return self  # matchers are copied before they move

    def _new(self, grammar: Grammar) -> Any:
        with optional("llguidance", extra="grammar", purpose="a grammar"):
            from llguidance import LLMatcher

        matcher = LLMatcher(self.vocabulary.native, grammar.source(), log_level=0)
        if matcher.is_error():
            raise GrammarError(
                f"{self.name} does not compile; llguidance says: {matcher.get_error().strip()}"
            )
        return matcher

    def copy(self) -> Any:
        """A matcher at the beginning of a text."""
        return self._matcher.deep_copy()

    def allowed(self, matcher: Any) -> NDArray[np.int32]:
        """What may come next, packed, shape (words,), int32; all zero if no token can.

        Raises:
            GrammarError: A limit of llguidance was passed.
        """
        bits = allowed(matcher, self.vocabulary)
        if not matcher.is_error():
            return bits
        said = matcher.get_error().strip()
        if said.startswith("NoExtension"):  # the grammar could go on, and no token fits
            return np.zeros_like(bits)
        raise GrammarError(
            f"llguidance cannot go on with {self.name}: {said.splitlines()[0]}. Make the grammar "
            "simpler"
        )

    def _reserve(self, completion: Sequence[int]) -> int:
        """What one token may add to the rest at most, as far as a look at some states can tell."""
        most, looked = 0, 0
        layer = deque([(self._matcher, self.first, completion)])
        seen = {self.first.tobytes()}
        while layer and looked < STATES:
            state, bits, known = layer.popleft()
            looked, alike = looked + 1, set[bytes]()
            for token in self.search.candidates(bits):
                child, ahead = state.deep_copy(), 0
                if not child.consume_token(token):
                    continue
                following = allowed(child, self.vocabulary)
                while count(following) == 1 and not (following & self.vocabulary.is_stop).any():
                    child.consume_token(int(numbers(following)[0]))  # there is no choice
                    following, ahead = allowed(child, self.vocabulary), ahead + 1
                mask = following.tobytes()
                if mask in alike or not following.any():
                    continue
                alike.add(mask)
                rest = self.search.find(child, known=known)
                if rest is None:
                    continue
                most = max(most, ahead + len(rest) - len(known))
                if mask not in seen:
                    seen.add(mask)
                    layer.append((child, following, rest))
        return RESERVE + most


def compiled(grammar: Grammar, vocabulary: Vocabulary) -> Compiled:
    """The `Compiled` of a grammar; the last few are kept.

    Raises:
        GrammarError: See `Compiled`.
    """
    key = (grammar, id(vocabulary))
    found = _made.get(key)
    if found is None or found.vocabulary is not vocabulary:
        found = _made[key] = Compiled(grammar, vocabulary)
    _made.move_to_end(key)
    while len(_made) > _KEPT:
        _made.popitem(last=False)
    return found
