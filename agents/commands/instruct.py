"""`textenv instruct`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting
from agents.commands.shared import Machine


@dataclass(frozen=True)
class Task:
    """What to make up.

    Attributes:
        model: Who makes everything up: a folder written by policy.save, a model of Hugging Face
            (owner/name), or URL#MODEL of an OpenAI-compatible server.
        seeds: A .jsonl file of instructions written by people: 'instruction', perhaps 'input', and
            'output'. Ten or more that differ.
        out: A .jsonl file for what is made up, which textenv sft reads. Run the same command again
            to resume.
        count: Instructions that the file is to hold.
    """

    model: str = setting(metavar="MODEL")
    seeds: Path = setting(metavar="FILE")
    out: Path = setting(metavar="FILE")
    count: int = setting(100, minimum=1)


@dataclass(frozen=True)
class Making:
    """What is kept, and how it is written.

    Attributes:
        shown: Instructions that the model is shown at a time.
        similar: Drop an instruction whose ROUGE-L with a known one is above this.
        shortest: Fewest words of an instruction.
        longest: Most words of an instruction.
        keyword: A word that no instruction may have, beside those of what a language model cannot
            see or make. May be given several times.
        most_requests: Requests for instructions at most; ten for each of --count if not given.
        max_new_tokens: Longest text, in tokens.
        temperature: Logits are divided by it; more makes what differs more.
    """

    shown: int = setting(8, minimum=1)
    similar: float = setting(0.7, minimum=0, maximum=1)
    shortest: int = setting(3, minimum=1)
    longest: int = setting(150, minimum=1)
    keyword: list[str] = setting([], metavar="WORD")
    most_requests: int | None = setting(None, minimum=1)
    max_new_tokens: int = setting(128, minimum=1)
    temperature: float = setting(0.8, minimum=0)


@dataclass(frozen=True)
class InstructSettings:
    """Have a model make up instructions with answers from a few seeds.

    Self-Instruct: instructions that are much like a known one are dropped, and where the answer is
    one of a few labels, inputs are made up for each of them. The command says what was dropped and
    why.
    """

    task: Task
    making: Making
    machine: Machine
