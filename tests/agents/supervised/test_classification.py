"""Training a classifier: its two losses by hand, what it learns, and its figures."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agents.supervised import (
    LabelledText,
    accuracy,
    classification_steps,
    correlation,
    labels_of,
    read_labelled,
)
from agents.supervised.classification import losses
from policies import TextClassifier, TransformerConfig, TransformerPolicy
from textenv.errors import MalformedRecordError
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)


def make_model(labels=("bad", "good"), context=20):
    shape = TransformerConfig(257, context, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=1)
    return TextClassifier(policy, labels)


def toy(count, seed=0):
    """Texts of two kinds of letters, with their kind as label."""
    rng = np.random.default_rng(seed)
    kinds = {"good": "aeiou", "bad": "bcdfg"}
    return [
        LabelledText("".join(rng.choice(list(kinds[name]), rng.integers(2, 9))) + "x", name)
        for name in rng.choice(list(kinds), count)
    ]


@pytest.mark.parametrize("labels", [("bad", "good"), ()])
def test_both_losses_by_one_pass(labels):
    model = make_model(labels)
    with torch.no_grad():
        model.head.weight.mul_(30)
    texts = ["abc", "", "hello there", "x"]
    targets = torch.tensor([0, 1, 1, 0]) if labels else torch.tensor([0.5, -1.0, 2.0, 0.0])
    label_loss, language_loss = losses(model, model.pad(model.encode(texts)), targets, True)
    by_label, by_token = [], []
    for text, target in zip(texts, targets, strict=True):
        ids = torch.tensor([*text.encode(), 256])
        states = model.trunk.hidden_states(ids, torch.tensor([len(ids)]))
        scores = model.head(states[-1])
        if labels:
            by_label.append(F.cross_entropy(scores, target).item())
        else:
            by_label.append(0.5 * (scores[0] - target).item() ** 2)
        logprobs = model.trunk.logits(states).log_softmax(1)
        by_token += [-logprobs[i, ids[i + 1]].item() for i in range(len(ids) - 1)]
    assert label_loss.item() == pytest.approx(np.mean(by_label), abs=1e-5)
    assert language_loss.item() == pytest.approx(np.mean(by_token), abs=1e-5)
    alone, nothing = losses(model, model.pad(model.encode(texts)), targets, False)
    assert alone.item() == pytest.approx(label_loss.item(), abs=1e-6) and nothing is None


@pytest.mark.parametrize("lm_weight", [0.0, 0.5])
def test_it_learns_what_labels_mean(lm_weight):
    model, learned, kept = make_model(), toy(120), toy(60, seed=1)
    steps = list(
        classification_steps(
            model, learned, lm_weight=lm_weight, epochs=4, batch_size=16, learning_rate=1e-2
        )
    )
    assert len(steps) == 4 * 8
    assert accuracy(model, kept).low > 0.9
    first, last = steps[0], steps[-1]
    assert last.label_loss < 0.2 < first.label_loss
    if lm_weight:
        assert first.loss == pytest.approx(first.label_loss + 0.5 * first.language_loss, abs=1e-5)
        assert last.language_loss < first.language_loss - 1
    else:
        assert math.isnan(first.language_loss) and first.loss == first.label_loss


def test_a_regression_learns_a_number():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ab"), 8)) for _ in range(200)]
    every = [LabelledText(text, text.count("a") / 4 - 1) for text in texts]
    model = make_model(())
    for _ in classification_steps(model, every[:150], epochs=8, batch_size=16, learning_rate=1e-2):
        pass
    assert correlation(model, every[150:]) > 0.8
    with pytest.raises(ValueError, match="two or more"):
        correlation(model, every[:1])


def test_records(tmp_path):
    path = tmp_path / "texts.jsonl"
    records = [{"text": "a", "label": "x"}, {"text": "b", "label": 1}, {"text": "c", "label": True}]
    path.write_text("\n".join(map(json.dumps, records)))
    found = read_labelled(path)
    assert [e.label for e in found] == ["x", "1", "True"]
    assert labels_of(found) == ("1", "True", "x")
    path.write_text('{"text": "a", "label": 0.5}\n{"text": 3, "label": "x"}\n{"text": "a"}\n')
    with pytest.raises(MalformedRecordError) as raised:
        read_labelled(path)
    assert "texts.jsonl:2" in str(raised.value) and "texts.jsonl:3" in str(raised.value)
    assert labels_of([LabelledText("a", 0.5), LabelledText("b", 1.0)]) == ()
    for labels in (["x", "x"], ["x", 0.5], []):
        with pytest.raises(MalformedRecordError):
            labels_of([LabelledText("a", label) for label in labels])


def test_labels_that_the_model_does_not_have():
    for labels, label in ((("bad", "good"), "ugly"), ((), "good")):
        with pytest.raises(MalformedRecordError, match=label):
            next(classification_steps(make_model(labels), [LabelledText("a", label)]))
    with pytest.raises(MalformedRecordError, match="no labelled text"):
        next(classification_steps(make_model(), []))
    with pytest.raises(MalformedRecordError, match="no labelled text"):
        accuracy(make_model(), [])


def test_fractions_of_a_table_are_numbers_and_whole_numbers_names(tmp_path):
    path = tmp_path / "labelled.csv"
    path.write_text("text,label\ngood,0.75\nbad,-1\n", encoding="utf-8")
    assert [example.label for example in read_labelled(path)] == [0.75, -1.0]
    path.write_text("text,label\ngood,5\nbad,1\n", encoding="utf-8")
    assert [example.label for example in read_labelled(path)] == ["5", "1"]
