"""What two learners, or a learner and somebody else, may share, and what each must have alone."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from letters import Letters
from toys import letters_env

from agents import PPO, Learner
from agents.collector import Collector
from agents.evaluation import evaluate
from policies import TransformerConfig, TransformerPolicy
from textenv import TextEnv
from textenv.errors import SharedEnvironmentError

torch.set_num_threads(1)


def make_policy(seed=0):
    config = TransformerConfig(6, context=4, n_layer=1, n_head=1, n_embd=8)
    return TransformerPolicy(config, tokenizer=Letters(5, stop=True), seed=seed)


def make_learner(envs=None, policy=None, **options):
    envs = envs or letters_env(4, 5)
    policy = policy or make_policy()
    return Learner(policy, envs, PPO(), **({"n_steps": 4, "learning_rate": 1e-2} | options))


def foreign_envs():
    """A vector environment of Gymnasium's, which does not count its own moves."""
    made = {"prompts": ["a"], "reward": lambda episodes: [1.0] * len(episodes)}
    one = {**made, "tokenizer": Letters(5, stop=True), "max_new_tokens": 3}
    return gym.vector.SyncVectorEnv([lambda: TextEnv(**one)] * 4)


def by_another_learner(envs):
    make_learner(envs)


def by_another_collector(envs):
    Collector(make_policy(), envs)


def by_a_reset(envs):
    envs.reset(seed=0)


def by_a_step(envs):
    envs.step(np.zeros(4, dtype=np.int64))


def by_restoring(envs):
    envs.unwrapped.load_state_dict(envs.unwrapped.state_dict())


ALL = [
    by_another_learner,
    by_another_collector,
    by_a_reset,
    by_a_step,
    by_restoring,
]


@pytest.mark.parametrize("moved", ALL)
def test_an_environment_that_somebody_else_moved(moved):
    envs = letters_env(4, 5)
    learner = make_learner(envs)
    learner.update()
    moved(envs)
    with pytest.raises(SharedEnvironmentError, match="an environment of their own"):
        learner.update()


@pytest.mark.parametrize("moved", [by_another_learner, by_another_collector])
def test_an_environment_that_does_not_count(moved):
    envs = foreign_envs()
    learner = make_learner(envs)
    learner.update()
    moved(envs)
    with pytest.raises(SharedEnvironmentError, match="SyncVectorEnv"):
        learner.update()


def test_before_the_first_update_and_when_it_is_saved(tmp_path):
    envs = letters_env(4, 5)
    learner = make_learner(envs)
    envs.reset()
    for use in (learner.update, lambda: learner.save(tmp_path)):
        with pytest.raises(SharedEnvironmentError):
            use()


def test_a_learner_that_was_made_later_goes_on(tmp_path):
    envs = letters_env(4, 5)
    by_a_reset(envs)
    by_a_step(envs)
    for _ in range(2):  # one after the other
        learner = make_learner(envs)
        learner.update()
    learner.save(tmp_path)
    by_a_reset(envs)
    learner.load(tmp_path)  # which restores the environment, too
    learner.update()


def bits(update):
    return update.rollout.tokens.tolist(), update.rollout.logprobs.tolist()


def test_an_evaluation_leaves_the_learners_environment_as_it_was():
    alone, examined = make_learner(), make_learner()
    alone.update()
    examined.update()
    assert len(evaluate(make_policy(), examined.envs, ["a"] * 5).samples) == 5
    assert bits(alone.update()) == bits(examined.update())


def test_a_policy_that_answers_between_updates_changes_no_choice():
    alone, disturbed = make_learner(), make_learner()
    for _ in range(3):
        expected = bits(alone.update())
        assert bits(disturbed.update()) == expected
        disturbed.policy.act(np.array([[0, 6, 6, 6]]))
        disturbed.policy.generate(["a"], 2)


def test_two_learners_of_one_policy_have_their_own_random_numbers():
    """They take turns at the weights; what each chooses is its seed's alone."""
    first = make_learner(seed=1, learning_rate=0.0)
    expected = [bits(first.update()) for _ in range(3)]
    policy = make_policy()
    first, second = (make_learner(None, policy, seed=seed, learning_rate=0.0) for seed in (1, 2))
    got = []
    for _ in range(3):
        got.append(bits(first.update()))
        second.update()
    assert got == expected


def test_an_optimiser_is_not_shared():
    policy = make_policy()
    existing = torch.optim.AdamW(policy.parameters())
    with pytest.raises(TypeError, match="pass what makes it, such as optimizer=AdamW"):
        make_learner(policy=policy, optimizer=existing)
    with pytest.raises(TypeError, match="holds none of this policy's"):
        make_learner(policy=make_policy(), optimizer=lambda parameters, lr: existing)
    make_learner(policy=policy, optimizer=lambda parameters, lr: existing).update()
