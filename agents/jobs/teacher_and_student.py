"""A teacher and its student side by side: size, speed and what was lost."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from agents.supervised.distillation import Lost
from policies import Policy, generate_tokens, tokenizer_of
from policies.compression import bytes_of
from textenv.tokenizers import encode_prompt

TOGETHER, REPEATS = 32, 5
"""Prompts that are answered together to measure the speed, and how often."""


@dataclass(frozen=True)
class Speed:
    """Tokens a second: of one answer, and of several that are written together."""

    one: float
    many: float


def speeds_of(teacher: Policy, student: Policy, prompts: list[str], length: int) -> list[Speed]:
    """How quickly both answer, medians of turns that alternate."""
    tokenizer = tokenizer_of(teacher)
    assert teacher.tokenizer is not None and tokenizer.stop_token is not None
    ids = [encode_prompt(tokenizer, text) for text in prompts[:TOGETHER] if text]
    ids = [some for some in ids if some] or [[tokenizer.stop_token]]
    ids = (ids * TOGETHER)[:TOGETHER]
    length = max(1, min(length, *(p.context - max(map(len, ids)) for p in (teacher, student))))
    times: dict[tuple[int, int], list[float]] = {}
    for _ in range(REPEATS):
        for who, policy in enumerate((teacher, student)):
            for rows in (1, TOGETHER):
                begin = time.perf_counter()
                found = generate_tokens(
                    policy, ids[:rows], length, generator=np.random.default_rng(0)
                )
                seconds = time.perf_counter() - begin
                times.setdefault((who, rows), []).append(sum(map(len, found)) / seconds)
    return [
        Speed(*(float(np.median(times[who, rows])) for rows in (1, TOGETHER))) for who in (0, 1)
    ]


def numbers_of(
    teacher: Policy, student: Policy, speeds: list[Speed], lost: Lost | None, own: list[float]
) -> dict[str, Any]:
    """All that is shown, as JSON."""
    two = {"teacher": teacher, "student": student}
    return {
        "parameters": {n: sum(p.numel() for p in policy.parameters()) for n, policy in two.items()},
        "bytes": {name: bytes_of(policy) for name, policy in two.items()},
        "tokens_per_second": {
            name: {"one": speed.one, "together": speed.many}
            for name, speed in zip(two, speeds, strict=True)
        },
        "perplexity": None
        if lost is None
        else {"teacher": lost.teacher_perplexity, "student": lost.student_perplexity},
        "kl": None if lost is None else lost.kl,
        "agreement": None if lost is None else lost.agreement,
        "divergence": {"first": own[0], "last": own[-1]} if own else None,
    }


def table_of(numbers: dict[str, Any]) -> Table:
    """Teacher and student, line by line."""
    table = Table(title="Teacher and student", title_justify="left")
    for column in ("", "teacher", "student", "student to teacher"):
        table.add_column(column, justify="left" if not column else "right")

    def add(name: str, of: dict[str, float], form: str) -> None:
        one, two = of["teacher"], of["student"]
        table.add_row(name, format(one, form), format(two, form), f"{two / one:.2f}")

    add("parameters", numbers["parameters"], ",")
    add("bytes of weights", numbers["bytes"], ",")
    for kind, name in (("one", "tokens a second, 1 row"), ("together", f"{TOGETHER} rows")):
        rates = numbers["tokens_per_second"]
        add(name, {who: rates[who][kind] for who in rates}, ",.0f")
    if numbers["perplexity"] is not None:
        add("perplexity of held-out text", numbers["perplexity"], ".1f")
        table.add_row("KL of the next token, nats", "", f"{numbers['kl']:.3f}", "")
        table.add_row("same likeliest token", "", f"{numbers['agreement']:.2f}", "")
    if numbers["divergence"] is not None:
        first, last = numbers["divergence"]["first"], numbers["divergence"]["last"]
        table.add_row("divergence in its answers", "", f"{first:.3f} -> {last:.3f}", "")
    return table
