"""Grammars by their names in commands and records."""

from collections.abc import Mapping
from typing import Any

from textenv.errors import GrammarError
from textenv.files import read_text
from textenv.grammars.kinds import Grammar, JsonSchema, Lark, OfRecord, Regex
from textenv.records import short

FORMS = "regex:PATTERN, json:FILE, lark:FILE or record:COLUMN"


def load_grammar(given: Any) -> Grammar | OfRecord:
    """A grammar from its name, or the grammar itself.

    Args:
        given: `"regex:PATTERN"`, `"json:FILE"` with a JSON schema, `"lark:FILE"`,
            `"record:COLUMN"`, or a grammar. A schema or rules may stand in place of the file.

    Raises:
        GrammarError: It is none of these.
        MissingFileError: There is no such file.

    >>> load_grammar("regex:a+b")
    Regex(pattern='a+b')
    """
    if isinstance(given, OfRecord) or hasattr(given, "source"):
        grammar: Grammar | OfRecord = given
        return grammar
    kind, colon, rest = given.partition(":") if isinstance(given, str) else ("", "", "")
    if colon and rest and kind == "regex":
        return Regex(rest)
    if colon and rest and kind == "record":
        return OfRecord(rest)
    if colon and rest and kind == "json":
        return JsonSchema(rest if rest.lstrip()[:1] == "{" else read_text(rest, "a grammar"))
    if colon and rest and kind == "lark":
        return Lark(rest if "start:" in rest else read_text(rest, "a grammar"))
    raise GrammarError(f"{short(given)} is no grammar: give {FORMS}, or a textenv.grammars.Regex")


def grammar_of_record(columns: Mapping[str, Any], column: str) -> Grammar:
    """The grammar in a column of a prompt's record.

    Raises:
        GrammarError: There is no such column, or it holds no grammar.
    """
    given = columns.get(column)
    if given is None:
        raise GrammarError(
            f"the record has no column {column!r} with a grammar; it has {sorted(columns)}"
        )
    found = JsonSchema(given) if isinstance(given, Mapping) else load_grammar(given)
    if isinstance(found, OfRecord):
        raise GrammarError(f"the column {column!r} names another column, {found.column!r}")
    return found
