"""The kinds of grammars: plain values, which can be compared, pickled and written as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from textenv.errors import GrammarError
from textenv.imports import optional


class Grammar(Protocol):
    """Says which texts an answer may be."""

    def source(self) -> str:
        """The grammar in the language of llguidance.

        Raises:
            GrammarError: It is none.
        """
        ...


@dataclass(frozen=True)
class Regex:
    r"""Texts that match a regular expression from beginning to end.

    The syntax is that of Rust's library `regex`: no back references, no looking ahead or behind.

    >>> Regex(r"(yes|no), [0-9]+")
    Regex(pattern='(yes|no), [0-9]+')
    """

    pattern: str

    def source(self) -> str:
        """See `Grammar.source`."""
        return str(_matcher().grammar_from_regex(self.pattern))


@dataclass(frozen=True)
class Lark:
    """Texts of a context-free grammar in the form of the Python library Lark.

    `start` is the rule that all of the text must be; names in capitals are tokens of the grammar,
    which have no recursion. What llguidance takes of Lark's language is on its page on syntax.

    >>> Lark('start: NUMBER ("+" NUMBER)*' + chr(10) + "NUMBER: /[0-9]+/").rules[:13]
    'start: NUMBER'
    """

    rules: str

    def source(self) -> str:
        """See `Grammar.source`."""
        return str(_matcher().grammar_from_lark(self.rules))


@dataclass(frozen=True)
class JsonSchema:
    """JSON texts that are valid under a schema.

    What is promised: each whole answer is a JSON text that `jsonschema` finds valid. Keys come in
    the order in which the schema lists them. Keywords that llguidance does not know are refused.
    An integer may be `-0`, which is one in JSON.

    Args:
        schema: The schema, as a mapping or as its JSON text; it is kept as text.
        whitespace: Whether white space may stand between the parts. Without it the texts are the
            shortest, and there are fewer ways to write the same.

    Raises:
        GrammarError: It is no JSON object.

    >>> JsonSchema({"type": "integer"})
    JsonSchema(schema='{"type": "integer"}', whitespace=False)
    """

    schema: str
    whitespace: bool = False

    def __init__(self, schema: Mapping[str, Any] | str, whitespace: bool = False):
        text = schema if isinstance(schema, str) else _as_text(schema)
        try:
            found = json.loads(text)
        except ValueError as error:
            raise GrammarError(f"the JSON schema is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise GrammarError(f"a JSON schema is an object, and this is {text[:60]!r}")
        object.__setattr__(self, "schema", text)
        object.__setattr__(self, "whitespace", whitespace)

    def source(self) -> str:
        """See `Grammar.source`."""
        spaces = {"whitespace_flexible": self.whitespace}
        return str(_matcher().grammar_from_json_schema(self.schema, overrides=spaces))


@dataclass(frozen=True)
class OfRecord:
    """Each prompt's own grammar, from a column of its record.

    The column holds one of the kinds above, a text as `load_grammar` takes it, or a mapping, which
    is a JSON schema.

    >>> OfRecord("answer_schema")
    OfRecord(column='answer_schema')
    """

    column: str = field(default="grammar")


def _as_text(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise GrammarError(f"the JSON schema holds what JSON cannot: {error}") from error


def _matcher() -> Any:
    with optional("llguidance", extra="grammar", purpose="a grammar"):
        from llguidance import LLMatcher
    return LLMatcher
