"""Turns that a policy needs to guess a number from 1 to 31, after learning on its own games.

An episode is a conversation: two digits, then the world's "<" or ">". The policy is first
fine-tuned on 4,096 games of a player that guesses any number still possible, so that it knows the
rules ("before"). PPO then sees its own games alone, and a cost for each guess. The mean number of
turns is taken over all 31 secrets, a lost game counted as `MAX_TURNS` + 1: as the policy samples,
and with the likeliest digits. Bisection needs 4.16, a random guess among the numbers still possible
5.31.

Run: taskset -c 0 python -m benchmarks.guess --threads 1
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents import PPO, Learner
from benchmarks.common import command_line, report
from benchmarks.games import fine_tune, play
from policies import Policy, TransformerPolicy
from textenv import Reply, TextVectorEnv, Turn, World
from textenv.tokenizers import CharacterTokenizer

NUMBERS = 31
MAX_TURNS = 10
BISECTION, RANDOM, TARGET = 4.16, 5.31, 4.7
ROWS, GAMES = 128, 512
GAMES_A_NUMBER = 32
"""Sampled games with each secret, in an evaluation."""


class Guess(World):
    """Says whether the secret is above or below a guess of two digits."""

    def begin(self, record: Any, rng: np.random.Generator) -> None:
        """Take the secret of the record."""
        self.secret = record["secret"]

    def reply(self, turn: Turn, rng: np.random.Generator) -> Reply:
        """Above, below, or the end."""
        guess = int(turn.text) if turn.text.isdigit() else 0
        if guess == self.secret:
            return Reply(reward=1.0, terminated=True)
        return Reply("<" if self.secret < guess else ">", reward=-0.1)


def environment(rows: int) -> TextVectorEnv:
    """Games of at most `MAX_TURNS` guesses, with a secret drawn for each."""
    return TextVectorEnv(
        rows,
        prompts=[{"prompt": "?", "secret": secret} for secret in range(1, NUMBERS + 1)],
        world=Guess,
        tokenizer=CharacterTokenizer("0123456789<>?"),
        allowed_tokens=range(10),
        stop_tokens=(),
        max_turns=MAX_TURNS,
        max_turn_tokens=2,
        max_new_tokens=3 * MAX_TURNS + 1,
    )


def any_possible(envs: TextVectorEnv, seed: int) -> Callable[..., NDArray[Any]]:
    """Choices of a player that guesses any number still possible."""
    rng = np.random.default_rng(seed)
    guesses = [""] * envs.num_envs

    def act(observations: NDArray[Any], infos: dict[str, Any]) -> NDArray[Any]:
        actions = []
        for row, observation in enumerate(observations):
            said = envs.tokenizer.decode(observation[observation != envs.pad_token].tolist())[1:]
            if len(said) % 3 == 0:  # a new guess
                low, high = 1, NUMBERS
                for place in range(0, len(said), 3):
                    guess, sign = int(said[place : place + 2]), said[place + 2]
                    low, high = (low, guess - 1) if sign == "<" else (guess + 1, high)
                guesses[row] = f"{rng.integers(low, high + 1):02d}"
            actions += envs.tokenizer.encode(guesses[row][len(said) % 3])
        return np.array(actions)

    return act


def turns(policy: Policy, *, deterministic: bool) -> float:
    """Mean number of turns over all secrets; the opening is the same, so sampling is needed."""
    copies = 1 if deterministic else GAMES_A_NUMBER
    envs = environment(NUMBERS * copies)
    starts = [{"prompt": "?", "secret": row % NUMBERS + 1} for row in range(envs.num_envs)]
    observations, infos = envs.reset(seed=0, options={"prompt": starts})
    cache = policy.new_cache(*observations.shape)
    needed = np.full(envs.num_envs, MAX_TURNS + 1)
    playing = np.ones(envs.num_envs, dtype=bool)
    generator = np.random.default_rng(0)
    while playing.any():
        step = policy.act(
            observations,
            cache,
            deterministic=deterministic,
            action_masks=infos["action_mask"],
            uniforms=generator.random(envs.num_envs),
        )
        observations, _, terminated, _, infos = envs.step(step.actions)
        ended = terminated & playing
        if ended.any():
            final = infos["final_info"]
            won = ended & (final["finish_reason"] == "world")
            needed[won] = final["turns"][won]
            playing &= ~ended
    return float(needed.mean())


def learn(seed: int, tokens: int) -> dict[str, Any]:
    """Train a policy; a row of the table."""
    envs = environment(ROWS)
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64, seed=seed)
    learner = Learner(
        policy,
        envs,
        PPO(n_epochs=4, entropy_coef=0.003, minibatch_tokens=2048),
        learning_rate=lambda done: 1e-3 * (1 - done),
        n_episodes=GAMES,
        seed=seed,
    )
    begin = time.perf_counter()
    games = environment(4_096)
    _, texts, chosen = play(games, any_possible(games, seed), seed)
    fine_tune(policy, texts, chosen, seed=seed)
    before = turns(policy, deterministic=False)
    for update in learner.updates(tokens):
        if update.number % 20 == 0:
            now = turns(policy, deterministic=False)
            print(f"seed {seed}  {update.tokens:8d} tokens  {now:.2f} turns", flush=True)
    return {
        "seed": seed,
        "tokens": learner.tokens_done,
        "before": before,
        "sampled": turns(policy, deterministic=False),
        "likeliest": turns(policy, deterministic=True),
        "seconds": time.perf_counter() - begin,
    }


def main() -> None:
    """Train and print."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=400_000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = (learn(seed, arguments.tokens) for seed in arguments.seeds)
    report("guess", rows, bisection=BISECTION, random=RANDOM, target=TARGET)


if __name__ == "__main__":
    main()
