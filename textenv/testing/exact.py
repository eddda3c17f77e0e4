"""Exact results, for environments so small that all of their answers can be listed.

With a vocabulary of 4 to 6 tokens and 3 to 5 steps, the expected return, the KL and the gradient
of any policy are sums over a few hundred answers. The best policy under a KL leash is known in
closed form. An algorithm is right if its gradient estimates average to the exact gradient and its
training ends at that policy. Not covered: discounts, environments that insert tokens.

A policy is passed as the log-probabilities of the answers, shape (n,), from any framework:

    answers = enumerate_answers(env, "a")
    tokens, mask = torch.from_numpy(answers.tokens), torch.from_numpy(answers.mask)
    logprobs = policy.outputs(tokens, mask).logprobs.sum(1)
    expected_return(logprobs.detach().numpy(), answers.rewards)
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from textenv.errors import TextEnvError

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
