"""Where and how a job computes."""

import time

import torch

from agents.commands.shared import Machine
from policies import Policy
from textenv.errors import DeviceError


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
    """
    return policy.to(device_named(machine.device), getattr(torch, machine.precision))
