"""No reward at all, only rankings of answers.

A reward model learns from the rankings, and PPO learns from the reward model. Here a function ranks
the answers; `textenv preferences --labeller terminal` asks you instead.

Run: python examples/05_feedback.py [total_tokens]
"""

import sys

import gymnasium as gym

import textenv  # noqa: F401  (registers the environments)
from agents import PPO, Learner
from agents.feedback import (
    normalise,
    pair_accuracy,
    rank,
    reward_model_steps,
    sample_answers,
    split_rankings,
)
from policies import RewardModel, SeparateValue, TransformerConfig, TransformerPolicy
from textenv.tokenizers import BytesTokenizer

PROMPTS = [f"{word} " for word in "the a one my his her our its this that".split()]


def somebody(prompt, answers):
    """Likes vowels, and never says how much."""
    return [sum(c in "aeiou" for c in answer) for answer in answers]


policy = TransformerPolicy(TransformerConfig(257, 40, 2, 4, 64), tokenizer=BytesTokenizer())
asked = PROMPTS * 40
answers = sample_answers(policy, asked, k=4, max_new_tokens=32)
rankings = rank(somebody, asked, answers)
learned, kept = split_rankings(rankings, share=0.2)

model = RewardModel.from_policy(policy)
for _ in reward_model_steps(model, learned, epochs=2, learning_rate=1e-3):
    pass
normalise(model, asked, [some[0] for some in answers])
print("reward model: pairs of unseen prompts in the right order:", pair_accuracy(model, kept))

envs = gym.make_vec(
    "textenv/Generate-v0",
    num_envs=64,
    prompts=PROMPTS,
    reward=model,
    tokenizer="bytes",
    max_new_tokens=32,
)
reference = policy.frozen_copy()
learner = Learner(
    SeparateValue(policy, model.as_critic()),
    envs,
    PPO(n_epochs=4),
    reference=reference,
    kl_coef=0.05,
    learning_rate=1e-3,
    n_steps=64,
    seed=0,
)
total_tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000
for update in learner.updates(total_tokens):
    print(f"{update.tokens:7d} tokens  score {update.score:.2f}  KL {update.kl:.3f}")
for name, who in (("before", reference), ("after", policy)):
    liked = [somebody("", who.generate(PROMPTS, 32)) for _ in range(4)]
    print(f"{name}: {sum(map(sum, liked)) / (4 * len(PROMPTS)):.2f} vowels an answer")
