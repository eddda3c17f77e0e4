"""Instructions that a model makes up from a few seeds, filtered, with inputs and answers.

Wang et al., "Self-Instruct: Aligning Language Models with Self-Generated Instructions" (2022),
arXiv:2212.10560. The model is shown some instructions and asked for another one; what is too much
like a known one is dropped. Then it makes up an input and answers. Where an instruction asks for
one of a few labels, inputs are made up for the labels in turn: asked for an input first, models
make up the same label over and over.

Left out: the model that is fine-tuned in between, and several instances of one instruction, but for
labels.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.feedback.from_models.language_model import LanguageModel
from textenv.data import words
from textenv.errors import PromptError
from textenv.imports import optional

KEYWORDS = ("image", "picture", "photo", "graph", "plot", "map", "draw", "file", "video", "audio")
"""What a language model cannot see or make; instructions with one of these words are dropped."""

MOST_LABELS = 4
"""Labels of one instruction that inputs are made up for."""


@dataclass(frozen=True)
class Instruction:
    """A task with one instance.

    Attributes:
        instruction: What is to be done.
        input: To what; empty if the instruction says it all.
        output: The answer.
        label: Whether the answer is one of a few labels.
    """

    instruction: str
    input: str
    output: str
    label: bool = False

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Instruction":
        """A seed from a record with `instruction`, perhaps `input`, and `output`.

        Raises:
            ValueError: It has another form.
        """
        texts = [record.get(name, "") for name in ("instruction", "input", "output")]
        if not all(isinstance(text, str) for text in texts) or not texts[0].strip():
            raise ValueError("a seed has an 'instruction', perhaps an 'input', and an 'output'")
        instruction, given, output = texts
        return cls(instruction, given, output, bool(record.get("label", False)))

    def to_record(self) -> dict[str, Any]:
        """A record for fine-tuning, in the form of Alpaca's data."""
        return {
            "instruction": self.instruction,
            "input": self.input,
            "output": self.output,
            "label": self.label,
        }


@dataclass(frozen=True)
class Filters:
    """Which instructions are kept.

    Attributes:
        similar: Largest ROUGE-L with a known instruction.
        shortest: Fewest words; a Chinese character counts as one.
        longest: Most words.
        keywords: Words that no instruction may have.
    """

    similar: float = 0.7
    shortest: int = 3
    longest: int = 150
    keywords: Sequence[str] = KEYWORDS

    def fault(self, instruction: str, known: "Known") -> str | None:
        """Why an instruction is dropped; None if it is kept."""
        said = words(instruction)
        if len(said) < self.shortest:
            return "too short"
        if len(said) > self.longest:
            return "too long"
        if not instruction[0].isalnum():
            return "begins with a sign"
        if found := sorted(set(said) & set(self.keywords)):
            return f"keyword {found[0]}"
        if instruction in known.texts:
            return "known already"
        if known.nearest(instruction, self.similar) > self.similar:
            return "much like a known one"
        return None


@dataclass
class Report:
    """What came of the model's attempts.

    Attributes:
        kept: Instructions that were kept.
        dropped: How many were dropped, by the reason.
        examples: One that was dropped, by the reason.
    """

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, text: str) -> None:
        """Note that a text was dropped."""
        self.dropped[reason] += 1
        self.examples.setdefault(reason, text)


class Known:
    """Instructions that there are, and how much another one is like them.

    Raises:
        MissingExtraError: The package `rouge_score` is not installed.
    """

    def __init__(self) -> None:
        with optional("rouge_score", extra="evaluation", purpose="finding similar instructions"):
            from rouge_score.rouge_scorer import RougeScorer

        # Its own tokenizer leaves out all but Latin letters: no two Chinese texts would be alike.
        self._scorer = RougeScorer(["rougeL"], tokenizer=_Words())
        self.texts: dict[str, Counter[str]] = {}

    def add(self, instruction: str) -> None:
        """Know another one."""
        self.texts[instruction] = Counter(words(instruction))

    def nearest(self, instruction: str, least: float = 0.0) -> float:
        """The largest ROUGE-L (F1) with a known instruction, or 0 where none is above `least`."""
        said = Counter(words(instruction))
        found = 0.0
        for text, others in self.texts.items():
            # A common subsequence is no longer than what the two have in common in any order.
            both = (said & others).total()
            if both and 2 * both / (said.total() + others.total()) > max(least, found):
                found = max(found, self._scorer.score(text, instruction)["rougeL"].fmeasure)
        return found if found > least else 0.0


class _Words:
    """The words in the form that `rouge_score` asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def self_instruct(
    model: LanguageModel,
    seeds: Sequence[Instruction],
    count: int,
    *,
    made: Sequence[Instruction] = (),
    shown: int = 8,
    at_once: int = 8,
    most_requests: int | None = None,
    filters: Filters = Filters(),
    seed: int = 0,
    report: Report | None = None,
) -> Iterator[Instruction]:
    """Make up instructions with inputs and answers, until there are `count` or nothing comes.

    Args:
        model: Makes up everything.
        seeds: A few instructions written by people; those that it makes up are shown to it too.
        count: How many instructions to keep; one that asks for labels has several instances.
        made: Instructions that it has made up before; they do not count.
        shown: Instructions that it is shown at a time, a quarter of them made up.
        at_once: Requests in one call of the model.
        most_requests: Requests for instructions at most; ten for each of `count` if None.
        filters: Which instructions are kept.
        seed: Seed of what is shown.
        report: Is told what was dropped and why.

    Raises:
        PromptError: There are no seeds.
        MissingExtraError: The package `rouge_score` is not installed.
        PromptTooLongError: A request does not fit the model's context: show fewer.
        RemoteError: A server failed.
    """
    if not seeds:
        raise PromptError("self-instruct needs a few instructions to begin with")
    report = Report() if report is None else report
    written = [one.instruction for one in seeds]
    own = list(dict.fromkeys(one.instruction for one in made))
    known = Known()
    for instruction in (*written, *own):
        known.add(instruction)
    generator = np.random.default_rng(seed)
    begin, left = report.kept, 10 * count if most_requests is None else most_requests
    while left > 0 and report.kept - begin < count:
        requests = [
            ask_for_instructions(_drawn(written, own, shown, generator))
            for _ in range(min(at_once, left))
        ]
        left -= len(requests)
        found: list[str] = []
        for reply in model.write(requests):
            for instruction in read_instructions(reply):
                if report.kept - begin + len(found) >= count:
                    break
                fault = filters.fault(instruction, known)
                if fault is not None:
                    report.drop(fault, instruction)
                    continue
                known.add(instruction)
                found.append(instruction)
        for instances in _instances(model, found, report):
            report.kept += 1
            own.append(instances[0].instruction)
            yield from instances


# -------------------------------------------------------------------- what is asked


def ask_for_instructions(examples: Sequence[str]) -> str:
    """The request for more instructions."""
    listed = "\n".join(f"{number}. {text}" for number, text in enumerate(examples, start=1))
    return (
        "Here are instructions for a writing assistant. Each is different from the others and can "
        f"be followed by writing alone.\n\n{listed}\n\n"
        "Write three more, as different as possible, one a line, numbered from "
        f"{len(examples) + 1}."
    )


def read_instructions(reply: str) -> list[str]:
    r"""The instructions in a reply: what stands behind a number, or its first line.

    >>> read_instructions("9. Name a bird.\n10) Say no.")
    ['Name a bird.', 'Say no.']
    """
    numbered = re.findall(r"^\s*\d+\s*[.):]\s*(\S.*?)\s*$", reply, re.MULTILINE)
    return numbered or [line.strip() for line in reply.strip().splitlines()[:1]]


def asks_for_label(instruction: str) -> str:
    """The question whether an instruction asks for one of a few labels."""
    return (
        f"Task: {instruction}\n\nIs the answer to this task always one of a few fixed labels, such "
        "as yes or no? Write one letter: A for labels, B for free text."
    )


def ask_for_labels(instruction: str) -> str:
    """The request for the labels of an instruction."""
    return (
        f"Task: {instruction}\n\nList the possible answers to this task, one a line, nothing else."
    )


def ask_for_input(instruction: str, label: str | None = None) -> str:
    """The request for an input, to which the answer is `label` if one is given."""
    if label is not None:
        return (
            f"Task: {instruction}\n\nWrite an input for this task, to which the right answer is "
            f"{label!r}. Write the input alone, without the answer."
        )
    return (
        f"Task: {instruction}\n\nWrite one input that this task is to be done for, nothing else. "
        "If the task needs none, write: none"
    )


def ask_for_output(instruction: str, given: str) -> str:
    """The request for the answer."""
    return f"{instruction}\n\n{given}" if given else instruction


def _drawn(
    written: Sequence[str], own: Sequence[str], count: int, generator: np.random.Generator
) -> list[str]:
    """Instructions to show: three quarters from people, in random order."""
    some = min(len(own), count // 4)
    many = min(len(written), count - some)
    drawn = [written[i] for i in generator.choice(len(written), many, replace=False)]
    drawn += [own[i] for i in generator.choice(len(own), some, replace=False)] if some else []
    return [drawn[i] for i in generator.permutation(len(drawn))]


# -------------------------------------------------------------------- instances


def _instances(
    model: LanguageModel, instructions: Sequence[str], report: Report
) -> Iterator[list[Instruction]]:
    """The instances of each instruction that has some; of labels one for each label."""
    if not instructions:
        return
    shares = model.choose([asks_for_label(text) for text in instructions])
    labels = [text for text, (yes, no) in zip(instructions, shares, strict=True) if yes > no]
    free = [text for text in instructions if text not in labels]
    yield from _free_instances(model, free, report)
    yield from _label_instances(model, labels, report)


def _free_instances(
    model: LanguageModel, instructions: Sequence[str], report: Report
) -> Iterator[list[Instruction]]:
    inputs = [
        "" if _is_none(text) else text for text in _written(model, instructions, ask_for_input)
    ]
    both = list(zip(instructions, inputs, strict=True))
    outputs = model.write([ask_for_output(*pair) for pair in both]) if both else []
    for (instruction, given), output in zip(both, outputs, strict=True):
        if fault := _instance_fault(given, output):
            report.drop(fault, instruction)
        else:
            yield [Instruction(instruction, given, output.strip())]


def _label_instances(
    model: LanguageModel, instructions: Sequence[str], report: Report
) -> Iterator[list[Instruction]]:
    for instruction, reply in zip(
        instructions, _written(model, instructions, ask_for_labels), strict=True
    ):
        lines = (
            re.sub(r"^\W*(?:\d+\s*[.):])?\s*", "", line).strip() for line in reply.splitlines()
        )
        labels = list(dict.fromkeys(line for line in lines if line))[:MOST_LABELS]
        if len(labels) < 2:
            report.drop("fewer than two labels", instruction)
            continue
        inputs = model.write([ask_for_input(instruction, label) for label in labels])
        kept: dict[str, Instruction] = {}
        for label, given in zip(labels, inputs, strict=True):
            fault = _instance_fault(given, label)
            if given.strip() in kept:  # an input cannot have two right answers
                fault = "one input for two labels"
            if fault or not given.strip():
                report.drop(fault or "empty input", f"{instruction} {given}")
            else:
                kept[given.strip()] = Instruction(instruction, given.strip(), label, True)
        if len(kept) > 1:  # balanced: each label once
            yield list(kept.values())
        else:
            report.drop("fewer than two labels with inputs", instruction)


def _written(model: LanguageModel, instructions: Sequence[str], ask: Any) -> list[str]:
    return model.write([ask(text) for text in instructions]) if instructions else []


def _is_none(text: str) -> bool:
    return text.strip().strip(".").lower() in ("none", "", "no input", "n/a")


def _instance_fault(given: str, output: str) -> str | None:
    if not output.strip():
        return "empty answer"
    if given.strip() and given.strip() == output.strip():
        return "the answer is the input"
    return None
