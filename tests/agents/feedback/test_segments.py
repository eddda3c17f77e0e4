"""Segments that go on from the same text, and what is learned from their comparisons."""

import numpy as np
import pytest
import torch
from letters import Letters

from agents.feedback import Ranking, fit_token_reward, rank, sample_segments
from agents.feedback.reward_losses import pairwise
from agents.feedback.reward_modelling import reward_model_steps
from policies import TransformerConfig, TransformerPolicy
from policies.token_reward import TokenReward
from textenv.errors import PromptTooLongError
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)


def make_policy(tokenizer, context=16):
    shape = TransformerConfig(tokenizer.vocab_size, context, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(shape, tokenizer=tokenizer, seed=0)


def test_segments_go_on_from_a_part_of_an_answer():
    policy = make_policy(Letters(4))
    prompts = [a + b for a in "abcd" for b in "abcd"]
    sampled = sample_segments(policy, prompts, 3, segment_tokens=2, max_new_tokens=6, seed=1)
    assert len(sampled.beginnings) == 16 == len(sampled.segments)
    begun = [b.removeprefix(p) for b, p in zip(sampled.beginnings, prompts, strict=True)]
    assert [p + b for p, b in zip(prompts, begun, strict=True)] == sampled.beginnings
    assert {len(text) for text in begun} == {0, 1, 2, 3, 4}  # 4 and a segment fill the answer
    assert all(len(some) == 3 for some in sampled.segments)
    assert {len(text) for some in sampled.segments for text in some} == {2}
    again = sample_segments(policy, prompts, 3, segment_tokens=2, max_new_tokens=6, seed=1)
    assert again == sampled
    other = sample_segments(policy, prompts, 3, segment_tokens=2, max_new_tokens=6, seed=2)
    assert other != sampled
    ended = make_policy(Letters(4, stop=True))
    sampled = sample_segments(ended, prompts, 3, segment_tokens=2, max_new_tokens=6, seed=1)
    assert {len(text) for some in sampled.segments for text in some} == {0, 1, 2}


def test_no_character_is_cut():
    policy = make_policy(BytesTokenizer(), context=64)  # half of its bytes are within characters
    prompts = [f"p{n}" for n in range(40)]
    sampled = sample_segments(policy, prompts, 2, segment_tokens=4, max_new_tokens=16)
    for prompt, beginning in zip(prompts, sampled.beginnings, strict=True):
        assert beginning.startswith(prompt) and not beginning.endswith("\ufffd")


def test_a_segment_is_never_longer_than_an_answer():
    policy = make_policy(Letters(4))
    sampled = sample_segments(policy, ["a"], 2, segment_tokens=9, max_new_tokens=3)
    assert sampled.beginnings == ["a"] and [len(x) for x in sampled.segments[0]] == [3, 3]
    with pytest.raises(PromptTooLongError):
        sample_segments(policy, ["a" * 15], 2, segment_tokens=2, max_new_tokens=6)


def test_the_loss_is_bradley_and_terrys_on_the_sums():
    model = TokenReward.from_policy(make_policy(Letters(4, stop=True)), 3)
    rankings = [Ranking("ab", ("cd", "d"), (1, 2)), Ranking("c", ("a", "bbb"), (2, 1))]
    sums = [
        [model.rewards(*_whole(model, r.prompt, answer)).sum().item() for answer in r.answers]
        for r in rankings
    ]
    margins = np.array([sums[0][0] - sums[0][1], sums[1][1] - sums[1][0]])
    (step,) = reward_model_steps(model, rankings, loss=pairwise, batch_size=2)
    assert step.loss == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-5)


def _whole(model, prompt, answer):
    """The ids of both, and a mask over the answer."""
    tokens = model.pad([model.tokenizer.encode(prompt + answer)])
    return tokens, torch.arange(tokens.shape[1])[None] >= len(prompt)


def test_the_reward_of_each_letter_is_learned_from_comparisons_of_whole_segments():
    """The labeller counts b and dislikes c twice as much; it is never asked about one letter."""
    policy = make_policy(Letters(4))
    model = TokenReward.from_policy(policy, 0)

    def count(prompt, segments):
        return [text.count("b") - 2 * text.count("c") for text in segments]

    prompts = [a + b for a in "abcd" for b in "abcd"] * 4
    sampled = sample_segments(policy, prompts, 4, segment_tokens=4, max_new_tokens=8)
    rankings = rank(count, *sampled)
    fit_token_reward(model, rankings, epochs=6, batch_size=8, learning_rate=3e-3)
    fresh = sample_segments(policy, prompts[:16], 1, segment_tokens=1, max_new_tokens=8, seed=9)
    rows = [model.tokenizer.encode(b + letter) for b in fresh.beginnings for letter in "abcd"]
    tokens = model.pad(rows)
    last = torch.arange(tokens.shape[1]) == torch.tensor([len(row) - 1 for row in rows])[:, None]
    with torch.no_grad():
        of_letter = model.rewards(tokens, last).sum(1).view(-1, 4)
    a, b, c, d = of_letter.mean(0).tolist()
    assert b > max(a, d) + 1 and c < min(a, d) - 2 and abs(a - d) < 0.5
    assert (of_letter.argmax(1) == 1).all() and (of_letter.argmin(1) == 2).all()


def test_ties_teach_nothing_and_rewards_are_centred():
    model = TokenReward.from_policy(make_policy(Letters(4)), 0)
    fit_token_reward(model, [Ranking("a", ("b", "c"), (1, 1))])
    tokens = model.pad([[0, 1], [0, 2]])
    mask = torch.tensor([[False, True]] * 2)
    assert model.rewards(tokens, mask).sum().item() == pytest.approx(0, abs=1e-6)
