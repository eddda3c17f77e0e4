"""What is trained: frozen networks are refused, since an optimiser would say nothing."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from textenv.errors import FrozenPolicyError

WAY_OUT = "call requires_grad_(True) on what should learn, or pass a policy that is not frozen"


def trained_parameters(model: nn.Module) -> list[Tensor]:
    """The parameters that take a gradient.

    Raises:
        FrozenPolicyError: There are none.
    """
    trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise FrozenPolicyError(
            f"all parameters of the {type(model).__name__} are frozen, as those of a frozen_copy() "
            f"are, so nothing can be learned: {WAY_OUT}"
        )
    return trained


def check_trained(learned: Tensor) -> None:
    """Check that log-probabilities, or a loss, depend on a parameter that takes a gradient.

    Raises:
        FrozenPolicyError: It does not: at most a value head would be trained.
    """
    if not learned.requires_grad:
        raise FrozenPolicyError(
            "what is to be learned depends on no parameter that is trained, so the answers would "
            f"never change: {WAY_OUT}"
        )


def optimizer_of(
    make: Callable[..., Optimizer], trained: Sequence[Tensor], rate: float
) -> Optimizer:
    """The optimiser that `make` makes of these parameters.

    Raises:
        TypeError: `make` is an optimiser already, or gives one that holds none of them.
    """
    if isinstance(make, Optimizer):
        raise TypeError(
            f"optimizer is a {type(make).__name__} that exists already, and this trainer makes one "
            "of its own policy's parameters: pass what makes it, such as "
            f"optimizer={type(make).__name__} or functools.partial({type(make).__name__}, ...)"
        )
    made = make(trained, lr=rate)
    held = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    if held.isdisjoint(map(id, trained)):
        raise TypeError(
            f"the {type(made).__name__} that `optimizer` gave holds none of this policy's "
            f"{len(trained)} trained parameters, so that nothing would be learned: make a new "
            "optimiser of the parameters that are given"
        )
    return made
