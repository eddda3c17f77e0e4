"""The reward model: what it reads, as a reward, and on disk."""

import copy
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from hf_models import make
from letters import Letters

from policies import TransformerConfig, TransformerPolicy
from policies.reward_model import BATCH, RewardModel
from textenv import TextVectorEnv
from textenv.errors import CheckpointError, TokenizerError, VocabularyMismatchError
from textenv.tokenizers import BytesTokenizer, train_bpe

torch.set_num_threads(1)
PROMPTS = ["the ", "a b", "c", "once upon a time "]


def make_model(tokenizer=None, context=32, seed=3):
    tokenizer = tokenizer or BytesTokenizer()
    shape = TransformerConfig(tokenizer.vocab_size, context, n_layer=2, n_head=2, n_embd=16)
    policy = TransformerPolicy(shape, tokenizer=tokenizer, seed=seed)
    with torch.no_grad():  # larger weights than at the start, so that scores differ visibly
        for parameter in policy.transformer.parameters():
            parameter.mul_(3.0)
    return RewardModel.from_policy(policy, seed)


def random_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcde "), rng.integers(0, 14))) for _ in range(count)]


def plain_score(model, ids):
    """One row by itself, from the hidden states of all its tokens."""
    hidden = model.trunk.hidden_states(torch.tensor(ids), torch.tensor([len(ids)]))[-1]
    head = model.trunk.value_head
    return ((hidden * head.weight[0]).sum() + head.bias[0] - model.mean).item()


def test_the_score_is_the_head_at_the_stop_token():
    model = make_model()
    model.mean.fill_(0.5)
    texts = random_texts(2 * BATCH + 5)  # several batches, answers of all lengths
    prompts = [PROMPTS[i % 4] for i in range(len(texts))]
    scores = model.score_texts(prompts, texts)
    assert scores.dtype == np.float64 and scores.std() > 0.1
    for i in range(0, len(texts), 7):
        ids = [*prompts[i].encode(), *texts[i].encode(), 256]
        assert scores[i] == pytest.approx(plain_score(model, ids[-32:]), abs=1e-5)


def test_scores_do_not_depend_on_padding_or_company():
    model = make_model()
    rows = model.encode(["the "] * 4, ["", "a", "dog ran", "cat"])
    alone = [model.score_tokens(model.pad([row])).item() for row in rows]
    assert np.std(alone) > 0.05
    together = model.pad(rows)
    for more in (0, 3, 7):
        padded = torch.nn.functional.pad(together, (0, more), value=model.trunk.pad_token)
        assert model.score_tokens(padded).tolist() == pytest.approx(alone, abs=1e-5)


def test_what_stands_behind_a_text_is_never_read():
    model = make_model()
    tokens = model.pad(model.encode(["the "] * 3, ["", "dog ran", "cat"]))
    lengths = (tokens != model.trunk.pad_token).sum(1)
    after = torch.arange(tokens.shape[1] + 1) == lengths[:, None]
    found = []
    for seed in (0, 1):
        garbage = torch.randint(256, tokens.shape, generator=torch.Generator().manual_seed(seed))
        filled = torch.where(tokens == model.trunk.pad_token, garbage, tokens)
        filled = torch.nn.functional.pad(filled, (0, 1))
        found.append(model.trunk.hidden_before(filled, after, lengths))
    assert torch.equal(*found)
    scores = model.trunk.value_head(found[0]).squeeze(1) - model.mean
    assert torch.allclose(scores, model.score_tokens(tokens), atol=1e-6)


def test_the_beginning_of_long_texts_is_dropped():
    model = make_model(context=8)
    same = model.score_texts(["xxxx", "yyyyyyyyy", "bcd"], ["abcdefg"] * 3)
    assert same.tolist() == pytest.approx([same[0]] * 3, abs=1e-6)
    assert model.encode(["xxxx"], ["abcdefg"]) == [[*b"abcdefg", 256]]


def test_a_fresh_head_on_a_copy():
    shape = TransformerConfig(257, 16, n_layer=1, n_head=2, n_embd=8)
    policy = TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=1)
    before = copy.deepcopy(policy.state_dict())
    model = RewardModel.from_policy(policy.frozen_copy(), seed=2)
    assert all(parameter.requires_grad for parameter in model.parameters())
    weight = model.trunk.value_head.weight
    assert 0.1 < weight.std() * 3 < 3 and model.trunk.value_head.bias.item() == 0
    assert RewardModel.from_policy(policy, seed=2).trunk.value_head.weight.equal(weight)
    assert not RewardModel.from_policy(policy, seed=3).trunk.value_head.weight.equal(weight)
    model.score_tokens(model.pad([[1, 2, 256]])).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(policy.state_dict()[name].equal(before[name]) for name in before)


def test_a_model_without_words():
    policy = TransformerPolicy(TransformerConfig(4, 8, n_layer=1, n_head=1, n_embd=4))
    with pytest.raises(TokenizerError, match="tokenizer"):
        RewardModel(policy)
    model = make_model(Letters(3))
    with pytest.raises(ValueError, match="nothing to score"):
        model.score_texts([""], [""])
    assert model.encode(["a"], [""]) == [[0]]  # no stop token to end it


# -------------------------------------------------------------------- as a reward


def play(envs, policy, steps=40):
    """Random episodes: prompts, texts, final rewards."""
    rng = np.random.default_rng(0)
    _, infos = envs.reset(seed=0)
    prompts = list(infos["prompt"])
    ended = []
    for _ in range(steps):
        # Letters, and the stop token now and then.
        actions = np.where(rng.random(envs.num_envs) < 0.2, policy.tokenizer.stop_token, 0)
        actions = np.where(actions == 0, rng.integers(97, 102, envs.num_envs), actions)
        _, rewards, terminated, _, infos = envs.step(actions)
        for row in np.flatnonzero(terminated):
            final = infos["final_info"]
            ended.append(
                (prompts[row], final["text"][row], final["finish_reason"][row], rewards[row])
            )
            prompts[row] = infos["prompt"][row]
    return ended


@pytest.mark.parametrize("same", [True, False])
def test_as_a_reward_it_gives_the_scores_of_the_texts(same):
    own = BytesTokenizer() if same else train_bpe(["the dog a cat abcde " * 20], 270)
    model = make_model(own)
    assert (own.fingerprint == BytesTokenizer.fingerprint) == same
    envs = TextVectorEnv(4, prompts=PROMPTS, reward=model, tokenizer="bytes", max_new_tokens=6)
    ended = play(envs, make_model().trunk)
    assert {reason for _, _, reason, _ in ended} == {"stop", "length"}
    scores = model.score_texts([prompt for prompt, *_ in ended], [text for _, text, *_ in ended])
    rewards = [reward for *_, reward in ended]
    assert len(ended) > 20 and np.std(rewards) > 0.01
    assert rewards == pytest.approx(scores.tolist(), abs=1e-5)


def test_ids_of_its_own_vocabulary_are_read_as_they_were_chosen():
    own = train_bpe(["hello hello hello " * 20], 262)
    (whole,) = {len(own.encode("hello"))}
    apart = [i for letter in "hello" for i in own.encode(letter)]
    assert whole < len(apart)
    model = make_model(own)
    envs = TextVectorEnv(1, prompts=["he"], reward=model, tokenizer=own, max_new_tokens=5)
    envs.reset(seed=0)
    for token in apart:
        _, rewards, *_ = envs.step(np.array([token]))
    expected = plain_score(model, [*own.encode("he"), *apart, own.stop_token])
    assert rewards[0] == pytest.approx(expected, abs=1e-5)
    assert rewards[0] != pytest.approx(model.score_texts(["he"], ["hello"])[0], abs=1e-3)


def test_environments_share_it():
    model = make_model()
    assert copy.deepcopy(model) is model
    envs = gym.make_vec(
        "textenv/Generate-v0",
        num_envs=2,
        prompts=PROMPTS,
        reward=model,
        tokenizer="bytes",
        max_new_tokens=1,
    )
    envs.reset(seed=0)
    _, before, *_ = envs.step(np.array([97, 98]))
    with torch.no_grad():
        model.trunk.value_head.bias.add_(1.0)
    envs.reset(seed=0)
    _, after, *_ = envs.step(np.array([97, 98]))
    assert (after - before).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    envs.close()


# -------------------------------------------------------------------- on disk


def test_saved_and_loaded(tmp_path):
    model = make_model(train_bpe(["the dog a cat abcde " * 20], 270))
    model.mean.fill_(1 / 3)
    loaded = RewardModel.load(model.save(tmp_path / "model"))
    texts = random_texts(9)
    scores = [m.score_texts(["a "] * 9, texts).tolist() for m in (model, loaded)]
    assert scores[0] == scores[1]
    assert loaded.mean.item() == model.mean.item()
    trunk = TransformerPolicy.load(tmp_path / "model")
    assert trunk.value_head.weight.equal(model.trunk.value_head.weight)


def test_a_vocabulary_of_ones_own(tmp_path):
    model = make_model(Letters(3, stop=True))
    folder = model.save(tmp_path / "model")
    loaded = RewardModel.load(folder, Letters(3, stop=True))
    assert loaded.score_texts(["ab"], ["c"]) == model.score_texts(["ab"], ["c"])
    with pytest.raises(VocabularyMismatchError):
        RewardModel.load(folder, BytesTokenizer())


def test_what_is_no_reward_model(tmp_path):
    folder = make_model().trunk.save(tmp_path / "policy")
    with pytest.raises(CheckpointError, match="no reward model"):
        RewardModel.load(folder)
    (folder / "reward_model.json").write_text(json.dumps({"average": 3}))
    with pytest.raises(CheckpointError, match="mean"):
        RewardModel.load(folder)
    (folder / "reward_model.json").write_text(json.dumps({"mean": 0.0}))
    (folder / "policy.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"policy\.safetensors"):
        RewardModel.load(folder)


def test_a_policy_with_an_adapter_trains_that_and_the_head():
    peft = pytest.importorskip("peft")
    policy = make("llama")
    policy.add_adapter(peft.LoraConfig(r=2, target_modules="all-linear"))
    model = RewardModel.from_policy(policy)
    trained = [name for name, p in model.trunk.named_parameters() if p.requires_grad]
    assert all("lora" in name or "value_head" in name for name in trained)
    rows = model.pad([[2, 3, 4], [2, 5]])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):  # the first step leaves A as it is, since B is 0
        optimizer.zero_grad()
        model.score_tokens(rows)[0].backward()
        optimizer.step()
    changed = {
        name
        for (name, p), q in zip(model.trunk.named_parameters(), policy.parameters(), strict=True)
        if not torch.equal(p, q)
    }
    assert changed == set(trained)
