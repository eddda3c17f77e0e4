"""People as labellers, in a terminal.

Every ranking is in the file before the next prompt is shown, and prompts that are in the file are
not shown again. A person may stop with `q` or Ctrl-C and continue later.
"""

import os
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from agents.feedback.preferences import Labeller
from agents.feedback.rankings import Asked, Ranking, append_rankings, as_text, read_rankings

QUIT = "q"
HELP = 'Best first, "=" between equals, such as "2 1 3=4"; "q" stops.'


def label_in_terminal(
    prompts: Sequence[Asked],
    answers: Iterable[Sequence[str]],
    path: str | os.PathLike[str],
    *,
    console: Console | None = None,
    seed: int = 0,
) -> bool:
    """Show each prompt with its answers in random order, and add the rankings to a file.

    Args:
        prompts: The prompts, texts or messages; those that are in the file already are skipped.
        answers: Answers to each prompt.
        path: A `.jsonl` file; it is made if it does not exist.
        console: Where to show the answers; a new console if None.
        seed: Seed of the order in which answers are shown.

    Returns:
        Whether all were ranked; False after `q`.

    Raises:
        MalformedRecordError: Some lines of the file are not rankings.
    """
    console = console or Console()
    generator = np.random.default_rng(seed)
    left = set(map(as_text, unranked(prompts, path)))
    for number, (prompt, given) in enumerate(zip(prompts, answers, strict=True), start=1):
        # Drawn for skipped prompts too, so the order of a prompt does not depend on what is done.
        shown = [given[i] for i in generator.permutation(len(given))]
        text = as_text(prompt)
        if text not in left:
            continue
        scores = _rank(console, f"{number} of {len(prompts)}", text, shown)
        if scores is None:
            return False
        append_rankings(path, [Ranking.from_scores(prompt, shown, scores)])
        left.remove(text)  # a prompt that comes twice is asked once
    return True


def terminal_labeller(console: Console | None = None) -> Labeller:
    """A person as a labeller: shows a prompt and its answers in the order given, asks for ranks.

    For answers that were sampled in the same way, whose order says nothing. `q` stops like Ctrl-C.

    Args:
        console: Where to show the answers; a new console if None.
    """
    shown_on, number = console or Console(), count(1)

    def label(prompt: str, answers: Sequence[str]) -> list[float]:
        scores = _rank(shown_on, str(next(number)), prompt, answers)
        if scores is None:
            raise KeyboardInterrupt
        return scores

    return label


def unranked(prompts: Iterable[Asked], path: str | os.PathLike[str]) -> list[Asked]:
    """The prompts that have no ranking in the file yet, each once.

    Raises:
        MalformedRecordError: Some lines of the file are not rankings.
    """
    there = Path(path).exists() and Path(path).stat().st_size > 0
    done = {ranking.prompt for ranking in read_rankings(path)} if there else set()
    different = {as_text(prompt): prompt for prompt in reversed(list(prompts))}
    return [prompt for text, prompt in reversed(different.items()) if text not in done]


def parse_ranking(line: str, count: int) -> list[float]:
    """Scores of `count` answers from what a person typed; higher is better.

    >>> parse_ranking("2 1 3=4", 4)
    [-1.0, 0.0, -2.0, -2.0]

    Raises:
        ValueError: The line does not name each of the answers 1 to `count` once.
    """
    # "3 = 4", "3= 4" and "3=4" are one place; other spaces separate places.
    places = " ".join(line.replace("=", " = ").split()).replace(" = ", "=").split()
    scores: dict[int, float] = {}
    for place, equals in enumerate(places):
        for name in equals.split("="):
            if not (name.isdecimal() and 1 <= int(name) <= count):
                raise ValueError(f"{name!r} is not one of the answers 1 to {count}")
            if int(name) in scores:
                raise ValueError(f"answer {int(name)} is named twice")
            scores[int(name)] = -float(place) + 0.0
    if missing := sorted(set(range(1, count + 1)) - set(scores)):
        raise ValueError(f"answers are missing: {', '.join(map(str, missing))}")
    return [scores[number] for number in range(1, count + 1)]


def _rank(console: Console, title: str, prompt: str, answers: Sequence[str]) -> list[float] | None:
    """Show a prompt and its answers, and ask for their ranks; None if the person stops."""
    console.rule(title)
    console.print(Panel(Text(prompt), title="Prompt"))
    for place, answer in enumerate(answers, start=1):
        console.print(Panel(Text(answer), title=str(place), title_align="left"))
    return _ask(console, len(answers))


def _ask(console: Console, answers: int) -> list[float] | None:
    """Ask until there is a ranking; None if the person stops."""
    console.print(HELP, style="dim", highlight=False)
    while True:
        try:
            line = console.input("> ").strip()
        except EOFError:
            return None
        if line.lower() == QUIT:
            return None
        try:
            return parse_ranking(line, answers)
        except ValueError as error:
            console.print(f"{error}. {HELP}", style="yellow", markup=False, highlight=False)
