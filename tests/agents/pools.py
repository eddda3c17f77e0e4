"""Environments, policies and comparisons of rollouts for the tests of pools of workers."""

from dataclasses import fields

import numpy as np
import torch
from letters import Letters
from two_turns import Echo

from agents import Rollout
from policies import TransformerPolicy
from textenv import TextVectorEnv


def count_a(episodes):
    return [float(e.text.count("a")) - 0.1 * len(e.text) for e in episodes]


def answers(rows=8, group_size=2, **options):
    defaults = {
        "prompts": ["a", "bc", "cab", "b"],
        "reward": count_a,
        "tokenizer": Letters(4, stop=True),
        "max_new_tokens": 6,
        "max_prompt_tokens": 3,
        "group_size": group_size,
    }
    return TextVectorEnv(rows, **(defaults | options))


def conversations(rows=8, group_size=2):
    return TextVectorEnv(
        rows,
        prompts=list("abcd"),
        world=Echo,
        max_prompt_tokens=2,
        max_new_tokens=12,
        max_turn_tokens=2,
        stop_tokens=[ord("x")],
        group_size=group_size,
    )


def policy_for(envs, seed=3):
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=seed)
    with torch.no_grad():  # far from uniform
        policy.transformer.token_embedding.weight.mul_(5)
    return policy


def assert_same(one: Rollout, other: Rollout, but=()):
    """Every array bit for bit, and all that is told."""
    for field in fields(Rollout):
        if field.name in but:
            continue
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "starts":
            assert [start.to_json() for start in a] == [start.to_json() for start in b]
        elif isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a.nan_to_num(7), b.nan_to_num(7)), field.name
        elif isinstance(a, dict):
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            assert str(a) == str(b), field.name


def move(policy, seed):
    """Something like an update."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
