"""Exact results, for environments so small that all of their answers can be listed.

With a vocabulary of 4 to 6 tokens and 3 to 5 steps, the expected return, the KL and the gradient
of any policy are sums over a few hundred answers. The best policy under a KL leash is known in
closed form. An algorithm is right if its gradient estimates average to the exact gradient and its
training ends at that policy. Not covered: discounts.

A policy is passed as the log-probabilities of the answers, shape (n,), from any framework:

    answers = enumerate_answers(env, "a")
    tokens, mask = torch.from_numpy(answers.tokens), torch.from_numpy(answers.mask)
    logprobs = policy.outputs(tokens, mask).logprobs.sum(1)
    expected_return(logprobs.detach().numpy(), answers.rewards)

In a conversation the world draws, too. `enumerate_conversations` lists what both may say, with the
probability of what the world says. With `world_logprobs` added to the policy's, every function
below is one of whole conversations, and its KL is that of the choices; the best policy is
`soft_optimum`:

    talks = enumerate_conversations(World, tokenizer=..., max_prompt_tokens=1, max_new_tokens=8)
    chosen = policy.outputs(*map(torch.from_numpy, (talks.tokens, talks.mask))).logprobs
    logprobs = talks.world_logprobs + chosen.sum(1).numpy()
    total_variation(logprobs, soft_optimum(talks, ref_chosen, beta))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from textenv.env import TextEnv
from textenv.errors import TextEnvError, WorldError
from textenv.testing.branches import Draws, Ways
from textenv.worlds import BatchedWorld, Turn, WorldArgument, load_world

TOO_MANY = 100_000
"""More answers than this are not listed."""

Floats = NDArray[np.float64]


class TooManyAnswersError(TextEnvError, ValueError):
    """An environment has too many answers to list them all."""


@dataclass(frozen=True)
class Answers:
    """All n answers to one prompt.

    Attributes:
        tokens: Prompt and answer, shape (n, L), int64, right-padded.
        mask: True at the tokens of the answer, shape (n, L), bool.
        rewards: Return of the episode, shape (n,), float64.
    """

    tokens: NDArray[np.int64]
    mask: NDArray[np.bool_]
    rewards: Floats

    def __len__(self) -> int:
        """Number of answers n."""
        return len(self.rewards)


def enumerate_answers(env: gym.Env[Any, Any], prompt: str) -> Answers:
    """Play every answer to `prompt` that action masks allow.

    Args:
        env: A single text environment, `TextEnv` or a wrapper around it.
        prompt: The prompt, passed by `reset(options={"prompt": prompt})`.

    Raises:
        TooManyAnswersError: There are more than `TOO_MANY`.
    """
    found: list[tuple[NDArray[np.int64], int, float]] = []
    # Depth first over beginnings of answers. An environment cannot go back, so each beginning is
    # played again from the reset.
    waiting: list[tuple[int, ...]] = [()]
    while waiting:
        if len(found) + len(waiting) > TOO_MANY:
            raise TooManyAnswersError(
                f"there are more than {TOO_MANY} answers to {prompt!r}: use fewer tokens, or a "
                "smaller max_new_tokens"
            )
        actions = waiting.pop()
        observation, info = env.reset(options={"prompt": prompt})
        start = int((observation != env.observation_space.high).sum())  # type: ignore[attr-defined]
        total, over = 0.0, False
        for action in actions:
            observation, reward, terminated, truncated, info = env.step(action)
            total, over = total + float(reward), bool(terminated or truncated)
        if over:
            found.append((observation, start, total))
        else:
            allowed = info.get("action_mask", np.ones(env.action_space.n, np.bool_))  # type: ignore[attr-defined]
            # Reversed, because the last one is taken first: answers come in the order of tokens.
            waiting += [(*actions, int(token)) for token in np.flatnonzero(allowed)[::-1]]
    tokens = np.stack([text for text, _, _ in found])
    places = np.arange(tokens.shape[1])
    starts = np.array([start for _, start, _ in found])[:, None]
    mask = (places >= starts) & (tokens != env.observation_space.high)  # type: ignore[attr-defined]
    return Answers(tokens, mask, np.array([total for _, _, total in found]))


@dataclass(frozen=True)
class Conversations(Answers):
    """All n conversations with a world, each text once.

    Attributes:
        tokens: What was said, shape (n, L), int64, right-padded.
        mask: True at the tokens of the agent, shape (n, L), bool.
        rewards: Return of the episode, shape (n,), float64; its mean where draws that the text does
            not show lead to different ones.
        turns: The turn of each of the agent's tokens, from 1, and -1 elsewhere, shape (n, L).
        token_rewards: What was paid for each token, shape (n, L), float64; means like `rewards`.
        world_logprobs: Log-probability of all that the world drew, shape (n,), float64.
    """

    turns: NDArray[np.int64]
    token_rewards: Floats
    world_logprobs: Floats


class _Drawn(BatchedWorld):
    """A world whose random numbers come from `draws`, which is renewed for each episode."""

    draws: Any = None

    def __init__(self, world: BatchedWorld):
        self.world = world
        self.make = getattr(world, "make", world)  # names the world in messages

    def begin(
        self, rows: Sequence[int], records: Sequence[Mapping[str, Any]], rngs: Sequence[Any]
    ) -> Any:
        return self.world.begin(rows, records, [self.draws] * len(rows))

    def reply(self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[Any]) -> Any:
        return self.world.reply(rows, turns, [self.draws] * len(rows))


def enumerate_conversations(
    world: WorldArgument, prompt: str | Mapping[str, Any] = "", **options: Any
) -> Conversations:
    """Play every conversation: all tokens that action masks allow, and all draws of the world.

    The world draws by `rng.integers` and `rng.choice` alone, and keeps nothing from one episode to
    the next. What it draws and does not say stays hidden from the policy, as in any environment:
    conversations with equal texts are one, with the sum of their probabilities.

    Args:
        world: As for `TextEnv`.
        prompt: The prompt or its record.
        **options: Other arguments of `TextEnv`, such as `max_turns`.

    Raises:
        TooManyAnswersError: There are more than `TOO_MANY`.
        WorldError: The world failed, or draws in another way.
    """
    drawn = _Drawn(load_world(world))
    env = TextEnv(world=drawn, **options)
    found: dict[bytes, list[tuple[Floats, ...]]] = {}
    for number, (key, *arrays) in enumerate(_played(env, drawn, prompt)):
        if number == TOO_MANY:
            raise TooManyAnswersError(
                f"there are more than {TOO_MANY} conversations: use fewer tokens, turns or draws"
            )
        found.setdefault(key, []).append(tuple(arrays))
    together = []
    for same in found.values():
        tokens, mask, turns = same[0][:3]
        logprobs = np.array([logprob for *_, logprob in same])
        total = np.logaddexp.reduce(logprobs)
        paid = np.exp(logprobs - total) @ np.stack([rewards for *_, rewards, _ in same])
        together.append((tokens, mask, paid.sum(), turns, paid, total))
    return Conversations(*(np.stack(arrays) for arrays in zip(*together, strict=True)))


def _played(env: TextEnv, drawn: _Drawn, prompt: Any) -> Iterator[tuple[Any, ...]]:
    """A key of the text, tokens, mask, turns, rewards (all (L,)) and the log-probability."""
    ways, anything = Ways(), np.ones(env.pad_token, dtype=bool)
    while ways.more():
        drawn.draws = Draws(ways)
        observation, info = env.reset(options={"prompt": prompt})
        turns, rewards = np.full(len(observation), -1), np.zeros(len(observation))
        turn, over = 1, False
        while not over:
            allowed = np.flatnonzero(info.get("action_mask", anything))
            place = int((observation != env.pad_token).sum())
            action = allowed[ways.choose(len(allowed))]
            observation, reward, terminated, truncated, info = env.step(action)
            if "world_error" in info:
                raise WorldError(info["world_error"])
            turns[place], rewards[place] = turn, reward
            turn, over = info.get("turn", turn - 1) + 1, terminated or truncated
        key = observation.tobytes() + turns.tobytes()
        yield key, observation, turns > 0, turns, rewards, drawn.draws.logprob


def soft_optimum(talks: Conversations, ref_logprobs: ArrayLike, beta: float) -> Floats:
    """Log-probabilities of the conversations of the policy that maximises `objective`, shape (n,).

        V(x)    = beta log of the sum over tokens a of pi_ref(a|x) exp(Q(x, a) / beta)
        Q(x, a) = mean of V over what the world may do next; the return where the episode ends
        pi*(a|x) = pi_ref(a|x) exp((Q(x, a) - V(x)) / beta)

    where x is the text before a choice. `optimum`, which tilts whole texts, is the same only where
    the world draws nothing: it would tilt the world's draws as well. These are the soft value
    backups of Ziebart (2010), "Modeling Purposeful Adaptive Behavior with the Principle of Maximum
    Causal Entropy", with a reference in place of the uniform policy.

    Args:
        talks: All conversations.
        ref_logprobs: The reference's log-probability of each of the agent's tokens, shape (n, L).
        beta: Weight of the KL.

    Raises:
        WorldError: What the world does has probabilities that do not sum to the same after all
            tokens.
    """
    ref, weights = _floats(ref_logprobs), np.exp(talks.world_logprobs)
    best = talks.world_logprobs.copy()
    places = [np.flatnonzero(mask) for mask in talks.mask]

    def value(rows: list[int], number: int) -> tuple[float, float]:
        """V before the agent's token `number` of these rows, and the weight of getting there."""
        at = int(places[rows[0]][number])
        chosen = _split(rows, lambda row: int(talks.tokens[row, at]))
        following = [outcomes(same, number, at) for same in chosen]
        reached = [weight for _, weight in following]
        if not np.allclose(reached, reached[0]):
            raise WorldError(f"the world's draws have probabilities that sum to {reached}")
        tilted = [
            ref[same[0], at] + q / beta for same, (q, _) in zip(chosen, following, strict=True)
        ]
        total = float(np.logaddexp.reduce(tilted))
        for same, logit in zip(chosen, tilted, strict=True):
            best[same] += logit - total
        return beta * total, reached[0]

    def outcomes(rows: list[int], number: int, at: int) -> tuple[float, float]:
        """The mean of V over what may follow the token at place `at`, and its weight."""

        def what_follows(row: int) -> bytes | None:
            if number + 1 == len(places[row]):
                return None  # the episode ends
            return talks.tokens[row, at : places[row][number + 1]].tobytes()

        total = reached = 0.0
        for same in _split(rows, what_follows):
            if what_follows(same[0]) is None:
                v, weight = float(talks.rewards[same[0]]), float(weights[same[0]])
            else:
                v, weight = value(same, number + 1)
            total, reached = total + weight * v, reached + weight
        return total / reached, reached

    outcomes(list(range(len(talks))), -1, 0)
    return best


def _split(rows: list[int], by: Callable[[int], Any]) -> list[list[int]]:
    """The rows in lists of equal `by`."""
    lists: dict[Any, list[int]] = {}
    for row in rows:
        lists.setdefault(by(row), []).append(row)
    return list(lists.values())


def expected_return(logprobs: ArrayLike, rewards: ArrayLike) -> float:
    """E_pi[r], the sum of pi(y) r(y) over all answers y; arrays of shape (n,)."""
    return float(np.exp(_floats(logprobs)) @ _floats(rewards))


def kl_divergence(logprobs: ArrayLike, ref_logprobs: ArrayLike) -> float:
    """KL(pi || pi_ref) of whole answers in nats: the sum of pi (log pi - log pi_ref)."""
    own, ref = _floats(logprobs), _floats(ref_logprobs)
    given = own > -np.inf  # 0 log 0 is 0, but numpy would make it NaN
    return float(np.exp(own[given]) @ (own[given] - ref[given]))


def objective(
    logprobs: ArrayLike, rewards: ArrayLike, ref_logprobs: ArrayLike, beta: float
) -> float:
    """E_pi[r] - beta KL(pi || pi_ref)."""
    return expected_return(logprobs, rewards) - beta * kl_divergence(logprobs, ref_logprobs)


def optimum(ref_logprobs: ArrayLike, rewards: ArrayLike, beta: float) -> Floats:
    """Log-probabilities of the policy that maximises `objective`, shape (n,).

        pi*(y) = pi_ref(y) exp(r(y) / beta) / Z

    Its objective is beta log Z. Ziegler et al. (2019), arXiv:1909.08593, section 2; Rafailov et
    al. (2023), arXiv:2305.18290, appendix A.1.
    """
    tilted = _floats(ref_logprobs) + _floats(rewards) / beta
    # log Z by logaddexp: exp(r / beta) overflows for a small beta.
    return tilted - float(np.logaddexp.reduce(tilted))


def regret(logprobs: ArrayLike, rewards: ArrayLike, ref_logprobs: ArrayLike, beta: float) -> float:
    """How far `objective` is below its maximum; never negative."""
    best = optimum(ref_logprobs, rewards, beta)
    arguments = (rewards, ref_logprobs, beta)
    return objective(best, *arguments) - objective(logprobs, *arguments)


def total_variation(logprobs: ArrayLike, other: ArrayLike) -> float:
    """Half the sum of |pi - other|: the largest difference in the probability of any event."""
    return float(np.abs(np.exp(_floats(logprobs)) - np.exp(_floats(other))).sum() / 2)


def gradient_weights(
    logprobs: ArrayLike,
    rewards: ArrayLike,
    ref_logprobs: ArrayLike | None = None,
    beta: float = 0.0,
) -> Floats:
    """The factor of each answer's log-probability gradient, shape (n,).

        gradient of the objective = sum of pi(y) (r(y) - beta log(pi(y) / pi_ref(y))) grad log pi(y)

    `(weights * logprobs).sum().backward()` is therefore the exact gradient in any framework. The
    KL's own -beta is left out: it multiplies the gradient of a sum that is always 1.
    """
    own = _floats(logprobs)
    scores = _floats(rewards)
    if ref_logprobs is not None:
        scores = scores - beta * (own - _floats(ref_logprobs))
    return np.exp(own) * scores


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)
