"""Whether a policy treats groups of people alike: the same prompts about each of them.

Names and words are swapped and nothing else, so that a difference between the groups' scores is due
to the group: of the share of right answers, of refusals, of toxicity, of a reward model, of
anything that scores an answer (Huang et al., "Reducing Sentiment Bias in Language Models via
Counterfactual Evaluation", 2020, arXiv:1911.03064). Which prompts are asked decides what is found:
no difference here says nothing about other prompts, or other groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeAlias

from numpy.typing import ArrayLike

from agents.evaluation.intervals import Interval, bootstrap_interval
from agents.evaluation.wording import robustness, scores_in_all
from textenv import Prompt
from textenv.errors import PromptError
from textenv.records import short

Member: TypeAlias = Mapping[str, str]
"""What stands in the places of a prompt for one person, such as `{"name": "Ann", "he": "she"}`."""


@dataclass(frozen=True)
class GroupBias:
    """Scores of one policy on the same prompts about several groups.

    Attributes:
        by_group: Mean score of each group, in the order given.
        differences: Mean of one group's scores less another one's, for each pair of groups under
            "women less men", with the interval of the difference prompt by prompt.
        gap: Mean of the best group less that of the worst.
        p_value: Probability of a gap as large if groups made no difference, by permuting the
            scores of each prompt: of many pairs of groups some differ by chance.
        changed: Share of the prompts whose score is not the same for all groups. Sampled answers
            differ by chance too: compare it with that of one group asked again.
    """

    by_group: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    gap: float
    p_value: float
    changed: Interval


def group_bias(scores: Mapping[str, ArrayLike], *, seed: int = 0) -> GroupBias:
    """Measure how much scores depend on the group that a prompt is about.

    Args:
        scores: Scores of the same n prompts, shape (n,), by the name of the group; NaN where an
            answer has none, which leaves the prompt out for all groups.
        seed: Seed of the permutations.

    >>> found = group_bias({"women": [1.0, 0.0], "men": [1.0, 1.0]})
    >>> found.differences["women less men"].mean, found.gap, found.changed.mean
    (-0.5, 0.5, 0.5)

    Raises:
        ValueError: There are fewer than two groups, or their numbers of scores differ, or no prompt
            has a score for all groups.
    """
    rows = dict(zip(scores, scores_in_all(scores, "groups"), strict=True))
    found = robustness(rows, seed=seed)
    return GroupBias(
        found.by_wording,
        {f"{a} less {b}": bootstrap_interval(rows[a] - rows[b]) for a, b in combinations(rows, 2)},
        found.spread,
        found.p_value,
        found.changed,
    )


def about_groups(
    prompts: Sequence[Prompt], groups: Mapping[str, Sequence[Member]]
) -> dict[str, list[Prompt]]:
    """The prompts about each group, by the group; prompt i is about its i-th member, in turn.

    Args:
        prompts: Texts or messages with places such as `{name}`; columns that are texts may have
            them too, for verdicts.
        groups: The members of each group. All have the same places.

    >>> names = {"women": [{"name": "Ann"}], "men": [{"name": "Bob"}]}
    >>> asked = about_groups([Prompt("Where does {name} live?", {"answer": "Rome"})], names)
    >>> asked["men"][0].text
    'Where does Bob live?'

    Raises:
        PromptError: A prompt has none of the places, or is given as ids; or a group has no member.
    """
    empty = [name for name, members in groups.items() if not members]
    if empty or not groups:
        raise PromptError(f"there is nobody in {', '.join(empty) or 'the groups'}")
    return {
        name: [_about(prompt, members[i % len(members)]) for i, prompt in enumerate(prompts)]
        for name, members in groups.items()
    }


def _about(prompt: Prompt, member: Member) -> Prompt:
    asked = prompt.text if prompt.messages is None else str(prompt.messages)
    if prompt.tokens is not None or not any(f"{{{place}}}" in asked for place in member):
        places = ", ".join(f"{{{place}}}" for place in member)
        raise PromptError(f"the prompt {short(prompt.text)} does not say where {places} goes")
    columns = {name: _filled(value, member) for name, value in prompt.columns.items()}
    if prompt.messages is None:
        return replace(prompt, text=_filled(prompt.text, member), columns=columns)
    said = [{**one, "content": _filled(one["content"], member)} for one in prompt.messages]
    return replace(prompt, text="", messages=said, columns=columns)


def _filled(value: Any, member: Member) -> Any:
    """A text with what stands in its places; anything else as it is."""
    if isinstance(value, str):
        for place, word in member.items():
            value = value.replace(f"{{{place}}}", word)
    return value
