"""The arithmetic task of the benchmarks: its problems against Python's own arithmetic."""

import numpy as np
import pytest

from benchmarks import arithmetic_task as task
from textenv import Episode


@pytest.mark.parametrize("held_out", [False, True])
def test_problems_are_worked_from_left_to_right(held_out: bool) -> None:
    for problem in task.problems(300, 3, seed=0, held_out=held_out):
        value, found = int(problem.prompt[0]), []
        for at in range(1, len(problem.prompt) - 1, 2):
            value = eval(f"{value}{problem.prompt[at : at + 2]}")
            found.append(value)
        assert [int(number) for number in problem.worked.replace("#", ";").split(";")] == found
        assert int(problem.answer) == found[-1] and all(0 <= n <= task.LARGEST for n in found)
        assert len(problem.prompt) <= task.longest_prompt(3)
        assert len(problem.worked) + 1 <= task.longest_answer(3)


def test_no_problem_is_trained_on_and_held_out() -> None:
    train, held_out = (
        {problem.prompt for problem in task.problems(2_000, 3, seed, held_out)}
        for seed, held_out in ((0, False), (1, True))
    )
    assert len(train) > 1_000 and len(held_out) > 1_000 and not train & held_out


def test_only_the_final_number_is_paid() -> None:
    record = {"prompt": "7+5-3*2=", "answer": "18"}

    def paid(text: str) -> float:
        tokens = np.array(task.TOKENIZER.encode(text), dtype=np.int64)
        prompt = np.array(task.TOKENIZER.encode(record["prompt"]))
        episode = Episode(record["prompt"], prompt, tokens, "length", record, task.TOKENIZER)
        return task.REWARD([episode])[0]

    assert paid("12;09#18") == paid("01;02#18") == 1.0
    assert paid("12;09#17") == paid("12;09#") == paid("") == 0.0
