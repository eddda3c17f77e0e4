"""The languages of the assistant's world by their codes."""

from collections.abc import Mapping

from textenv.errors import OptionError
from textenv.tasks.assistant.chinese import CHINESE
from textenv.tasks.assistant.english import ENGLISH
from textenv.tasks.assistant.words import Words

LANGUAGES: Mapping[str, Words] = {"en": ENGLISH, "zh": CHINESE}

PATTERNS: Mapping[str, str] = {
    "en": r" ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+",
    "zh": r"\p{Han}|\p{N}{1,3}|[^\s\p{Han}\p{N}]+|\s+",
}
"""How texts are cut into words when a vocabulary is learned, for `train_bpe`: numbers are whole,
with the space before them, and each Chinese character is a token of its own."""


def language(code: str) -> Words:
    """The words of a language.

    Raises:
        OptionError: There is no such language.
    """
    if code not in LANGUAGES:
        raise OptionError(f"language is {code!r}; the assistant speaks {' and '.join(LANGUAGES)}")
    return LANGUAGES[code]
