"""Tasks: prompts, and verifiers that know the right answers. Does not import torch."""

from textenv.tasks.final_answers import (
    Extractor,
    after_hashes,
    boxed,
    final_answer,
    first_found,
    stated,
    tagged,
    whole_text,
)
from textenv.tasks.gsm8k import gsm8k, numeric_answer, question_and_answer
from textenv.tasks.numbers import last_number, parse_number, same_number
from textenv.tasks.reasoning_gym import reasoning_gym_task
from textenv.tasks.task import Task, Template, as_it_is

__all__ = [
    "Extractor",
    "Task",
    "Template",
    "after_hashes",
    "as_it_is",
    "boxed",
    "final_answer",
    "first_found",
    "gsm8k",
    "last_number",
    "numeric_answer",
    "parse_number",
    "question_and_answer",
    "reasoning_gym_task",
    "same_number",
    "stated",
    "tagged",
    "whole_text",
]
