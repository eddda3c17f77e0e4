"""`textenv online`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting
from agents.commands.preferences import LABELLERS
from agents.commands.shared import (
    MODEL_AS_JUDGE,
    OWN_FUNCTION,
    Adapted,
    Framed,
    Judging,
    Machine,
    Prompted,
    Sampling,
    Saved,
)


@dataclass(frozen=True, kw_only=True)
class Task(Adapted, Framed):
    """What to learn from whom.

    Attributes:
        policy: The policy to begin with, usually the fine-tuned one: a folder written by
            policy.save, or a model of Hugging Face, by its folder or its name on the hub
            (owner/name).
        prompts: Prompts, as the policy reads them: a .txt file (one a line), a .jsonl file (records
            with a 'prompt'), or file.py:function.
        labeller: Who ranks the answers: as for textenv preferences.
        out: Folder of the run. Run the same command again to resume; rankings that were given since
            the last save are kept.
        limit: Prompts at most; if not given, all of a file, or 256 of a function.
        held_out: Prompts on which the policy is compared with what it began as.
    """

    policy: str = setting(metavar="FOLDER")
    prompts: str = setting(metavar="FILE")
    labeller: str = setting(
        metavar="NAME", names=LABELLERS, others={**MODEL_AS_JUDGE, **OWN_FUNCTION}
    )
    out: Path = setting(metavar="FOLDER")
    limit: int | None = setting(None, minimum=2)
    held_out: int = setting(64, minimum=0)


@dataclass(frozen=True)
class Rounds:
    """The rounds.

    Attributes:
        rounds: How many; a resumed run may be given more.
        prompts_per_round: Prompts that are answered and ranked in a round.
        answers_per_prompt: Answers that are ranked against each other.
        segment_tokens: Rank segments of this many tokens that go on from a part of an answer, and
            learn a reward of each token; whole answers if not given.
        tokens_per_round: Tokens that the policy learns from in a round.
    """

    rounds: int = setting(4, minimum=1)
    prompts_per_round: int = setting(64, minimum=1)
    answers_per_prompt: int = setting(4, minimum=2)
    segment_tokens: int | None = setting(None, minimum=1)
    tokens_per_round: int = setting(20_000, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Answers(Prompted, Sampling):
    """How to answer.

    Attributes:
        rows: Answers that are written at a time.
    """

    temperature: float = setting(1.0, minimum=0.01)
    rows: int = setting(64, minimum=1)


@dataclass(frozen=True)
class Training:
    """How to learn.

    Attributes:
        learning_rate: Step size of the policy at the start; it falls linearly to a tenth.
        kl_coef: Weight of the KL penalty; more keeps the answers closer to those of the first
            policy.
        reward_learning_rate: Step size of the reward model at its peak in a round.
        reward_epochs: Passes over all rankings so far in each round.
        reward_batch_size: Prompts of an optimiser step of the reward model.
    """

    learning_rate: float = setting(5e-4, minimum=0)
    kl_coef: float = setting(0.05, minimum=0)
    reward_learning_rate: float = setting(5e-4, minimum=0)
    reward_epochs: int = setting(2, minimum=1)
    reward_batch_size: int = setting(16, minimum=1)


@dataclass(frozen=True)
class OnlineSettings:
    """Train a policy on feedback about what it does now, in rounds.

    In every round it answers, the labeller ranks, a reward model learns from all rankings so far,
    and PPO goes on against the model.
    """

    task: Task
    judging: Judging
    rounds: Rounds
    answers: Answers
    training: Training
    saving: Saved
    machine: Machine
