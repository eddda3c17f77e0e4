"""What is measured on was not learned from, whatever occurs twice."""

import json

import numpy as np
import pytest
from command_line import run_command
from hypothesis import given
from hypothesis import strategies as st

from agents.jobs.holding_out import hold_out
from agents.jobs.inputs import FEWEST_TO_SPLIT, split_prompts
from agents.supervised import Example
from policies import TransformerConfig, TransformerPolicy
from textenv import ListPrompts, load_prompts
from textenv.tokenizers import BytesTokenizer

SEED = 3


def prompts_from(lines: list[str], path):
    path.write_text("\n".join(lines))
    training, asked, held_out = split_prompts(load_prompts(path), 512, SEED)
    assert isinstance(training, ListPrompts)
    return training.prompts, asked, held_out


def test_lines_that_occur_eight_times_are_too_few(tmp_path):
    lines = [f"prompt {n % 8}" for n in range(64)]
    training, asked, held_out = prompts_from(lines, tmp_path / "a.txt")
    assert not held_out
    assert len(training) == 64 and {p.text for p in asked} == set(lines)


@pytest.mark.parametrize("form", ["txt", "columns", "tokens"])
def test_lines_that_occur_twice_stay_on_one_side(form, tmp_path):
    def line(n: int) -> str:
        if form == "txt":
            return f"prompt {n % 50}"
        start = {"prompt": f"prompt {n % 50}"} if form == "columns" else {"tokens": [1, n % 50]}
        return json.dumps({**start, "answer": n})

    path = tmp_path / f"a.{'txt' if form == 'txt' else 'jsonl'}"
    training, asked, held_out = prompts_from([line(n) for n in range(100)], path)
    seen, kept = ({prompt.content for prompt in some} for some in (training, asked))
    assert held_out and not seen & kept
    assert len(seen) == 30 and len(kept) == FEWEST_TO_SPLIT // 2 and len(training) == 60


def test_different_prompts_are_parted_as_ever(tmp_path):
    lines = [f"prompt {n}" for n in range(300)]
    training, asked, _ = prompts_from(lines, tmp_path / "a.txt")
    order = np.random.default_rng(SEED).permutation(300)
    assert [p.text for p in training] == [lines[i] for i in order[30:]]
    assert {p.text for p in asked} == {lines[i] for i in order[:30]}


@given(st.lists(st.integers(0, 9), min_size=1), st.floats(0, 1), st.integers(0, 9))
def test_nothing_is_lost_and_no_key_is_on_both_sides(items, share, seed):
    kept, learned = hold_out(
        items, lambda n: n // 2, lambda keys: round(share * keys), np.random.default_rng(seed)
    )
    assert sorted(kept + learned) == sorted(items) and learned
    assert not {n // 2 for n in kept} & {n // 2 for n in learned}


def test_the_question_of_an_example():
    assert Example.from_record({"prompt": "one", "response": "two"}).question == "one"
    system = {"role": "system", "content": "s"}
    messages = [{"role": role, "content": c} for role, c in (("user", "a"), ("assistant", "b")) * 2]
    long = Example.from_record({"messages": [system, *messages]})
    short = Example.from_record({"messages": [system, *messages[:2]]})
    assert long.question == short.question and "s" in long.question and "b" not in long.question


def test_examples_of_one_question_are_learned_or_measured_on(tmp_path, monkeypatch):
    tokenizer = BytesTokenizer()
    TransformerPolicy(TransformerConfig(257, 16, 1, 1, 8), tokenizer=tokenizer).save(
        tmp_path / "policy"
    )
    records = [{"prompt": f"q{n % 10}", "response": f"a{n}"} for n in range(40)]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, records)))
    seen = {}

    def learn(policy, examples, **options):
        seen["learned"] = examples
        return []

    def measure(policy, examples):
        seen["kept"] = examples
        return 0.0

    monkeypatch.setattr("agents.jobs.sft.sft_steps", learn)
    monkeypatch.setattr("agents.jobs.sft.held_out_answer_loss", measure)
    result = run_command(
        *("sft", "--policy", tmp_path / "policy", "--examples", tmp_path / "e.jsonl"),
        *("--out", tmp_path / "out", "--held-out", 0.2),
    )
    assert result.exit_code == 0, result.output
    learned, kept = ({e.question for e in seen[name]} for name in ("learned", "kept"))
    assert len(seen["learned"]) == 32 and len(kept) == 2 and not learned & kept
