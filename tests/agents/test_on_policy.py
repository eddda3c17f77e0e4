"""Which tokens of a rollout the present policy chose, where episodes run on across updates."""

from dataclasses import replace

import pytest
import torch
from letters import Letters

from agents import A2C, Learner
from policies import TransformerPolicy
from textenv import TextVectorEnv

torch.set_num_threads(1)


def make_learner(**length):
    """Answers of 1 to 8 tokens; steps so large that one update moves every probability."""
    envs = TextVectorEnv(
        8,
        prompts=["a", "bc"],
        reward=lambda episodes: [float(e.text.count("a")) for e in episodes],
        tokenizer=Letters(4, stop=True),
        max_new_tokens=8,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=0)
    return Learner(policy, envs, A2C(), learning_rate=1e-2, **length)


def stale_tokens(learner, rollout):
    """Chosen tokens whose noted log-probability is not the present policy's."""
    with torch.no_grad():
        now = learner.outputs(rollout).logprobs
    return ((now - rollout.logprobs).abs() > 1e-4)[rollout.mask]


def test_rollouts_of_steps_hold_no_token_of_an_earlier_policy():
    learner = make_learner(n_steps=3)
    cut = 0
    for _ in range(10):
        rollout = learner.collect()
        assert rollout.num_tokens == 3 * 8
        assert not stale_tokens(learner, rollout).any()
        first = rollout.mask.int().argmax(1)
        cut += int((first > rollout.prompt_lengths).sum())
        learner.learn_from(rollout)
        learner.collector.cache.clear()
    assert cut > 20  # sequences that an earlier policy began


def test_rollouts_of_episodes_hold_some():
    learner = make_learner(n_episodes=8)
    stale = []
    for _ in range(10):
        rollout = learner.collect()
        stale.append(stale_tokens(learner, rollout))
        learner.learn_from(rollout)
        learner.collector.cache.clear()
    assert not stale[0].any()
    assert 0.05 < torch.cat(stale).float().mean() < 0.6


@pytest.mark.parametrize("ratio", [1.0, 0.5, 3.0])
def test_a2c_weighs_a_token_by_how_much_likelier_it_has_become(ratio):
    learner = make_learner(n_steps=3)
    rollout, _ = learner.learn_from(learner.collect())

    def gradient(batch):
        loss, _ = A2C(value_coef=0.0).loss(batch, learner.outputs(batch))
        return torch.autograd.grad(loss, learner.policy.transformer.token_embedding.weight)[0]

    with torch.no_grad():
        now = learner.outputs(rollout).logprobs
    before = now - torch.tensor(ratio).log()
    torch.testing.assert_close(
        gradient(replace(rollout, logprobs=before)),
        ratio * gradient(replace(rollout, logprobs=now)),
    )
