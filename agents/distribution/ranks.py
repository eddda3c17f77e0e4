"""The processes of a training, and what they tell each other.

All processes run the same program on the same data and come to the same numbers; only passes
through the network and episodes are divided among them. Everything that knows of
`torch.distributed` is in this folder. Without a process group there is one rank, and each method
gives back what it was given.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from textenv.errors import LostProcessError, UnmetNeedError

T = TypeVar("T")

BUCKET = 2**23
"""Gradients are summed in pieces of about this many numbers: few messages, little memory."""


_reading_alike = False


@dataclass(frozen=True)
class Ranks:
    """The processes that train together.

    Attributes:
        rank: Number of this one, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def found(cls) -> Self:
        """Those of torch's default process group; a single one if there is none.

        Raises:
            UnmetNeedError: torchrun started several processes, and no group was made.
        """
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        count = os.environ.get("WORLD_SIZE", "1")
        if count != "1":
            raise UnmetNeedError(
                f"torchrun started {count} processes that do not know each other, so each would "
                "train a policy of its own: call torch.distributed.init_process_group() before the "
                "learner is made"
            )
        return cls()

    @classmethod
    def readers(cls) -> Self:
        """Those that divide rows among themselves: this one alone once all read the same ones."""
        return cls() if _reading_alike else cls.found()

    @staticmethod
    def read_alike() -> None:
        """From now on all processes of the group read every row; see `tensor_parallel.split`."""
        global _reading_alike
        _reading_alike = True

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    # ---------------------------------------------------------------- plain values

    def objects(self, value: T) -> list[T]:
        """The `value` of every rank, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with speaking():
            dist.all_gather_object(values, value)
        return values

    def of_first(self, value: T) -> T:
        """The `value` of rank 0: what all must decide alike, however their processors round."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        with speaking():
            dist.broadcast_object_list(values)
        told: T = values[0]
        return told

    def by_first(self, act: Callable[[], T]) -> T:
        """What rank 0 gets from `act`, which it alone does; an error of its is everyone's.

        Raises:
            LostProcessError: On the other ranks, if `act` raised on rank 0.
        """
        if self.size == 1:
            return act()
        told: tuple[Any, str] = (None, "")
        if self.first:
            try:
                told = (act(), "")
            except Exception as error:
                self.of_first((None, f"{type(error).__name__}: {error}"))
                raise
        result, wrong = self.of_first(told)
        if wrong:
            raise LostProcessError(f"in the first process: {wrong}")
        done: T = result
        return done

    def total(self, number: int) -> int:
        """The sum of the ranks' numbers."""
        return self._reduced(number, dist.ReduceOp.SUM)

    def _reduced(self, number: int, operation: Any) -> int:
        if self.size == 1:
            return number
        numbers = torch.tensor([number], device=_plain_device())
        with speaking():
            dist.all_reduce(numbers, operation)
        return int(numbers)

    def numbers_later(self, *own: int) -> Callable[[], list[tuple[int, ...]]]:
        """The numbers of every rank, asked for now; what is returned waits for them."""
        if self.size == 1:
            return lambda: [own]
        numbers = torch.zeros(self.size, len(own), dtype=torch.int64, device=_plain_device())
        numbers[self.rank] = torch.tensor(own)
        with speaking():
            asked = dist.all_reduce(numbers, async_op=True)

        def answer() -> list[tuple[int, ...]]:
            with speaking():
                asked.wait()
            return [tuple(row) for row in numbers.tolist()]

        return answer

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return self._reduced(number, dist.ReduceOp.MAX)

    def wait(self) -> None:
        """Wait until every rank has come here."""
        self.total(0)

    def check_same(self, **values: Any) -> None:
        """Refuse processes that were told different things.

        Raises:
            UnmetNeedError: A value is not the same in all.
        """
        of_all = self.objects(values)
        for name, value in values.items():
            if any(others[name] != value for others in of_all):
                given = [others[name] for others in of_all]
                raise UnmetNeedError(
                    f"{name} is {given} in the {self.size} processes; it must be the same in all: "
                    "they share one training, and the rows of each have seeds of their own"
                )

    # ---------------------------------------------------------------- tensors

    def copy_from_first(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0, as DDP does at its beginning."""
        if self.size == 1:
            return
        with speaking(), torch.no_grad():
            for tensor in whole([*module.parameters(), *module.buffers()]):
                dist.broadcast(tensor.detach(), 0)

    def gathered(self, own: Tensor, lengths: Sequence[int]) -> Tensor:
        """The ranks' rows one below the other.

        Args:
            own: Rows of this rank, shape (lengths[rank], ...).
            lengths: How many rows each rank has.

        Returns:
            Shape (sum of lengths, ...). The gradient of `own` is that of its rows: each rank
            computes the whole loss, and its own rows' gradient is complete.
        """
        if self.size == 1:
            return own
        of_all = self._gathered(own.detach(), lengths)
        begin = sum(lengths[: self.rank])
        placed: Tensor = _Placed.apply(own, of_all, begin)  # type: ignore[no-untyped-call]
        return placed

    def _gathered(self, own: Tensor, lengths: Sequence[int]) -> Tensor:
        padded = own.new_zeros(max(lengths), *own.shape[1:])
        padded[: len(own)] = own
        rows = [torch.empty_like(padded) for _ in lengths]
        with speaking():
            dist.all_gather(rows, padded)
        return torch.cat([some[:length] for some, length in zip(rows, lengths, strict=True)])

    def summed(self, part: Tensor) -> Tensor:
        """The sum of the ranks' parts of a loss; its gradient for `part` is the sum's own."""
        if self.size == 1:
            return part
        whole = self.sum_(part.detach().clone())
        placed: Tensor = _Placed.apply(part, whole, None)  # type: ignore[no-untyped-call]
        return placed

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace the gradients by their sums over the ranks.

        A parameter to which no rank has a gradient stays without one. Those of sharded parameters
        have been summed on the way back already.
        """
        if self.size == 1:
            return
        here = whole(parameters)
        if not here:
            return
        has = torch.tensor([p.grad is not None for p in here], device=here[0].device).int()
        with speaking():
            dist.all_reduce(has)
        learned = [p for p, some in zip(here, has.tolist(), strict=True) if some]
        for bucket in _buckets(learned):
            flat = torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket]
            )
            with speaking():
                dist.all_reduce(flat)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                if p.grad is None:
                    p.grad = torch.empty_like(p)
                p.grad.copy_(part.view_as(p))

    def check_divided(self, parameters: Sequence[Tensor], shared: bool) -> None:
        """Refuse gradients of which each rank has computed the whole: their sum is no gradient.

        Args:
            parameters: What is trained, with its gradients.
            shared: Whether the loss has divided its rows: equal rows have equal gradients then.

        Raises:
            UnmetNeedError: All ranks have the same gradient, of a loss that has divided nothing.
        """
        if self.size == 1:
            return
        grads = [p.grad for p in whole(parameters) if p.grad is not None]
        norms = self.objects(0.0 if shared else float(nn.utils.get_total_norm(grads)))
        if norms[0] and norms == [norms[0]] * self.size:
            raise UnmetNeedError(
                f"the {self.size} processes have computed the same gradient, instead of each that "
                "of a part of the batch: a loss of your own passes its rows through "
                "agents.distribution.shares.in_shares, or trains in one process"
            )

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor without gradient by its sum over the ranks; returns it."""
        if self.size > 1:
            with speaking():
                dist.all_reduce(tensor)
        return tensor


class _Placed(torch.autograd.Function):
    """What all ranks have together, with the gradient of this one's part alone."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, whole: Tensor, begin: int | None) -> Tensor:
        ctx.begin, ctx.rows = begin, len(own) if own.dim() else 0
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if ctx.begin is None:
            return grad, None, None
        return grad[ctx.begin : ctx.begin + ctx.rows], None, None


@contextmanager
def speaking() -> Iterator[None]:
    """Where a rank speaks with the others: one that is gone has a name.

    Raises:
        LostProcessError: Another process has ended, or did not answer within the group's timeout.
    """
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            "another process of this training has ended or does not answer; its own message says "
            "why. Start all of them again, from the last checkpoint. torch says: "
            f"{str(error).splitlines()[0]}"
        ) from error


def whole(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Those of which every rank has all, and not a shard."""
    from torch.distributed.tensor import DTensor  # takes a second: not without a process group

    return [tensor for tensor in tensors if not isinstance(tensor, DTensor)]


def _plain_device() -> torch.device:
    """Where numbers must be to be told to others: some groups speak on the accelerator alone."""
    if "cpu" in dist.get_backend_config():
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator()
    assert found is not None
    return torch.device(found.type, torch.accelerator.current_device_index())


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters in pieces of one number type and device, of about `BUCKET` numbers."""
    kinds: dict[object, list[Tensor]] = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for kind in kinds.values():
        bucket: list[Tensor] = []
        for parameter in kind:
            bucket.append(parameter)
            if sum(p.numel() for p in bucket) >= BUCKET:
                yield bucket
                bucket = []
        if bucket:
            yield bucket
