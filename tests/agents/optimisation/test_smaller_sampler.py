"""Rollouts by a smaller copy: who chose, what the learner makes of it, and that it learns."""

from functools import partial

import pytest
import torch
from toys import letters_env

from agents import RLOO, Learner, TreePO
from agents.optimisation.smaller_sampler import SmallerSampler
from policies import TransformerPolicy
from policies.compression import layers_of, pruned
from textenv.errors import UnmetNeedError

torch.set_num_threads(1)
COARSE = partial(pruned, share=0.7)


def learner(algorithm=RLOO(), **more):  # noqa: B008  # frozen
    envs = letters_env(
        32, 4, group_size=4, reward=lambda episodes: [e.text.count("a") for e in episodes]
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    with torch.no_grad():
        for layer in layers_of(policy).values():
            layer.weight.mul_(8)
    options = {"n_episodes": 64, "learning_rate": 1e-2, "importance_cap": 5.0} | more
    return Learner(
        policy, envs, algorithm, collector=partial(SmallerSampler, smaller=COARSE), **options
    )


def test_it_samples_with_the_present_weights_made_smaller():
    made = learner()
    rollout = made.collect()
    with torch.no_grad():
        chose, learns = (
            p.outputs(rollout.tokens, rollout.mask).logprobs
            for p in (COARSE(made.policy), made.policy)
        )
    torch.testing.assert_close(rollout.sampled_logprobs, chose, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rollout.logprobs, learns, atol=1e-5, rtol=1e-4)
    expected = (learns - chose).exp().clamp(max=5.0)[rollout.mask]
    torch.testing.assert_close(
        rollout.importance_weights[rollout.mask], expected, atol=1e-4, rtol=1e-3
    )
    assert (expected - 1).abs().max() > 0.01
    made.learn_from(rollout)
    made.collect()
    renewed = COARSE(made.policy).state_dict()
    found = made.collector.policy.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in renewed.items())


def test_it_learns_and_wants_a_correction():
    made = learner()
    scores = [made.update().score for _ in range(25)]
    assert scores[-1] > scores[0] + 0.7
    with pytest.raises(UnmetNeedError, match=r"importance_cap=2\.0"):
        learner(importance_cap=None)


def test_continuations_are_corrected_too():
    """A tree of which some answers had no weights would be none that can be learned from."""
    made = learner(TreePO(segment_tokens=1))
    rollout = made.collect()
    branches = rollout.parents >= 0
    assert branches.any()
    with torch.no_grad():
        learns = made.policy.outputs(rollout.tokens, rollout.mask).logprobs
    torch.testing.assert_close(rollout.logprobs, learns, atol=1e-5, rtol=1e-4)
    own = rollout.mask & branches[:, None]
    assert (rollout.importance_weights[own] - 1).abs().max() > 0.01
    made.learn_from(rollout)
