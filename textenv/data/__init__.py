"""Data work: cleaning, filters, duplicates, contamination and mixtures, each a function of texts.

`textenv data` does them all on files; see docs/data.md.
"""

from textenv.data.cleaning import each_text, repaired, repeated_lines, without_lines
from textenv.data.contamination import Contamination, contamination
from textenv.data.curation import Curation, Drop, curate
from textenv.data.documents import Document, document, read_documents
from textenv.data.duplicates import exact_duplicates, near_duplicates
from textenv.data.mixtures import Mixture, Read
from textenv.data.quality import FILTERS, c4, c4_lines, gopher_quality, gopher_repetition
from textenv.data.words import ngrams, words

__all__ = [
    "FILTERS",
    "Contamination",
    "Curation",
    "Document",
    "Drop",
    "Mixture",
    "Read",
    "c4",
    "c4_lines",
    "contamination",
    "curate",
    "document",
    "each_text",
    "exact_duplicates",
    "gopher_quality",
    "gopher_repetition",
    "near_duplicates",
    "ngrams",
    "read_documents",
    "repaired",
    "repeated_lines",
    "without_lines",
    "words",
]
