"""`textenv distil`: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.commands.options import setting
from agents.commands.shared import Fit, Framed, Machine, Network, Prompted, Published, Saved


@dataclass(frozen=True, kw_only=True)
class Task(Published, Framed):
    """Who learns from whom, and on what.

    Attributes:
        teacher: The policy to learn from: a folder written by policy.save, or a model of Hugging
            Face, by its folder or its name on the hub (owner/name).
        text: Text on which the student learns what the teacher says of each next token: .txt (one
            document), or records with a 'text'. May be given several times.
        prompts: Prompts that the student then answers itself, while the teacher says of each token
            what it would do: a .txt file (one a line), a .jsonl file (records with a 'prompt'), or
            file.py:function.
        out: Folder to save the student in. Run the same command again to resume.
        limit: Prompts at most; if not given, all of a file, or 256 of a function.
        held_out: Share of the text, at its end, on which both are compared.
    """

    teacher: str = setting(metavar="FOLDER")
    text: list[Path] = setting([], metavar="FILE")
    prompts: str | None = setting(None, metavar="FILE")
    out: Path = setting(metavar="FOLDER")
    limit: int | None = setting(None, minimum=1)
    held_out: float = setting(0.1, minimum=0.0, maximum=0.9)


@dataclass(frozen=True)
class Student(Network):
    """The student, which has the teacher's vocabulary and context.

    Attributes:
        student: Start from this policy instead of a new network: a folder written by policy.save.
        form: Layers of a new network: those of GPT-2, or of Llama.
        n_layer: Layers of a new network.
        n_head: Attention heads of a layer; they share its width.
        n_embd: Width of a new network.
    """

    student: Path | None = setting(None, metavar="FOLDER")
    form: Literal["gpt", "llama"] = "gpt"
    n_layer: int = setting(2, minimum=1)
    n_head: int = setting(4, minimum=1)
    n_embd: int = setting(64, minimum=1)


@dataclass(frozen=True, kw_only=True)
class OnText(Fit):
    """On text.

    Attributes:
        tokens: Tokens of the text to learn from in all.
        window: Tokens read in a row; the context, or 256 if that is shorter, if not given.
        batch_size: Windows of an optimiser step.
        softness: The temperature by which both sides' logits are divided; more tells more of what
            the teacher thinks less likely.
        text_weight: Weight of the text's own next token beside the teacher's distribution.
    """

    tokens: int = setting(1_000_000, minimum=1)
    window: int | None = setting(None, minimum=1)
    batch_size: int = setting(8, minimum=1)
    softness: float = setting(2.0, minimum=0.01)
    text_weight: float = setting(0.0, minimum=0)
    learning_rate: float = setting(2.5e-3, minimum=0)
    weight_decay: float = setting(0.1, minimum=0)


@dataclass(frozen=True, kw_only=True)
class OnAnswers(Prompted):
    """On the student's own answers.

    Attributes:
        own_tokens: Tokens of its answers to learn from in all.
        own_learning_rate: Step size at the start; it falls linearly to a tenth.
        beta: What is made small at each token: 0 is the KL of the teacher to the student, which
            covers all that the teacher says; 1 is the reverse, which keeps to what it says most;
            between them the generalised Jensen-Shannon divergence.
        epochs: Passes over each rollout.
        minibatch_tokens: About this many chosen tokens make an optimiser step.
        rows: Answers that are written at a time.
        max_new_tokens: Longest answer, in tokens.
        temperature: Logits of both are divided by it.
    """

    own_tokens: int = setting(150_000, minimum=1)
    own_learning_rate: float = setting(1e-3, minimum=0)
    beta: float = setting(0.5, minimum=0, maximum=1)
    epochs: int = setting(2, minimum=1)
    minibatch_tokens: int = setting(512, minimum=1)
    rows: int = setting(96, minimum=1)
    max_new_tokens: int = setting(24, minimum=1)
    temperature: float = setting(1.0, minimum=0.01)


@dataclass(frozen=True)
class DistilSettings:
    """Make a small policy of a large one: a student learns to say what its teacher says.

    It first learns the teacher's distributions on text, if there is one, and then, if there are
    prompts, on answers that it writes itself. Ends with a table of both: size, speed, and what was
    lost.
    """

    task: Task
    student: Student
    on_text: OnText
    on_answers: OnAnswers
    saving: Saved
    machine: Machine
