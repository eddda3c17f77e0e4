import math

import numpy as np
import pytest
import torch

from agents.evaluation import distinct_n, lengths, perplexity, repetition
from policies import TransformerConfig, TransformerPolicy


@pytest.fixture(scope="module")
def policy() -> TransformerPolicy:
    policy = TransformerPolicy(TransformerConfig(11, 8, n_layer=1, n_head=2, n_embd=16), seed=1)
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(3)  # far from uniform
    return policy


def one_by_one(policy, ids, window) -> float:
    """Every token predicted in a pass of its own, from the beginning of its window on."""
    losses = []
    for at in range(1, len(ids)):
        begin = (at - 1) // window * window
        read = torch.tensor(ids[begin:at])
        hidden = policy.hidden_states(read, torch.tensor([len(read)]))
        losses.append(-policy.logits(hidden)[-1].log_softmax(-1)[ids[at]].item())
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("count", [2, 5, 6, 21, 24])
@pytest.mark.parametrize("window", [1, 5, 8])
def test_perplexity_predicts_every_token_once(policy, count, window, monkeypatch):
    monkeypatch.setattr("agents.evaluation.text_measures.TOKENS_AT_ONCE", 11)
    ids = np.random.default_rng(count).integers(0, 11, count).astype(np.uint16)
    expected = one_by_one(policy, ids.tolist(), window)
    assert perplexity(policy, ids, window) == pytest.approx(expected, rel=1e-5)


def test_perplexity_of_a_policy_that_knows_nothing_is_its_vocabulary():
    policy = TransformerPolicy(TransformerConfig(11, 8, n_layer=1, n_head=2, n_embd=16))
    with torch.no_grad():
        policy.transformer.token_embedding.weight.zero_()
    assert perplexity(policy, np.arange(11)) == pytest.approx(11)


def test_perplexity_refuses_what_it_cannot_read(policy):
    with pytest.raises(ValueError, match="window is 9"):
        perplexity(policy, np.arange(11), 9)
    with pytest.raises(ValueError, match="it needs 2 or more"):
        perplexity(policy, np.arange(1))


def test_distinct_n_by_hand():
    answers = [np.array([1, 2, 1, 2]), np.array([3]), np.array([1, 2, 3])]
    assert distinct_n(answers, 1) == pytest.approx(3 / 8)
    assert distinct_n(answers, 2) == pytest.approx(3 / 5)  # 12 21 12 | | 12 23
    assert distinct_n(answers, 3) == pytest.approx(3 / 3)  # 121 212 | | 123
    assert math.isnan(distinct_n(answers, 5))


def test_repetition_is_within_an_answer():
    looping, alike = [[1, 2, 1, 2, 1]], [[1, 2], [1, 2]]
    assert repetition(looping, 2) == pytest.approx(0.5)  # 12 21 12 21
    assert repetition(alike, 2) == 0
    assert distinct_n(alike, 2) == 0.5
    assert math.isnan(repetition([[1]], 2))


def test_runs_have_at_least_one_token():
    for measure in (distinct_n, repetition):
        with pytest.raises(ValueError, match="n is 0"):
            measure([[1, 2]], 0)


def test_lengths():
    assert lengths([np.array([5, 6]), np.array([]), [1]]).tolist() == [2, 0, 1]
