"""Nim of TextArena against a fixed partner: how often a policy wins, before and after PPO.

Three piles of 3, 4 and 5; who takes the last object wins. The partner plays the best move half of
the time, where there is one, and any legal move otherwise. The agent's seat is drawn: it begins in
half of the games. It reads the three piles, and says two digits: a pile, and how many it takes.

A network of random weights does not know what a move is and wins nothing. So it is first fine-tuned
on the moves of a player that takes any legal move, in 4,096 games against the same partner; that is
"before". PPO then sees the game's own reward alone: 1 for a game that is won, -1 for one that is
lost, be it by a move that breaks the rules. Both are measured on the same 2,000 starts.

What can be reached is computed by going through all positions: the best answer to this partner, and
the player that takes any legal move.

Run: taskset -c 0 python -m benchmarks.nim --threads 1
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents import PPO, Learner
from agents.evaluation.intervals import bootstrap_interval
from benchmarks.common import command_line, report
from benchmarks.games import fine_tune, play
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.tokenizers import CharacterTokenizer
from textenv.worlds.adapters import TextArenaWorld, one_by_one

Piles = tuple[int, ...]
Move = tuple[int, int]

PILES = (3, 4, 5)
BEST = 0.5
"""Share of the partner's moves that are the best there are."""
ROWS, GAMES, STARTS = 64, 4_096, 2_000

# ---------------------------------------------------------------- the game


def legal_moves(piles: Piles) -> list[Move]:
    """Every pile and number of objects that can be taken."""
    return [(pile, n) for pile, height in enumerate(piles) for n in range(1, height + 1)]


def after(piles: Piles, move: Move) -> Piles:
    """What is left."""
    return tuple(height - move[1] * (pile == move[0]) for pile, height in enumerate(piles))


def best_moves(piles: Piles) -> list[Move]:
    """Moves that leave a nim sum of 0, from which nobody wins (Bouton, 1901)."""
    return [m for m in legal_moves(piles) if np.bitwise_xor.reduce(after(piles, m)) == 0]


def partners_chances(piles: Piles) -> dict[Move, float]:
    """The probability of each of the partner's moves."""
    legal, best = legal_moves(piles), best_moves(piles)
    chances = {move: (1 - BEST * bool(best)) / len(legal) for move in legal}
    return {
        move: chance + BEST * (move in best) / max(len(best), 1) for move, chance in chances.items()
    }


def drawn(chances: dict[Move, float], rng: np.random.Generator) -> Move:
    """A move."""
    moves = list(chances)
    return moves[int(rng.choice(len(moves), p=list(chances.values())))]


def piles_of(text: str) -> Piles:
    """The piles that a text ends with."""
    return tuple(int(digit) for digit in text[-len(PILES) :])


def partner(text: str, rng: np.random.Generator) -> str:
    """The partner's move."""
    return "{} {}".format(*drawn(partners_chances(piles_of(text)), rng))


def piles_alone(messages: Any, seat: int) -> str:
    """The game's messages in four or five characters: the piles, and "!" if a move was refused."""
    refused = any(kind.name == "GAME_ADMIN" for _, _, kind in messages)
    board = [text for _, text, kind in messages if kind.name == "GAME_BOARD"][-1]
    return "!" * refused + ":" + "".join(re.findall(r"pile \d: (\d+)", board))


def make_envs(rows: int) -> TextVectorEnv:
    """Games against the partner."""
    return TextVectorEnv(
        rows,
        world=TextArenaWorld(
            "Nim-v0",
            partner=one_by_one(partner),
            seat=None,
            describe=piles_alone,
            read=lambda text: f"[{text[:1]} {text[1:]}]",
        ),
        tokenizer=CharacterTokenizer("012345:!"),
        max_prompt_tokens=len(PILES) + 1,
        max_turn_tokens=2,
        max_turns=16,
        max_new_tokens=96,
    )


# ---------------------------------------------------------------- what can be reached


def exact_win_rate(choose: Callable[[Sequence[float]], float]) -> float:
    """How often a player wins who begins in half of the games.

    Args:
        choose: The player's chance of winning, given that after each of its moves: `max` for the
            best answer to the partner, `numpy.mean` for any legal move.
    """

    @cache
    def agent(piles: Piles) -> float:
        if not any(piles):
            return 0.0  # the partner has taken the last object
        return float(choose([other(after(piles, move)) for move in legal_moves(piles)]))

    @cache
    def other(piles: Piles) -> float:
        if not any(piles):
            return 1.0
        return sum(c * agent(after(piles, m)) for m, c in partners_chances(piles).items())

    return (agent(PILES) + other(PILES)) / 2


# ---------------------------------------------------------------- playing and learning


def policys(
    policy: TransformerPolicy, envs: TextVectorEnv, seed: int
) -> Callable[..., NDArray[Any]]:
    """The policy's choices."""
    cache, generator = policy.new_cache(*envs.observation_space.shape), np.random.default_rng(seed)

    def act(observations: NDArray[Any], infos: dict[str, Any]) -> NDArray[Any]:
        masks = infos.get("action_mask")
        return policy.act(observations, cache, action_masks=masks, generator=generator).actions

    return act


def any_legal(envs: TextVectorEnv, seed: int) -> Callable[..., NDArray[Any]]:
    """Choices of a player that takes any legal move: a pile, then how many."""
    rng, encode = np.random.default_rng(seed), envs.tokenizer.encode
    waiting: list[int | None] = [None] * envs.num_envs

    def act(observations: NDArray[Any], infos: dict[str, Any]) -> NDArray[Any]:
        actions = []
        for row, observation in enumerate(observations):
            number = waiting[row]
            if number is None:
                text = envs.tokenizer.decode(observation[observation != envs.pad_token].tolist())
                moves = legal_moves(piles_of(text))
                pile, number = moves[int(rng.integers(len(moves)))]
                waiting[row] = number
                actions += encode(str(pile))
            else:
                waiting[row] = None
                actions += encode(str(number))
        return np.array(actions)

    return act


def wins(policy: TransformerPolicy) -> NDArray[np.float64]:
    """Whether each of the held-out games is won, shape (STARTS,)."""
    envs = make_envs(STARTS)
    rewards, *_ = play(envs, policys(policy, envs, seed=1), seed=1_000_000)
    return (rewards > 0).astype(np.float64)


def learn(seed: int, total_tokens: int) -> dict[str, Any]:
    """Fine-tune and train one policy; how often it wins before and after."""
    torch.manual_seed(seed)
    envs = make_envs(ROWS)
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64)
    untrained = wins(policy).mean()
    games = make_envs(GAMES)
    _, texts, chosen = play(games, any_legal(games, seed), seed)
    fine_tune(policy, texts, chosen, seed=seed)  # on games of a player that takes any legal move
    before = wins(policy)
    learner = Learner(
        policy,
        envs,
        PPO(entropy_coef=0.01),
        learning_rate=lambda done: 1e-3 * (1 - done),
        n_episodes=512,
        seed=seed,
    )
    for update in learner.updates(total_tokens):
        if update.number % 20 == 1:
            print(f"{update.tokens:8d} tokens  score {update.score:6.3f}", flush=True)
    trained = wins(policy)
    return {
        "seed": seed,
        "random weights": float(untrained),
        "before": str(bootstrap_interval(before)),
        "after": str(bootstrap_interval(trained)),
        "gain": str(bootstrap_interval(trained - before)),
    }


def main() -> None:
    """Train and print."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=400_000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: Iterator[dict[str, Any]] = (learn(seed, arguments.tokens) for seed in arguments.seeds)
    exact = {"best_answer": exact_win_rate(max), "any_legal_move": exact_win_rate(np.mean)}
    print(exact)
    report("nim", rows, tokens=arguments.tokens, **exact)


if __name__ == "__main__":
    main()
