"""A process that is forked once policies have been used: it goes on, and never waits for ever."""

import os
import subprocess
import sys

import pytest

from policies import kernels

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
DEADLINE = 90
"""Seconds. A child that hangs ends itself after 30."""

START = """
import faulthandler, multiprocessing, sys
import numpy as np, torch
torch.set_num_threads(2)
"""
USE = """
def use():
    rows = np.full((8, 64), policy.pad_token)
    rows[:, :3] = 1
    cache, generator = policy.new_cache(8, 64), np.random.default_rng(0)
    for end in range(3, 9):
        rows[:, end] = policy.act(rows, cache, generator=generator).actions
    return rows[:, :9].tolist()

def learn():
    tokens, mask = torch.ones(8, 16, dtype=torch.int64), torch.zeros(8, 16, dtype=torch.bool)
    mask[:, 5:] = True
    policy.zero_grad()
    outputs = policy.outputs(tokens, mask)
    (outputs.logprobs.sum() + outputs.values.sum()).backward()
    return [float(outputs.logprobs.sum()), float(policy.value_head.weight.grad.abs().sum())]

def child(pipe):
    faulthandler.dump_traceback_later(30, exit=True)
    pipe.send((use(), learn()))

expected = use(), learn()
ours, theirs = multiprocessing.Pipe()
process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
process.start()
process.join(40)
assert process.exitcode == 0, process.exitcode
got = ours.recv()
assert got[0] == expected[0], (got, expected)
np.testing.assert_allclose(got[1], expected[1], rtol=1e-4)
assert torch.get_num_threads() == 2, torch.get_num_threads()
assert use() == expected[0]  # the parent is as it was
"""
OURS = """
from policies import TransformerConfig, TransformerPolicy
# As wide as it takes for torch to share one row's work among threads.
policy = TransformerPolicy(TransformerConfig(300, 64, n_layer=2, n_head=4, n_embd=256))
"""
HUGGINGFACE = """
from letters import Letters
from transformers import LlamaConfig, LlamaForCausalLM
from policies.huggingface import HuggingFacePolicy
shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 27}
model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, max_position_embeddings=64))
policy = HuggingFacePolicy(model, Letters(26, stop=True))
"""


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = {sys.path!r}\n{program}"],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_child_acts_and_learns():
    run(START + OURS + USE)


def test_a_child_with_a_model_of_transformers():
    pytest.importorskip("transformers")
    run(START + HUGGINGFACE + USE)


def test_workers_of_gymnasium_sb3_and_torch():
    """Each forks by default, or can; the reward is a network that was used before."""
    pytest.importorskip("stable_baselines3")
    use = """
from functools import partial
import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv
from torch.utils.data import DataLoader
from policies import RewardModel
from textenv.tokenizers import BytesTokenizer
faulthandler.dump_traceback_later(60, exit=True)
policy = TransformerPolicy(
    TransformerConfig(257, 64, n_layer=2, n_head=4, n_embd=256), tokenizer=BytesTokenizer()
)
reward = RewardModel.from_policy(policy)
expected = reward.score_texts(["ab"] * 64, ["cccc"] * 64)
options = {"prompts": ["ab"], "reward": reward, "max_new_tokens": 4}
actions = np.full(2, ord("c"))

envs = gym.make_vec("textenv/Generate-v0", 2, "async", {"context": "fork"}, **options)
envs.reset(seed=0)
for _ in range(4):
    _, scores, *_ = envs.step(actions)
np.testing.assert_allclose(scores, expected[:2], atol=1e-5)
envs.close()

make = partial(gym.make, "textenv/Generate-v0", **options)
workers = SubprocVecEnv([make, make], start_method="fork")
workers.reset()
for _ in range(4):
    _, scores, *_ = workers.step(actions)
np.testing.assert_allclose(scores, expected[:2], atol=1e-5)
workers.close()

class Scored:
    def __len__(self):
        return 4

    def __getitem__(self, number):
        return reward.score_texts(["ab"], ["cccc"])[0]

loader = DataLoader(Scored(), 2, num_workers=2, multiprocessing_context="fork")
np.testing.assert_allclose(torch.cat(list(loader)), expected[:4], atol=1e-5)
"""
    run(START + "from policies import TransformerConfig, TransformerPolicy\n" + use)


def test_the_compiled_loops_leave_the_number_of_threads_as_it_was():
    """They are told their number at the first use, and OpenMP's number is torch's too."""
    if kernels._compiled() is None:
        pytest.skip("Numba is not there")
    run("""
import torch
torch.set_num_threads(1)
assert torch.get_num_threads() == 1
from policies import kernels
assert kernels._compiled().most_threads == 2
assert torch.get_num_threads() == 1, torch.get_num_threads()
""")
