"""Rollout: `envs.step` + `policy.act` against Hugging Face `generate` and a bare decode loop.

Same weights, same prompts, 32 rows, fp32. "varied" answers have 8 to 64 tokens, "fixed" ones 64;
the lengths are drawn beforehand, the same for both sides. Only useful tokens count.

Run: taskset -c 0 python -m benchmarks.rollout --threads 1
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.common import (
    MAX_ANSWER,
    MIN_ANSWER,
    ROWS,
    Ids,
    as_gpt2,
    interleaved,
    make_policy,
    median,
    no_reward,
    random_prompts,
    ratio,
    run_on_models,
)
from policies import TransformerPolicy
from policies.cache import Plan
from policies.sampling import sample
from textenv import TextVectorEnv


class PlannedLengths(TextVectorEnv):
    """Answers end at given lengths, one after the other, as if a stop token had been chosen there.

    Args:
        lengths: Tokens of each answer that begins, from the first on again and again; while it is
            empty they have the environment's budget.
    """

    def __init__(self, lengths: Sequence[int], **kwargs):
        super().__init__(ROWS, **kwargs)
        self.lengths, self.begun = lengths, 0

    def _fill(self, rows, starts, opened):
        super()._fill(rows, starts, opened)
        for row in rows.tolist() if len(self.lengths) else ():
            self._texts.limit_turn(row, int(self.lengths[self.begun % len(self.lengths)]))
            self.begun += 1


def textenv_rate(policy: TransformerPolicy, prompts, lengths, tokens: int):
    """Tokens per second of stepping; the environment runs on from call to call."""
    envs = PlannedLengths(
        lengths,
        prompts=[{"tokens": p} for p in prompts],
        reward=no_reward,
        tokenizer=Ids(policy.vocab_size),
        max_new_tokens=MAX_ANSWER,
    )
    observations, _ = envs.reset(seed=0)
    cache = policy.new_cache(ROWS, observations.shape[1])
    state = {"observations": observations}

    def run() -> float:
        observations = state["observations"]
        steps = max(1, tokens // ROWS)
        begin = time.perf_counter()
        for _ in range(steps):
            step = policy.act(observations, cache)
            observations, *_ = envs.step(step.actions)
        seconds = time.perf_counter() - begin
        state["observations"] = observations
        return steps * ROWS / seconds

    return run


def generate_rate(model, prompts, lengths, tokens: int):
    """Useful tokens per second of `generate`, batch after batch of 32 left-padded prompts."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Planned(StoppingCriteria):
        def __init__(self, ends):
            self.ends = ends

        def __call__(self, input_ids, scores, **kwargs):
            return input_ids.shape[1] >= self.ends

    state = {"next": 0}

    def batch() -> int:
        numbers = (state["next"] + np.arange(ROWS)) % len(prompts)
        state["next"] += ROWS
        chosen = [prompts[n] for n in numbers]
        answer = torch.from_numpy(lengths[numbers % len(lengths)])
        width = max(map(len, chosen))
        ids = torch.zeros(ROWS, width, dtype=torch.long)
        attention = torch.zeros(ROWS, width, dtype=torch.long)
        for row, prompt in enumerate(chosen):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            attention[row, width - len(prompt) :] = 1
        model.generate(
            input_ids=ids,
            attention_mask=attention,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            eos_token_id=None,
            max_new_tokens=int(answer.max()),
            stopping_criteria=StoppingCriteriaList([Planned(width + answer)]),
        )
        return int(answer.sum())

    return batches_rate(batch, tokens)


def bare_rate(policy: TransformerPolicy, prompts, tokens: int):
    """Tokens per second of a decode loop with the same kernels and sampler and no environment."""
    state = {"next": 0}
    generator = np.random.default_rng(0)

    @torch.inference_mode()
    def batch() -> int:
        numbers = (state["next"] + np.arange(ROWS)) % len(prompts)
        state["next"] += ROWS
        chosen = [prompts[n] for n in numbers]
        store = policy.new_store(ROWS)
        counts = np.array([len(p) for p in chosen])
        plan = Plan(
            np.concatenate(chosen),
            np.repeat(np.arange(ROWS), counts),
            np.concatenate([np.arange(c) for c in counts]),
            counts,
        )
        ones = np.ones(ROWS, dtype=np.int64)
        for step in range(MAX_ANSWER):
            logits = policy.logits(policy.extend(store, plan))
            actions, _ = sample(logits, generator.random(ROWS))
            plan = Plan(actions, np.arange(ROWS), counts + step, ones)
        return ROWS * MAX_ANSWER

    return batches_rate(batch, tokens)


def batches_rate(batch, tokens: int):
    """Tokens per second of batches that return how many tokens they made."""

    def run() -> float:
        done, begin = 0, time.perf_counter()
        while done < tokens:
            done += batch()
        return done / (time.perf_counter() - begin)

    return run


def measure(models: Sequence[str], repeats: int) -> Iterator[dict[str, Any]]:
    """Rows of the table: each model, both kinds of answers."""
    for name in models:
        policy = make_policy(name)
        model = as_gpt2(policy)
        prompts = random_prompts(512, policy.vocab_size)
        tokens = (4 if name == "S" else 1) * ROWS * MAX_ANSWER
        rng = np.random.default_rng(1)
        for kind in ("varied", "fixed"):
            low = MIN_ANSWER if kind == "varied" else MAX_ANSWER
            lengths = rng.integers(low, MAX_ANSWER + 1, 512)
            sides = {
                "textenv": textenv_rate(policy, prompts, lengths, tokens),
                "generate": generate_rate(model, prompts, lengths, tokens),
            }
            if kind == "fixed":
                sides["bare"] = bare_rate(policy, prompts, tokens)
            figures = interleaved(sides, repeats)
            yield {
                "model": name,
                "answers": kind,
                "textenv tokens/s": median(figures["textenv"]),
                "generate tokens/s": median(figures["generate"]),
                "ratio": ratio(figures, "textenv", "generate"),
                "bare tokens/s": median(figures["bare"]) if "bare" in figures else "",
                "of bare": ratio(figures, "textenv", "bare") if "bare" in figures else "",
            }


if __name__ == "__main__":
    run_on_models("rollout", __doc__, measure)
