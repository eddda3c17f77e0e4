"""Prompts and their sources; files of them are in test_prompt_files.py."""

import copy
import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv.errors import (
    EmptyPromptsError,
    ObjectNotFoundError,
    PromptError,
)
from textenv.prompts import (
    FunctionPrompts,
    ListPrompts,
    Prompt,
    PromptSource,
    load_prompts,
)


def seeds(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


def texts(source: PromptSource) -> list[str]:
    assert isinstance(source, ListPrompts)
    return [prompt.text for prompt in source.prompts]


def random_word(rng: np.random.Generator) -> str:
    """At module level, so that it can be pickled."""
    return "".join(rng.choice(list("abcdefgh"), size=8))


# ------------------------------------------------------------------ Prompt


def test_a_record_keeps_its_other_keys_as_columns():
    prompt = Prompt.from_row({"prompt": "1+1=", "answer": 2, "level": "easy"})
    assert prompt.text == "1+1=" and prompt.tokens is None
    assert prompt.columns == {"answer": 2, "level": "easy"}


def test_a_record_may_give_tokens():
    prompt = Prompt.from_row({"tokens": [3, 1], "answer": "x"})
    assert prompt.text == "" and prompt.columns == {"answer": "x"}
    assert prompt.tokens.dtype == np.int64 and prompt.tokens.tolist() == [3, 1]


def test_the_record_and_the_tokens_given_are_not_touched():
    row, ids = {"prompt": "a", "b": 1}, np.array([1, 2], dtype=np.int64)
    Prompt.from_row(row)
    prompt = Prompt("", tokens=ids)
    ids[0] = 9
    assert row == {"prompt": "a", "b": 1} and prompt.tokens.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a"}, "neither of 'prompt' and 'tokens'.*question"),
        ({"prompt": "a", "tokens": [1]}, "both"),
        ({"prompt": 3}, "3 of type int"),
        ({"prompt": ["hi"]}, "must hold the messages of a chat"),
        ({"prompt": [{"role": "user"}]}, "'role' and a 'content'"),
        ({"prompt": []}, "must hold the messages of a chat"),
        ({"prompt": "\ud800"}, "not valid text"),
        ({"prompt": "a", 3: "b"}, "columns"),
        ({"tokens": "abc"}, "'abc' are not a list of integers"),
        ({"tokens": None}, "None are not a list of integers"),
        ({"tokens": [1.5]}, "not a list of integers"),
        ({"tokens": [True]}, "not a list of integers"),
        ({"tokens": [[1, 2]]}, "not a list of integers"),
        ({"tokens": [[1, 2], [3]]}, "not a list of integers"),
        ({"tokens": [1, -1]}, "outside"),
        ({"tokens": [2**63]}, "outside"),
        ({"tokens": [2**70]}, "not a list of integers"),
    ],
)
def test_a_record_that_is_no_prompt(row, message):
    with pytest.raises(PromptError, match=message):
        Prompt.from_row(row)


def test_empty_tokens_are_an_error_of_their_own():
    with pytest.raises(EmptyPromptsError):
        Prompt.from_row({"tokens": []})


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
plain_columns = st.dictionaries(st.text(), plain | st.lists(plain, max_size=3), max_size=3)


@settings(max_examples=50)
@given(
    text=st.text(),
    columns=plain_columns,
    tokens=st.none() | st.lists(st.integers(0, 2**62), min_size=1, max_size=5),
)
def test_a_prompt_survives_a_json_file(text, columns, tokens):
    prompt = Prompt(text, columns, tokens)
    back = Prompt.from_json(json.loads(json.dumps(prompt.to_json())))
    assert (back.text, back.columns) == (text, columns)
    assert (None if back.tokens is None else back.tokens.tolist()) == tokens


def test_numpy_columns_are_saved_as_plain_ones():
    columns = {"a": np.float32(0.5), "b": np.arange(3), "c": {"d": (np.int64(1),)}}
    assert Prompt("x", columns).to_json() == {
        "text": "x",
        "columns": {"a": 0.5, "b": [0, 1, 2], "c": {"d": [1]}},
        "tokens": None,
    }


def test_columns_that_json_cannot_hold():
    with pytest.raises(PromptError, match=r"\{1, 2\}.* cannot be saved"):
        Prompt("x", {"a": {1, 2}}).to_json()


# ------------------------------------------------------------------ lists and functions


def test_a_list_is_drawn_from_by_the_remainder():
    source = ListPrompts(["a", "b", "c"])
    drawn = source.draw(seeds(0, 1, 2, 3, 2**64 - 1))
    assert [p.text for p in drawn] == ["a", "b", "c", "a", "a"]  # 2**64 - 1 is a multiple of 3
    assert source.draw(seeds()) == []


def test_draws_from_a_list_are_uniform():
    n, draws = 7, 70_000
    drawn = ListPrompts([str(i) for i in range(n)]).draw(
        np.random.default_rng(0).integers(2**64, size=draws, dtype=np.uint64)
    )
    counts = Counter(p.text for p in drawn)
    chi_squared = sum((counts[str(i)] - draws / n) ** 2 / (draws / n) for i in range(n))
    assert chi_squared < 22.5  # 0.999 quantile with 6 degrees of freedom


def test_a_list_may_mix_kinds():
    prompt = Prompt("c")
    source = ListPrompts(["a", {"prompt": "b", "answer": 1}, prompt])
    assert texts(source) == ["a", "b", "c"] and source.prompts[2] is prompt


def test_a_bad_item_of_a_list_is_named():
    with pytest.raises(PromptError, match=r"prompts\[1\]: .*3\.5"):
        load_prompts(["a", 3.5])
    with pytest.raises(PromptError, match=r"prompts\[2\]: .*'text'"):
        load_prompts(["a", "b", {"text": "c"}])


@pytest.mark.parametrize("nothing", [[], (), ListPrompts])
def test_an_empty_list(nothing):
    with pytest.raises(EmptyPromptsError):
        ListPrompts([]) if nothing is ListPrompts else load_prompts(nothing)


@pytest.mark.parametrize("one", ["text", b"text", {"prompt": "text"}, 3])
def test_one_prompt_is_no_list(one):
    with pytest.raises(PromptError, match="not a list of prompts"):
        ListPrompts(one)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=8))
def test_a_function_depends_on_the_seed_alone(numbers):
    source = FunctionPrompts(random_word)
    together = [p.text for p in source.draw(seeds(*numbers))]
    assert together == [source.draw(seeds(n))[0].text for n in numbers]


def test_a_function_gives_other_prompts_for_other_seeds():
    drawn = FunctionPrompts(random_word).draw(seeds(*range(50)))
    assert len({p.text for p in drawn}) == 50


def test_a_function_may_return_any_kind_of_prompt():
    kinds = iter(["a", {"prompt": "b", "n": 1}, Prompt("c")])
    drawn = FunctionPrompts(lambda rng: next(kinds)).draw(seeds(1, 2, 3))
    assert [(p.text, dict(p.columns)) for p in drawn] == [("a", {}), ("b", {"n": 1}), ("c", {})]


@pytest.mark.parametrize("unusable", [None, 3, ["a"], {"question": "a"}])
def test_a_function_that_returns_no_prompt(unusable):
    def bad(rng):
        return unusable

    with pytest.raises(PromptError, match="prompt function 'bad' returned"):
        FunctionPrompts(bad).draw(seeds(1))


def test_what_a_function_raises_passes_through():
    with pytest.raises(ZeroDivisionError):
        FunctionPrompts(lambda rng: str(1 // 0)).draw(seeds(1))


@pytest.mark.parametrize("source", [ListPrompts(["a", "b"]), FunctionPrompts(random_word)])
def test_sources_pickle_and_are_their_own_deep_copies(source):
    back = pickle.loads(pickle.dumps(source))
    numbers = seeds(5, 6, 7)
    assert [p.text for p in back.draw(numbers)] == [p.text for p in source.draw(numbers)]
    assert copy.deepcopy({"prompts": source})["prompts"] is source


# ------------------------------------------------------------------ load_prompts


def test_sources_and_callables_are_recognised():
    class Mine:
        def draw(self, seeds):
            return [Prompt("mine")] * len(seeds)

    mine = Mine()
    assert load_prompts(mine) is mine
    assert isinstance(load_prompts(random_word), FunctionPrompts)
    for a_class in (Mine, ListPrompts, str):
        with pytest.raises(PromptError, match="type type"):
            load_prompts(a_class)


@pytest.mark.parametrize("nonsense", [None, 3, {"prompt": "a"}, b"abc", {"a", "b"}])
def test_what_is_no_source(nonsense):
    with pytest.raises(PromptError, match="is not a source of prompts"):
        load_prompts(nonsense)


@pytest.mark.parametrize("text", ["the ", "Question: why?", "prompts.xml", ""])
def test_a_bare_string_says_to_pass_a_list(text):
    with pytest.raises(PromptError, match="pass a list"):
        load_prompts(text)


def test_a_string_may_name_a_function_or_a_list(tmp_path):
    file = tmp_path / "tasks.py"
    file.write_text(
        "def add(rng):\n"
        "    a, b = rng.integers(10, size=2)\n"
        "    return {'prompt': f'{a}+{b}=', 'answer': str(a + b)}\n"
        "fixed = ['x', 'y']\n"
    )
    (prompt,) = load_prompts(f"{file}:add").draw(seeds(11))
    a, b = prompt.text.removesuffix("=").split("+")
    assert prompt.columns["answer"] == str(int(a) + int(b))
    assert texts(load_prompts(f"{file}:fixed")) == ["x", "y"]
    with pytest.raises(ObjectNotFoundError, match="did you mean add"):
        load_prompts(f"{file}:ad")
