"""Training a part of a model."""

from torch import nn

from policies import adapters
from policies.huggingface.policy import HuggingFacePolicy


def train_last_layers(policy: HuggingFacePolicy, count: int) -> None:
    """Freeze all but the last `count` layers, the norm that follows them, and the value head.

    Token embeddings stay frozen, and with them an output head that is tied to them.

    Raises:
        ValueError: The model has fewer layers.
    """
    decoder = adapters.base_model(policy.model).base_model
    found = [
        (parent, child)
        for parent in decoder.modules()
        for child in parent.children()
        if isinstance(child, nn.ModuleList)
    ]
    parent, layers = max(found, key=lambda pair: len(pair[1]))
    if not 0 <= count <= len(layers):
        raise ValueError(f"the last {count} layers were asked for, the model has {len(layers)}")
    policy.requires_grad_(False)
    norms = [child for child in parent.children() if "Norm" in type(child).__name__]
    for module in (policy.value_head, *layers[len(layers) - count :], *norms):
        module.requires_grad_(True)
