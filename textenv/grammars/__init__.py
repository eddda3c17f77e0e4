"""Grammars: which texts an answer may be, as masks over the tokens of any vocabulary."""

from textenv.errors import GrammarError
from textenv.grammars.kinds import Grammar, JsonSchema, Lark, OfRecord, Regex
from textenv.grammars.naming import load_grammar
from textenv.grammars.rows import AnswerGrammar, GrammarRows

__all__ = [
    "AnswerGrammar",
    "Grammar",
    "GrammarError",
    "GrammarRows",
    "JsonSchema",
    "Lark",
    "OfRecord",
    "Regex",
    "load_grammar",
]
