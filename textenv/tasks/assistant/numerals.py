"""Whole numbers below a thousand in a text, as digits or as words, English and Chinese."""

import re

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ENGLISH = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * place for place, word in enumerate(_TENS, start=2)
}
_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"两": 2}
# Characters of numbers that count nothing, and the unit of weight behind a number.
_NO_NUMBERS = re.compile(
    r"第[一二三四五六七八九十]+|一共|一半|[一两]倍|一样|一个词|(?<=[\d一二三四五六七八九十百])两"
)


def numbers_in(code: str, text: str) -> list[int]:
    """The numbers in a text in lower case, in order; digits of other scripts are none.

    >>> numbers_in("en", "seven plus 5 is twenty-one"), numbers_in("zh", "二十一加5是一百零三")
    ([7, 5, 21], [21, 5, 103])
    """
    return _chinese(text) if code == "zh" else _english(text)


def _english(text: str) -> list[int]:
    found: list[int] = []
    words = re.findall(r"[0-9]+|[a-z]+|[^\s\w]", text)
    tens = hundreds = -1  # places in `found` that the next word may add to
    for place, word in enumerate(words):
        if word.isdigit():
            found.append(_value(word))
        elif word in _TENS or word in _ENGLISH:
            value = _ENGLISH[word]
            if tens == place and 0 < value < 10:
                found[-1] += value
            elif hundreds == place:
                found[-1] += value
                tens = place + 1 if word in _TENS else -1
            else:
                found.append(value)
                tens = place + 1 if word in _TENS else -1
        elif word == "hundred":
            if place and found and words[place - 1] in ("a", *_ONES[1:10]):
                found[-1:] = [100 * found[-1]] if words[place - 1] != "a" else [found[-1], 100]
            else:
                found.append(100)
            hundreds = place + 1
        elif word == "-" and tens == place:
            tens += 1
        elif word == "and" and hundreds == place:
            hundreds += 1
    return found


def _chinese(text: str) -> list[int]:
    text = _NO_NUMBERS.sub(" ", text)
    return [_value(run) for run in re.findall(r"[0-9]+|[零一二两三四五六七八九十百]+", text)]


def _value(run: str) -> int:
    if run.isdecimal():
        return int(run[:100])  # Python refuses to read thousands; so long a number is no answer
    total = digit = 0
    for character in run:
        if character in "十百":
            total += (digit or 1) * (10 if character == "十" else 100)
            digit = 0
        else:
            digit = 10 * digit + _DIGITS[character] if digit else _DIGITS[character]
    return total + digit
