"""Training the last layers of a model only."""

from torch import nn

from policies.huggingface.base import TransformersPolicy


def train_last_layers(policy: TransformersPolicy, count: int) -> None:
    """Freeze all but the last `count` layers, the norm that follows them, and the value head.

    In an encoder-decoder these are layers of the decoder. Token embeddings stay frozen, and so does
    an output head that is tied to them.

    Raises:
        ValueError: The model has fewer layers.
    """
    # The outermost list of modules, since T5's layers are lists themselves.
    parent, layers = next(
        (parent, child)
        for parent in policy.decoder.modules()
        for child in parent.children()
        if isinstance(child, nn.ModuleList)
    )
    if not 0 <= count <= len(layers):
        raise ValueError(f"the last {count} layers were asked for, the model has {len(layers)}")
    policy.requires_grad_(False)
    norms = [child for child in parent.children() if "Norm" in type(child).__name__]
    for module in (policy.value_head, *layers[len(layers) - count :], *norms):
        module.requires_grad_(True)
