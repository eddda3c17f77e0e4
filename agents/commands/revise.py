"""`textenv revise`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting
from agents.commands.shared import Machine


@dataclass(frozen=True)
class Task:
    """What to revise.

    Attributes:
        model: Who criticises and rewrites: a folder written by policy.save, a model of Hugging Face
            (owner/name), or URL#MODEL of an OpenAI-compatible server.
        prompts: Questions: a .txt file (one a line), a .jsonl file (records with a 'prompt' or
            messages), or file.py:function. The last question of a dialogue is answered, with what
            was said before.
        principles: A text file of principles, one a line; one is drawn for each question and time.
            A general one if not given.
        out: A .jsonl file for the answers, which textenv sft reads. Questions that it holds already
            are skipped: run the same command again to resume.
        policy: Who gives the first answers, in the same forms; the model if not given.
        limit: Questions at most; if not given, all of a file, or 256 of a function.
    """

    model: str = setting(metavar="MODEL")
    prompts: str = setting(metavar="FILE")
    out: Path = setting(metavar="FILE")
    principles: Path | None = setting(None, metavar="FILE")
    policy: str | None = setting(None, metavar="MODEL")
    limit: int | None = setting(None, minimum=1)


@dataclass(frozen=True)
class Writing:
    """How to write.

    Attributes:
        times: How many times each answer is criticised and rewritten.
        max_new_tokens: Longest answer and longest critique, in tokens.
        temperature: Logits are divided by it; less is more predictable, and 0 takes the likeliest
            token.
    """

    times: int = setting(1, minimum=1)
    max_new_tokens: int = setting(128, minimum=1)
    temperature: float = setting(0.7, minimum=0)


@dataclass(frozen=True)
class ReviseSettings:
    """Have answers criticised by principles and rewritten, as records for fine-tuning.

    The first half of Constitutional AI: an answer, a critique of it by a written principle, a
    revision; textenv sft learns the revisions.
    """

    task: Task
    writing: Writing
    machine: Machine
