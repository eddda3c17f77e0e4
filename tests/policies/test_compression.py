"""Copies of eight bits and with zeros: what they say, what they take, what they leave alone."""

import pytest
import torch
from toys import letters_env

from agents import Collector
from policies import Policy, TransformerConfig, TransformerPolicy
from policies.compression import bytes_of, int8, layers_of, products, pruned, weights
from textenv.errors import OptionError, UnsupportedModelError

torch.set_num_threads(1)


def make(form=TransformerConfig):
    """Weights far from those of a new network, so that rounding shows."""
    envs = letters_env(8, 6, group_size=4)
    policy = TransformerPolicy.for_env(envs, form=form, n_layer=2, n_head=2, n_embd=32)
    with torch.no_grad():
        for layer in layers_of(policy).values():
            layer.weight.mul_(5)
    return envs, policy


@pytest.mark.parametrize("form", [TransformerConfig, TransformerConfig.llama])
@pytest.mark.parametrize(
    ("configuration", "near", "again"),
    # Inputs that differ in their last digit may be rounded to different integers.
    [(weights, 0.05, 2e-5), (products, 0.1, 1e-2)],
)
def test_eight_bits_say_nearly_the_same(form, configuration, near, again):
    pytest.importorskip("torchao")
    envs, policy = make(form)
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    small = int8(policy, configuration)
    rollout = Collector(small, envs, seed=0).collect_episodes(16)
    with torch.no_grad():
        own, whole = (p.outputs(rollout.tokens, rollout.mask).logprobs for p in (small, policy))
    # What it sampled is what it says of it in one pass, whoever stands beside it.
    torch.testing.assert_close(own, rollout.logprobs, atol=again, rtol=0)
    difference = (own - whole).abs().max()
    assert 1e-5 < difference < near
    # A byte for each weight of a layer; for each of its outputs a scale in four, a zero in one.
    layers = layers_of(policy).values()
    saved = sum(3 * layer.weight.numel() - 5 * layer.out_features for layer in layers)
    assert bytes_of(policy) == sum(4 * p.numel() for p in policy.parameters())
    assert bytes_of(policy) - bytes_of(small) == saved > bytes_of(policy) / 2
    assert all(torch.equal(policy.state_dict()[name], weight) for name, weight in before.items())
    assert not any(weight.requires_grad for weight in small.parameters())


def test_the_smallest_weights_become_zeros():
    _, policy = make()
    whole = torch.cat([layer.weight.detach().flatten() for layer in layers_of(policy).values()])
    sparse = pruned(policy, 0.25)
    kept = torch.cat([layer.weight.flatten() for layer in layers_of(sparse).values()])
    cut = whole.abs().sort().values[len(whole) // 4]
    assert torch.equal(kept, torch.where(whole.abs() < cut, 0.0, whole))
    assert int((kept == 0).sum()) == len(whole) // 4
    same = pruned(policy, 0.0).state_dict()
    assert all(torch.equal(same[name], weight) for name, weight in policy.state_dict().items())
    assert not any(weight.requires_grad for weight in sparse.parameters())
    with pytest.raises(OptionError, match=r"share is 1\.5; it must be from 0 to 1"):
        pruned(policy, 1.5)


def test_a_pruned_policy_answers_with_the_packed_weights_that_it_has():
    envs, policy = make()
    before = Collector(policy, envs, seed=0).collect_episodes(8)  # packs the weights
    sparse = pruned(policy, 0.5)
    rollout = Collector(sparse, envs, seed=0).collect_episodes(8)
    with torch.no_grad():
        own = sparse.outputs(rollout.tokens, rollout.mask).logprobs
    torch.testing.assert_close(own, rollout.logprobs, atol=2e-5, rtol=1e-4)
    assert not torch.equal(before.logprobs[0, :2], rollout.logprobs[0, :2])


def test_a_policy_without_layers_to_make_smaller_is_refused():
    class Bare(Policy):
        def __init__(self):
            super().__init__(5, 8, 4)
            self.embedding = torch.nn.Embedding(6, 4)

        def forward(self, rows):
            return self.embedding(rows).cumsum(1)

    with pytest.raises(UnsupportedModelError, match="there is nothing to make smaller"):
        pruned(Bare(), 0.5)
