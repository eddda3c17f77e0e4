"""The process group of a command that torchrun has started in several processes."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from textenv.errors import OptionError

TIMEOUT = "TEXTENV_TIMEOUT"
"""Variable of the environment: seconds after which a process that is waited for is lost."""


def start_of_torchrun() -> str | None:
    """What only this start of torchrun has on this machine, all its restarts alike.

    None without torchrun. Its run id will not do: it is "none" for most, and may be given again.
    """
    # The folder of torchrun's logs has a random name; a rank's file lies in it, in the folder of
    # the attempt and of the rank.
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return str(Path(file).parents[2]) if file else None


def is_restart() -> bool:
    """Whether torchrun has started these processes again, after one of them died."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def timeout() -> timedelta | None:
    """How long processes wait for one another, if `TIMEOUT` in the environment says so.

    Raises:
        OptionError: It is not a number of seconds.
    """
    told = os.environ.get(TIMEOUT)
    if told is None:
        return None
    try:
        found = timedelta(seconds=float(told))
    except (ValueError, OverflowError):  # centuries are too much, too
        found = timedelta()
    if found <= timedelta():
        raise OptionError(f"{TIMEOUT} is {told!r}; it is a number of seconds, above 0")
    return found


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within it the processes of torchrun know each other; a single process is left alone.

    They speak by gloo on CPUs and by NCCL on GPUs, of which each has the one of its local rank.
    Only the first one prints. What ends one of them is told to torchrun, which ends the others.

    Raises:
        OptionError: See `timeout`.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or dist.is_initialized():
        yield
        return
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=timeout())
    reasons = get_error_handler()
    reasons.initialize()
    with contextlib.ExitStack() as until_left:
        if dist.get_rank() > 0:
            silent = until_left.enter_context(open(os.devnull, "w", encoding="utf-8"))
            until_left.enter_context(contextlib.redirect_stdout(silent))
        try:
            yield
        except Exception as error:
            reasons.record_exception(error)
            raise  # without a farewell, for which the others might never come
    dist.destroy_process_group()
