"""GSM8K: a small file, and the real one where it is at hand."""

import copy
import json
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from solved import answered, scores

from textenv.errors import EmptyPromptsError, MalformedRecordError
from textenv.prompts import Prompt
from textenv.tasks import boxed, gsm8k, numeric_answer

REAL = Path(__file__).parents[4] / "shared" / "data" / "gsm8k" / "train.jsonl"
CLIPS = {"question": "48 and half of it?", "answer": "48/2 = <<48/2=24>>24\n48+24 = 72\n#### 72"}
CHEQUE = {"question": "How much?", "answer": "It is $1,250.\n#### 1,250"}


def written(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def task(tmp_path):
    return gsm8k(written(tmp_path / "problems.jsonl", CLIPS, CHEQUE))


def test_prompts_and_their_columns(task):
    clips, cheque = task.prompts.draw(np.array([4, 7], dtype=np.uint64))
    assert clips.text == "Question: 48 and half of it?\nAnswer:"
    assert clips.columns == {"answer": "72", "solution": CLIPS["answer"]}
    assert cheque.columns["answer"] == "1,250"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("#### 72", 1),
        (r"So it is $\boxed{72}$ clips.", 1),
        ("The answer is 72.0.", 1),
        ("24 and 48 make 72", 1),
        ("**72** clips", 1),
        ("seventy-two", 0),
        ("72 - 1 = 71", 0),
        ("#### 71\nor 72", 0),
        ("-72", 0),
        ("7 2", 0),
        ("72 " * 2 + "73", 0),
        ("", 0),
    ],
)
def test_verdicts(task, text, score):
    (clips,) = task.prompts.draw(np.array([0], dtype=np.uint64))
    assert scores(task, [clips], [text]) == [score]


def test_template_and_extraction_are_the_users(tmp_path):
    path = written(tmp_path / "problems.jsonl", CLIPS)
    task = gsm8k(path, template=str.upper, extract=boxed)
    (prompt,) = task.prompts.draw(np.array([0], dtype=np.uint64))
    assert prompt.text == "48 AND HALF OF IT?"
    assert scores(task, [prompt] * 2, ["#### 72", r"\boxed{72}"]) == [0, 1]


def test_a_column_of_numbers():
    asked = Prompt("?", {"result": 2.5})
    reward = numeric_answer(column="result")
    assert reward([answered(asked, "5/2"), answered(asked, "3")]) == [1.0, 0.0]


def test_an_environment_of_it(task):
    arguments = {"prompts": task.prompts, "reward": task.reward, "max_new_tokens": 3}
    env = gym.make("textenv/Generate-v0", **arguments)
    env.reset(seed=0, options={"prompt": {"prompt": "1 + 1?", "answer": "2"}})
    _, reward, terminated, _, info = env.step(ord("2"))
    assert not terminated
    _, reward, terminated, _, info = env.step(256)
    assert terminated and reward == 1.0 and list(info["reward_components"]) == ["correct"]
    assert copy.deepcopy(task.reward) is task.reward


def test_files_that_are_none(tmp_path):
    bad = [
        {"question": "?"},
        {"question": "?", "answer": "5"},
        {"question": "?", "answer": "#### x"},
    ]
    path = written(tmp_path / "problems.jsonl", CLIPS, *bad)
    with pytest.raises(MalformedRecordError) as e:
        gsm8k(path)
    lines = str(e.value).splitlines()
    assert [":2: 'question' and" in lines[1], ":3: the answer '5' does" in lines[2]] == [True, True]
    assert ":4: the answer '#### x' does not end" in lines[3] and len(lines) == 4
    with pytest.raises(EmptyPromptsError):
        gsm8k(written(tmp_path / "empty.jsonl"))
    with pytest.raises(MalformedRecordError, match="cannot be read"):
        gsm8k(tmp_path / "missing.jsonl")


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there")
def test_all_solutions_of_the_real_file_are_right_and_of_the_next_problem_wrong():
    task = gsm8k(REAL)
    problems = task.prompts.prompts
    assert len(problems) == 7473
    solutions = [problem.columns["solution"] for problem in problems]
    assert scores(task, problems, solutions) == [1.0] * 7473
    problems, solutions = problems[:1000], solutions[:1000]
    # The number before "####" is found without the mark, in nearly all.
    unmarked = [solution.split("####")[0] for solution in solutions]
    assert np.mean(scores(task, problems, unmarked)) > 0.95
    # Another problem's solution is right only where both numbers happen to be equal.
    numbers = [int(problem.columns["answer"].replace(",", "")) for problem in problems]
    moved = [float(a == b) for a, b in zip(numbers, numbers[1:] + numbers[:1], strict=True)]
    assert scores(task, problems, solutions[1:] + solutions[:1]) == moved
    assert 0 < sum(moved) < 50


def test_tasks_pickle(task):
    back = pickle.loads(pickle.dumps(task))
    prompts = back.prompts.draw(np.array([0, 1], dtype=np.uint64))
    assert scores(back, prompts, ["72", "72"]) == [1.0, 0.0]
