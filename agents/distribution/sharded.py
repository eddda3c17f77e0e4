"""Networks that no rank holds as a whole: `fully_shard` of torch (FSDP2).

Each rank holds a part of every parameter, of its gradient and of the optimiser's moments (Zhao et
al., "PyTorch FSDP", 2023, arXiv:2304.11277; Rajbhandari et al., "ZeRO", 2020, arXiv:1910.02054,
stage 3). A block's parameters are gathered when the block is computed, and given up behind it.
"""

import copy
import ctypes
import os
import platform
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from agents.distribution.gathering import COPY
from agents.distribution.ranks import Ranks
from policies import Policy
from textenv.errors import UnmetNeedError

P = TypeVar("P", bound=Policy)

KEPT = 2**18
"""Bytes of the largest block that glibc may keep when it is freed."""

READS = ("outputs", "hidden_before", "hidden_states")
"""Methods of a policy in which its blocks are computed."""


def shard(policy: Policy) -> Policy:
    """Divide a policy's parameters among the ranks of the process group; returns it.

    To be called before a learner, or an optimiser, is made of it, and alike on every rank. Frozen
    policies, such as references, can be sharded too; they are copied before.

    Args:
        policy: Ours, one of transformers, with an adapter or without, or one of your own: each
            module of a `ModuleList` is gathered by itself, and all the rest together.

    Raises:
        UnmetNeedError: There is no process group, or the policy is sharded already.
    """
    if not dist.is_initialized():
        raise UnmetNeedError(
            "there is no process group to share the parameters with: call "
            "torch.distributed.init_process_group() first"
        )
    if COPY in vars(policy):
        raise UnmetNeedError("this policy is sharded already")
    return_freed_memory()
    Ranks.found().copy_from_first(policy)
    plain = emptied_copy(policy)
    for block in _blocks(policy):
        fully_shard(block)
    fully_shard(policy, reshard_after_forward=False)
    for name in READS:
        register_fsdp_forward_method(policy, name)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            # Sums, not means: each rank's loss is that of the whole batch.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    vars(policy)[COPY] = [plain]  # in a list, so that it is no part of the network
    return policy


def emptied_copy(policy: P) -> P:
    """The same network without weights, for `gathering.gathered` to fill."""
    nothing = {id(p): nn.Parameter(p.new_empty(0), p.requires_grad) for p in policy.parameters()}
    return copy.deepcopy(policy, cast(dict[int, Any], nothing)).requires_grad_(False)


def return_freed_memory() -> None:
    """Let glibc give freed tensors back to the system, as it does in programs that free few.

    It keeps blocks of up to 32 MB, a network's matrices among them, once one as large was freed: a
    rank would hold what it gathered long after it has given it up. `MALLOC_MMAP_THRESHOLD_` in the
    environment is left as it is; other libraries of C are left alone.
    """
    if platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        m_mmap_threshold = -3  # its number in malloc.h
        ctypes.CDLL(None).mallopt(m_mmap_threshold, KEPT)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of the outermost lists of modules: a network's blocks."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
