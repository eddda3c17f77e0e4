"""What is trained: frozen networks are refused, since an optimiser would say nothing."""

from torch import Tensor, nn

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
