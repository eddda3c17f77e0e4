"""What may be chosen under a grammar, against all texts of small ones."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv.grammars import JsonSchema, Lark, Regex
from textenv.grammars.compiled import Compiled
from textenv.grammars.completions import numbers
from textenv.grammars.sentences import Sentence
from textenv.grammars.vocabulary import vocabulary_of
from textenv.tokenizers import BytesTokenizer, CharacterTokenizer, train_bpe

LETTERS = CharacterTokenizer("ab()")
STOP = LETTERS.stop_token
BRACKETS = Lark('start: "(" start ")" start | "a"?')


def texts_of(pattern, longest):
    """All texts of at most `longest` letters that Python's own library finds to match."""
    every = (itertools.product(LETTERS.alphabet, repeat=n) for n in range(longest + 1))
    return {"".join(t) for texts in every for t in texts if re.fullmatch(pattern, "".join(t))}


def brackets(longest):
    """All texts of `BRACKETS` of at most `longest` letters, built up from shorter ones."""
    known = {"", "a"}
    for _ in range(longest):
        known |= {f"({x}){y}" for x in known for y in known if len(x) + len(y) + 2 <= longest}
    return known


def written(grammar, text, room):
    made = Sentence(Compiled(grammar, vocabulary_of(LETTERS, [STOP], [])), room)
    for token in LETTERS.encode(text):
        assert made.write(token)
    return made


def fitting(texts, begun):
    """The tokens behind which some text goes on from `begun`, and the stop token where it may."""
    following = {t[len(begun)] for t in texts if t.startswith(begun) and len(t) > len(begun)}
    return {*LETTERS.encode("".join(sorted(following))), *([STOP] if begun in texts else [])}


GRAMMARS = {
    "(ab|ba)*a?": lambda n: texts_of("(ab|ba)*a?", n),
    "a{2,4}b|bb": lambda n: texts_of("a{2,4}b|bb", n),
    r"\((a|b)*\)a*": lambda n: texts_of(r"\((a|b)*\)a*", n),
    "a?b?": lambda n: texts_of("a?b?", n),
    "brackets": brackets,
}


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("budget", [4, 7])
def test_near_the_budget_exactly_what_fits_may_be_chosen(name, budget):
    texts = GRAMMARS[name](budget - 1)  # the stop token takes one place
    grammar = BRACKETS if name == "brackets" else Regex(name)
    begun = {text[:n] for text in texts for n in range(len(text) + 1)}
    for text in sorted(begun):
        bits = written(grammar, text, budget).bits
        assert set(numbers(bits).tolist()) == fitting(texts, text), text


@pytest.mark.parametrize("name", GRAMMARS)
def test_far_from_the_budget_the_grammar_alone_says_what_may_be_chosen(name):
    texts = GRAMMARS[name](8)
    grammar = BRACKETS if name == "brackets" else Regex(name)
    for text in sorted({t[:n] for t in texts for n in range(min(len(t), 3) + 1)}):
        bits = written(grammar, text, 500).bits
        assert set(numbers(bits).tolist()) == fitting(texts, text), text


@pytest.mark.parametrize("name", GRAMMARS)
def test_completions_are_the_shortest_and_their_matcher_stays(name):
    texts = GRAMMARS[name](8)
    grammar = Compiled(
        BRACKETS if name == "brackets" else Regex(name), vocabulary_of(LETTERS, [STOP], [])
    )
    for text in sorted({t[:n] for t in texts for n in range(min(len(t), 3) + 1)}):
        matcher = grammar.copy()
        assert matcher.consume_tokens(LETTERS.encode(text)) or not text
        before = matcher.compute_bitmask()
        found = grammar.search.find(matcher)
        assert len(found) == 1 + min(len(t) - len(text) for t in texts if t.startswith(text))
        assert found[-1] == STOP and text + LETTERS.decode(found) in texts
        assert matcher.compute_bitmask() == before and not matcher.is_error()
        assert matcher.validate_tokens(found) == len(found) or found == [STOP]


def test_a_text_that_was_begun_too_late_is_never_narrowed_to_nothing():
    made = written(Regex("a{6}"), "", 20)
    late = written(Regex("a{6}"), "aa", 5)  # four letters and a stop token do not fit into three
    assert numbers(late.bits).tolist() == LETTERS.encode("a") == numbers(made.bits).tolist()
    assert late.write(0) and late.write(0) and not late.finished


@pytest.mark.parametrize("close", ["b", "bbbb", "bababbbb"])
def test_parts_that_are_opened_wherever_they_may_be_are_closed_in_time(close):
    nested = Compiled(Lark(f'start: "(" start "{close}" | "a"'), vocabulary_of(LETTERS, [STOP], []))
    (opening,), text = LETTERS.encode("("), Sentence(nested, 64)
    for _ in range(63):
        may = numbers(text.bits).tolist()
        if STOP in may:
            break
        assert text.write(opening if opening in may else may[0])
    assert text.finished


def test_what_was_refused_is_not_asked_again():
    made = written(Regex("ab"), "", 9)
    assert not made.write(LETTERS.encode("b")[0])
    assert not made.bits.any() and not made.finished
    assert not made.write(LETTERS.encode("a")[0])  # not even what could have come before


OBJECT = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "more": {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"enum": ["x", "yy"]}},
            "required": ["a", "b"],
        },
        "list": {"type": "array", "items": {"type": "number"}},
    },
    "required": ["name"],
    "additionalProperties": False,
}
TRAINED = train_bpe(
    ['{"name":"the cat","more":{"a":"","b":"yy"},"list":[1.5,-2e3,0]} é 你好'] * 3, 290
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(16, 60), st.sampled_from(["bytes", "trained"]))
def test_random_walks_end_with_a_stop_token_within_their_budget(seed, budget, kind):
    tokenizer = BytesTokenizer() if kind == "bytes" else TRAINED
    stop = tokenizer.stop_token
    made = Compiled(JsonSchema(OBJECT), vocabulary_of(tokenizer, [stop], []))
    rng, text = np.random.default_rng(seed), Sentence(made, budget)
    for place in range(budget):
        token = int(rng.choice(numbers(text.bits)))
        if token == stop:
            assert text.finished
            return
        assert place < budget - 1 and text.write(token)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_text_told_again_has_the_same_masks(seed):
    import copy
    import pickle

    made = Compiled(JsonSchema(OBJECT), vocabulary_of(TRAINED, [TRAINED.stop_token], []))
    rng, text = np.random.default_rng(seed), Sentence(made, 40)
    for _ in range(12):
        token = int(rng.choice(numbers(text.bits)))
        if token == TRAINED.stop_token:
            break
        text.write(token)
        for other in (copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
            np.testing.assert_array_equal(other.bits, text.bits)
