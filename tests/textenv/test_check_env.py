"""The checkers of Gymnasium and of Stable-Baselines3, with every warning an error."""

import gymnasium as gym
import pytest
from environments import REWARDS, share_of_vowels
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

import textenv
from textenv.tokenizers import HuggingFaceTokenizer, load_tokenizer, train_bpe

IDS = sorted(name for name in gym.registry if name.startswith("textenv/"))
CORPUS = ["the cat sat on the mat, the dog on the log; naïve cafés, 你好世界。\n"] * 3


def own_bpe():
    return train_bpe(CORPUS, 280)


def hugging_face():
    tokenizer = HubTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return HuggingFaceTokenizer(tokenizer, stop="</s>")


OFFLINE = {"own_bpe": own_bpe, "hugging_face": hugging_face}
DOWNLOADED = ["gpt2", "cl100k_base", "o200k_base"]


@pytest.fixture(params=["bytes", *OFFLINE, *DOWNLOADED])
def tokenizer(request):
    if request.param in DOWNLOADED:
        request.getfixturevalue("tiktoken_files")
    return OFFLINE[request.param]() if request.param in OFFLINE else request.param


def make(name, **arguments):
    defaults = {"prompts": ["the ", "a 你"], "reward": share_of_vowels, "max_new_tokens": 8}
    return gym.make(name, **{**defaults, **arguments})


def test_there_is_something_to_check():
    assert "textenv/Generate-v0" in IDS


@pytest.mark.parametrize("name", IDS)
def test_gymnasium(name, tokenizer):
    env = make(name, tokenizer=tokenizer)
    check_env(env.unwrapped)  # makes it again with every render mode, too
    assert env.action_space.n == load_tokenizer(tokenizer).vocab_size


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("render_mode", [None, "ansi", "human"])
def test_stable_baselines3(name, tokenizer, render_mode):
    env = make(name, tokenizer=tokenizer, render_mode=render_mode)
    check_env_for_sb3(env.unwrapped, warn=True, skip_render_check=False)


KINDS = {
    "two rewards": {"reward": REWARDS["both"]},
    "dense": {"reward": REWARDS["dense"]},
    "truncate": {"budget": "truncate"},
    "masks": {"min_new_tokens": 3, "forbidden_tokens": [0, 1, 2]},
    "no stop": {"stop_tokens": []},
    "stops often": {"stop_tokens": list(range(200))},
    "one token": {"max_new_tokens": 1},
    "prompt of ids": {"prompts": [{"tokens": [104, 105], "answer": "x"}]},
    "function": {"prompts": lambda rng: str(rng.integers(100)), "max_prompt_tokens": 2},
}


@pytest.mark.parametrize("arguments", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_environment(arguments):
    check_env(make("textenv/Generate-v0", **arguments).unwrapped)
    check_env_for_sb3(make("textenv/Generate-v0", **arguments).unwrapped, skip_render_check=False)


def test_the_passive_checker_of_gym_make_finds_nothing():
    """`gym.make` checks every reset and step as they come; its warnings would be errors here."""
    env = make("textenv/Generate-v0", min_new_tokens=2, render_mode="ansi")
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(50):
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        assert isinstance(env.render(), str)
        if terminated or truncated:
            env.reset()
    env.close()
    env.close()


def test_return_types_of_the_single_environment():
    env = make("textenv/Generate-v0", max_new_tokens=1, reward=lambda episodes: [1]).unwrapped
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert type(info["text"]) is str and type(info["finish_reason"]) is str
    assert type(info["reward_components"]["lambda"]) is float


def test_no_method_makes_sb3_see_a_goal_environment():
    assert not hasattr(textenv.TextEnv, "compute_reward")
    assert not hasattr(textenv.TextVectorEnv, "compute_reward")


def test_discrete_starts_at_zero():
    assert make("textenv/Generate-v0").action_space.start == 0
