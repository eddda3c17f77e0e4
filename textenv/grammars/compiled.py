"""Grammars that are compiled for a vocabulary."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from textenv.errors import GrammarError
from textenv.grammars.completions import Search, allowed
from textenv.grammars.kinds import Grammar
from textenv.grammars.vocabulary import Vocabulary
from textenv.imports import optional
from textenv.records import short

RESERVE = 8
"""Tokens of a budget beyond the shortest completion from which on masks are narrowed, at least."""

STATES = 24
"""States in which a compiled grammar is looked at for how much one token may add to the rest."""

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
        self.first = allowed(self._matcher, vocabulary)
        self.check(self._matcher)
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

    def check(self, matcher: Any) -> None:
        """Refuse to go on with a matcher that has given up.

        Raises:
            GrammarError: A limit of llguidance was passed.
        """
        if matcher.is_error():
            raise GrammarError(
                f"llguidance cannot go on with {self.name}: {matcher.get_error().strip()}. Make "
                "the grammar simpler"
            )

    def _reserve(self, completion: Sequence[int]) -> int:
        """What one token may add to the rest at most, as far as a look at some states can tell."""
        most = 0
        layer: list[tuple[Any, Sequence[int]]] = [(self._matcher, completion)]
        seen = {self.first.tobytes()}
        while layer and len(seen) < STATES:
            state, known = layer.pop(0)
            for token in self.search.candidates(allowed(state, self.vocabulary)):
                child = state.deep_copy()
                if not child.consume_token(token):
                    continue
                mask = allowed(child, self.vocabulary).tobytes()
                if mask in seen or len(seen) >= STATES:
                    continue
                seen.add(mask)
                rest = self.search.find(child, known=known)
                if rest is not None:
                    most = max(most, len(rest) - len(known))
                    layer.append((child, rest))
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
