"""The network and the caches that the actor-critic and the features extractor share."""

from typing import Any

import torch
from torch import Tensor

from policies import Policy, PrefixCache, TransformerConfig, TransformerPolicy


def seed_from_torch() -> int:
    """A seed that follows from torch's own, which SB3 sets."""
    return int(torch.randint(2**31, ()))


def new_policy(vocab_size: int, length: int, shape: dict[str, Any]) -> TransformerPolicy:
    """A `TransformerPolicy` of `shape` for observations of `length` tokens."""
    config = TransformerConfig(vocab_size=vocab_size, context=length, **shape)
    return TransformerPolicy(config, seed=seed_from_torch())


def cache_for(caches: dict[int, PrefixCache], policy: Policy, observations: Tensor) -> PrefixCache:
    """The cache for this many rows (n, L); a new one is made and kept if there is none yet."""
    rows, length = observations.shape
    if rows not in caches:
        caches[rows] = policy.new_cache(rows, length)
    return caches[rows]
