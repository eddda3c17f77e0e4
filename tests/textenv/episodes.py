"""Episodes and a batch of steps, by hand, for the tests of rewards."""

import numpy as np

from textenv.episode import Episode
from textenv.rewards import RewardTerm, StepBatch, call_on_episodes, reward_terms
from textenv.tokenizers.bytes import BytesTokenizer

BYTES = BytesTokenizer()
STOP, PAD = BYTES.stop_token, BYTES.vocab_size


def episode(prompt: str, answer: str, stop: bool = False, columns=None) -> Episode:
    return Episode(
        prompt=prompt,
        prompt_tokens=np.array(BYTES.encode(prompt), dtype=np.int64),
        tokens=np.array(BYTES.encode(answer) + [STOP] * stop, dtype=np.int64),
        finish_reason="stop" if stop else "length",
        columns=columns or {},
        tokenizer=BYTES,
    )


EPISODES = [episode("ab", "xyz"), episode("c", "hello", stop=True)]


def step_batch() -> StepBatch:
    """Two rows: "ab" and "xe" in progress, "c" and "h" just stopped."""
    return StepBatch(
        tokens=np.array([[97, 98, 120, 101, PAD], [99, 104, STOP, PAD, PAD]]),
        lengths=np.array([4, 3]),
        prompt_lengths=np.array([2, 1]),
        actions=np.array([101, STOP]),
        ended=np.array([False, True]),
        tokenizer=BYTES,
    )


def lengths(episodes):
    """A reward: the number of characters of the answer."""
    return [len(e.text) for e in episodes]


def only_term(reward) -> RewardTerm:
    (term,) = reward_terms(reward)
    return term


def score(reward, episodes=EPISODES) -> list[float]:
    return call_on_episodes(only_term(reward), episodes).tolist()
