"""Written principles that a model's feedback follows: a constitution, as a file and as a choice.

Bai et al., "Constitutional AI: Harmlessness from AI Feedback" (2022), arXiv:2212.08073: the only
human oversight is a list of rules, and one of them is drawn for each comparison or revision.
"""

import os
import zlib
from collections.abc import Sequence

import numpy as np

from textenv.errors import PromptError
from textenv.files import read_text

HELPFUL = "The better answer does what was asked, is true, and harms nobody."
"""The principle where none is given."""


def read_principles(path: str | os.PathLike[str]) -> list[str]:
    """Principles from a text file, one a line; blank lines and lines that begin with # are skipped.

    Raises:
        PromptError: The file holds no principle.
    """
    lines = (line.strip() for line in read_text(path).splitlines())
    principles = [line for line in lines if line and not line.startswith("#")]
    if not principles:
        raise PromptError(f"there is no principle in {path}: write one a line")
    return principles


def principles_for(
    prompt: str, principles: Sequence[str], count: int | None, seed: int
) -> Sequence[str]:
    """The principles that are followed on one prompt, the same ones whenever it is asked.

    Args:
        prompt: All answers to it are compared by the same principles, so that a ranking has a
            meaning.
        principles: All of them.
        count: How many are drawn; None takes all.
        seed: Seed of the draw.
    """
    if count is None or count >= len(principles):
        return principles
    drawn = np.random.default_rng([seed, zlib.crc32(prompt.encode("utf-8", "surrogatepass"))])
    return [principles[i] for i in drawn.choice(len(principles), count, replace=False)]
