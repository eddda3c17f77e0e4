"""A person compares answers blindly."""

import io
import math

import pytest
from rich.console import Console

from agents.feedback import read_rankings
from agents.feedback.from_people.blind import BlindComparison

PAIRS = [(f"p{n}", f"first {n}", f"second {n}") for n in range(40)]


@pytest.fixture
def type_(monkeypatch):
    """A console on which the given lines are typed, and what it has shown."""

    def make(lines):
        left = iter(lines)
        shown = io.StringIO()
        console = Console(file=shown, width=80)
        monkeypatch.setattr(console, "input", lambda prompt: next(left))
        return console, shown

    return make


def test_votes_go_to_the_answers_wherever_they_were_shown(tmp_path, type_):
    console, shown = type_(["1", "2", "x", "="] * 20)
    blind = BlindComparison(tmp_path / "votes.jsonl", console=console)
    verdicts = blind.prefer(PAIRS[:30])
    votes = read_rankings(tmp_path / "votes.jsonl")
    assert [vote.prompt for vote in votes] == [prompt for prompt, _, _ in PAIRS[:30]]
    # Typed by turns were "1", "2" and, after a slip, "=".
    for number, (vote, verdict) in enumerate(zip(votes, verdicts, strict=True)):
        assert vote.ranks == [(1, 2), (2, 1), (1, 1)][number % 3]
        best = vote.answers[vote.ranks.index(1)]
        assert verdict == (0.5 if vote.ranks == (1, 1) else float(best.startswith("first")))
    assert {vote.answers[0].split()[0] for vote in votes} == {"first", "second"}
    assert "policy" not in shown.getvalue()


def test_a_person_may_stop_and_go_on(tmp_path, type_):
    path = tmp_path / "votes.jsonl"
    console, _ = type_(["1", "1", "q"])
    verdicts = BlindComparison(path, console=console).prefer(PAIRS[:4])
    assert [math.isnan(v) for v in verdicts] == [False, False, True, True]
    console, _ = type_(["1", "2"])
    again = BlindComparison(path, console=console).prefer(PAIRS[:4])
    assert again[:2] == verdicts[:2] and not any(map(math.isnan, again))
    turned = [(prompt, second, first) for prompt, first, second in PAIRS[:4]]
    console, _ = type_([])
    assert BlindComparison(path, console=console).prefer(turned) == [1 - v for v in again]


def test_equal_answers_are_a_tie(tmp_path, type_):
    console, _ = type_([])
    assert BlindComparison(tmp_path / "v.jsonl", console=console).prefer([("p", "a", "a")]) == [0.5]
