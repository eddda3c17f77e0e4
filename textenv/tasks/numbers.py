r"""Numbers as people and models write them, and whether two are equal.

These can be read: signs, decimals, thousands separated by commas or spaces, fractions (`3/4`,
`2 1/2`, `½`, `\frac{3}{4}`), powers of ten (`1e3`), `thousand` to `trillion`, currencies and units
around the number, and the usual marks of LaTeX and Markdown. Values are exact fractions: 0.5 equals
1/2, and 0.33 does not equal 1/3. A per cent sign is a unit: 50% is 50.

These cannot be read: words ("twelve"), decimal commas (`1,5`), times (`10:30`), ranges, dates,
sums, powers, roots, multiples of pi, fractions of LaTeX that were cut. They give None, which equals
nothing.
"""

import re
import unicodedata
from fractions import Fraction

MAX_DIGITS = 100
"""Longer numbers are not answers, and Python refuses to convert very long ones."""

SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

# Full-width forms as in Chinese texts, the minus sign, the en dash, and the multiplication sign.
_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x2212: "-",
    0x2013: "-",
    0xD7: "*",
}
_FRACTION_BEHIND_A_NUMBER = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞]|\\[dt]?frac)")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_LATEX = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r" \1"),
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2"),
        (r"\\[dt]?frac\s*(\d)\s*(\d)", r"\1/\2"),
        (r"\\times|\\cdot", "*"),
        (r"\{,\}", ","),
        (r"(?<=\d)(?:\\[,;:! ]|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))", ","),
        (r"\^\{", "^"),
        (r"\\(?=[$%])|\\!", ""),
        (r"[{}_`]", " "),
    ]
]

_DIGITS = r"(?:\d{1,3}(?: \d{3})+(?![\d,.:^/])|\.?\d[\d,.:^²³]*)(?:[eE][-+]?\d{1,3}(?!\d))?"
_NUMBER = re.compile(
    rf"(?<![\w.])(?:(?P<minus>-?)[$€£¥₹]\s?)?(?P<sign>[-+]?)(?P<whole>{_DIGITS})"
    rf"(?:\s?/\s?(?P<under>{_DIGITS})|\s+(?P<over>\d+)/(?P<part>\d+))?"
    rf"(?:\s+(?P<scale>{'|'.join(SCALES)})\b)?",
    re.ASCII | re.IGNORECASE,
)
_WELL_FORMED = re.compile(
    r"(?:\d{1,3}(?:[, ]\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d+)?", re.ASCII | re.IGNORECASE
)
_MORE_THAN_A_NUMBER = re.compile(r"\\(?:[cdt]?frac|sqrt|pi)(?![A-Za-z])|[√π]")
_GOES_ON = re.compile(r"\s?[-+*/^:]\s?[$(]?\s?\d|[eE][-+]?\d")


def parse_number(text: str) -> Fraction | None:
    r"""The value of the number in a short text: the first one behind the last "=".

    >>> parse_number("-$1,234.50"), parse_number(r"x = \frac{1}{2} cup"), parse_number("none")
    (Fraction(-2469, 2), Fraction(1, 2), None)
    """
    plain = _plain(text).rpartition("=")[2]
    found = _NUMBER.search(plain)
    if found is None or _GOES_ON.match(plain, found.end()) or _MORE_THAN_A_NUMBER.search(plain):
        return None
    return _value(found)


def same_number(first: str, second: str) -> bool:
    """Whether both texts hold the same number.

    >>> same_number("$1,000.00", "1000 dollars"), same_number("no", "no")
    (True, False)
    """
    value = parse_number(first)
    return value is not None and value == parse_number(second)


def last_number(text: str) -> str | None:
    """The last number in a text as it is written there, without LaTeX.

    >>> last_number("5 boxes of 3 make $15.")
    '$15.'
    """
    numbers = [found.group().strip() for found in _NUMBER.finditer(_plain(text))]
    return numbers[-1] if numbers else None


def _plain(text: str) -> str:
    """The text with ASCII digits and signs, and without what LaTeX needs around numbers."""
    text = _FRACTION_BEHIND_A_NUMBER.sub(" ", text.translate(_ASCII))
    text = _VULGAR_FRACTION.sub(
        lambda found: unicodedata.normalize("NFKC", found.group()).replace("\u2044", "/"), text
    )
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def _value(found: re.Match[str]) -> Fraction | None:
    whole = _decimal(found["whole"])
    under = _decimal(found["under"] or found["part"] or "1")
    over = _decimal(found["over"] or "0")
    if whole is None or over is None or not under:  # a denominator of 0, too
        return None
    value = whole + over / under if found["part"] else whole / under
    negative = "-" in (found["minus"], found["sign"])
    return (-value if negative else value) * SCALES.get((found["scale"] or "").lower(), 1)


def _decimal(digits: str) -> Fraction | None:
    digits = digits.rstrip(",.:^")  # the end of a clause
    if len(digits) > MAX_DIGITS or not _WELL_FORMED.fullmatch(digits):
        return None
    return Fraction(digits.replace(",", "").replace(" ", ""))
