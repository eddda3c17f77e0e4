"""Layers of one network on several processes: tensor parallel, by the plan of transformers.

Each matrix of a layer is divided among the processes, by its rows or by its columns, and each of
them computes its part of every token (Shoeybi et al., "Megatron-LM", 2019, arXiv:1909.08053). All
therefore read the same rows, where processes otherwise divide these among themselves.
"""

from typing import TypeVar

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from agents.distribution.gathering import COPY
from agents.distribution.ranks import Ranks
from agents.distribution.sharded import emptied_copy, return_freed_memory
from policies import HuggingFacePolicy
from textenv.errors import UnmetNeedError

LAYERS = ".layers."
"""Part of the names of what is divided: heads and embeddings are read as a whole elsewhere."""

P = TypeVar("P", bound=HuggingFacePolicy)


def split(policy: P) -> P:
    """Divide the layers of a model of Hugging Face among the processes; returns the policy.

    To be called before a learner, or an optimiser, is made, and alike on every process. From then
    on all processes of the group read every row. The embedding and the output head stay whole, and
    so do norms. A rollout is played by a plain copy with all weights, as that of a sharded network.

    Args:
        policy: Its number of key heads is a multiple of the number of processes, and it has no
            adapter.

    Raises:
        UnmetNeedError: There is no process group, transformers has no plan for the model, the heads
            cannot be divided, or the policy has an adapter or is divided already.
    """
    if not dist.is_initialized():
        raise UnmetNeedError(
            "there is no process group to share the layers with: call "
            "torch.distributed.init_process_group() first"
        )
    if COPY in vars(policy):
        raise UnmetNeedError("this policy is divided already")
    model, size = policy.model, dist.get_world_size()
    if hasattr(model, "peft_config"):
        raise UnmetNeedError(
            "layers with an adapter are not split: train all weights, or divide the policy by "
            "agents.distribution.sharded.shard(policy)"
        )
    if not any(LAYERS in name for name in model.tp_plan or {}):
        raise UnmetNeedError(
            f"transformers has no tensor-parallel plan for {type(model).__name__}: divide the "
            "policy by agents.distribution.sharded.shard(policy)"
        )
    heads = model.config.get_text_config().num_key_value_heads
    if heads % size:
        raise UnmetNeedError(f"{heads} key heads cannot be divided among {size} processes")
    # Only of those versions of transformers whose plans are DTensors.
    from transformers.distributed import DistributedConfig
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    return_freed_memory()
    Ranks.found().copy_from_first(policy)
    plain = emptied_copy(policy)
    plan, _, _ = model._resolve_parallel_plans(DistributedConfig(tp_plan="auto", tp_size=size))
    layers = {name: style for name, style in plan.items() if LAYERS in name}
    apply_tensor_parallelism(model, init_device_mesh(policy.device.type, (size,)), layers)
    vars(policy)[COPY] = [plain]
    Ranks.read_alike()
    return policy
