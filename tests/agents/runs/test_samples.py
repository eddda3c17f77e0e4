import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agents.collector import Collector
from agents.rollout import Rollout
from agents.runs import samples
from agents.runs.samples import (
    Sample,
    SamplesFile,
    append_samples,
    comparison_table,
    evenly_ranked,
    rollout_samples,
    samples_markdown,
    samples_table,
)
from policies import TransformerPolicy
from textenv import AutoresetMode, TextVectorEnv
from textenv.tokenizers.bytes import BytesTokenizer

STOP, PAD = 256, 257


def printed(table, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


# ---------------------------------------------------------------- rows of a rollout


def rollout_of(rows, prompt_lengths=None):
    """Rows are (text with chosen characters in upper case, finished); "." is the stop token."""
    length = max(len(text) for text, _ in rows) + 1
    tokens = torch.full((len(rows), length), PAD)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, (text, _) in enumerate(rows):
        for place, character in enumerate(text):
            tokens[row, place] = STOP if character == "." else ord(character)
            mask[row, place] = character == "." or character.isupper()
    zeros = torch.zeros(tokens.shape)
    finished = torch.tensor([finished for _, finished in rows])
    return Rollout(
        tokens=tokens,
        mask=mask,
        logprobs=zeros,
        values=zeros,
        rewards=zeros,
        bootstrap_values=zeros[:, 0],
        terminated=finished,
        truncated=torch.zeros_like(finished),
        scores=torch.arange(len(rows)) + 0.5,
        groups=torch.arange(len(rows)),
        prompt_lengths=None if prompt_lengths is None else torch.tensor(prompt_lengths),
    )


def test_samples_by_hand():
    rollout = rollout_of(
        [
            ("pAB.", True),  # the stop token is no text
            ("pABC", True),  # the budget was spent
            ("pAB", False),  # goes on in the next rollout
            ("pqCALLtoolDONE.", True),  # what a tool answered was not chosen, but is text
            ("pqbegunEND", True),  # "begun" was chosen in the rollout before
            ("p.", True),  # an empty answer
        ],
        prompt_lengths=[1, 1, 1, 2, 2, 1],
    )
    assert rollout_samples(rollout, BytesTokenizer()) == [
        Sample("p", "AB", 0.5),
        Sample("p", "ABC", 1.5),
        Sample("pq", "CALLtoolDONE", 3.5),
        Sample("pq", "begunEND", 4.5),
        Sample("p", "", 5.5),
    ]


def test_without_prompt_lengths_the_text_begins_at_the_first_choice():
    rollout = rollout_of([("pqCALLtoolDONE.", True), ("pqAB", False)])
    assert rollout_samples(rollout, BytesTokenizer()) == [Sample("pq", "CALLtoolDONE", 0.5)]


def test_a_conversation_shows_who_said_what():
    rollout = rollout_of([("pAB.wxC.D", True), ("pqa.wxC.yD", True), ("pA.", True)], [1, 1, 1])
    numbers = [[0, 1, 1, 1, 0, 0, 2, 2, 3], [0, 0, 0, 0, 0, 0, 2, 2, 0, 3], [0, 1, 1]]
    turns = torch.full(rollout.tokens.shape, -1)
    for row, of_row in enumerate(numbers):
        turns[row, : len(of_row)] = torch.tensor([n or -1 for n in of_row])
    rollout = replace(rollout, turns=turns, mask=turns > 0)
    whole, cut, one_turn = rollout_samples(rollout, BytesTokenizer())
    assert whole.turns == (("agent", "AB"), ("world", "wx"), ("agent", "C"), ("agent", "D"))
    assert whole.lines == ["agent: AB", "world: wx", "agent: C", "agent: D"]
    # The first turn of the second one was chosen in the rollout before.
    assert cut.turns[0][0] == "earlier" and cut.turns[0][1].startswith("qa")
    assert cut.turns[1:] == (("agent", "C"), ("world", "y"), ("agent", "D"))
    assert one_turn.turns == () and one_turn.lines == ["A"]
    for shown in (printed(samples_table([whole])), samples_markdown([whole])):
        assert all(line in shown for line in whole.lines)


def test_turns_are_kept_of_conversations_alone(tmp_path):
    talk = (("agent", "5"), ("world", "-"))
    append_samples(tmp_path / "s.jsonl", [Sample("p", "5", 1.0, talk), Sample("p", "4", 0.0)])
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert lines[0]["turns"] == [["agent", "5"], ["world", "-"]]
    assert lines[1] == {"prompt": "p", "text": "4", "score": 0.0}


def test_no_finished_episode_no_sample():
    assert rollout_samples(rollout_of([("pA", False)]), BytesTokenizer()) == []


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_samples_are_the_episodes_that_the_reward_saw(mode):
    """Rollouts of 5 steps cut most of the answers, which have up to 12 tokens."""
    torch.set_num_threads(1)
    seen = []

    def reward(episodes):
        scores = [len(e.text) / 2 for e in episodes]
        seen.extend(Sample(e.prompt, e.text, s) for e, s in zip(episodes, scores, strict=True))
        return scores

    allowed = [*b"abcdefgh", STOP]
    envs = TextVectorEnv(
        5,
        prompts=["the ", "a "],
        reward=reward,
        max_new_tokens=12,
        forbidden_tokens=[t for t in range(257) if t not in allowed],
        autoreset_mode=mode,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    collector = Collector(policy, envs, seed=1)
    found = []
    for _ in range(20):
        found += rollout_samples(collector.collect_steps(5), envs.tokenizer)
    assert found == seen
    assert len(found) > 20
    assert len({len(sample.text) for sample in found}) > 5  # by stop token and by budget


# ---------------------------------------------------------------- which ones


def score_of(sample):
    return sample.score


@given(st.lists(st.integers(-5, 5), max_size=20), st.integers(2, 8))
def test_shown_samples_reach_from_the_best_to_the_worst(scores, count):
    samples = [Sample("p", str(n), float(score)) for n, score in enumerate(scores)]
    shown = evenly_ranked(samples, count, score_of)
    assert len(shown) == min(count, len(samples))
    assert len(set(shown)) == len(shown)
    assert set(shown) <= set(samples)
    found = [sample.score for sample in shown]
    assert found == sorted(found, reverse=True)
    if samples:
        assert (found[0], found[-1]) == (max(scores), min(scores))


def test_shown_samples_are_even_in_rank():
    samples = [Sample("p", "", score) for score in (4.0, 100.0, 2.0, 1.0, 3.0)]
    assert [sample.score for sample in evenly_ranked(samples, 3, score_of)] == [100.0, 3.0, 1.0]
    lowest = evenly_ranked(samples, 2, lambda sample: -sample.score)
    assert [sample.score for sample in lowest] == [1.0, 100.0]


# ---------------------------------------------------------------- tables


def test_table_by_eye():
    text = printed(samples_table([Sample("the ", "end", 1 / 3)], "after 64 tokens"))
    assert [line.rstrip() for line in text.splitlines()] == [
        "after 64 tokens",
        "┏━━━━━━━━┳━━━━━━┳━━━━━━━┓",
        "┃ prompt ┃ text ┃ score ┃",
        "┡━━━━━━━━╇━━━━━━╇━━━━━━━┩",
        "│ the    │ end  │ 0.333 │",
        "└────────┴──────┴───────┘",
    ]


@given(st.text())
@settings(deadline=None)
def test_no_text_can_command_the_terminal(text):
    for table in (
        samples_table([Sample("p", text, 0.0)]),
        comparison_table([Sample("p", text, 0.0)], [Sample("p", text, 0.0)]),
    ):
        assert all(character.isprintable() or character == "\n" for character in printed(table))


def test_markup_and_control_characters_are_shown_as_they_are():
    text = printed(samples_table([Sample("[red]p[/red]", "a\x1b[2J\nb 好", 1.0)]))
    assert "[red]p[/red]" in text
    assert r"a\x1b[2J\nb 好" in text


def test_long_texts_fold_inside_the_table():
    table = samples_table([Sample("prompt " * 20, "x" * 300, 1.0)])
    lines = printed(table, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.count("x") for line in lines[3:]) == 300
    assert "1.000" in "".join(lines)


def test_comparison_by_eye():
    before = [Sample("the ", "dog", 0.0), Sample("a ", "cat", 1.0)]
    after = [Sample("the ", "aeiou", 1.0), Sample("a ", "oo", 2.0)]
    lines = [line.rstrip() for line in printed(comparison_table(before, after)).splitlines()]
    assert [line for line in lines if any(c.isalnum() for c in line)] == [
        "┃ prompt ┃ before ┃ score ┃ after ┃ score ┃",
        "│ the    │ dog    │ 0.000 │ aeiou │ 1.000 │",
        "│ a      │ cat    │ 1.000 │ oo    │ 2.000 │",
        "│ mean   │        │ 0.500 │       │ 1.500 │",
    ]


@pytest.mark.parametrize("after", [[], [Sample("an ", "", 0.0)], [Sample("a ", "", 0.0)] * 2])
def test_comparison_of_other_prompts_is_refused(after):
    with pytest.raises(ValueError, match=f"1 samples before and {len(after)} after"):
        comparison_table([Sample("a ", "", 0.0)], after)


def test_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 samples"):
        comparison_table([], [])


# ---------------------------------------------------------------- files

any_text = st.text(st.characters())  # half surrogate pairs included


@settings(deadline=None)
@given(st.lists(st.builds(Sample, any_text, any_text, st.floats(allow_nan=False)), max_size=5))
def test_a_file_gives_back_what_was_appended(samples):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "samples.jsonl"
        append_samples(path, samples[:2], step=64)
        append_samples(path, samples[2:], step=128, update=2)
        with path.open(encoding="utf-8", newline="\n") as file:
            lines = [json.loads(line) for line in file]
    labels = [{"step": 64}] * len(samples[:2]) + [{"step": 128, "update": 2}] * len(samples[2:])
    for line, label, sample in zip(lines, labels, samples, strict=True):
        assert line == {
            **label,
            "prompt": sample.prompt,
            "text": sample.text,
            "score": sample.score,
        }


def test_a_file_can_be_read_by_people(tmp_path):
    append_samples(tmp_path / "s.jsonl", [Sample("这部", "电影", 0.5)], step=1)
    assert (tmp_path / "s.jsonl").read_text(encoding="utf-8") == (
        '{"step": 1, "prompt": "这部", "text": "电影", "score": 0.5}\n'
    )


def steps_in(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["step"], line["prompt"]) for line in lines]


def test_a_file_grows_at_its_end(tmp_path, monkeypatch):
    """What stands in it already is read once, and written anew only where it must change."""
    path = tmp_path / "s.jsonl"
    for step in (1, 10):
        append_samples(path, [Sample("a", "b\udc80", step)], step=step)
    first = path.read_bytes()
    file = SamplesFile(path)
    monkeypatch.setattr(samples, "write_whole", None)  # must not be called
    file.append([Sample("c", "d", 0.0)], step=100)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", None)
        patch.setattr(Path, "read_text", None)
        patch.setattr(samples, "append_whole", lambda path, text: written.append(text))
        written = []
        file.append([Sample("c", "d", 0.0)], step=1000)
    assert json.loads(*written)["step"] == 1000
    monkeypatch.undo()
    assert path.read_bytes().startswith(first)
    path.write_bytes(path.read_bytes() + b'{"step": 101, "pro')  # a kill
    file.append([Sample("e", "f", 0.0)], step=1)
    assert steps_in(path) == [(10, "a"), (100, "c"), (1, "e")]
    file.append([Sample("g", "h", 0.0)], step=1, update=3)
    file.append([Sample("i", "j", 0.0)], step=1, update=4)
    assert steps_in(path)[2:] == [(1, "e"), (1, "g"), (1, "i")]
    file.append([Sample("k", "l", 0.0)], step=1)  # takes the place of all of step 1
    assert steps_in(path) == [(10, "a"), (100, "c"), (1, "k")]


def test_a_file_in_which_an_append_failed(tmp_path, monkeypatch):
    file = SamplesFile(tmp_path / "s.jsonl")
    file.append([Sample("a", "", 0.0)], step=1)

    def half(path, text):
        path.write_bytes(path.read_bytes() + text.encode()[:9])
        raise OSError("no space left on device")

    monkeypatch.setattr(samples, "append_whole", half)
    with pytest.raises(OSError, match="no space"):
        file.append([Sample("b", "", 0.0)], step=2)
    monkeypatch.undo()
    file.append([Sample("c", "", 0.0)], step=3)
    assert steps_in(file.path) == [(1, "a"), (3, "c")]
