"""`textenv live`: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.commands.options import setting
from agents.commands.shared import Adapted, Conversation, Machine, Prompted


@dataclass(frozen=True, kw_only=True)
class Task(Adapted):
    """What to watch.

    Attributes:
        policy: The policy that writes: a folder written by policy.save, or a model of Hugging Face,
            by its folder or its name on the hub (owner/name).
        prompts: Prompts, as the policy reads them: a .txt file (one a line), a .jsonl file (records
            with a 'prompt' or messages), or file.py:function. May be left out with --world.
        out: Folder for what you say and what is learned of it. Run the same command again to go on.
        limit: Prompts at most.
    """

    policy: str = setting(metavar="FOLDER")
    out: Path = setting(metavar="FOLDER")
    prompts: str | None = setting(None, metavar="FILE")
    limit: int | None = setting(None, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Watching(Prompted):
    """How to watch.

    Attributes:
        reward: What a key is about: token, what was shown some tenths of a second before; answer,
            the whole answer, of a conversation each turn, after which one key is waited for.
        seconds: How long each token stands on the screen before the next one.
        max_new_tokens: Longest answer, in tokens; of a conversation all turns and replies.
        choose: How the next token follows from what was learned: biased samples from the policy,
            each token likelier the better; greedy takes the best of those that the policy proposes.
        strength: Nats for a reward of 1, in --choose biased.
        among: How many tokens the policy proposes to --choose greedy.
        temperature: The policy's logits are divided by it, in --choose biased.
    """

    reward: Literal["token", "answer"] = "token"
    seconds: float = setting(0.5, above=0)
    max_new_tokens: int = setting(32, minimum=1)
    choose: Literal["biased", "greedy"] = "biased"
    strength: float = setting(3.0, minimum=0)
    among: int = setting(8, minimum=1)
    temperature: float = setting(1.0, above=0)


@dataclass(frozen=True)
class Training:
    """What follows.

    Attributes:
        tokens: Tokens of PPO against what was learned of you, once you have stopped; 0 for none. In
            a world that pays, its reward is added.
        learning_rate: Step size at the start; it falls linearly to a tenth.
        kl_coef: Weight of the KL penalty; more keeps the answers closer to those of the policy.
    """

    tokens: int = setting(0, minimum=0)
    learning_rate: float = setting(5e-4, minimum=0)
    kl_coef: float = setting(0.05, minimum=0)


@dataclass(frozen=True)
class LiveSettings:
    """Reward a policy by hand while it writes: it learns at once.

    Press + for good and - for bad, q to stop (TAMER). A key is about what was shown 0.2 to 0.8
    seconds before. What you mean is learned as a function of text and token, and the next token
    follows from it. Prompts may be dialogues, and with --world or --tools the policy's turns are
    watched, with the replies between them.
    """

    task: Task
    watching: Watching
    conversation: Conversation
    training: Training
    machine: Machine
