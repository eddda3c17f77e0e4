"""Ensembles of reward models: how scores are combined, what is reported, and on disk."""

import copy
import json

import numpy as np
import pytest
import torch

from policies import (
    MeanLessSpread,
    MeanLessVariance,
    RewardModel,
    RewardModelEnsemble,
    TransformerConfig,
    TransformerPolicy,
    load_reward_model,
    worst_case,
)
from textenv import TextVectorEnv
from textenv.errors import CheckpointError, InvalidRewardError
from textenv.rewards import per_text, weighted
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)
PROMPTS, ANSWERS = ["the ", "a b", "c"], ["dog", "", "cat ran away"]


def make_models(count=3):
    shape = TransformerConfig(257, 32, n_layer=1, n_head=2, n_embd=16)
    trunks = [TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=s) for s in range(count)]
    return [RewardModel.with_fresh_head(trunk, seed) for seed, trunk in enumerate(trunks)]


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        (MeanLessSpread(0.0), [2.0, 5.0]),
        (MeanLessSpread(2.0), [2.0 - 2 * np.sqrt(2 / 3), 5.0]),
        (MeanLessVariance(0.5), [2.0 - 0.5 * 2 / 3, 5.0]),
        (worst_case, [1.0, 5.0]),
    ],
)
def test_how_scores_are_combined(combine, expected):
    scores = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    assert combine(scores) == pytest.approx(expected)


def test_two_members_less_their_spread_are_the_lower_one():
    scores = np.random.default_rng(0).normal(size=(2, 50))
    assert MeanLessSpread(1.0)(scores) == pytest.approx(worst_case(scores))


def test_scores_of_texts_are_those_of_the_members():
    models = make_models()
    each = np.stack([model.score_texts(PROMPTS, ANSWERS) for model in models])
    assert each.std(0).min() > 0.01
    ensemble = RewardModelEnsemble(models, MeanLessSpread(0.7))
    assert ensemble.score_texts(PROMPTS, ANSWERS) == pytest.approx(each.mean(0) - 0.7 * each.std(0))
    assert (ensemble.member_scores(PROMPTS, ANSWERS) == each).all()


def play(reward, steps=60):
    """What infos and rewards say of random answers to one prompt."""
    envs = TextVectorEnv(
        4, prompts=["the "], reward=reward, tokenizer=BytesTokenizer(), max_new_tokens=5
    )
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    told, rewards = [], []
    for _ in range(steps):
        _, paid, terminated, _, infos = envs.step(rng.integers(97, 123, 4))
        for row in np.flatnonzero(terminated):
            final = infos["final_info"]
            parts = final["reward_components"]
            told.append({name: values[row] for name, values in parts.items()})
            told[-1]["text"] = final["text"][row]
            rewards.append(paid[row])
    return told, rewards


def test_an_environment_pays_the_score_and_reports_the_spread():
    models = make_models()
    ensemble = RewardModelEnsemble(models, worst_case)
    calls = []
    for model in models:
        model.register_forward_hook(lambda *arguments: calls.append(1))
    told, rewards = play(ensemble)
    assert len(told) > 20
    assert len(calls) == 3 * 60 / 5  # each member reads each batch once
    for info, paid in zip(told, rewards, strict=True):
        each = np.stack([model.score_texts(["the "], [info["text"]]) for model in models])
        assert paid == pytest.approx(each.min(), abs=1e-5)
        assert info["reward_model"] == pytest.approx(each.min(), abs=1e-5)
        assert info["mean"] == pytest.approx(each.mean(), abs=1e-5)
        assert info["spread"] == pytest.approx(each.std(), abs=1e-5)


def test_an_ensemble_inside_a_sum():
    ensemble = RewardModelEnsemble(make_models())
    told, rewards = play(weighted(proxy=(2.0, ensemble), size=(0.5, per_text(len))))
    for info, paid in zip(told, rewards, strict=True):
        assert paid == pytest.approx(2 * info["proxy.reward_model"] + 0.5 * info["size"], abs=1e-5)
        assert info["proxy.spread"] >= 0


def test_members_that_learn_are_heard_at_once():
    ensemble = RewardModelEnsemble(make_models(2), MeanLessSpread(0.0))
    before = ensemble.score_texts(PROMPTS, ANSWERS)
    with torch.no_grad():
        ensemble.models[0].trunk.value_head.bias.add_(1.0)
    assert ensemble.score_texts(PROMPTS, ANSWERS) == pytest.approx(before + 0.5)
    assert copy.deepcopy(ensemble) is ensemble


def test_one_model_is_no_ensemble():
    with pytest.raises(InvalidRewardError, match="two or more"):
        RewardModelEnsemble(make_models(1))


def test_an_ensemble_on_disk(tmp_path):
    models = make_models()
    models[1].mean.fill_(0.25)
    ensemble = RewardModelEnsemble(models)
    ensemble.save(tmp_path / "all")
    expected = ensemble.member_scores(PROMPTS, ANSWERS)
    again = load_reward_model(tmp_path / "all", combine=worst_case)
    assert isinstance(again, RewardModelEnsemble) and again.combine is worst_case
    assert (again.member_scores(PROMPTS, ANSWERS) == expected).all()
    models[0].save(tmp_path / "one")
    alone = load_reward_model(tmp_path / "one")
    assert isinstance(alone, RewardModel)
    mixed = load_reward_model([tmp_path / "one", tmp_path / "all" / "member-2"])
    assert isinstance(mixed, RewardModelEnsemble)
    assert (mixed.member_scores(PROMPTS, ANSWERS) == expected[:2]).all()


@pytest.mark.parametrize("written", ["{", '{"members": 3}', "[]", '{"members": ["gone"]}'])
def test_damaged_ensembles(tmp_path, written):
    (tmp_path / "ensemble.json").write_text(written)
    with pytest.raises(CheckpointError, match=r"ensemble.json cannot be read|gone"):
        load_reward_model(tmp_path)


def test_the_critic_begins_as_the_first_member():
    models = make_models(2)
    critic = RewardModelEnsemble(models).as_critic()
    assert critic.value_head.weight.equal(models[0].trunk.value_head.weight)
    assert json.dumps(critic.description()) == json.dumps(models[0].trunk.description())
