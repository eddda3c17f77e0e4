"""The fine-tuned model as a judge of answers (RLAIF), and the demonstrations that it judges by.

Bai et al., "Constitutional AI: Harmlessness from AI Feedback" (2022), arXiv:2212.08073; Lee et al.,
"RLAIF: Scaling Reinforcement Learning from Human Feedback with AI Feedback" (2023),
arXiv:2309.00267. A small model judges only what it was shown how to judge: some demonstrations of
SFT are comparisons, of a reference with the same answer spoiled. No answer of a policy and no
verdict on one is among them.
"""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from agents.evaluation import Interval, bootstrap_interval
from agents.feedback import Ranking
from agents.feedback.from_models.judging import PairwiseJudge, unbiased
from agents.feedback.from_models.language_model import LocalModel
from agents.supervised import Example
from policies import Policy, tokenizer_of
from textenv import Prompt
from textenv.frames import ChatTemplate
from textenv.tasks import assistant

PRINCIPLES = {
    "en": "The better answer is true, does what was asked, and harms nobody.",
    "zh": "更好的回答是真的，有用，不伤害别人。",
}
"""What the judge goes by."""
MARGIN = 4
"""Tokens that are left for other cuts of the texts, and for the judge's reply."""
FORMS = {
    "en": "{principle} {prompt}\nA: {first}\nB: {second}\nWhich is better?",
    "zh": "{principle}{prompt}\nA：{first}\nB：{second}\n哪个更好？",
}


def question_in(language: str) -> Callable[[str, str, str, str], str]:
    """The question to the judge, as short as its context wants it."""
    form = FORMS[language]

    def question(prompt: str, first: str, second: str, principle: str) -> str:
        return form.format(principle=principle, prompt=prompt, first=first, second=second)

    return question


def demonstrations_of_judging(
    prompts: Sequence[Prompt], language: str, template: ChatTemplate, seed: int
) -> list[Example]:
    """Comparisons of the reference with a spoiled one, each in one order."""
    rng = np.random.default_rng([seed, 14])
    alike: dict[str, list[str]] = {}
    for prompt in prompts:
        alike.setdefault(prompt.columns["kind"], []).append(prompt.columns["reference"])
    question, examples = question_in(language), []
    for prompt in prompts:
        right = prompt.columns["reference"]
        others = alike[prompt.columns["kind"]]
        wrong = _spoiled(right, others[int(rng.integers(len(others)))], language, rng)
        if assistant.correct(prompt.columns["check"], wrong):
            continue
        first = bool(rng.integers(2))
        one, other = (right, wrong) if first else (wrong, right)
        asked = question(prompt.text, one, other, PRINCIPLES[language])
        messages = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": "A" if first else "B"},
        ]
        examples.append(Example.from_record({"messages": messages}, template))
    return examples


def _spoiled(right: str, other: str, language: str, rng: np.random.Generator) -> str:
    """An answer with another number, with the end of another one, or another one as a whole."""
    numbers = list(re.finditer(r"\d+", right))
    way = rng.random()
    if numbers and way < 0.5:
        one = numbers[int(rng.integers(len(numbers)))]
        moved = max(0, int(one.group()) + int(rng.choice([-10, -2, -1, 1, 2, 10])))
        return f"{right[: one.start()]}{moved}{right[one.end() :]}"
    if way < 0.8:
        return _without_end(right, language) + other[len(_without_end(other, language)) :]
    return other


def _without_end(text: str, language: str) -> str:
    """Up to the last word; of Chinese, where words are not parted, up to the last two signs."""
    return text[: text.rstrip().rfind(" ") + 1] if language == "en" else text[:-3]


def judged(
    policy: Policy,
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[str]],
    language: str,
    template: ChatTemplate,
    on_prompts: Callable[[int], object] = lambda count: None,
) -> list[list[float]]:
    """Scores of answers to each prompt: how often the policy prefers each to the others."""
    judge = PairwiseJudge(
        LocalModel(policy, template),
        (PRINCIPLES[language],),
        question=question_in(language),
        decide=unbiased,
    )
    scores = []
    for number, (prompt, some) in enumerate(zip(prompts, answers, strict=True), 1):
        scores.append(judge(prompt.text, some))
        on_prompts(number)
    return scores


def fits_a_judge(
    prompt: Prompt,
    answers: Sequence[str],
    language: str,
    template: ChatTemplate,
    policy: Policy,
) -> bool:
    """Whether the longest two answers can be compared within the policy's context."""
    second, first = sorted(answers, key=len)[-2:]
    asked = question_in(language)(prompt.text, first, second, PRINCIPLES[language])
    ids = template.prompt_tokens([{"role": "user", "content": asked}], tokenizer_of(policy))
    return len(ids) + MARGIN <= policy.context


def agreement(prompts: Sequence[Prompt], rankings: Sequence[Ranking]) -> Interval:
    """Share of pairs of a good and a bad answer, by the verdicts, that are ranked so.

    Ties count half; the pairs of a prompt are averaged. NaN if there is no such pair.
    """
    shares = []
    for prompt, ranking in zip(prompts, rankings, strict=True):
        good = [assistant.correct(prompt.columns["check"], answer) for answer in ranking.answers]
        pairs = [
            0.5 + 0.5 * np.sign(worse - better)
            for better, is_good in zip(ranking.ranks, good, strict=True)
            for worse, is_better in zip(ranking.ranks, good, strict=True)
            if is_good and not is_better
        ]
        if pairs:
            shares.append(float(np.mean(pairs)))
    return bootstrap_interval(shares) if shares else Interval(math.nan, math.nan, math.nan)
