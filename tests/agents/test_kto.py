"""KTO's reference point: prompts with answers to other prompts, by hand and one at a time."""

from dataclasses import replace

import pytest
import torch
from letters import Letters

from agents import Collector, Rollout, Trainer
from agents.algorithms import KTO
from policies import TransformerPolicy
from textenv import TextVectorEnv

torch.set_num_threads(1)
PAD = 9


def log(rows, answers_from):
    """A rollout of these ids, of which those from the given places on were chosen."""
    length = max(map(len, rows))
    tokens = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    places = torch.arange(length)
    mask = (places >= torch.tensor(answers_from)[:, None]) & (tokens != PAD)
    count = len(rows)
    return Rollout.from_log(tokens, mask, torch.zeros(count), torch.arange(count) // 2)


def texts(rollout):
    """Of each row: what precedes the chosen tokens, and these."""
    found = []
    for tokens, mask in zip(rollout.tokens.tolist(), rollout.mask.tolist(), strict=True):
        begin = mask.index(True)
        chosen = [token for token, m in zip(tokens, mask, strict=True) if m]
        found.append((tokens[:begin], chosen))
    return found


def test_prompts_meet_answers_of_another_group():
    rows = [[1, 0, 2, 3], [1, 0, 4], [5, 6], [5, 7, 8]]  # answers from 2, 2, 1, 1 on
    batch = log(rows, [2, 2, 1, 1])
    assert texts(batch.with_answers_of_others(context=8)) == [
        ([1, 0], [6]),
        ([1, 0], [7, 8]),
        ([5], [2, 3]),
        ([5], [4]),
    ]


def test_the_width_of_the_batch_is_no_limit_but_the_context_is():
    batch = log([[1, 2, 3, 4], [5, 6, 7, 8]], [3, 1])
    assert texts(batch.with_answers_of_others(context=8)) == [([1, 2, 3], [6, 7, 8]), ([5], [4])]
    assert texts(batch.with_answers_of_others(context=5)) == [([1, 2, 3], [6, 7]), ([5], [4])]


def test_what_stands_between_chosen_tokens_and_their_masks_go_with_them():
    batch = log([[1, 2, 3, 4], [5, 6, 7, 8]], [1, 2])
    batch.mask[0, 2] = False  # such as the answer of a tool
    ids = torch.tensor([[0, 1, 0, 2], [0, 0, 3, 4]])
    batch = replace(batch, mask_ids=ids, mask_table=torch.eye(5).bool())
    other = batch.with_answers_of_others(context=8)
    assert other.tokens[1, :5].tolist() == [5, 6, 2, 3, 4]
    assert other.mask[1].tolist() == [False, False, True, False, True, False, False, False]
    assert other.mask_ids[other.mask].tolist() == [3, 4, 1, 2]
    assert other.action_masks.int().argmax(1).tolist() == [3, 4, 1, 2]


@pytest.mark.parametrize(("moved", "temperature"), [(0, 1.0), (1, 1.0), (1, 0.7)])
def test_the_reference_point_is_the_mean_log_ratio_of_mismatched_pairs(moved, temperature):
    """Above 0 if the reference has moved from the policy that answers, else below and so 0."""
    envs = TextVectorEnv(
        4,
        prompts=["ab", "c", "dda", "bcda"],
        reward=lambda episodes: [float(len(e.tokens)) for e in episodes],
        tokenizer=Letters(4, stop=True),
        max_new_tokens=4,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=0)
    answers = Collector(policy, envs, seed=0).collect_episodes(8)
    algorithm = KTO(beta=0.5, desirable_above=2.0)
    trainer = Trainer(
        policy, algorithm, reference=policy.frozen_copy(), temperature=temperature, learning_rate=0
    )
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (policy, trainer.reference)[moved].parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise))
    ratios = []
    pairs = texts(answers)
    for number, (prompt, _) in enumerate(pairs):
        answer = pairs[(number + 4) % 8][1]
        text = (prompt + answer)[: policy.context]
        one = torch.tensor([text])
        chosen = torch.arange(len(text))[None] >= len(prompt)
        own, ref = (
            p.outputs(one, chosen, temperature=temperature).logprobs.sum().item()
            for p in (policy, trainer.reference)
        )
        ratios.append(own - ref)
    assert (sum(ratios) > 0.1) == (moved == 1)
    expected = max(sum(ratios) / 8, 0.0)
    batch, metrics = trainer.learn_from(answers)
    assert metrics["reference_point"] == pytest.approx(expected, abs=1e-5)

    # The loss is the formula around this point.
    outputs = trainer.outputs(batch)
    own = (outputs.logprobs - batch.ref_logprobs).sum(1).detach()
    gains = torch.where(batch.scores > 2.0, own - expected, expected - own)
    loss = (1 - torch.sigmoid(0.5 * gains)).mean().item()
    assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
    assert (abs(algorithm.loss(batch, outputs).item() - loss) > 1e-4) == (moved == 1)


def test_without_a_reference_it_says_what_is_missing():
    envs = TextVectorEnv(2, prompts=["a"], reward=lambda e: [0.0] * len(e), max_new_tokens=2)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=4)
    answers = Collector(policy, envs, seed=0).collect_episodes(2)
    with pytest.raises(ValueError, match=r"reference=policy\.frozen_copy"):
        Trainer(policy, KTO()).learn_from(answers)
