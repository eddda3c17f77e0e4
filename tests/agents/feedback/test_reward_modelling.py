"""Reward models learn preferences, and their figures are what they say."""

import math

import numpy as np
import pytest
import torch

from agents.feedback import (
    Ranking,
    calibration,
    normalise,
    pair_accuracy,
    pairwise,
    plackett_luce,
    rank,
    reward_model_steps,
    split_rankings,
    standardise,
)
from agents.feedback.reward_modelling import NO_PAIRS
from policies import TransformerConfig, TransformerPolicy
from policies.reward_model import RewardModel
from textenv.errors import PromptError
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)


def fresh_model(seed=0):
    shape = TransformerConfig(257, context=24, n_layer=1, n_head=2, n_embd=32)
    return RewardModel.from_policy(TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=seed))


def vowels(prompt, answers):
    return [sum(letter in "aeiou" for letter in answer) for answer in answers]


def toy_rankings(count, k=4, seed=0):
    rng = np.random.default_rng(seed)
    prompts = [f"p{number} " for number in range(count)]
    answers = [
        ["".join(rng.choice(list("aeiocdfgh"), rng.integers(4, 12))) for _ in range(k)]
        for _ in prompts
    ]
    return rank(vowels, prompts, answers)


class Scripted(RewardModel):
    """Reads the score of an answer from the answer."""

    def __init__(self):
        super().__init__(fresh_model().trunk)

    def score_texts(self, prompts, answers):
        return np.array([float(answer) for answer in answers]) - self.mean.item()


# -------------------------------------------------------------------- training


def test_it_learns_what_is_preferred():
    training, held_out = split_rankings(toy_rankings(250), 0.2)
    model = fresh_model()
    assert pair_accuracy(model, held_out).mean < 0.75
    steps = list(reward_model_steps(model, training, epochs=2, learning_rate=3e-3))
    assert [step.number for step in steps] == list(range(1, 2 * math.ceil(200 / 16) + 1))
    accuracy = pair_accuracy(model, held_out)
    assert accuracy.mean >= 0.95 and accuracy.low >= 0.9
    assert calibration(model, held_out).error < 0.1
    assert np.mean([step.accuracy for step in steps[-5:]]) > 0.9
    assert steps[-1].loss < 0.5 * steps[0].loss


@pytest.mark.parametrize("loss", [pairwise, plackett_luce])
def test_other_losses_learn_it_too(loss):
    training, held_out = split_rankings(toy_rankings(150), 0.2)
    model = fresh_model()
    for _ in reward_model_steps(model, training, loss=loss, epochs=2, learning_rate=3e-3):
        pass
    assert pair_accuracy(model, held_out).mean > 0.9


def test_equal_seeds_make_equal_models():
    rankings = toy_rankings(12)
    scores = []
    for seed in (0, 0, 1):
        model = fresh_model()
        list(reward_model_steps(model, rankings, batch_size=4, seed=seed))
        scores.append(model.score_texts(["p "], ["abc"])[0])
    assert scores[0] == scores[1] != scores[2]


def test_ties_alone_teach_nothing():
    ties = [Ranking("p", ("a", "b"), (1, 1))]
    for use in (pair_accuracy, calibration, lambda m, r: next(reward_model_steps(m, r))):
        with pytest.raises(PromptError, match=NO_PAIRS):
            use(fresh_model(), ties)
    mixed = [*ties, *toy_rankings(1)]
    assert len(list(reward_model_steps(fresh_model(), mixed, batch_size=1))) == 1


# -------------------------------------------------------------------- figures


def test_the_mean_over_the_reference_is_zero():
    model = fresh_model()
    prompts, answers = ["a", "b", "c"], ["xyz", "", "hello"]
    normalise(model, prompts, answers)
    first = model.score_texts(prompts, answers)
    assert first.mean() == pytest.approx(0, abs=1e-6) and first.std() > 1e-3
    normalise(model, prompts, answers)
    assert model.score_texts(prompts, answers).tolist() == pytest.approx(first.tolist(), abs=1e-6)


def test_no_prompt_is_on_both_sides():
    rankings = [
        Ranking(f"p{i % 10}", (f"a{i}", f"b{i}"), (1, 2)) for i in range(30)
    ]  # three rankings a prompt
    training, held_out = split_rankings(rankings, 0.3, seed=1)
    assert len(held_out) == 9 and len(training) == 21
    assert not {r.prompt for r in training} & {r.prompt for r in held_out}
    assert sorted(map(str, training + held_out)) == sorted(map(str, rankings))
    assert split_rankings(rankings, 0.3, seed=1) == (training, held_out)
    assert split_rankings(rankings, 0.3, seed=2)[1] != held_out
    for share in (0.001, 0.999):
        assert all(split_rankings(rankings, share))
    for bad in (0, 1, 1.5):
        with pytest.raises(PromptError, match="cannot be held out"):
            split_rankings(rankings, bad)
    with pytest.raises(PromptError, match="1 prompts"):
        split_rankings(rankings[::10], 0.5)


def test_accuracy_by_hand():
    model = Scripted()
    rankings = [
        Ranking("p", ("3", "2", "1"), (1, 2, 3)),  # 3 of 3 pairs
        Ranking("q", ("1", "2", "3"), (1, 2, 2)),  # 0 of 2
        Ranking("q", ("1", "1"), (2, 1)),  # half of one
        Ranking("r", ("7", "7"), (1, 1)),  # none
    ]
    accuracy = pair_accuracy(model, rankings)
    assert accuracy.mean == pytest.approx((1 + (0.5 / 3)) / 2)
    assert accuracy.low == pytest.approx(0.5 / 3) and accuracy.high == 1.0


def test_calibration_by_hand():
    model = Scripted()
    # The model is sure of sigmoid(1) = 0.731 three times, and right twice; of sigmoid(4) once.
    rankings = [
        Ranking("p", ("2", "1"), (1, 2)),
        Ranking("q", ("2", "1"), (1, 2)),
        Ranking("r", ("2", "1"), (2, 1)),
        Ranking("s", ("5", "1"), (1, 2)),
    ]
    table = calibration(model, rankings)
    one, four = (1 / (1 + math.exp(-x)) for x in (1, 4))
    assert [part.low for part in table.bins] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert [part.high for part in table.bins] == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0])
    assert [part.pairs for part in table.bins] == [0, 0, 3, 0, 1]
    assert table.bins[2].predicted == pytest.approx(one)
    assert table.bins[2].observed == pytest.approx(2 / 3)
    assert math.isnan(table.bins[0].observed)
    assert table.error == pytest.approx((3 * abs(one - 2 / 3) + (1 - four)) / 4)


def test_scores_of_deviation_one():
    model = fresh_model()
    prompts, answers = ["ab"] * 6, ["a", "b", "ab", "ba", "aab", ""]
    before = model.score_texts(prompts, answers)
    model.length_slope.fill_(0.01)
    standardise(model, prompts, answers)
    after = model.score_texts(prompts, answers)
    assert after.mean() == pytest.approx(0, abs=1e-5) and after.std() == pytest.approx(1, abs=1e-4)
    lengths = np.array([len(answer) for answer in answers])
    assert np.corrcoef(before - 0.01 * lengths, after)[0, 1] == pytest.approx(1, abs=1e-5)
    with pytest.raises(PromptError, match="cannot be scaled"):
        standardise(model, ["ab"] * 2, ["a"] * 2)
