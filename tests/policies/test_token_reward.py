"""A reward for every token: against hidden states read one by one, and as a dense reward."""

import copy

import numpy as np
import pytest
import torch
from letters import Letters

from policies import TransformerConfig, TransformerPolicy
from policies.reward_model import RewardModel
from policies.token_reward import TokenReward
from textenv import TextVectorEnv
from textenv.errors import VocabularyMismatchError
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)
LETTERS = Letters(4, stop=True)
STOP = 4


def make_model(seed=0):
    shape = TransformerConfig(5, context=12, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(shape, tokenizer=LETTERS, seed=seed)
    model = TokenReward.from_policy(policy, seed)
    model.mean.fill_(0.25)
    return model


@torch.inference_mode()
def one_by_one(model, ids, start=0):
    """The head of the state of every token, each from a text that ends in it."""
    rewards = []
    for end in range(start + 1, len(ids) + 1):
        hidden = model.trunk.last_hidden(np.array([ids[:end]]))
        value = (model.trunk.value_head(hidden) - model.mean).item()
        rewards.append(0.0 if ids[end - 1] == STOP else value)
    return rewards


def test_a_text_scores_the_sum_of_its_tokens():
    model = make_model()
    texts = [("ab", "cd"), ("ab", ""), ("a", "dcba")]
    expected = [sum(one_by_one(model, LETTERS.encode(p + a))) for p, a in texts]
    np.testing.assert_allclose(model.score_texts(*zip(*texts, strict=True)), expected, atol=1e-5)


def test_rewards_under_a_mask():
    model = make_model()
    tokens = model.pad([[0, 1, 2, 3], [3, 2]])
    mask = torch.tensor([[False, True, False, True], [True, False, False, False]])
    rewards = model.rewards(tokens, mask)
    assert rewards.shape == (2, 4) and (rewards[~mask] == 0).all()
    first, second = one_by_one(model, [0, 1, 2, 3]), one_by_one(model, [3, 2])
    expected = torch.tensor([[0, first[1], 0, first[3]], [second[0], 0, 0, 0]])
    torch.testing.assert_close(rewards, expected, atol=1e-5, rtol=0)


def test_answers_to_one_prompt_differ_by_their_own_tokens():
    model = make_model()
    for_text = model.score_texts(["abc"] * 2, ["d", "da"])
    (last,) = one_by_one(model, LETTERS.encode("abcda"), start=4)
    assert for_text[1] - for_text[0] == pytest.approx(last, abs=1e-5)


def test_centred_rewards_of_answers_have_mean_zero():
    model = make_model()
    prompts, answers = ["ab", "c", "d"], ["cd", "abc", ""]
    model.centre(prompts, answers)
    own = [
        reward
        for prompt, answer in zip(prompts, answers, strict=True)
        for reward in one_by_one(model, LETTERS.encode(prompt + answer), start=len(prompt))
    ]
    assert len(own) == 5 and np.mean(own) == pytest.approx(0, abs=1e-6)
    before = model.mean.item()
    model.centre(["a"], [""])  # no token to centre
    assert model.mean.item() == before


def test_a_dense_reward_pays_every_token_when_it_is_chosen():
    model = make_model()
    envs = TextVectorEnv(
        3, prompts=["ab", "c"], reward=model.as_reward(), tokenizer=LETTERS, max_new_tokens=4
    )
    observations, _ = envs.reset(seed=0)
    generator = np.random.default_rng(1)
    ended = 0
    for number in range(12):
        if number == 6:  # the model goes on learning
            with torch.no_grad():
                model.trunk.value_head.weight.add_(0.5)
        lengths = (observations != envs.single_action_space.n).sum(1)
        actions = generator.integers(0, 5, 3)
        rows = [[*observations[i, : lengths[i]].tolist(), int(actions[i])] for i in range(3)]
        observations, rewards, terminated, _, _ = envs.step(actions)
        expected = [one_by_one(model, row, start=len(row) - 1)[0] for row in rows]
        np.testing.assert_allclose(rewards, expected, atol=1e-5)
        ended += terminated.sum()
    assert ended > 5


def test_it_is_saved_and_read_like_a_reward_model(tmp_path):
    model = make_model()
    assert copy.deepcopy(model) is model
    model.save(tmp_path)
    again = TokenReward.load(tmp_path, LETTERS)
    assert isinstance(again, TokenReward) and isinstance(again, RewardModel)
    np.testing.assert_allclose(again.score_texts(["a"], ["bc"]), model.score_texts(["a"], ["bc"]))


def test_another_vocabulary_is_refused():
    reward = make_model().as_reward()
    envs = TextVectorEnv(
        1, prompts=["a"], reward=reward, tokenizer=BytesTokenizer(), max_new_tokens=2
    )
    envs.reset(seed=0)
    with pytest.raises(Exception, match="'letters', and the environment's is 'bytes'") as caught:
        envs.step(np.array([98]))
    assert isinstance(caught.value.__cause__, VocabularyMismatchError)
