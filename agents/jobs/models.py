"""Language models that give feedback, named on the command line: a policy, or one at a server."""

from dataclasses import dataclass, field

import numpy as np
from rich.console import Console

from agents.commands.shared import Judging, Machine
from agents.feedback.from_models.judging import (
    Comparison,
    PairwiseJudge,
    agreed,
    position_bias,
    unbiased,
)
from agents.feedback.from_models.language_model import LanguageModel, LocalModel
from agents.feedback.from_models.principles import HELPFUL, read_principles
from agents.jobs.begin import begin_with
from agents.jobs.machine import to_machine
from policies.templates import template_of
from textenv.chat_server import ChatServer
from textenv.errors import OptionError

JUDGE = "judge:"
SERVERS = ("http://", "https://")
VERDICTS = {"agreed": agreed, "unbiased": unbiased}


def language_model(
    name: str, machine: Machine, *, max_new_tokens: int = 128, temperature: float = 0.8
) -> LanguageModel:
    """A language model: a folder, owner/name on the hub, or `URL#MODEL` of a server.

    Args:
        name: One of these.
        machine: Where a policy computes, and the seed of what it writes.
        max_new_tokens: Longest text that it writes.
        temperature: Logits are divided by this in writing.

    Raises:
        OptionError: A URL without the name of a model.
        MissingExtraError: A package for servers or for models of Hugging Face is not installed.
        TextEnvError: The policy cannot be loaded or has no tokenizer.
    """
    if not name.startswith(SERVERS):
        policy = to_machine(begin_with(name), machine)
        generator = np.random.default_rng(machine.seed)
        return LocalModel(policy, template_of(policy), max_new_tokens, temperature, generator)
    url, _, model = name.partition("#")
    if not model:
        raise OptionError(
            f"{name} does not say which of the server's models is asked: write {name}#MODEL"
        )
    options = {"temperature": temperature, "max_tokens": max_new_tokens}
    return ChatServer(url, model, options=options)


def is_judge(name: str) -> bool:
    """Whether an option names a language model that compares answers."""
    return name.startswith(JUDGE)


@dataclass
class ModelJudge:
    """A judge, and what it has compared so far.

    Attributes:
        judge: Compares answers.
        comparisons: All of its comparisons.
    """

    judge: PairwiseJudge
    comparisons: list[Comparison] = field(default_factory=list)

    def tell(self, console: Console) -> None:
        """Print how far the judge went by the place of an answer."""
        if not self.comparisons:
            return
        bias = position_bias(self.comparisons)
        console.print(
            f"The judge compared {len(self.comparisons)} pairs in both orders. It chose the answer "
            f"shown first with a share of {bias.first}; both orders agreed on {bias.consistent} of "
            "the pairs.",
            soft_wrap=True,
            highlight=False,
        )


def model_judge(name: str, judging: Judging, machine: Machine) -> ModelJudge:
    """The judge that `judge:...` names; raises as `language_model`.

    Raises:
        PromptError: The file of principles holds none.
    """
    path = judging.principles
    principles = [HELPFUL] if path is None else read_principles(path)
    comparisons: list[Comparison] = []
    judge = PairwiseJudge(
        language_model(name.removeprefix(JUDGE), machine),
        principles,
        judging.principles_per_prompt or None,
        decide=VERDICTS[judging.verdict],
        seed=machine.seed,
        on_comparisons=comparisons.extend,
    )
    return ModelJudge(judge, comparisons)
