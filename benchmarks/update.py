"""One epoch of an update: the learner against a hand-written loop over a padded batch.

Model S, 32 sequences with 2,048 answer tokens in all, and model M with 8, policy-gradient loss,
AdamW, fp32.
The peer is what one writes without this library: pad the batch, full logits, log_softmax, backward,
step. "varied" sequences have 8 to 64 answer tokens. Also printed: the share of padding in what each
side computes, and the peak memory of one update.

Run: taskset -c 0 python -m benchmarks.update --threads 1
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim import AdamW

from agents import Learner
from agents.algorithms import GRPO
from benchmarks.common import (
    MAX_ANSWER,
    MIN_ANSWER,
    ROWS,
    Ids,
    as_gpt2,
    interleaved,
    make_policy,
    median,
    random_prompts,
    ratio,
    run_on_models,
)
from benchmarks.peers import STOP, let_it_stop
from textenv import TextVectorEnv

SEQUENCES = {"S": 32, "M": 8}
"""Number of fixed answers in an update, so that a round takes seconds; varied ones are doubled."""


def a_learner(model: str, varied: bool):
    """A learner and a rollout it collected."""
    policy = make_policy(model)
    if varied:
        let_it_stop(policy, (MIN_ANSWER + MAX_ANSWER) / 2)
    envs = TextVectorEnv(
        ROWS,
        prompts=[{"tokens": p} for p in random_prompts(256, policy.vocab_size)],
        reward=lambda episodes: np.random.default_rng(0).normal(size=len(episodes)),
        tokenizer=Ids(policy.vocab_size),
        max_new_tokens=MAX_ANSWER,
        stop_tokens=[STOP] if varied else [],
        group_size=8,
    )
    learner = Learner(
        policy,
        envs,
        GRPO(),
        learning_rate=1e-6,
        optimizer=AdamW,
        n_episodes=SEQUENCES[model] * (2 if varied else 1),
    )
    return learner, learner.collect()


def learner_rate(learner, rollout):
    """Chosen tokens per second of the learner's epoch."""

    def run() -> float:
        begin = time.perf_counter()
        learner.learn_from(rollout)
        return rollout.num_tokens / (time.perf_counter() - begin)

    return run


def plain_rate(policy, rollout):
    """Chosen tokens per second of the padded loop on the same sequences."""
    model = as_gpt2(policy)
    optimizer = AdamW(model.parameters(), lr=1e-6)
    tokens = rollout.tokens[:, : int((rollout.tokens != policy.pad_token).sum(1).max())]
    padding = tokens == policy.pad_token
    ids = tokens.masked_fill(padding, 0)
    mask = rollout.mask[:, 1 : tokens.shape[1]]
    advantages = torch.randn(len(tokens), 1)

    def run() -> float:
        begin = time.perf_counter()
        logits = model(input_ids=ids, attention_mask=(~padding).long()).logits[:, :-1]
        logprobs = F.log_softmax(logits, -1).gather(2, ids[:, 1:, None]).squeeze(2)
        ratios = torch.exp(logprobs - logprobs.detach())
        loss = -(ratios * advantages * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return rollout.num_tokens / (time.perf_counter() - begin)

    return run


def measure(models: Sequence[str], repeats: int) -> Iterator[dict[str, Any]]:
    """Rows of the table: each model, both kinds of answers."""
    for model in models:
        for varied in (False, True):
            learner, rollout = a_learner(model, varied)
            sides = {
                "textenv": learner_rate(learner, rollout),
                "padded loop": plain_rate(learner.policy, rollout),
            }
            figures = interleaved(sides, repeats)
            useful = int((rollout.tokens != learner.policy.pad_token).sum())
            longest = int((rollout.tokens != learner.policy.pad_token).sum(1).max())
            yield {
                "model": model,
                "answers": "varied" if varied else "fixed",
                "answer tokens": rollout.num_tokens,
                "textenv tokens/s": median(figures["textenv"]),
                "padded loop tokens/s": median(figures["padded loop"]),
                "ratio": ratio(figures, "textenv", "padded loop"),
                "padding of the loop": 1 - useful / (len(rollout) * longest),
            }


if __name__ == "__main__":
    run_on_models("update", __doc__, measure)
