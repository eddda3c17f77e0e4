"""Comparisons of segments: short pieces of what the policy does now, instead of whole answers.

Christiano et al., "Deep Reinforcement Learning from Human Preferences" (2017), arXiv:1706.03741,
show people clips of one or two seconds, since these take less time to compare than whole episodes
and say where something was right. Their two clips begin anywhere. Here the segments that are
compared go on from the same text, which an environment of text can always go back to: they differ
by what the policy did, not by where it was.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from agents.feedback.rankings import Ranking, laid_flat
from agents.feedback.reward_modelling import RewardModelStep, reward_model_steps
from policies import Policy, generate_tokens, tokenizer_of
from policies.token_reward import TokenReward
from textenv.tokenizers import decode_answer, encode_prompt, stop_tokens_of
from textenv.tokenizers.texts import REPLACEMENT


class Segments(NamedTuple):
    """What the policy does next, in several ways.

    Attributes:
        beginnings: Each prompt with a part of an answer; this is the prompt of a ranking.
        segments: K continuations of each, which are ranked.
    """

    beginnings: list[str]
    segments: list[list[str]]


def sample_segments(
    policy: Policy,
    prompts: Sequence[str],
    k: int,
    *,
    segment_tokens: int,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int | Sequence[int] = 0,
) -> Segments:
    """An answer to each prompt, cut at a random token, and K segments that go on from there.

    Args:
        policy: The policy that answers; it must have a tokenizer.
        prompts: Texts.
        k: Number of segments for each prompt.
        segment_tokens: Longest segment.
        max_new_tokens: Token budget of a whole answer; no segment goes beyond it.
        temperature: Logits are divided by this before sampling.
        seed: The same policy, prompts and seed give the same segments.

    Raises:
        TokenizerError: The policy has no tokenizer.
        PromptTooLongError: A prompt and its budget do not fit the policy's context.
    """
    tokenizer, generator = tokenizer_of(policy), np.random.default_rng(seed)
    stops = stop_tokens_of(tokenizer)
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    sampling: dict[str, Any] = {"temperature": temperature, "generator": generator}
    answers = generate_tokens(policy, encoded, max_new_tokens, **sampling)
    begun, beginnings = [], []
    for prompt, ids, answer in zip(prompts, encoded, answers, strict=True):
        said = answer[:-1] if answer[-1] in stops else answer
        # Something was said behind the cut, there is room for a segment, and no character is cut.
        latest = min(len(said) - 1, max_new_tokens - segment_tokens)
        cut = int(generator.integers(0, max(latest, 0) + 1))
        while decode_answer(tokenizer, ids, said[:cut]).endswith(REPLACEMENT):
            cut -= 1
        begun.append([*ids, *said[:cut]])
        beginnings.append(prompt + decode_answer(tokenizer, ids, said[:cut]))
    ends = generate_tokens(policy, begun, min(segment_tokens, max_new_tokens), n=k, **sampling)
    texts = [
        decode_answer(tokenizer, begun[i // k], some[:-1] if some[-1] in stops else some)
        for i, some in enumerate(ends)
    ]
    return Segments(beginnings, [texts[i : i + k] for i in range(0, len(texts), k)])


def fit_token_reward(
    model: TokenReward,
    rankings: Sequence[Ranking],
    *,
    on_step: Callable[[RewardModelStep], object] = lambda step: None,
    **training: Any,
) -> None:
    """Continue training `model` with all rankings of segments, and centre its rewards.

    The loss is Bradley and Terry's on the sums over the segments' tokens. If no ranking says that
    one segment is better than another, there is nothing to learn.

    Args:
        model: The model to train.
        rankings: At least one ranking.
        on_step: Called after each optimiser step.
        **training: The other arguments of `reward_model_steps`.
    """
    if any(len(set(ranking.ranks)) > 1 for ranking in rankings):
        for step in reward_model_steps(model, rankings, **training):
            on_step(step)
    model.centre(*laid_flat(rankings, model.frame))
