"""A person who compares the answers of two policies without knowing whose they are."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from agents.feedback.rankings import Ranking, append_rankings, read_rankings
from agents.feedback.terminal import QUIT

HELP = 'The better answer: "1", "2", or "=" if neither is; "q" stops.'
TYPED = {"1": (1, 2), "2": (2, 1), "=": (1, 1)}


class BlindComparison:
    """A `pair_judge` for `compare` that asks at the terminal; see `agents.evaluation.compare`.

    Answers are shown in random order. Every vote is in the file before the next pair is shown, and
    a pair that is there is not asked again. Equal answers are a tie without being asked.

    Args:
        path: A `.jsonl` file of rankings; it is made if it does not exist.
        console: Where to show the answers; a new console if None.
        seed: Seed of the order.

    Raises:
        MalformedRecordError: Some lines of the file are not rankings.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, console: Console | None = None, seed: int = 0
    ):
        self.path, self.console = Path(path), console or Console()
        self._generator = np.random.default_rng(seed)
        there = self.path.exists() and self.path.stat().st_size > 0
        self._votes: dict[tuple[str, frozenset[str]], Ranking] = {}
        for vote in read_rankings(self.path) if there else []:
            self._votes[vote.prompt, frozenset(vote.answers)] = vote
        self._stopped = False

    def prefer(self, pairs: Sequence[tuple[str, str, str]]) -> list[float]:
        """1 where the first answer is better, 0 where the second is, 1/2 for ties.

        NaN for what was not asked any more, once the person has stopped.
        """
        return [
            self._verdict(f"{number} of {len(pairs)}", *pair)
            for number, pair in enumerate(pairs, start=1)
        ]

    def _verdict(self, title: str, prompt: str, first: str, second: str) -> float:
        if first == second:
            return 0.5
        vote = self._votes.get((prompt, frozenset((first, second))))
        if vote is None:
            vote = None if self._stopped else self._asked(title, prompt, first, second)
        if vote is None:
            return float("nan")
        ranks = dict(zip(vote.answers, vote.ranks, strict=True))
        return 0.5 + 0.5 * float(np.sign(ranks[second] - ranks[first]))

    def _asked(self, title: str, prompt: str, first: str, second: str) -> Ranking | None:
        shown = [(first, second)[i] for i in self._generator.permutation(2)]
        self.console.rule(title)
        self.console.print(Panel(Text(prompt), title="Prompt"))
        for place, answer in enumerate(shown, start=1):
            self.console.print(Panel(Text(answer), title=str(place), title_align="left"))
        typed = ""
        while typed not in TYPED:
            self.console.print(HELP, style="dim", highlight=False)
            try:
                typed = self.console.input("> ").strip().lower()
            except (EOFError, KeyboardInterrupt):
                typed = QUIT
            if typed == QUIT:
                self._stopped = True
                return None
        vote = Ranking(prompt, tuple(shown), TYPED[typed])
        append_rankings(self.path, [vote])
        self._votes[prompt, frozenset(shown)] = vote
        return vote
