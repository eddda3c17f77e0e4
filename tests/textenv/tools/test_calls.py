"""Calls in the forms that models write."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textenv.tools import Call, fenced_json, find_calls, python_calls, tagged_json

ADD = {"name": "add", "arguments": {"a": 1, "b": [2, None]}}
WRITTEN = json.dumps(ADD)
CALL = Call("add", {"a": 1, "b": [2, None]})


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (tagged_json, f"<tool_call>\n{WRITTEN}\n</tool_call>"),  # Qwen, Hermes
        (tagged_json, f"I add.\n<tool_call>{WRITTEN}</tool_call> Done."),
        (tagged_json, f"<tool_call>{WRITTEN}"),  # the stop token stands for the end
        (tagged_json, f"<function_call>{WRITTEN}</function_call>"),
        (tagged_json, f"[TOOL_CALLS] [{WRITTEN}]"),  # Mistral
        (tagged_json, f"<|python_tag|>{WRITTEN.replace('arguments', 'parameters')}"),  # Llama 3.1
        (fenced_json, f"```json\n{WRITTEN}\n```"),
        (fenced_json, f"First:\n```\n{WRITTEN}\n```\nthen I see."),
        (fenced_json, f"```tool_call\n{WRITTEN}"),
        (fenced_json, f"  {WRITTEN} "),
        (fenced_json, f"[{WRITTEN}]"),
        (fenced_json, WRITTEN.replace("arguments", "parameters")),
        (python_calls, "add(a=1, b=[2, None])"),
        (python_calls, "[add(a=1, b=[2, None])]"),  # Llama 3.2
        (python_calls, "```tool_code\nadd(a=1, b=(2, None))\n```"),  # Gemma
        (python_calls, "I add.\n```python\nadd(a=1, b=[2, None])\n```"),
        (python_calls, "<|python_start|>[add(a=1, b=[2, None])]<|python_end|>"),  # Llama 4
    ],
)
def test_each_form_is_read(parse, text):
    assert list(parse(text)) == [CALL]
    assert list(find_calls(text)) == [CALL]
    assert list(find_calls(f"<think>add(a=3)?</think>\n{text}")) == [CALL]


def test_openais_own_form_is_read_too():
    outside = {"type": "function", "function": {**ADD, "arguments": json.dumps(ADD["arguments"])}}
    assert tagged_json(f"<tool_call>{json.dumps(outside)}</tool_call>") == [CALL]
    assert fenced_json(json.dumps(outside)) == [CALL]


def test_several_calls_keep_their_order():
    two = [Call("f", {"x": 1}), Call("g", {})]
    f, g = '{"name": "f", "arguments": {"x": 1}}', '{"name": "g", "arguments": {}}'
    assert tagged_json(f"<tool_call>{f}</tool_call>\n<tool_call>{g}</tool_call>") == two
    assert tagged_json(f"<tool_call>[{f}, {g}]</tool_call>") == two
    assert fenced_json(f"```json\n{f}\n```\n```json\n{g}\n```") == two
    assert fenced_json(f"[{f}, {g}]") == two
    for text in ("[f(x=1), g()]", "f(x=1)\ng()", "```python\nf(x=1)\ng()\n```"):
        assert python_calls(text) == two, text


def test_places_dots_and_signs_of_python():
    assert python_calls("math.power(-2, 'a\\nb', x={'k': 1.5})") == [
        Call("math.power", {"x": {"k": 1.5}}, (-2, "a\nb"))
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 4.",
        "f(2) = 4",
        "I would call f(2).",
        '{"answer": 4}',
        '```json\n{"name": "Ada", "age": 36}\n```',
        '{"name": "unfinished',
        "[1, 2, 3]",
        "```python\ndef f(x):\n    return x\n```",
        "```python\nx = f(1)\n```",
        "(1 + 2)(3)",
        "\\frac(1)(2)",
        "a(" * 2000 + ")" * 2000,  # the parser of Python gives up
        "f('\\d' 1or 2)",  # odd numbers and escapes warn
        "f(\0)",
    ],
)
def test_an_answer_holds_no_call(text):
    assert list(find_calls(text)) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<tool_call>add(1)</tool_call>", "this is not JSON: Expecting value"),
        ('<tool_call>{"name": "add", "arg', "this is not JSON: "),
        ('<tool_call>{"arguments": {}}</tool_call>', 'a call is {"name": ...'),
        ("<tool_call>3</tool_call>", 'a call is {"name": ..., "arguments": {...}}, not 3'),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "no JSON object: [1]"),
        ('<tool_call>{"name": "f", "arguments": "{"}</tool_call>', "of f are not JSON"),
        ('<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>', "NaN is not a number"),
        ("<tool_call>" + "[" * 100_000, "it is nested too deeply"),
        ('```json\n{"name": "f", "arguments": {]}\n```', "this is not JSON: "),
        ("f(x=y)", "the arguments of f must be written as values: y is not one"),
        ("f(g(1))", "g(1) is not one"),
        ("f(*[1])", "*[1] is not one"),
        ("f(**{'a': 1})", "** is not allowed"),
        ("f({1, 2})", "{1, 2} is not a value of JSON"),
        ("f(1j)", "1j is not a value of JSON"),
        ("f({1: 2})", "{1: 2} is not a value of JSON"),
    ],
)
def test_what_cannot_be_read_says_why(text, problem):
    (call,) = find_calls(text)
    assert problem in call.problem


@given(st.text())
def test_any_text_can_be_read(text):
    for around in ("{}", "<tool_call>{}", "```json\n{}", "```python\n{}", "f({})"):
        find_calls(around.replace("{}", text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=5,
)


@given(st.dictionaries(st.text("abc", min_size=1), JSON))
def test_what_is_written_is_what_is_read(arguments):
    finite = json.loads(json.dumps(arguments).replace("Infinity", "0"))
    body = json.dumps({"name": "f", "arguments": finite})
    if "</tool_call>" not in body:
        assert tagged_json(f"<tool_call>{body}</tool_call>") == [Call("f", finite)]
    written = ", ".join(f"{name}_={value!r}" for name, value in finite.items())
    assert python_calls(f"f({written})") == [Call("f", {f"{n}_": v for n, v in finite.items()})]
