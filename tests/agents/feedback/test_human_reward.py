"""H, the model of the reward that a person gives, and how it is followed."""

import numpy as np
import torch
from letters import Letters

from agents.feedback import HumanReward
from agents.feedback.from_people.action_selection import Biased, Greedy
from policies import TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv

torch.set_num_threads(1)


def make_policy(letters=4, stop=False):
    tokenizer = Letters(letters, stop)
    shape = TransformerConfig(tokenizer.vocab_size, 40, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(shape, tokenizer=tokenizer, seed=0)


def test_h_is_fitted_to_what_was_said():
    policy = make_policy()
    model = HumanReward(policy)
    hidden = policy.last_hidden(np.array([[0, 1], [2, 3]])).clone()
    assert (model.of_all(hidden) == 0).all()
    tokens, rewards = torch.tensor([1, 2]), torch.tensor([1.0, -1.0])
    for _ in range(20):
        error = model.fit(hidden, tokens, rewards, torch.tensor([1.0, 0.5]))
    assert error < 1e-3
    said = model.of_all(hidden)[[0, 1], [1, 2]]
    torch.testing.assert_close(said, rewards, atol=0.05, rtol=0)
    assert all(not p.requires_grad for p in model.trunk.parameters())


def test_h_as_a_dense_reward_and_on_disk(tmp_path):
    policy = make_policy(stop=True)
    model = HumanReward(policy)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    envs = TextVectorEnv(
        3,
        prompts=["ab", "c"],
        reward=model.as_reward(),
        tokenizer=policy.tokenizer,
        max_new_tokens=4,
    )
    observations, _ = envs.reset(seed=0)
    generator = np.random.default_rng(1)
    for _ in range(8):
        actions = generator.integers(0, 5, 3)
        rows = [row[row < 5] for row in observations]
        expected = [
            model.of_all(model.trunk.last_hidden(row[None]))[0, action].item()
            for row, action in zip(rows, actions, strict=True)
        ]
        observations, rewards, *_ = envs.step(actions)
        np.testing.assert_allclose(rewards, expected, atol=1e-5)
    model.save(tmp_path)
    from agents.feedback.from_people import human_reward

    human_reward.load_policy = lambda folder: policy  # its vocabulary is known to this test alone
    try:
        again = HumanReward.load(tmp_path)
    finally:
        from policies import load_policy

        human_reward.load_policy = load_policy
    torch.testing.assert_close(again.head.weight, model.head.weight)


def test_choosing_by_h():
    logits, rewards = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([-1.0, 0.0, 0.0, 5.0])
    generator = np.random.default_rng(0)
    assert Greedy(among=3)(logits, rewards, generator) == 1  # the likelier of two
    assert Greedy()(logits, rewards, generator) == 3
    draws = [Biased(strength=1, temperature=2)(logits, rewards, generator) for _ in range(4000)]
    expected = (logits / 2 + rewards).softmax(0)
    np.testing.assert_allclose(np.bincount(draws) / 4000, expected, atol=0.02)
