"""A tool: a policy learns to add with the calculator, and fails to without it.

A sum of four digits has carries, which a network of this size does not learn in so short a time.
The policy is first fine-tuned on legal conversations: half of them guess, a quarter calculates
another sum, and a quarter calculates the right one. GRPO then finds out what pays. The same policy
without the tool is fine-tuned on as many right answers, and gets the same budget.

Run: python examples/09_tool.py [total_tokens] [examples]
"""

import string
import sys

import numpy as np

from agents import GRPO, Learner
from agents.supervised import Example, sft_steps
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.tokenizers import CharacterTokenizer
from textenv.tools import calculator

CHARACTERS = CharacterTokenizer(string.digits + string.ascii_letters + string.punctuation + " ")


def problem(rng):
    """A sum of two numbers of four digits."""
    a, b = rng.integers(1000, 10_000, size=2).tolist()
    return {"prompt": f"{a}+{b}=", "answer": str(a + b)}


def right(episodes):
    """Whether the last turn is the sum."""
    return [float(e.text == e.columns["answer"]) for e in episodes]


def legal(rng):
    """An example of a conversation that calls the calculator, or guesses."""
    asked, other = problem(rng), problem(rng)
    if rng.random() < 0.5:
        return Example(((asked["prompt"], False), (other["answer"], True)))
    told = asked if rng.random() < 0.5 else other
    call = f'calculator("{told["prompt"][:-1]}")'
    pieces = (asked["prompt"], False), (call, True), (told["answer"], False), (told["answer"], True)
    return Example(pieces)


def answered(rng):
    """An example of a right answer."""
    asked = problem(rng)
    return Example(((asked["prompt"], False), (asked["answer"], True)))


def falling(done):
    """The learning rate after a share of the budget."""
    return 1e-3 * (1 - done)


def learn(tools, example, total_tokens, count=20_000, seed=0):
    """Fine-tune, train, and return the share of right greedy answers to new sums."""
    envs = TextVectorEnv(
        64,
        prompts=problem,
        reward=right,
        tools=tools,
        tokenizer=CHARACTERS,
        max_prompt_tokens=10,
        max_new_tokens=64 if tools else 8,
        group_size=8,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64, seed=seed)
    rng = np.random.default_rng(seed)
    examples = [example(rng) for _ in range(count)]
    for _ in sft_steps(policy, examples, epochs=2, batch_size=32, learning_rate=3e-3, seed=seed):
        pass
    learner = Learner(policy, envs, GRPO(), learning_rate=falling, n_episodes=128, seed=seed)
    for update in learner.updates(total_tokens):
        if update.number % 20 == 1:
            print(f"{update.tokens:7d} tokens  right {update.score:.3f}")
    return play(policy, envs)


def play(policy, envs, count=512):
    """Greedy answers to new sums; returns the share of right ones."""
    observations, _ = envs.reset(seed=1_000_000)
    cache = policy.new_cache(*observations.shape)
    scores: list[float] = []
    while len(scores) < count:
        step = policy.act(observations, cache, deterministic=True)
        observations, rewards, terminated, truncated, _ = envs.step(step.actions)
        scores += rewards[terminated | truncated].tolist()
    return sum(scores) / len(scores)


if __name__ == "__main__":
    total_tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    print("with the calculator")
    with_tool = learn([calculator], legal, total_tokens, count)
    print("without")
    without = learn(None, answered, total_tokens, count)
    print(f"right: {with_tool:.3f} with the calculator, {without:.3f} without")
