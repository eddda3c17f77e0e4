"""Sequence classifiers as rewards: tiny ones with random weights, against one text at a time."""

import ast
import copy
import re
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from policies.classifier_reward import (
    ClassifierReward,
    answer_alone,
    independent_probability,
    logit,
    probability,
    prompt_and_answer,
)
from textenv.errors import (
    InvalidRewardError,
    MissingExtraError,
    ModelUnavailableError,
    RewardValueError,
    UnsupportedModelError,
)

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch.set_num_threads(1)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[EOS]"]
VOCABULARY = {token: i for i, token in enumerate([*SPECIAL, *LETTERS])}
SMALL = {"vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 24}
PROMPTS = ["ab", "abcdefg", "q", "xyz", ""]
ANSWERS = ["hello", "a", "somethinglonger", "mm", "p"]


def letters(pairs: bool, **special):
    """A tokenizer of letters, with [CLS] and [SEP] around texts or with nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if pairs:
        made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ["input_ids", "token_type_ids", "attention_mask"] if pairs else None
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_input_names=names or ["input_ids", "attention_mask"], **special
    )


def bert(labels=3):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **SMALL, num_labels=labels, pad_token_id=0, initializer_range=0.5
    )
    model = transformers.BertForSequenceClassification(config)
    return model, letters(True, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


def gpt2(labels=3, pad=None):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(VOCABULARY),
        n_positions=24,
        n_embd=16,
        n_layer=2,
        n_head=2,
        num_labels=labels,
        bos_token_id=4,
        eos_token_id=4,
        pad_token_id=pad,
    )
    return transformers.GPT2ForSequenceClassification(config), letters(False, eos_token="[EOS]")


def llama(labels=3, pad=None):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SMALL, num_labels=labels, pad_token_id=pad)
    return transformers.LlamaForSequenceClassification(config), letters(False, eos_token="[EOS]")


MODELS = {
    "bert": bert,
    "gpt2": gpt2,
    "gpt2 with a pad token": lambda: gpt2(pad=0),
    "gpt2 that pads with its stop token": lambda: gpt2(pad=4),
    "llama": llama,
    "llama with a pad token": lambda: llama(pad=0),
}


@pytest.fixture(params=MODELS)
def classifier(request):
    model, tokenizer = MODELS[request.param]()
    with torch.no_grad():  # random heads are so small that all texts score alike
        for name, weight in model.named_parameters():
            if name.startswith(("score", "classifier")):
                weight.normal_()
    return model, tokenizer


def alone(model, ids):
    """Logits of one text without any padding, by transformers itself."""
    model.eval()
    types = {}
    if model.config.model_type == "bert":
        first_end = ids.index(3) + 1
        types = {"token_type_ids": torch.tensor([[0] * first_end + [1] * (len(ids) - first_end)])}
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), **types).logits[0].double().numpy()


def ids_of(model, *texts):
    spelled = [[VOCABULARY[c] for c in text] for text in texts]
    if model.config.model_type == "bert":
        return [2, *spelled[0], 3] + [i for ids in spelled[1:] for i in [*ids, 3]]
    return [i for ids in spelled for i in ids]


# ------------------------------------------------------------------ what is read


def test_the_score_depends_on_no_padding(classifier):
    model, tokenizer = classifier
    expected = [alone(model, ids_of(model, answer))[1] for answer in ANSWERS]
    assert np.ptp(expected) > 0.1
    for side in ("left", "right"):
        tokenizer.padding_side = side
        for size in (1, 2, 5):
            reward = ClassifierReward(model, tokenizer, 1, batch_size=size)
            scores = reward.score_texts(PROMPTS, ANSWERS)
            np.testing.assert_allclose(scores, expected, atol=1e-5)
    order = [4, 2, 0, 1, 3]
    moved = reward.score_texts([PROMPTS[i] for i in order], [ANSWERS[i] for i in order])
    np.testing.assert_allclose(moved, scores[order], atol=1e-5)


def test_the_model_is_left_as_it_was(classifier):
    model, tokenizer = classifier
    pad = model.config.pad_token_id
    ClassifierReward(model, tokenizer, 0).score_texts(PROMPTS, ANSWERS)
    assert model.config.pad_token_id == pad and not model.training


def test_pairs(classifier):
    model, tokenizer = classifier
    reward = ClassifierReward(model, tokenizer, 2, read=prompt_and_answer)
    expected = [alone(model, ids_of(model, p, a))[2] for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    np.testing.assert_allclose(reward.score_texts(PROMPTS, ANSWERS), expected, atol=1e-5)


def test_too_long_texts_lose_their_beginning(classifier):
    model, tokenizer = classifier
    long = LETTERS * 2
    reward = ClassifierReward(model, tokenizer, 0)
    assert reward.max_length == 24
    kept = long[-22:] if model.config.model_type == "bert" else long[-24:]
    expected = alone(model, ids_of(model, kept))[0]
    np.testing.assert_allclose(reward.score_texts([""], [long]), [expected], atol=1e-5)
    short = ClassifierReward(model, tokenizer, 0, max_length=8)
    kept = long[-6:] if model.config.model_type == "bert" else long[-8:]
    expected = alone(model, ids_of(model, kept))[0]
    np.testing.assert_allclose(short.score_texts([""], [long]), [expected], atol=1e-5)


def test_of_long_pairs_the_longer_part_loses_its_beginning(classifier):
    model, tokenizer = classifier
    reward = ClassifierReward(model, tokenizer, 0, read=prompt_and_answer)
    room = 24 - 3 * (model.config.model_type == "bert") - 5
    expected = alone(model, ids_of(model, LETTERS[-room:], "hello"))[0]
    np.testing.assert_allclose(reward.score_texts([LETTERS], ["hello"]), [expected], atol=1e-5)


def test_small_vocabularies_may_be_used_up():
    model, tokenizer = gpt2()
    texts = [LETTERS[:13], LETTERS[13:], "a"]
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    texts.append("".join(SPECIAL))
    reward = ClassifierReward(model, tokenizer, 0)
    expected = [alone(model, ids_of(model, text))[0] for text in texts[:3]]
    expected.append(alone(model, [0, 1, 2, 3, 4])[0])
    np.testing.assert_allclose(reward.score_texts([""] * 4, texts), expected, atol=1e-5)


def test_empty_answers():
    model, tokenizer = gpt2()
    scores = ClassifierReward(model, tokenizer, 0).score_texts(["", ""], ["", "ab"])
    expected = [alone(model, [4])[0], alone(model, ids_of(model, "ab"))[0]]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    model, tokenizer = bert()
    scores = ClassifierReward(model, tokenizer, 0).score_texts(["", ""], ["", "ab"])
    assert scores[0] == pytest.approx(alone(model, [2, 3])[0], abs=1e-5)
    model, tokenizer = gpt2()[0], letters(False)
    with pytest.raises(RewardValueError, match="an answer is empty"):
        ClassifierReward(model, tokenizer, 0).score_texts([""], [""])
    assert ClassifierReward(model, tokenizer, 0).score_texts([], []).shape == (0,)


# ------------------------------------------------------------------ labels and scores


def test_logits_and_probabilities():
    logits = torch.tensor([[0.0, np.log(3.0)], [1.0, 1.0]])
    assert logit(logits, 1).tolist() == pytest.approx([np.log(3), 1.0])
    assert probability(logits, 1).tolist() == pytest.approx([0.75, 0.5])
    assert probability(logits[:, 1:], 0).tolist() == pytest.approx([0.75, 1 / (1 + np.exp(-1))])
    assert independent_probability(logits, 0).tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-1))])


def test_labels_by_name_and_index():
    model, tokenizer = bert()
    model.config.id2label = {0: "bad", 1: "good", 2: "mixed"}
    by_name, by_index = (
        ClassifierReward(model, tokenizer, "good"),
        ClassifierReward(model, tokenizer, 1),
    )
    scores = by_name.score_texts(PROMPTS, ANSWERS)
    assert scores.tolist() == by_index.score_texts(PROMPTS, ANSWERS).tolist()
    shares = [
        ClassifierReward(model, tokenizer, label, score=probability).score_texts(PROMPTS, ANSWERS)
        for label in range(3)
    ]
    np.testing.assert_allclose(sum(shares), 1.0, atol=1e-6)
    for label in (None, "great", 3, -1):
        with pytest.raises(InvalidRewardError, match=r"'bad' \(0\), 'good' \(1\), 'mixed' \(2\)"):
            ClassifierReward(model, tokenizer, label)
    model, tokenizer = bert(labels=1)
    assert ClassifierReward(model, tokenizer).label == 0


# ------------------------------------------------------------------ as a reward, and from files


def test_an_environment_takes_it():
    model, tokenizer = bert(labels=1)
    model.train()
    reward = ClassifierReward(model, tokenizer)
    assert copy.deepcopy(reward) is reward
    envs = gym.make_vec(
        "textenv/Generate-v0", num_envs=2, prompts=["a"], reward=reward, max_new_tokens=2
    )
    envs.reset(seed=0)
    envs.step(np.array([ord("a"), ord("b")]))
    _, rewards, *_ = envs.step(np.array([ord("b"), ord("c")]))
    envs.close()
    np.testing.assert_allclose(rewards, reward.score_texts(["a"] * 2, ["ab", "bc"]), atol=1e-6)
    assert rewards[0] != rewards[1]


def test_from_a_folder(tmp_path):
    model, tokenizer = gpt2(labels=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    read = ClassifierReward.from_pretrained(str(tmp_path), "LABEL_1", score=probability)
    expected = ClassifierReward(model, tokenizer, 1, score=probability)
    np.testing.assert_allclose(
        read.score_texts(PROMPTS, ANSWERS), expected.score_texts(PROMPTS, ANSWERS), atol=1e-6
    )
    assert read.read is answer_alone


def test_a_classifier_saved_in_16_bits_is_read_in_32(tmp_path):
    model, tokenizer = bert()
    model.bfloat16().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward = ClassifierReward.from_pretrained(str(tmp_path), 1, read=prompt_and_answer)
    together = reward.score_texts(PROMPTS, ANSWERS)
    alone = [reward.score_texts([p], [a])[0] for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.std() > 0.01
    asked = ClassifierReward.from_pretrained(str(tmp_path), 1, dtype=torch.bfloat16)
    assert (reward.model.dtype, asked.model.dtype) == (torch.float32, torch.bfloat16)


def test_whatever_reads_a_model_says_its_number_type():
    """transformers takes the type that was saved; in 16 bits small steps are rounded away."""
    root = Path(__file__).parents[2]
    calls = [
        ast.unparse(node)
        for package in ("textenv", "policies", "agents")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    reading = [c for c in calls if re.match(r"(AutoModel|getattr\(transf).*\.from_pretrained\(", c)]
    assert len(reading) == 2
    assert all("dtype=dtype or torch.float32" in call for call in reading)


def test_a_language_model_is_no_classifier(tmp_path):
    model, tokenizer = gpt2()
    transformers.GPT2LMHeadModel(model.config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"lacks the weights \['score.weight'\]"):
        ClassifierReward.from_pretrained(str(tmp_path), 0)


def test_models_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(ModelUnavailableError, match="neither a folder"):
        ClassifierReward.from_pretrained(str(tmp_path / "missing"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"textenv\[huggingface\]"):
        ClassifierReward.from_pretrained("any")
