"""The fine-tuned model as the judge of its own answers (RLAIF).

Lee et al., "RLAIF: Scaling Reinforcement Learning from Human Feedback with AI Feedback" (2023),
arXiv:2309.00267, ask a model for the likelihood of the options A and B. A network of three layers
answers that by chance, however it is asked and even after demonstrations of it. What it does know
is how likely it finds an answer: Yuan et al., "RRHF: Rank Responses to Align Language Models with
Human Feedback without Tears" (2023), arXiv:2304.05302, rank answers by that.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from agents.evaluation import Interval, bootstrap_interval
from agents.feedback import Ranking, preference_rollout
from policies import Policy, tokenizer_of
from textenv import Prompt
from textenv.frames import Frame
from textenv.tasks import assistant

BATCH = 128
"""Answers that are read in one pass."""
DIGITS = 3
"""Of a log-probability: answers that differ by less tie."""


@torch.inference_mode()
def ranked_by_likelihood(
    policy: Policy, rankings: Sequence[Ranking], frame: Frame, labeller: str
) -> list[Ranking]:
    """The same answers, ranked by their mean log-probability of a token under the policy."""
    rollout = preference_rollout(rankings, tokenizer_of(policy), policy.context, frame)
    means: list[float] = []
    for begin in range(0, len(rollout), BATCH):
        rows = torch.arange(begin, min(begin + BATCH, len(rollout)))
        part = rollout.select(rows).to(policy.device)
        sums = policy.outputs(part.tokens, part.mask).logprobs.double().sum(1)
        means += (sums / part.mask.sum(1)).tolist()
    ranked, begin = [], 0
    for ranking in rankings:
        scores = [round(x, DIGITS) for x in means[begin : begin + len(ranking.answers)]]
        begin += len(scores)
        anew = Ranking.from_scores(ranking.asked, ranking.answers, scores)
        ranked.append(replace(anew, labeller=labeller))
    return ranked


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
    return bootstrap_interval(shares) if shares else Interval(np.nan, np.nan, np.nan)
