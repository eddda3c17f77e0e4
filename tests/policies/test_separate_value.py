"""A policy with a critic of its own is the actor with other values."""

import numpy as np
import pytest
import torch

from policies import SeparateValue, TransformerConfig, TransformerPolicy
from textenv.errors import VocabularyMismatchError
from textenv.tokenizers import BytesTokenizer, CharacterTokenizer

VOCAB = 6


def network(n_embd: int, seed: int, **options) -> TransformerPolicy:
    """A network whose values are not all zero."""
    policy = TransformerPolicy(TransformerConfig(VOCAB, 12, 2, 2, n_embd), seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture
def policy() -> SeparateValue:
    return SeparateValue(network(8, 0), network(16, 1))


def test_choices_are_the_actors_and_values_the_critics(policy):
    tokens = torch.randint(0, VOCAB, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(4, 9, dtype=torch.bool)
    mask[:, 3:] = True
    outputs = policy.outputs(tokens, mask, temperature=0.7)
    actors, critics = (
        p.outputs(tokens, mask, temperature=0.7) for p in (policy.actor, policy.critic)
    )
    torch.testing.assert_close(outputs.logprobs, actors.logprobs)
    torch.testing.assert_close(outputs.entropies, actors.entropies)
    torch.testing.assert_close(outputs.values, critics.values)
    assert not torch.allclose(outputs.values, actors.values)


def test_rollout_and_scoring_agree_while_rows_are_reset(policy):
    rng = np.random.default_rng(0)
    cache = policy.new_cache(3)
    rows = [[0], [1, 2], [3]]
    for _ in range(12):
        observations = np.full((3, 12), VOCAB)
        for row, text in enumerate(rows):
            observations[row, : len(text)] = text
        step = policy.act(observations, cache)
        for row, text in enumerate(rows):
            tokens = torch.tensor([[*text, int(step.actions[row])]])
            mask = torch.zeros_like(tokens, dtype=torch.bool)
            mask[0, -1] = True
            outputs = policy.outputs(tokens, mask)
            assert step.logprobs[row] == pytest.approx(outputs.logprobs[0, -1].item(), abs=1e-4)
            assert step.values[row] == pytest.approx(outputs.values[0, -1].item(), abs=1e-4)
            ended = len(text) > 8 or rng.random() < 0.2
            rows[row] = [int(rng.integers(VOCAB))] if ended else [*text, int(step.actions[row])]


def test_no_gradient_of_a_value_reaches_the_actor(policy):
    tokens = torch.tensor([[0, 1, 2, 3]])
    outputs = policy.outputs(tokens, torch.tensor([[False, True, True, True]]))
    outputs.values.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.actor.parameters())
    assert policy.critic.value_head.weight.grad.any()


def test_parameters_are_counted_once(policy):
    both = [*policy.actor.parameters(), *policy.critic.parameters()]
    assert {id(p) for p in policy.parameters()} == {id(p) for p in both}


def test_saved_and_loaded(policy, tmp_path):
    policy.save(tmp_path)
    other = SeparateValue(network(8, 5), network(16, 6))
    other.load_weights(tmp_path)
    for name, weights in policy.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name


def test_a_critic_of_another_vocabulary_is_refused():
    with pytest.raises(VocabularyMismatchError, match="critic"):
        SeparateValue(
            network(8, 0, tokenizer=CharacterTokenizer("abcde")),
            network(8, 0, tokenizer=BytesTokenizer()),
        )
