"""Rewards on a made-up episode, and where in the user's code they fail."""

import numpy as np
import pytest

from textenv.errors import (
    InvalidRewardError,
    ObjectNotFoundError,
    RewardCountError,
    RewardRaisedError,
    RewardValueError,
)
from textenv.prompts import Prompt
from textenv.reward_trial import ANSWER, try_reward
from textenv.rewards import dense, from_trl, per_text, weighted
from textenv.tokenizers.characters import CharacterTokenizer

MINE = """
import json
from functools import partial
from textenv.rewards import dense, from_trl, per_text, weighted


def ratio(text):
    return 1 / 0


def column(episodes):
    return [len(e.columns["answer"]) for e in episodes]


def parsed(episodes):
    return [json.loads("no") for e in episodes]


def nan(episodes):
    return [float("nan")] * len(episodes)


def none(episodes):
    return None


async def later(completions, **columns):
    raise RuntimeError("no")


def needs(completions, answer):
    return [0.0]


class Model:
    def __call__(self, episodes):
        return helper(episodes)


def helper(episodes):
    raise ValueError("no")


def each_step(batch):
    return batch.missing


text = per_text(ratio)
part = weighted(first=(1.0, lambda episodes: [0.0] * len(episodes)), size=(2.0, per_text(ratio)))
trl, short_trl = from_trl(later), from_trl(needs)
model = Model()
steps = dense(each_step)
half = partial(parsed)
"""
PROMPT = Prompt("2 + 2 =", {"solution": "4"})


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)


def line_of(code: str) -> int:
    return MINE.splitlines().index(code) + 1


@pytest.mark.parametrize(
    ("name", "error", "said", "code"),
    [
        ("text", RewardRaisedError, "'ratio' raised ZeroDivisionError", "    return 1 / 0"),
        ("part", RewardRaisedError, "component 'size': .*ZeroDivisionError", "    return 1 / 0"),
        (
            "column",
            RewardRaisedError,
            "'column' raised KeyError: 'answer'",
            '    return [len(e.columns["answer"]) for e in episodes]',
        ),
        # The line of the user's, not that of the library it calls.
        (
            "parsed",
            RewardRaisedError,
            "JSONDecodeError",
            '    return [json.loads("no") for e in episodes]',
        ),
        ("half", RewardRaisedError, "'parsed'", '    return [json.loads("no") for e in episodes]'),
        ("trl", RewardRaisedError, "'later' raised RuntimeError", '    raise RuntimeError("no")'),
        ("model", RewardRaisedError, "'Model' raised ValueError", '    raise ValueError("no")'),
        ("steps", RewardRaisedError, "'each_step' raised Attr", "    return batch.missing"),
        # Where no line of it ran, or all did: the function.
        ("short_trl", RewardRaisedError, "unexpected keyword", "def needs(completions, answer):"),
        ("nan", RewardValueError, "returned nan", "def nan(episodes):"),
        ("none", RewardCountError, "returned None", "def none(episodes):"),
    ],
)
def test_a_reward_that_fails_names_the_line(mine, name, error, said, code):
    with pytest.raises(error, match=said) as raised:
        try_reward(f"mine.py:{name}", PROMPT)
    message = str(raised.value)
    assert message.startswith("tried on a made-up episode: ")
    assert f"in mine.py, line {line_of(code)}" in message
    if error is RewardRaisedError and name != "short_trl":
        assert message.endswith(f": {code.strip()}")
        assert raised.value.__cause__ is not None


def test_a_module_that_fails_names_the_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("import json\n\nx = json.loads('')\n")
    with pytest.raises(ObjectNotFoundError, match=r"in broken\.py, line 3: x = json\.loads"):
        try_reward("broken.py:x", PROMPT)


def test_code_of_others_has_no_place():
    import textenv.tasks

    with pytest.raises(RewardRaisedError) as raised:
        try_reward(textenv.tasks.numeric_answer(column="answer"), PROMPT)
    assert "line" not in str(raised.value)


def test_what_the_reward_sees():
    seen = []

    def reward(episodes):
        seen.extend(episodes)
        return [1.0]

    def steps(batch):
        seen.append(batch)
        return batch.ended

    try_reward(weighted(one=(1.0, reward), two=(1.0, dense(steps))), PROMPT)
    episode, batch = seen
    assert (episode.prompt, episode.text) == ("2 + 2 =", ANSWER)
    assert episode.columns == {"solution": "4"} and episode.finish_reason == "stop"
    assert batch.tokens.shape == (1, batch.lengths[0]) and batch.ended.all()
    assert batch.tokens[0].tolist() == [*episode.prompt_tokens, *episode.tokens]


def test_ids_are_of_the_vocabulary():
    tokenizer = CharacterTokenizer("+234 =")  # which cannot write the answer
    table = np.zeros(tokenizer.vocab_size)

    def reward(episodes):
        return [table[episode.tokens].sum() for episode in episodes]

    try_reward(reward, PROMPT, tokenizer)
    try_reward(reward, Prompt("", {}, [1, 2]), tokenizer)
    with pytest.raises(RewardRaisedError, match="IndexError"):
        try_reward(reward, PROMPT)


def test_once_and_only_rewards():
    calls = []
    try_reward(per_text(lambda text: calls.append(text) or 0.0), PROMPT)
    try_reward(from_trl(lambda completions, **columns: [0.0]), PROMPT)
    assert calls == [ANSWER]
    with pytest.raises(InvalidRewardError, match="tried on a made-up episode: 3 of type int"):
        try_reward(3, PROMPT)
