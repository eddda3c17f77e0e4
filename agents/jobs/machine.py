"""Where and how a job computes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from agents.commands.shared import Machine, Sharded
from agents.distribution.gathering import gathered
from policies import Policy
from policies.adapter_view import AdapterView
from policies.compression import int8
from policies.huggingface.base import TransformersPolicy
from textenv.errors import DeviceError, OptionError

P = TypeVar("P", bound=Policy)


def device_named(name: str) -> torch.device:
    """The device of that name, once it has shown that it is there.

    Raises:
        DeviceError: It is not the name of one, or this machine or this torch cannot use it.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"{name!r} is not the name of a device: take cpu, cuda, cuda:1 or mps"
        ) from error
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu"]
        there += [f"cuda:{n}" for n in range(torch.cuda.device_count())]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise DeviceError(
            f"the device {name!r} cannot be used here ({str(error).splitlines()[0]}); there is "
            f"{', '.join(there)}"
        ) from error
    return device


def divided(policy: P, sharded: Sharded, *references: Policy) -> P:
    """The policy, divided among processes if that was asked for; references are divided with it.

    Those that share the policy's weights are divided by that already.

    Raises:
        OptionError: There is one process.
    """
    if not sharded.shard:
        return policy
    if not dist.is_initialized():
        raise OptionError(
            "--shard divides a network among processes, and this is a single one: begin with "
            "torchrun --nproc-per-node N -m textenv, or leave it out"
        )
    from agents.distribution.sharded import shard  # FSDP takes a second: only where needed

    shard(policy)
    for reference in references:
        if not isinstance(reference, AdapterView):
            shard(reference)
    return policy


@contextmanager
def undivided(policy: Policy, reference: Policy) -> Iterator[tuple[Policy, Policy]]:
    """Within it a policy and its reference have all their weights; themselves if not divided."""
    with gathered(policy) as whole, gathered(reference) as other:
        if whole is not policy and isinstance(reference, AdapterView):
            assert isinstance(whole, TransformersPolicy)  # which has the adapter
            other = whole.reference()
        yield whole, other


def faster_in_bfloat16(device: torch.device) -> bool:
    """Whether products of matrices take less time in bfloat16 here than in float32.

    Measured, since no version of torch says so of every device: where a processor cannot multiply
    in bfloat16, they take ten times as long.
    """

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(512, 512, dtype=dtype, device=device)
        begin = time.perf_counter()
        for _ in range(4):
            product = matrix @ matrix
        product.sum().item()  # waits for the device
        return time.perf_counter() - begin

    # The first time of each prepares; the least time is the one that nothing else took part in.
    half, single = (min(seconds(d) for _ in range(4)) for d in (torch.bfloat16, torch.float32))
    return half < single


def to_machine(policy: Policy, machine: Machine) -> Policy:
    """The policy on its device, its weights in the precision that was asked for.

    For policies that only answer. Those that learn keep their weights in float32.

    Raises:
        DeviceError: The device cannot be used.
        MissingExtraError: int8 was asked for, and torchao is not installed.
    """
    device = device_named(machine.device)
    precision: str = machine.precision
    if precision == "int8":
        return int8(policy.to(device))
    return policy.to(device, getattr(torch, precision))
