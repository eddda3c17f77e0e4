"""Evaluation with an earlier checkpoint's answers as drafts."""

import copy

import numpy as np
import pytest
import torch

from agents.collector import Collector
from agents.evaluation import compare, evaluate
from agents.evaluation.answers import kept_of_drafts
from policies import Policy, TransformerConfig, TransformerPolicy
from textenv import Prompt, TextVectorEnv

ASKED = [Prompt(text) for text in ("ab", "c", "de", "ab", "f")]


def envs(rows=2):
    return TextVectorEnv(
        rows,
        prompts=["unused"],
        reward=lambda episodes: [float(len(e.tokens)) for e in episodes],
        max_new_tokens=20,
        stop_tokens=tuple(range(0, 256, 16)),
    )


@pytest.fixture(scope="module")
def checkpoints():
    shape = TransformerConfig(envs().pad_token, context=32, n_layer=2, n_head=2, n_embd=16)
    first = TransformerPolicy(shape, seed=1, tokenizer=envs().tokenizer)
    with torch.no_grad():
        first.transformer.token_embedding.weight.mul_(10)
    second, noise = copy.deepcopy(first), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in second.parameters():
            weight.add_(0.1 * weight.abs().mean() * torch.randn(weight.shape, generator=noise))
    return {"first": first, "second": second}


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_the_answers_are_those_without_drafts(checkpoints, temperature):
    first = evaluate(checkpoints["first"], envs(), ASKED, temperature=temperature)
    second = checkpoints["second"]
    plain, drafted = (
        evaluate(second, envs(), ASKED, temperature=temperature, drafts=drafts)
        for drafts in (None, first.answers)
    )
    assert drafted.samples == plain.samples
    np.testing.assert_allclose(drafted.logprobs, plain.logprobs, atol=1e-4)
    if temperature:
        assert drafted.samples != first.samples


def test_another_number_of_drafts_is_refused(checkpoints):
    with pytest.raises(ValueError, match="2 drafts and 5 prompts"):
        evaluate(checkpoints["first"], envs(), ASKED, drafts=[np.array([1]), np.array([2])])


def test_drafts_that_are_not_kept_are_left_out(checkpoints, monkeypatch):
    given = []
    monkeypatch.setattr(Collector, "read_ahead", lambda self, drafts: given.append(len(drafts)))
    asked = ASKED * 3
    first = evaluate(checkpoints["first"], envs(4), asked)
    evaluate(checkpoints["first"], envs(4), asked, drafts=first.answers)
    assert given == [4, 4, 4, 3]
    given.clear()
    wrong = [(answer + 1) % 256 for answer in first.answers]
    evaluate(checkpoints["first"], envs(4), asked, drafts=wrong)
    assert given == [4, 4]  # after eight answers it is known


def test_kept_tokens_by_hand():
    answers, drafts = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 9]], [[1, 2, 4], [4, 5, 6], [7], [7, 8]]
    pairs = ([np.array(ids) for ids in side] for side in (answers, drafts))
    assert kept_of_drafts(*pairs) == (2 + 2 + 0 + 2) / 10


@pytest.mark.parametrize("rows", [1, 2])
def test_one_row_is_compared_by_drafts(checkpoints, rows, monkeypatch):
    lengths, read = [], Policy.last_hidden

    def last_hidden(policy, observations, cache=None):
        lengths.append(cache is not None and cache.drafts is not None)
        return read(policy, observations, cache)

    monkeypatch.setattr(Policy, "last_hidden", last_hidden)
    table = compare(checkpoints, lambda policy: envs(rows), ASKED)
    assert any(lengths) == (rows == 1)
    for row, policy in zip(table, checkpoints.values(), strict=True):
        np.testing.assert_array_equal(row.scores, evaluate(policy, envs(2), ASKED).scores)
