"""`textenv chat`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting
from agents.commands.shared import Answering, Framed, Masked, OwnClassifier, Published, Sampling


@dataclass(frozen=True, kw_only=True)
class Answers(Sampling, Masked, Published):
    """How to answer.

    Attributes:
        folder: A folder written by policy.save, or a model of Hugging Face, by its folder or its
            name on the hub (owner/name).
        top_k: Keep only this many of the likeliest tokens.
        top_p: Keep only the likeliest tokens that together reach this probability.
        max_new_tokens: Longest answer, in tokens; half of the policy's context if not given.
    """

    folder: Path = setting(metavar="FOLDER", positional=True)
    top_k: int | None = setting(None, minimum=1)
    top_p: float | None = setting(None, minimum=0.001, maximum=1)
    max_new_tokens: int | None = setting(None, minimum=1)  # type: ignore[assignment]  # wider


@dataclass(frozen=True, kw_only=True)
class Conversation(Framed, OwnClassifier):
    """The conversation.

    Attributes:
        plain: Continue each text as it is, even if the policy has learned from dialogues.
        dialogue: Take the policy for one that has learned from dialogues of textenv sft. Those of
            version 0.1 do not tell.
        frame: How messages are wrapped: chat for the template of the dialogues that the policy has
            learned from, which is taken anyway if there is one, or a textenv.frames.ChatTemplate of
            yours.
        tools: A function that the policy may call in its text: file.py:function, or
            textenv.tools:calculator. Results are shown, and the policy goes on from them. May be
            given several times.
        system: A message in front of all others, such as how to behave.
        log: Folder for what you say of answers with /good, /bad and /fix: rankings, examples and
            labels that textenv sft, reward-model and dpo read.
        beside: A second policy that answers too, on the same random numbers, so that the two differ
            where the policies do. /1, /2 and /= say which answer was better.
        refuse_above: Refuse a text whose toxicity, 0 to 1, is at least this; the list of English
            swear words gives 0 or 1, and a --classifier a probability. Answers then appear whole.
    """

    plain: bool = False
    dialogue: bool = False
    tools: list[str] = setting([], metavar="FILE:NAME")
    system: str | None = None
    log: Path | None = setting(None, metavar="FOLDER")
    beside: Path | None = setting(None, metavar="FOLDER")
    refuse_above: float | None = setting(None, minimum=0, maximum=1)


@dataclass(frozen=True)
class ChatMachine(Answering):
    """Where and how to compute.

    Attributes:
        seed: Start of the sampling; another one each time if not given.
    """

    seed: int | None = setting(None, minimum=0)  # type: ignore[assignment]  # wider here


@dataclass(frozen=True)
class ChatSettings:
    """Talk to a policy in the terminal.

    A policy that has learned from dialogues, and a model of Hugging Face with a chat template, is
    asked as in these; any other one continues each text as it is. /help lists the commands, /exit
    (or Ctrl-D) ends, Ctrl-C stops an answer.
    """

    answers: Answers
    conversation: Conversation
    machine: ChatMachine
