"""A reward on one made-up episode, before anything that takes long is done for it."""

from dataclasses import replace
from typing import Any

import numpy as np

from textenv.episode import LENGTH, STOP, Episode
from textenv.errors import RewardError, TokenizerError
from textenv.masks import token_marks
from textenv.prompts import Prompt
from textenv.reward_terms import weigh
from textenv.rewards import StepBatch, call_on_episodes, call_on_steps, reward_terms
from textenv.tokenizers import Tokenizer, encode_prompt, load_tokenizer, stop_tokens_of

ANSWER = "An answer."


def try_reward(reward: Any, prompt: Prompt, tokenizer: Tokenizer | str = "bytes") -> None:
    """Have `reward` score one made-up answer, such as "An answer.", and throw the score away.

    The commands do so first of all, so that a reward that cannot work costs a second and not a
    training. It is called once. A reward that counts its calls sees one more.

    Args:
        reward: Anything that an environment takes as a reward.
        prompt: A real one, so that the reward sees the columns it will see.
        tokenizer: That of the policy, for rewards that read ids.

    Raises:
        RewardError: The reward raised, or did not return one finite number.
        ObjectNotFoundError: `reward` is a string that does not name an object.
    """
    tokenizer = load_tokenizer(tokenizer)
    episode = _made_up(prompt, tokenizer)
    ids = np.concatenate([episode.prompt_tokens, episode.tokens])
    step = StepBatch(
        tokens=ids[None],
        lengths=np.array([len(ids)]),
        prompt_lengths=np.array([len(episode.prompt_tokens)]),
        actions=ids[-1:],
        ended=np.array([True]),
        tokenizer=tokenizer,
        prompts=[replace(prompt, text=episode.prompt)],
        is_stop=token_marks(stop_tokens_of(tokenizer), tokenizer.vocab_size, "stop_tokens"),
    )
    try:
        for term in reward_terms(reward):
            if term.dense:
                weigh(term, call_on_steps(term, step), step)
            else:
                weigh(term, call_on_episodes(term, [episode]), [episode])
    except RewardError as error:
        raise type(error)(f"tried on a made-up episode: {error}") from error.__cause__


def _made_up(prompt: Prompt, tokenizer: Tokenizer) -> Episode:
    stop = [] if tokenizer.stop_token is None else [tokenizer.stop_token]
    start = encode_prompt(tokenizer, prompt.text) if prompt.tokens is None else prompt.tokens
    try:
        answer = tokenizer.encode(ANSWER)
    except TokenizerError:  # a small alphabet; but it can write the prompt
        answer = list(start)
    return Episode(
        prompt=prompt.text or tokenizer.decode(list(start)),
        prompt_tokens=np.array(start, dtype=np.int64),
        tokens=np.array([*answer, *stop], dtype=np.int64),
        finish_reason=STOP if stop else LENGTH,
        columns=prompt.columns,
        tokenizer=tokenizer,
    )
