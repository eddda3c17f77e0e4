"""A classification head: what it reads, how sure it is, and all that can be made of it."""

import copy
import json

import numpy as np
import pytest
import torch

from policies import LabelScore, TextClassifier, TransformerConfig, TransformerPolicy
from policies.classifier_reward import log_odds, logit, probability, prompt_and_answer
from policies.text_classifier import is_classifier
from textenv import TextVectorEnv
from textenv.errors import CheckpointError, InvalidRewardError, TokenizerError
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)
TEXTS = ["the dog", "", "a cat ran away", "好的", "x" * 40]


def make_policy(seed=0, context=24):
    shape = TransformerConfig(257, context, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=seed)


def make_classifier(labels=("bad", "good", "toxic"), seed=0):
    model = TextClassifier(make_policy(seed), labels, seed)
    with torch.no_grad():  # larger than at the start, so that probabilities differ
        model.head.weight.mul_(50)
    return model


def test_the_head_reads_the_state_of_the_last_token():
    model = make_classifier()
    found = model.logits(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        ids = [*text.encode(), 256][-24:]
        state = model.trunk.hidden_states(torch.tensor(ids), torch.tensor([len(ids)]))[-1]
        expected = model.head.weight @ state + model.head.bias
        assert row.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert model.logits(TEXTS[:1]).tolist()[0] == pytest.approx(found[0].tolist(), abs=1e-4)


def test_probabilities_and_the_likeliest_label():
    model = make_classifier()
    shares = model.probabilities(TEXTS)
    assert shares.shape == (5, 3) and shares.sum(1) == pytest.approx(1)
    assert model.predict(TEXTS) == [model.labels[i] for i in shares.argmax(1)]
    with pytest.raises(ValueError, match="predict"):
        model.values(TEXTS)


def test_scores_of_a_label():
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]]).double()
    p = logits.softmax(1)[:, 1]
    assert log_odds(logits, 1).tolist() == pytest.approx((p / (1 - p)).log().tolist())
    assert log_odds(logits[:, :1], 0).tolist() == [1.0, 0.0]
    model = make_classifier()
    prompts = ["ab"] * len(TEXTS)
    for score in (log_odds, logit, probability):
        made = LabelScore(model, "good", score=score)
        expected = score(model.logits(TEXTS).double(), 1)
        assert made.score_texts(prompts, TEXTS).tolist() == pytest.approx(expected.tolist())
    both = LabelScore(model, "good", read=prompt_and_answer).score_texts(["the "], ["dog"])
    assert both == pytest.approx(LabelScore(model, "good").score_texts([""], ["the dog"]))


def test_judge_labeller_reward_and_safety_say_the_same():
    made = LabelScore(make_classifier(), "toxic")
    scores = made.score_texts(["p"] * 5, TEXTS).tolist()
    assert made.labeller("p", TEXTS) == pytest.approx(scores)
    assert [made.judge("p", text) for text in TEXTS] == pytest.approx(scores, abs=1e-4)
    safe = made.of_texts(TEXTS)
    assert safe == pytest.approx([1 / (1 + np.exp(-x)) for x in scores])
    assert made.of_texts([]) == [] and copy.deepcopy(made) is made
    envs = TextVectorEnv(
        2, prompts=["the "], reward=made, tokenizer=BytesTokenizer(), max_new_tokens=3
    )
    envs.reset(seed=0)
    for letters in ([100, 99], [111, 97], [103, 116]):
        _, paid, *_ = envs.step(np.array(letters))
    assert paid.tolist() == pytest.approx(made.labeller("the ", ["dog", "cat"]), abs=1e-4)


def test_a_regression():
    model = make_classifier(())
    assert model.head.out_features == 1
    values = model.values(TEXTS)
    made = LabelScore(model)
    assert made.score_texts([""] * 5, TEXTS) == pytest.approx(values)
    assert made.of_texts(TEXTS) == pytest.approx(values.tolist())
    with pytest.raises(ValueError, match="no labels"):
        model.predict(TEXTS)


def test_what_is_refused():
    model = make_classifier()
    for label in ("worse", None):
        with pytest.raises(InvalidRewardError, match="bad, good, toxic"):
            LabelScore(model, label)
    with pytest.raises(InvalidRewardError, match="regression"):
        LabelScore(make_classifier(()), "good")
    for labels in (["one"], ["a", "a"]):
        with pytest.raises(ValueError, match="two or more"):
            TextClassifier(make_policy(), labels)
    with pytest.raises(TokenizerError, match="tokenizer"):
        TextClassifier(
            TransformerPolicy(TransformerConfig(4, 8, n_layer=1, n_head=1, n_embd=4)), ("a", "b")
        )


@pytest.mark.parametrize("labels", [("schlecht", "gut", "好"), ()])
def test_on_disk(tmp_path, labels):
    model = make_classifier(labels)
    assert not is_classifier(tmp_path)
    model.save(tmp_path)
    assert is_classifier(tmp_path)
    again = TextClassifier.load(tmp_path)
    assert again.labels == labels and again.logits(TEXTS).equal(model.logits(TEXTS))
    path = tmp_path / "classifier.json"
    for damaged in ("{", "[]", json.dumps({"labels": ["a", "b"]}), json.dumps({"labels": ["a"]})):
        path.write_text(damaged)
        with pytest.raises(CheckpointError, match="textenv classifier"):
            TextClassifier.load(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match="no classifier"):
        TextClassifier.load(tmp_path)


def test_a_copy_of_a_policy():
    policy = make_policy(3)
    model = TextClassifier.from_policy(policy.frozen_copy(), ("a", "b"), seed=1)
    assert model.trunk is not policy and all(p.requires_grad for p in model.parameters())
    assert 0.005 < model.head.weight.std() < 0.05 and not model.head.bias.any()
