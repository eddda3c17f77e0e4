"""Search in place of sampling: for generation, and for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.evaluation.answers import Answers, opening_text
from agents.runs.samples import Sample
from agents.search.answers import SingleAnswers
from agents.search.budget import SOME, Budget
from agents.search.searching import Search, search
from policies import Policy
from textenv import ListPrompts, Prompt, TextVectorEnv


def generate(
    policy: Policy,
    prompts: Sequence[str],
    envs: TextVectorEnv,
    how: Search,
    budget: Budget = SOME,
    **options: Any,
) -> list[str]:
    """The best answers that a search finds, as texts in the order of the prompts.

    As `policy.generate`, but that answers keep to the rules of `envs` and are chosen by its reward.

    Args:
        policy: The policy.
        prompts: Texts.
        envs: The environment.
        how: How to search.
        budget: What may be spent on each prompt.
        **options: Other arguments of `search`, such as `seed` and `temperature`.
    """
    asked = ListPrompts(list(prompts)).prompts
    return [found.text for found in search(policy, envs, asked, how, budget, **options)]


@dataclass(frozen=True)
class BySearch:
    """Search where `evaluate` would sample: `evaluate(..., answer=BySearch(how))`.

    Scores are the reward's, so where the reward also chooses the answers they say how well a search
    can satisfy it, and a judge of its own says whether the answers are better.

    Attributes:
        how: How to search.
        budget: What may be spent on each prompt.
    """

    how: Search
    budget: Budget = SOME

    def __call__(
        self,
        policy: Policy,
        envs: TextVectorEnv,
        prompts: Sequence[Prompt],
        *,
        temperature: float,
        generators: Sequence[np.random.Generator],
    ) -> Answers:
        """See `agents.evaluation.answers.answer_prompts`; at temperature 0 priors are as at 1."""
        found = search(
            policy,
            envs,
            prompts,
            self.how,
            self.budget,
            temperature=temperature or 1.0,
            generators=generators,
        )
        samples = [Sample(opening_text(one.start), one.text, one.score) for one in found]
        begins = [len(one.tree.prompt) for one in found]
        whole = [(*one.tree.prompt, *one.answer) for one in found]
        shape = len(found), max(map(len, whole))
        tokens = np.full(shape, policy.pad_token, dtype=np.int64)
        mask, rewards = np.zeros(shape, dtype=bool), np.zeros(shape)
        for row, (ids, begin, one) in enumerate(zip(whole, begins, found, strict=True)):
            tokens[row, : len(ids)] = ids
            mask[row, begin : len(ids)] = True
            rewards[row, len(ids) - 1] = one.score
        lengths = [place for one in found for place in range(len(one.answer))]
        return Answers(samples, tokens, mask, rewards, SingleAnswers(envs, policy).masks(lengths))
