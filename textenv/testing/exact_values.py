"""Exact values of states and actions, where all answers can be listed.

A state is what the agent has read: the prompt and the tokens so far. Values are found backwards
over the beginnings of answers (dynamic programming; Bellman, 1957):

    Q(s, a) = value of the answer, if it ends with a;   gamma V(s a) otherwise
    V(s) = sum over a of pi(a | s) Q(s, a)

and with `beta` those of the best policy under a KL leash, which soft Q-learning looks for:

    V(s) = beta log sum over a of ref(a | s) exp(Q(s, a) / beta)

Use them to check a critic or an action-value function token by token. Rewards are paid at the end
of an answer; answers are those of `enumerate_answers`, so there is no world that draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textenv.testing.exact import Answers, Floats

State = tuple[int, ...]
"""The prompt's ids and those of the answer so far."""


@dataclass(frozen=True)
class Values:
    """Exact values, by state.

    Attributes:
        states: The value of each state in which the agent chooses.
        actions: The value of each action that can be chosen there.
    """

    states: dict[State, float]
    actions: dict[State, dict[int, float]]

    def before(self, answers: Answers) -> Floats:
        """The value of the state before each token of `mask`, shape (n, L); 0 elsewhere.

        It is what a critic should give: `policy.outputs(tokens, mask).values` has this form.
        """
        found = np.zeros(answers.tokens.shape)
        for row, place in zip(*np.nonzero(answers.mask), strict=True):
            found[row, place] = self.states[_state(answers.tokens[row], int(place))]
        return found

    def of_chosen(self, answers: Answers) -> Floats:
        """The value of each chosen token, shape (n, L); 0 elsewhere."""
        found = np.zeros(answers.tokens.shape)
        for row, place in zip(*np.nonzero(answers.mask), strict=True):
            state = _state(answers.tokens[row], int(place))
            found[row, place] = self.actions[state][int(answers.tokens[row, place])]
        return found


def exact_values(
    answers: Answers, logprobs: ArrayLike, *, gamma: float = 1.0, beta: float | None = None
) -> Values:
    """The values of all states, by recursion from the ends of the answers.

    Args:
        answers: All answers to one prompt.
        logprobs: Log-probability of each chosen token under the policy, shape (n, L), as in
            `policy.outputs(tokens, mask).logprobs`; with `beta` under the reference.
        gamma: Discount of a step.
        beta: Weight of the KL; None for the values of the policy itself. The rewards are then
            those of an episode whose KL penalty counts.

    Raises:
        ValueError: The shapes differ, or the probabilities of a state do not sum to 1: an answer is
            missing, or the log-probabilities are those of another environment.
    """
    logits = np.asarray(logprobs, dtype=np.float64)
    if logits.shape != answers.tokens.shape:
        raise ValueError(
            f"log-probabilities have shape {logits.shape}, the tokens {answers.tokens.shape}"
        )
    chances: dict[State, dict[int, float]] = {}
    actions: dict[State, dict[int, float]] = {}
    for row, (tokens, mask) in enumerate(zip(answers.tokens, answers.mask, strict=True)):
        places = np.flatnonzero(mask)
        for place in places:
            state, token = _state(tokens, int(place)), int(tokens[place])
            chances.setdefault(state, {})[token] = float(logits[row, place])
        last = int(places[-1])
        actions.setdefault(_state(tokens, last), {})[int(tokens[last])] = float(
            answers.rewards[row]
        )
    states: dict[State, float] = {}
    # Longest first: whatever follows a state is known when the state's turn comes.
    for state in sorted(chances, key=len, reverse=True):
        known = actions.setdefault(state, {})
        for token in chances[state]:
            if token not in known:
                known[token] = gamma * states[(*state, token)]
        chosen = np.array([chances[state][token] for token in known])
        worth = np.array([*known.values()])
        total = np.exp(chosen).sum()
        if abs(total - 1) > 1e-3:
            raise ValueError(
                f"the probabilities behind the state {state} sum to {total:.4f}: give the "
                "log-probabilities of these answers, and all answers"
            )
        if beta is None:
            states[state] = float(np.exp(chosen) @ worth)
        else:
            states[state] = float(beta * np.logaddexp.reduce(chosen + worth / beta))
    return Values(states, actions)


def _state(tokens: NDArray[np.int64], place: int) -> State:
    return tuple(tokens[:place].tolist())
