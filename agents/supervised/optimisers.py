"""Optimisers of supervised training: functions of a model, a learning rate and a weight decay."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

MakesOptimiser: TypeAlias = Callable[[nn.Module, float, float], Optimizer]
"""From a model, a learning rate and a weight decay."""


def adamw(
    model: nn.Module, learning_rate: float, weight_decay: float, beta2: float = 0.95
) -> AdamW:
    """AdamW over the trained parameters, with weight decay on matrices and embeddings only.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), arXiv:1711.05101.

    Args:
        model: What is trained.
        learning_rate: Of the first step.
        weight_decay: Of parameters of two dimensions or more.
        beta2: Memory of the squared gradients; small batches want a longer one, closer to 1.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return _adamw(trained, learning_rate, weight_decay, beta2)


def muon(model: nn.Module, learning_rate: float, weight_decay: float) -> Optimizer:
    """Muon for the matrices inside a network; AdamW for its embeddings, heads and vectors.

    A step of Muon is as long in rare directions as in frequent ones. Use it in pretraining: a
    small network learns to copy from its context after two million tokens with it, where AdamW
    needs many more. One learning rate serves both, because Muon's steps are scaled to the size of
    AdamW's. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); Liu et
    al., "Muon is Scalable for LLM Training" (2025), arXiv:2502.16982.

    Args:
        model: What is trained; a head has `head` in its name or is the embedding.
        learning_rate: Of the first step.
        weight_decay: Of parameters of two dimensions or more.
    """
    embeddings = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    outer = {id(parameter) for part in embeddings for parameter in part.parameters()}
    hidden: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = parameter.dim() == 2 and id(parameter) not in outer and "head" not in name
            (hidden if inner else others).append(parameter)
    made: list[Optimizer] = []
    if hidden:
        made.append(Muon(hidden, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        made.append(_adamw(others, learning_rate, weight_decay))
    return Together(made)


class Together(Optimizer):
    """Several optimisers as one, each with parameters of its own.

    Args:
        parts: The optimisers.
    """

    def __init__(self, parts: Sequence[Optimizer]):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over groups and moments; `load_state_dict` ends here."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        # The very dicts: who sets a learning rate or a moment here sets it in the parts.
        groups = iter(self.param_groups)
        for part in self.parts:
            own = list(islice(groups, len(part.param_groups)))
            part.__setstate__({"state": self.state, "param_groups": own})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of each; there can be no `closure`, which would be called by each."""
        assert closure is None
        for part in self.parts:
            part.step()


OPTIMISERS: Mapping[str, MakesOptimiser] = {"adamw": adamw, "muon": muon}
"""By the names that commands take."""


def _adamw(
    parameters: Sequence[Tensor], learning_rate: float, weight_decay: float, beta2: float = 0.95
) -> AdamW:
    # Biases and the gains of norms are vectors. Decay would pull gains to 0, where they mean
    # nothing; the usual recipes leave them out.
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    # The fused step takes parameters of which all are divided among processes, or none.
    mixed = 0 < sum(hasattr(p, "full_tensor") for p in parameters) < len(parameters)
    return AdamW(groups, learning_rate, betas=(0.9, beta2), fused=not mixed)
