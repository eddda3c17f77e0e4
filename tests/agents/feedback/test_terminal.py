"""People as labellers."""

import io

import pytest
from rich.console import Console

from agents.feedback import label_in_terminal, parse_ranking, read_rankings, unranked

PROMPTS = ["who are you", "second", "third"]
ANSWERS = [["a", "bb", "ccc"], ["d", "ee", "fff"], ["g", "hh", "[red]iii"]]


class Person:
    """Types the given lines; an exception among them is raised."""

    def __init__(self, monkeypatch, *lines):
        self.lines = list(lines)
        self.shown = io.StringIO()
        self.console = Console(file=self.shown, width=80)
        monkeypatch.setattr("builtins.input", self.type)

    def type(self, prompt=""):
        line = self.lines.pop(0)
        if isinstance(line, type):
            raise line
        return line

    def label(self, path, answers=ANSWERS, **options):
        return label_in_terminal(PROMPTS, answers, path, console=self.console, **options)


@pytest.mark.parametrize(
    "line, scores",
    [
        ("2 1 3=4", [-1, 0, -2, -2]),
        ("1=2=3=4", [0, 0, 0, 0]),
        ("  4   3 =2  1 ", [-2, -1, -1, 0]),
    ],
)
def test_what_is_typed_becomes_scores(line, scores):
    assert parse_ranking(line, 4) == scores


@pytest.mark.parametrize(
    "line, message",
    [
        ("", "missing: 1, 2, 3, 4"),
        ("2 1 3", "missing: 4"),
        ("2 1 3 4 1", "answer 1 is named twice"),
        ("2 1 3 5", "'5' is not one of the answers 1 to 4"),
        ("2 1 3 0", "'0' is not one of"),
        ("best 1 2", "'best' is not one of"),
        ("2 1 3 4=", "'' is not one of"),
        ("2 -1 3 4", "'-1' is not one of"),
    ],
)
def test_what_is_no_ranking(line, message):
    with pytest.raises(ValueError, match=message):
        parse_ranking(line, 4)


def test_rankings_are_of_the_answers_as_they_were_shown(monkeypatch, tmp_path):
    person = Person(monkeypatch, "1 2 3", "1 2=3", "3 2 1")
    assert person.label(tmp_path / "p.jsonl") is True
    rankings = read_rankings(tmp_path / "p.jsonl")
    assert [ranking.prompt for ranking in rankings] == PROMPTS
    assert [ranking.ranks for ranking in rankings] == [(1, 2, 3), (1, 2, 2), (3, 2, 1)]
    assert [sorted(ranking.answers, key=len) for ranking in rankings] == ANSWERS
    assert [list(ranking.answers) for ranking in rankings] != ANSWERS  # shuffled
    shown = person.shown.getvalue()
    assert "[red]iii" in shown  # text, not markup
    places = [shown.index(f"│ {answer} ") for ranking in rankings for answer in ranking.answers]
    assert places == sorted(places)


def test_it_asks_until_there_is_a_ranking(monkeypatch, tmp_path):
    person = Person(monkeypatch, "1 2", "1 2 9", "3 1 2", "q")
    assert person.label(tmp_path / "p.jsonl") is False
    assert len(read_rankings(tmp_path / "p.jsonl")) == 1
    shown = person.shown.getvalue()
    assert "answers are missing: 3" in shown and "'9' is not one of the answers 1 to 3" in shown


@pytest.mark.parametrize("stop", ["q", " Q ", KeyboardInterrupt, EOFError])
def test_it_goes_on_where_it_stopped(stop, monkeypatch, tmp_path):
    path = tmp_path / "p.jsonl"
    person = Person(monkeypatch, "1 2 3", stop)
    if stop is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            person.label(path)
    else:
        assert person.label(path) is False
    assert unranked(PROMPTS, path) == ["second", "third"]
    person = Person(monkeypatch, "2 1 3", "3 2 1")
    assert person.label(path) is True
    assert PROMPTS[0] not in person.shown.getvalue()
    assert [ranking.prompt for ranking in read_rankings(path)] == PROMPTS
    assert Person(monkeypatch).label(path) is True  # nothing is left to ask


def test_answers_are_made_only_when_they_are_shown(monkeypatch, tmp_path):
    made = []

    def make():
        for some in ANSWERS:
            made.append(some)
            yield some

    assert Person(monkeypatch, "1 2 3", "q").label(tmp_path / "p.jsonl", make()) is False
    assert made == ANSWERS[:2]


def test_a_prompt_that_comes_twice_is_asked_once(monkeypatch, tmp_path):
    person = Person(monkeypatch, "1 2")
    console = person.console
    path = tmp_path / "p.jsonl"
    assert label_in_terminal(["x", "x"], [["a", "b"]] * 2, path, console=console)
    assert unranked(["y", "x", "y"], path) == ["y"]
