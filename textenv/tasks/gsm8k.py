"""Arithmetic word problems for pupils: GSM8K, from a file.

Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021), arXiv:2110.14168. The files
are at https://github.com/openai/grade-school-math; nothing is downloaded here.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from textenv.episode import Episode
from textenv.prompts import ListPrompts, Prompt, read_prompts
from textenv.records import short
from textenv.rewards import Shared, shared
from textenv.tasks.final_answers import Extractor, after_hashes, final_answer
from textenv.tasks.numbers import parse_number, same_number
from textenv.tasks.task import Task, Template


def question_and_answer(question: str) -> str:
    r"""The default prompt.

    >>> question_and_answer("2 + 2?")
    'Question: 2 + 2?\nAnswer:'
    """
    return f"Question: {question}\nAnswer:"


def gsm8k(
    path: str | os.PathLike[str],
    *,
    template: Template = question_and_answer,
    extract: Extractor = final_answer,
) -> Task:
    """The problems of a GSM8K file, each worth 1 if the final number is right.

    The prompts have the columns `answer` (the number, such as "72") and `solution` (the worked
    solution, with "#### 72" as its last line).

    Args:
        path: Records with `question` and `answer`, such as the published JSON lines.
        template: Makes a prompt from a question.
        extract: Finds the final answer in the policy's text.

    Raises:
        MalformedRecordError: The file cannot be read, or some lines are not problems.
        EmptyPromptsError: The file holds no problem.
    """

    def parse(record: dict[str, Any]) -> Prompt:
        question, solution = record.get("question"), record.get("answer")
        if not isinstance(question, str) or not isinstance(solution, str):
            raise ValueError(f"'question' and 'answer' are not both texts in {short(record)}")
        answer = after_hashes(solution)
        if answer is None or parse_number(answer) is None:
            raise ValueError(f"the answer {short(solution)} does not end with '#### number'")
        return Prompt(template(question), {"answer": answer, "solution": solution})

    prompts = read_prompts(path, parse, "problems of GSM8K")
    return Task(ListPrompts(prompts), numeric_answer(extract))


def numeric_answer(extract: Extractor = final_answer, column: str = "answer") -> Shared:
    """A reward: 1 where the extracted number equals that of the prompt's column, else 0.

    What counts as a number, and as equal, is in `textenv.tasks.numbers`.
    """
    return shared(partial(_correct, extract, column))


def _correct(extract: Extractor, column: str, episodes: Sequence[Episode]) -> list[float]:
    return [float(same_number(extract(e.text) or "", str(e.columns[column]))) for e in episodes]
