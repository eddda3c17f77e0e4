"""The bias of length: measured against plain sums, and taken out of a model of nothing else."""

import math

import numpy as np
import pytest
import torch

from agents.feedback import (
    Ranking,
    laid_flat,
    length_bias,
    normalise,
    pair_accuracy,
    remove_length,
    reward_model_steps,
)
from policies import RewardModel, TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import PromptError
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)


def make_model(seed=0):
    shape = TransformerConfig(257, 32, n_layer=1, n_head=2, n_embd=24)
    return RewardModel.with_fresh_head(
        TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=seed), seed
    )


class Said:
    """A model whose scores are given."""

    def __init__(self, score):
        self.tokenizer, self.frame, self.score = BytesTokenizer(), None, score

    def score_texts(self, prompts, answers):
        return np.array([self.score(p, a) for p, a in zip(prompts, answers, strict=True)])


def texts(rng, count):
    return ["".join(rng.choice(list("abcd"), rng.integers(1, 16))) for _ in range(count)]


def by_length(prompts, seed=0, answers=4, judge=len):
    rng = np.random.default_rng(seed)
    asked = [f"{number}: " for number in range(prompts)]
    return [
        Ranking.from_scores(prompt, some, [float(judge(text)) for text in some])
        for prompt in asked
        for some in [texts(rng, answers)]
    ]


def test_the_correlation_is_that_within_prompts():
    rankings = by_length(40)
    offsets = {r.prompt: 100.0 * number for number, r in enumerate(rankings)}
    noise = np.random.default_rng(1)
    drawn = {a: noise.normal() for r in rankings for a in r.answers}
    model = Said(lambda p, a: offsets[p] + 0.3 * len(a) + drawn[a])
    bias = length_bias(model, rankings)
    x, y = [], []
    for r in rankings:
        lengths = np.array([len(a) for a in r.answers], float)
        scores = model.score_texts([r.prompt] * len(r.answers), r.answers)
        x += list(lengths - lengths.mean())
        y += list(scores - scores.mean())
    assert bias.of_scores.mean == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert bias.slope == pytest.approx(np.polyfit(x, y, 1)[0])
    assert bias.of_scores.low < bias.of_scores.mean < bias.of_scores.high < 1
    assert bias.of_ranks.low > 0.85  # longer ones are always ranked higher


def test_what_has_no_length_to_differ_in():
    same = [Ranking("a", ("xy", "zw"), (1, 2)), Ranking("b", ("xy", "xx"), (2, 1))]
    bias = length_bias(Said(lambda p, a: len(p + a) + (a == "xy")), same)
    assert math.isnan(bias.of_scores.mean) and math.isnan(bias.slope)
    with pytest.raises(PromptError, match="differ in length"):
        remove_length(make_model(), same)
    with pytest.raises(PromptError, match="no ranking"):
        length_bias(make_model(), [])


def test_a_model_of_length_alone_knows_nothing_once_it_is_removed(tmp_path):
    learned, kept = by_length(60), by_length(60, seed=1)
    model = make_model()
    for _ in reward_model_steps(model, learned, epochs=8, batch_size=8, learning_rate=3e-3):
        pass
    before = length_bias(model, kept)
    assert before.of_scores.low > 0.8 and pair_accuracy(model, kept).low > 0.85
    slope = remove_length(model, learned)
    assert slope == pytest.approx(before.slope, rel=0.2) and slope > 0
    normalise(model, *laid_flat(learned))
    after = length_bias(model, kept)
    assert abs(after.of_scores.mean) < 0.3 < before.of_scores.low
    assert abs(after.slope) < 0.1 * before.slope
    assert pair_accuracy(model, kept).mean < 0.7
    assert abs(length_bias(model, learned).of_scores.mean) < 1e-6  # exactly, where it was fitted
    model.save(tmp_path)
    again = RewardModel.load(tmp_path)
    assert again.score_texts(*laid_flat(kept)) == pytest.approx(
        model.score_texts(*laid_flat(kept)), abs=1e-6
    )


def test_what_is_not_length_stays():
    def judge(text):
        return text.count("a") + 0.5 * len(text)

    model = Said(lambda p, a: judge(a))
    kept = by_length(60, seed=1, judge=lambda text: text.count("a") - text.count("b"))
    slope = length_bias(model, kept).slope
    without = Said(lambda p, a: judge(a) - slope * len(a))
    assert pair_accuracy(without, kept).mean > pair_accuracy(model, kept).mean + 0.1


def test_the_slope_counts_the_tokens_of_an_episode():
    model = make_model()
    rng = np.random.default_rng(0)
    envs = TextVectorEnv(
        2,
        prompts=["the "],
        reward=model,
        tokenizer=BytesTokenizer(),
        max_new_tokens=6,
        stop_tokens=(98, 256),
    )
    model.length_slope.fill_(0.1)
    envs.reset(seed=0)
    seen = set()
    for _ in range(200):
        _, paid, ended, _, infos = envs.step(rng.integers(97, 101, 2))
        for row in np.flatnonzero(ended):
            text = infos["final_info"]["text"][row]
            assert paid[row] == pytest.approx(model.score_texts(["the "], [text])[0], abs=1e-5)
            seen.add(len(text))
    assert len(seen) > 3
    plain = make_model().score_texts(["the "], ["caa"])[0]
    assert model.score_texts(["the "], ["caa"])[0] == pytest.approx(plain - 0.3, abs=1e-6)
    assert model.score_ids([b"the caa"], [3])[0] == pytest.approx(plain - 0.3, abs=1e-6)
    with pytest.raises(ValueError, match="give `answers`"):
        model.score_ids([b"the caa"])
