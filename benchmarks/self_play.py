"""Exploitability of self-play, by exact best response, on two games whose best play is known.

Nim has one heap of 1 to 9, take 1 to 3; the best play is pure. Pennies is played at once, seat 0
wants equal sides and heads count more; in equilibrium both seats show heads with 1/3, and what two
learners do to each other goes round in circles. "last" is the mean over the last quarter of the
updates, "average" that of the strategy averaged over all updates (in Pennies, where each seat moves
once; the snapshots of a pool are such an average too).

Run: taskset -c 0 python -m benchmarks.self_play --threads 1
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from agents import PPO, Learner
from agents.partners import Pool, TwoPlayers, turn_probabilities
from benchmarks.common import command_line, report
from policies import Policy, TransformerPolicy
from textenv import TextVectorEnv
from textenv.testing import games
from textenv.tokenizers import CharacterTokenizer
from textenv.worlds import Outcome, TwoPlayerGame

HEAPS = [{"prompt": str(heap)} for heap in range(1, 10)]
ROWS, GAMES = 64, 256


class Nim(TwoPlayerGame):
    """Take 1 to 3; who takes the last one wins. Both read what is left after each move."""

    def begin(self, record: Any, rng: np.random.Generator) -> None:
        """Take the heap of the record."""
        self.left = int(record["prompt"])

    def move(self, seat: int, text: str, rng: np.random.Generator) -> Outcome:
        """Take some; what is illegal loses."""
        sign = 1.0 - 2.0 * seat
        if int(text) > self.left:
            return Outcome(rewards=(-sign, sign), over=True)
        self.left -= int(text)
        if self.left == 0:
            return Outcome(rewards=(sign, -sign), over=True)
        return Outcome(str(self.left))


class Pennies(TwoPlayerGame):
    """Seat 0 wants equal sides, seat 1 different ones."""

    def begin(self, record: Any, rng: np.random.Generator) -> tuple[str, str]:
        """Each seat reads who it is."""
        self.first = ""
        return "=", "#"

    def move(self, seat: int, text: str, rng: np.random.Generator) -> Outcome:
        """The second to move does not read what the first has shown."""
        if seat == 0:
            self.first = text
            return Outcome(hidden=True)
        pay = {"hh": 1.0, "ht": -0.5, "th": -0.5, "tt": 0.25}[self.first + text]
        return Outcome(rewards=(pay, -pay), over=True)


class Form(NamedTuple):
    """How a game is played against oneself.

    Attributes:
        partner: Who has the other seat.
        add: A pool gets a snapshot every this many updates; 0 for other partners.
        kl: Weight of the KL to the reference in the reward; 0 for none.
        renew: The reference becomes the present policy every this many updates; 0 for never.
    """

    partner: Callable[[Policy], Policy | Pool]
    add: int = 0
    kl: float = 0.0
    renew: int = 0


FORMS = {
    "nim": {"present": Form(lambda policy: policy), "pool": Form(Pool, add=5)},
    "pennies": {
        "present": Form(lambda policy: policy),
        "present, KL, renewed": Form(lambda policy: policy, kl=0.4, renew=40),
        "pool, KL": Form(Pool, add=4, kl=0.1),
    },
}


def environment(game: str, players: TwoPlayers) -> TextVectorEnv:
    """Many games of one kind."""
    common: dict[str, Any] = {"world": players, "stop_tokens": [], "max_turn_tokens": 1}
    if game == "nim":
        digits = CharacterTokenizer("0123456789")
        limits = {"max_prompt_tokens": 3, "max_new_tokens": 20}
        return TextVectorEnv(
            ROWS, prompts=HEAPS, tokenizer=digits, allowed_tokens=[1, 2, 3], **limits, **common
        )
    sides = CharacterTokenizer("ht=#")
    limits = {"max_prompt_tokens": 1, "max_new_tokens": 2}
    return TextVectorEnv(ROWS, tokenizer=sides, allowed_tokens=[0, 1], **limits, **common)


def learn(game: str, name: str, seed: int, tokens: int) -> dict[str, Any]:
    """Train a policy against itself; a row of the table."""
    form, begin = FORMS[game][name], time.process_time()
    players = TwoPlayers(Nim if game == "nim" else Pennies)
    envs = environment(game, players)
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 64}
    if game == "pennies":
        shape = {"n_layer": 1, "n_head": 2, "n_embd": 16}
    policy = TransformerPolicy.for_env(envs, seed=seed, **shape)
    players.partner = form.partner(policy)
    algorithm = PPO(n_epochs=4, entropy_coef=0.01) if game == "nim" else PPO(n_epochs=1)
    learner = Learner(
        policy,
        envs,
        algorithm,
        reference=policy.frozen_copy() if form.kl else None,
        kl_coef=form.kl,
        learning_rate=(lambda done: 3e-3 * (1 - done)) if game == "nim" else 1e-3,
        n_episodes=GAMES,
        seed=seed,
    )
    tree = games.GameTree(players.game, players.rules, HEAPS if game == "nim" else [{"prompt": ""}])
    strategies = [turn_probabilities(policy, players, tree)]
    for update in learner.updates(tokens):
        if isinstance(players.partner, Pool) and update.number % form.add == 0:
            players.partner.add()
        if form.renew and update.number % form.renew == 0:
            learner.reference = policy.frozen_copy()
        strategies.append(turn_probabilities(policy, players, tree))
    gains = [games.exploitability(tree, strategy) for strategy in strategies]
    average: float | str = "-"  # where a seat moves more than once, a mean of strategies is none
    if game == "pennies":
        average = games.exploitability(tree, np.mean(strategies, axis=0))
    return {
        "game": game,
        "partner": name,
        "seed": seed,
        "before": gains[0],
        "last": float(np.mean(gains[-len(gains) // 4 :])),
        "end": gains[-1],
        "average": average,
        "processor seconds": time.process_time() - begin,
    }


def main() -> None:
    """Train and print."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=40_000)
    parser.add_argument("--games", nargs="+", choices=list(FORMS), default=list(FORMS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: Iterator[dict[str, Any]] = (
        learn(game, name, seed, arguments.tokens)
        for game in arguments.games
        for name in FORMS[game]
        for seed in arguments.seeds
    )
    report("self-play", rows, tokens=arguments.tokens)


if __name__ == "__main__":
    main()
