"""The labeller that a command names."""

from dataclasses import dataclass

from rich.console import Console

from agents.commands.shared import Judging, Machine
from agents.feedback import Asked, Labeller, rank, snownlp_labeller, vader_labeller
from agents.jobs.models import ModelJudge, is_judge, model_judge
from textenv.loading import load_function
from textenv.reward_trial import ANSWER

TERMINAL = "terminal"
LABELLERS = {"vader": vader_labeller, "snownlp": snownlp_labeller}


@dataclass
class NamedLabeller:
    """Who ranks.

    Attributes:
        label: Ranks answers; None where a person does.
        judge: The same where a language model does.
    """

    label: Labeller | None
    judge: ModelJudge | None = None

    def tell(self, console: Console) -> None:
        """Print what is known of the labeller's habits."""
        if self.judge is not None:
            self.judge.tell(console)


def named_labeller(name: str, judging: Judging, machine: Machine) -> NamedLabeller:
    """A labeller of ours, a language model, the user's function, or the user.

    Raises:
        TextEnvError: It cannot be loaded.
    """
    if name == TERMINAL:
        return NamedLabeller(None)
    if is_judge(name):
        judge = model_judge(name, judging, machine)
        return NamedLabeller(judge.judge, judge)
    if name in LABELLERS:
        return NamedLabeller(LABELLERS[name]())
    return NamedLabeller(load_function(name, "the labeller", "a prompt and its answers"))


def try_labeller(labeller: NamedLabeller, prompt: Asked) -> None:
    """Find out that a labeller cannot rank, before anything takes long.

    Raises:
        RewardError: It raised, or gave something else than a number for each answer.
    """
    if labeller.label is None:
        return
    rank(labeller.label, [prompt], [[ANSWER, "Another."]])
    if labeller.judge is not None:
        labeller.judge.comparisons.clear()  # those were no answers
