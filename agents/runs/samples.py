"""What the policy writes: prompts, answers and their scores, for people to read.

Numbers hide how a reward is being won; a few texts show it at once.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.table import Table
from rich.text import Text

from agents.rollout import Rollout
from agents.runs.checkpoints import append_whole, write_whole
from agents.runs.streaming import visible
from textenv.tokenizers import Tokenizer, decode_answer, decode_prompt, stop_tokens_of
from textenv.tokenizers.texts import certain

T = TypeVar("T")

AGENT, WORLD, EARLIER = "agent", "world", "earlier"
"""Who has said something in a conversation; what was said before a rollout began has no name."""


@dataclass(frozen=True)
class Sample:
    """One finished episode in words.

    Attributes:
        prompt: The text before the first chosen token.
        text: The answer, without the stop token.
        score: Sum of the environment's rewards, before any KL penalty; NaN if the reward applies
            to no part of it.
        turns: Of a conversation of several turns, who said what, in order: `(AGENT, "5")`,
            `(WORLD, "higher")`. What is the world's is shown as it was appended, its frame
            included.
    """

    prompt: str
    text: str
    score: float
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def lines(self) -> list[str]:
        """The answer for people: of a conversation a line a turn, with who says it."""
        return [f"{who}: {said}" for who, said in self.turns] or [self.text]


def rollout_samples(rollout: Rollout, tokenizer: Tokenizer) -> list[Sample]:
    """The finished episodes of a rollout, whole, in the order in which they ended.

    Tokens that stand between chosen ones, such as the answer of a tool, belong to the text. In a
    rollout without `prompt_lengths` the text begins at the first token chosen in that rollout.
    """
    samples = []
    for row in rollout.finished.nonzero().flatten().tolist():
        chosen = rollout.mask[row].nonzero().flatten().tolist()
        begin = chosen[0] if rollout.prompt_lengths is None else int(rollout.prompt_lengths[row])
        ids = rollout.tokens[row, : chosen[-1] + 1].tolist()
        end = len(ids) - (ids[-1] in stop_tokens_of(tokenizer))
        prompt = certain(decode_prompt(tokenizer, ids[:begin]))
        text = decode_answer(tokenizer, ids[:begin], ids[begin:end], prompt)
        turns = turns_of(rollout, row, tokenizer)
        samples.append(Sample(prompt, text, rollout.scores[row].item(), turns))
    return samples


def turns_of(rollout: Rollout, row: int, tokenizer: Tokenizer) -> tuple[tuple[str, str], ...]:
    """Who said what in a sequence of a rollout (see `Sample.turns`); empty if it is one turn."""
    if rollout.turns is None or int(rollout.turns[row].max()) < 2:
        return ()
    chosen = rollout.mask[row].nonzero().flatten().tolist()
    begin = chosen[0] if rollout.prompt_lengths is None else int(rollout.prompt_lengths[row])
    ids, numbers = rollout.tokens[row].tolist(), rollout.turns[row].tolist()
    turns = []
    for number, places in groupby(range(begin, chosen[-1] + 1), numbers.__getitem__):
        first, *more = places
        said = [ids[place] for place in (first, *more)]
        who = AGENT if number > 0 else EARLIER if first < chosen[0] else WORLD
        if who == AGENT and said[-1] in stop_tokens_of(tokenizer):
            del said[-1]
        turns.append((who, decode_answer(tokenizer, ids[:first], said)))
    return tuple(turns)


def evenly_ranked(items: Sequence[T], count: int, key: Callable[[T], float]) -> list[T]:
    """At most `count` of the items from the highest to the lowest, at even distances in rank.

    Others would mislead: the first episodes that end are the shortest answers, and the largest
    gains alone would flatter.

    Args:
        items: What to choose from.
        count: At least 2.
        key: What an item is ranked by, such as its score.
    """
    # What has no score, NaN, comes last: it compares as neither higher nor lower.
    ranked = sorted(items, key=lambda item: (key(item) == key(item), key(item)), reverse=True)
    if len(ranked) <= count:
        return ranked
    return [ranked[rank] for rank in np.linspace(0, len(ranked) - 1, count).round().astype(int)]


def check_same_prompts(before: Sequence[Sample], after: Sequence[Sample]) -> None:
    """Check that both are answers to one list of prompts.

    Raises:
        ValueError: They do not answer the same prompts in the same order, or there are none.
    """
    prompts = [sample.prompt for sample in before]
    if not prompts or prompts != [sample.prompt for sample in after]:
        raise ValueError(
            f"{len(before)} samples before and {len(after)} after do not answer the same prompts: "
            "generate both from one list"
        )


def samples_table(samples: Iterable[Sample], title: str | None = None) -> Table:
    """A table of prompt, text and score to be printed by rich."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("prompt", overflow="fold")
    table.add_column("text", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for sample in samples:
        table.add_row(_visible(sample.prompt), _visible(*sample.lines), f"{sample.score:.3f}")
    return table


def samples_markdown(samples: Iterable[Sample]) -> str:
    """The samples as Markdown, each below its score; texts are shown as code."""
    return "\n".join(
        "\n".join(
            [
                f"**score {sample.score:.3f}**",
                "",
                *(f"    {visible(line, kept='')}" for line in (sample.prompt, *sample.lines)),
                "",
            ]
        )
        for sample in samples
    )


def comparison_table(before: Sequence[Sample], after: Sequence[Sample]) -> Table:
    """Answers to the same prompts before and after training, side by side, and the mean scores.

    Raises:
        ValueError: The two do not answer the same prompts in the same order.
    """
    check_same_prompts(before, after)
    means = [f"{np.nanmean([sample.score for sample in side]):.3f}" for side in (before, after)]
    table = Table(show_lines=True, show_footer=True)
    table.add_column("prompt", "mean", overflow="fold")
    for name, mean in zip(("before", "after"), means, strict=True):
        table.add_column(name, overflow="fold")
        table.add_column("score", mean, justify="right", no_wrap=True)
    for old, new in zip(before, after, strict=True):
        table.add_row(
            _visible(old.prompt),
            _visible(*old.lines),
            f"{old.score:.3f}",
            _visible(*new.lines),
            f"{new.score:.3f}",
        )
    return table


def _plain(sample: Sample) -> dict[str, Any]:
    """A sample for JSON, which knows no NaN: an answer without a score has null."""
    plain = asdict(sample) | {"score": None if math.isnan(sample.score) else sample.score}
    if not sample.turns:
        del plain["turns"]
    return plain


class SamplesFile:
    """A file of samples, one JSON object a line: labels, then prompt, text, score and turns.

    It is read before the first samples are appended, and from then on only if somebody else has
    written it, or an append failed: what is appended costs what it is long. What a kill has left
    half of a line goes.

    Args:
        path: Where it is, or will be.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._size: int | None = None  # of the whole lines that are known; None if none are
        self._begins: set[bytes] = set()

    def append(self, samples: Iterable[Sample], **labels: int) -> None:
        """Append samples, in the place of lines that have the same labels.

        A run that was resumed writes these again.
        """
        lines = [json.dumps(labels | _plain(sample), ensure_ascii=False) for sample in samples]
        new = "".join(f"{line}\n" for line in lines)
        # How such a line begins; a number that is only the beginning of another ends with a comma.
        same = (json.dumps(labels).removesuffix("}") + ",").encode() if labels else None
        if self._size is None or self._size != self._length():
            self._read()
        if self._size is None or same in self._begins:
            self._write_anew(same, new)
            self._read()
            return
        append_whole(self.path, new)
        self._size = self._length()
        if same and lines:
            self._begins.update(_begins(same))

    def _length(self) -> int | None:
        return self.path.stat().st_size if self.path.exists() else None

    def _read(self) -> None:
        self._size, self._begins = None, set()
        if self.path.exists():
            with self.path.open("rb") as file:
                for line in file:
                    self._begins.update(_begins(line.partition(_PROMPT)[0]))
                    if not line.endswith(b"\n"):
                        return
            self._size = self._length()

    def _write_anew(self, same: bytes | None, new: str) -> None:
        before = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        kept = before.split("\n")[:-1]  # what a kill has left half goes
        if same is not None:
            kept = [line for line in kept if not line.startswith(same.decode())]
        write_whole(self.path, "".join(f"{line}\n" for line in kept) + new)


_PROMPT = b'"prompt":'


def _begins(labels: bytes) -> Iterator[bytes]:
    """The labels that stand before a line's prompt, the first one, the first two, and so on."""
    for end, character in enumerate(labels):
        if character == ord(","):
            yield labels[: end + 1]


def append_samples(path: str | Path, samples: Iterable[Sample], **labels: int) -> None:
    """`SamplesFile.append`, once; whoever appends again and again keeps a `SamplesFile`."""
    SamplesFile(path).append(samples, **labels)


def _visible(*lines: str) -> Text:
    """The lines, with line ends and control characters within them escaped."""
    return Text("\n".join(visible(line, kept="") for line in lines))
