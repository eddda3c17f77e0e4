"""A world in ten lines: guess a number from 1 to 7, and PPO learns to halve what is left.

An episode is a conversation. The agent says one digit; the world answers higher or lower. The best
strategy takes 2.43 guesses on average, and a random guess among the numbers still possible 2.93.

Run: python examples/08_world.py [total_tokens]
"""

import sys

import numpy as np

from agents import PPO, Learner
from policies import TransformerPolicy
from textenv import Reply, TextVectorEnv, World
from textenv.tokenizers import CharacterTokenizer


class GuessTheNumber(World):
    """Has a secret from 1 to 7; each guess costs a little."""

    def begin(self, record, rng):
        """Draw the secret and say how to begin."""
        self.secret = int(rng.integers(1, 8))
        return "?"

    def reply(self, turn, rng):
        """Higher, lower, or the end."""
        guess = int(turn.text) if turn.text.isdecimal() else 0
        if guess == self.secret:
            return Reply(reward=1.0, terminated=True)
        return Reply("+" if guess < self.secret else "-", reward=-0.2)


envs = TextVectorEnv(
    64,
    world=GuessTheNumber,
    tokenizer=CharacterTokenizer("1234567?+-"),
    max_prompt_tokens=1,
    max_turns=8,
    max_turn_tokens=1,
    max_new_tokens=16,
)
policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64)
learner = Learner(
    policy,
    envs,
    PPO(n_epochs=4, entropy_coef=0.01),
    learning_rate=lambda done: 3e-3 * (1 - done),
    n_episodes=256,
    seed=0,
)
total_tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
for update in learner.updates(total_tokens):
    if update.number % 10 == 1:
        print(f"{update.tokens:7d} guesses  {update.tokens_per_answer:.2f} to a number")

# How it plays now: digits are the agent's, signs the world's.
observations, _ = envs.reset(seed=1)
cache = policy.new_cache(*observations.shape)
games: set[str] = set()
for _ in range(32):
    step = policy.act(observations, cache, deterministic=True)
    observations, *_, infos = envs.step(step.actions)
    for row in np.flatnonzero(infos.get("_final_obs", [])):
        ids = infos["final_obs"][row]
        games.add(envs.tokenizer.decode(ids[ids != envs.pad_token].tolist()))
print("games:", *sorted(games, key=lambda game: (len(game), game)))
