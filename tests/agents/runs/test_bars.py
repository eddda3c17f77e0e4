"""Bars at 80 columns, lines in a log file, and what is printed while a bar is shown."""

import io
import re
import time

import pytest
from rich.console import Console

from agents.runs.bars import Bar, Milestones, fitting
from agents.runs.stages import Stages


def console_of(width=80, terminal=False):
    return Console(file=io.StringIO(), width=width, force_terminal=terminal)


def plain(console):
    """What was written, without what moves the cursor and sets colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


# ---------------------------------------------------------------- 80 columns


@pytest.mark.parametrize("name", ["", "Answers before", "Reward model of the second round"])
def test_a_bar_fits_80_columns_and_no_number_is_cut(name):
    console = console_of(80)
    bar = Bar(987_654_321, "answers", name=name, console=console)
    bar.move(123_456_789, ["loss 12.3456", "123,456 tokens/s"])
    console.print(bar.get_renderable())
    first, second = console.file.getvalue().splitlines()
    assert len(first) <= 80 and "123M/988M answers" in first
    assert first.startswith(name) and first.endswith("left") and "…" not in first
    assert second.strip() == "loss 12.3456  123,456 tokens/s"


def test_a_line_ends_before_the_piece_that_does_not_fit():
    pieces = ["update 3", "score 0.5", "entropy 5 nats"]
    whole = "update 3  score 0.5  entropy 5 nats"
    assert fitting(pieces, len(whole)) == whole
    assert fitting(pieces, len(whole) - 1) == "update 3  score 0.5"
    assert fitting(pieces, 3) == ""


def test_without_pieces_there_is_one_line():
    console = console_of()
    console.print(Bar(10, "answers", console=console).get_renderable())
    assert len(console.file.getvalue().splitlines()) == 1


# ---------------------------------------------------------------- log files


def test_milestones_by_hand():
    now = [0.0]
    due = Milestones(0, 100, clock=lambda: now[0])
    assert [done for done in (5, 10, 11, 19, 35, 39) if due(done)] == [10, 35]
    now[0] = 29.9
    assert not due(39)
    now[0] = 30.0
    assert due(39)  # half a minute without a line
    now[0] = 59.0
    assert not due(39)
    assert due(40)
    now[0] = 88.9
    assert not due(41)  # counted from the last line, whatever brought it


def test_a_job_that_is_resumed_does_not_print_what_was_done():
    due = Milestones(55, 100, clock=lambda: 0.0)
    assert [due(done) for done in (56, 59, 60)] == [False, False, True]


def test_a_stage_prints_lines_in_a_log_file():
    console = console_of()
    with Stages(console).bar("Pretraining", 100, "tokens") as advance:
        for done in range(1, 101):
            advance(done, f"loss {done}.5")
    *lines, last, note = console.file.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["Pretraining", f"{tenth}%"] for tenth in range(10, 100, 10)
    ]
    assert all("loss" in line and len(line) <= 80 for line in lines)
    assert "100/100 tokens" in last and note == "loss 100.5"
    assert "\x1b" not in console.file.getvalue() and "\r" not in console.file.getvalue()


def test_a_bar_that_is_not_shown_prints_nothing():
    console = console_of()
    with Bar(10, "answers", console=console, visible=False) as bar:
        bar.move(5)
        bar.move(10)
    assert console.file.getvalue() == ""


# ---------------------------------------------------------------- a bar and what others print


def test_what_is_printed_stands_above_the_bar():
    console = console_of(terminal=True)
    with Bar(3, "answers", console=console, pieces=["begun"]) as bar:
        for done in (1, 2, 3):
            bar.move(done, [f"state {done}"])
            bar.refresh()  # twice a second it comes by itself
            console.print(f"line {done}")
    lines = [line.strip() for line in plain(console).splitlines()]
    for done in (1, 2, 3):
        place = lines.index(f"line {done}")
        assert f"{done}/3 answers" in lines[place + 1]
        assert lines[place + 2] == f"state {done}"
    assert lines[-1] == "state 3"


def test_a_bar_may_be_shown_inside_another():
    """An evaluation in the body of a training loop."""
    console = console_of(terminal=True)
    stages = Stages(console)
    with Bar(2, "tokens", console=console, pieces=["outer"]) as bar:
        with stages.bar("Answers", 4, "answers") as advance:
            advance(4)
            time.sleep(0.01)
        bar.move(2, ["outer, after"])
    text = plain(console)
    assert "4/4 answers" in text and text.strip().endswith("outer, after")
    assert stages.seconds["Answers"] >= 0.01
