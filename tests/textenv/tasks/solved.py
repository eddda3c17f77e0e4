"""Answers to prompts, for the tests of tasks."""

import numpy as np

from textenv.episode import Episode
from textenv.prompts import Prompt
from textenv.rewards import call_on_episodes, reward_terms
from textenv.tokenizers.bytes import BytesTokenizer

BYTES = BytesTokenizer()


def answered(prompt: Prompt, text: str) -> Episode:
    return Episode(
        prompt=prompt.text,
        prompt_tokens=np.array(BYTES.encode(prompt.text), dtype=np.int64),
        tokens=np.array([*BYTES.encode(text), BYTES.stop_token], dtype=np.int64),
        finish_reason="stop",
        columns=prompt.columns,
        tokenizer=BYTES,
    )


def scores(task, prompts, texts) -> list[float]:
    (term,) = reward_terms(task.reward)
    episodes = [answered(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    return call_on_episodes(term, episodes).tolist()
