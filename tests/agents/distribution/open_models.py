"""Trainings of tiny models of Hugging Face, whole or sharded, with an adapter or without."""

import itertools
from typing import Any

import numpy as np
import torch
from published import publish

from agents import GRPO, Learner
from agents.distribution.gathering import full, gathered
from agents.distribution.sharded import shard
from policies import HuggingFacePolicy
from textenv import TextVectorEnv

CASES = list(itertools.product(("gpt2", "llama"), (False, True)))
"""Family, and whether an adapter is trained."""


def publish_all(folder: str) -> None:
    for family in ("gpt2", "llama"):
        publish(f"{folder}/{family}", family, context=32)


def trained(folder: str, family: str, adapter: bool, sharded: bool) -> dict[str, Any]:
    """Three updates: tokens, losses, and the weights that were trained."""
    policy = HuggingFacePolicy.from_pretrained(f"{folder}/{family}")
    # The output head is a matrix of its own in one of them, and the token embedding in the other.
    reference: Any = policy.frozen_copy()
    if adapter:
        from peft import LoraConfig

        torch.manual_seed(0)
        policy.add_adapter(LoraConfig(r=2, target_modules="all-linear"))
        reference = policy.reference()  # the same weights without it
    envs = TextVectorEnv(
        8,
        prompts=["ab", "c"],
        reward=lambda episodes: [float(np.mean(e.tokens % 2 == 0)) for e in episodes],
        tokenizer=policy.tokenizer,
        max_new_tokens=6,
        group_size=2,
    )
    if sharded:
        shard(policy)
        if not adapter:
            shard(reference)
    learner = Learner(
        policy,
        envs,
        GRPO(n_epochs=2),
        reference=reference,
        kl_coef=0.05,
        n_episodes=8,
        learning_rate=1e-3,
        seed=0,
    )
    updates = [learner.update() for _ in range(3)]
    with gathered(policy) as plain:
        saved = f"{folder}/{family}-{adapter}-{sharded}-{torch.distributed.get_world_size()}"
        if torch.distributed.get_rank() == 0:
            plain.save(saved)
        torch.distributed.barrier()
        base = HuggingFacePolicy.from_pretrained(f"{folder}/{family}").model if adapter else None
        again = HuggingFacePolicy.load(saved, model=base)
        tokens = torch.arange(10)[None]
        mask = tokens > 0
        found, read = (p.outputs(tokens, mask).logprobs for p in (plain, again))
    return {
        "tokens": [update.rollout.tokens for update in updates],
        "losses": [update.metrics["loss"] for update in updates],
        "weights": torch.cat([full(p).flatten() for p in learner.trained]),
        "saved": torch.equal(found, read),
    }


def all_of(folder: str, sharded: bool) -> dict[Any, Any]:
    return {case: trained(folder, *case, sharded) for case in CASES}
