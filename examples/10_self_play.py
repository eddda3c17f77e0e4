"""Self-play: Nim against one's own present weights, until nobody can win more.

Take 1 to 3 from a heap; who takes the last one wins. The policy has both seats: half of the games
it is the agent in the first, half in the second. Exploitability is what the best player gains over
it, computed over all games: 0 is unbeatable.

Run: python examples/10_self_play.py [total_tokens]
"""

import sys

from agents import PPO, Learner
from agents.partners import TwoPlayers, exploitability
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.tokenizers import CharacterTokenizer
from textenv.worlds import Outcome, TwoPlayerGame

heaps = [{"prompt": str(heap)} for heap in range(1, 10)]


class Nim(TwoPlayerGame):
    """The prompt is the heap; after each move both seats read what is left of it."""

    def begin(self, record, rng):
        """Nothing is said: the prompt opens the game."""
        self.left = int(record["prompt"])

    def move(self, seat, text, rng):
        """Take some; what is illegal loses."""
        taken = int(text) if text.isdecimal() else 0
        won, lost = ((1.0, -1.0), (-1.0, 1.0)) if seat == 0 else ((-1.0, 1.0), (1.0, -1.0))
        if not 1 <= taken <= min(3, self.left):
            return Outcome(rewards=lost, over=True)
        self.left -= taken
        return Outcome(str(self.left)) if self.left else Outcome(rewards=won, over=True)


players = TwoPlayers(Nim)
envs = TextVectorEnv(
    64,
    world=players,
    prompts=heaps,
    tokenizer=CharacterTokenizer("0123456789"),
    allowed_tokens=[1, 2, 3],
    stop_tokens=[],
    max_prompt_tokens=3,  # the heap, and the partner's first move with what it leaves
    max_turn_tokens=1,
    max_new_tokens=20,
)
policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64)
players.partner = policy  # its present weights; policy.frozen_copy() would stay as it is
learner = Learner(
    policy,
    envs,
    PPO(n_epochs=4, entropy_coef=0.01),
    learning_rate=lambda done: 3e-3 * (1 - done),
    n_episodes=256,
    seed=0,
)
total_tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
print(f"exploitability {exploitability(policy, players, heaps):.3f} before")
for update in learner.updates(total_tokens):
    if update.number % 20 == 0:
        gain = exploitability(policy, players, heaps)
        print(f"{update.tokens:7d} moves  {update.tokens_per_answer:.1f} a game  {gain:.4f}")
print(f"exploitability {exploitability(policy, players, heaps):.4f} after")

# How it plays: it leaves 4 or 8 wherever it can.
openings = [heap["prompt"] for heap in heaps]
takes = policy.generate(openings, 1, temperature=0, allowed_tokens=[1, 2, 3], stop_tokens=[])
print("takes", ", ".join(f"{taken} of {heap}" for heap, taken in zip(openings, takes, strict=True)))
