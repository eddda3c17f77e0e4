"""Adapters of `peft` on a policy's network: adding, switching, copying, merging, saving.

With an adapter the reference of a KL penalty need not be a second model. It is the same weights
with the adapter off, or with a copy of the adapter as it was at some moment.
`policies.adapter_view` makes such references.
"""

import copy
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from policies.adapter_checks import check_config, model_unchanged
from policies.policy import Policy
from textenv.errors import AdapterError
from textenv.imports import optional

REFERENCE = "reference"
"""Name under which the adapter of a reference is kept beside the one that is trained."""

WEIGHTS, ENCODER = "adapter_model.safetensors", "prompt_encoder.safetensors"


def import_peft() -> Any:
    """The peft package.

    Raises:
        MissingExtraError: It is not installed.
    """
    with optional("peft", extra="huggingface", purpose="an adapter"):
        import peft
    return peft


def base_model(model: Any) -> Any:
    """The model inside a `PeftModel`, with its adapted layers; any other model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def wrap(model: Any, config: Any, name: str, task_type: str = "CAUSAL_LM") -> Any:
    """`model` with one more adapter, which is the active one; `task_type` is peft's name of a task.

    Raises:
        AdapterError: The adapter does not fit the model, or changes more than layers of it.
    """
    check_config(config)
    peft = import_peft()
    if config.task_type is None:
        config = copy.copy(config)
        config.task_type = task_type
    try:
        with _expected_warnings(), model_unchanged(base_model(model)):
            if not hasattr(model, "peft_config"):
                return peft.get_peft_model(model, config, adapter_name=name)
            model.add_adapter(name, config)
            model.set_adapter(name)
            return model
    except (ValueError, TypeError) as error:
        raise AdapterError(f"this adapter does not fit the model; peft says: {error}") from error


def add_adapter(policy: Policy, config: Any, name: str = "default") -> None:
    """Freeze a network of our own and train an adapter, with the value head.

    Args:
        policy: A `TransformerPolicy`, whose layers to adapt are called `qkv`, `attn_out`,
            `mlp_in` and `mlp_out`. (A `HuggingFacePolicy` has a method of this name.)
        config: Such as `peft.LoraConfig(target_modules=["qkv", "mlp_in"])`; no virtual tokens.
        name: Name of the adapter.

    Raises:
        MissingExtraError: peft is not installed.
        AdapterError: The adapter does not fit the network.
    """
    peft = import_peft()
    if config.is_prompt_learning:
        raise AdapterError("virtual tokens need a Hugging Face model: use LoRA here")
    check_config(config)
    heads = [parameter for parameter in policy.value_head.parameters() if parameter.requires_grad]
    try:
        with _expected_warnings(), model_unchanged(policy):
            peft.inject_adapter_in_model(config, policy, adapter_name=name)
    except (ValueError, TypeError) as error:
        raise AdapterError(f"this adapter does not fit the network; peft says: {error}") from error
    for parameter in heads:
        parameter.requires_grad_(True)


def layers(module: nn.Module) -> list[Any]:
    """Every layer of `module` that has adapters."""
    if "peft" not in sys.modules:
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return [m for m in module.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]


def _places(module: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Where layers with adapters, and the layers inside these, are: parent, name and layer."""
    adapted = {
        id(m)
        for layer in layers(module)
        for m in (layer, getattr(layer, "base_layer", getattr(layer, "original_module", None)))
    }
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if id(child) in adapted
    ]


def state(model: Any) -> tuple[Any, ...]:
    """A value that changes with the active adapters, their weights and their scaling."""
    if not hasattr(model, "peft_config"):
        return ()
    return (
        tuple(model.peft_config),
        model.active_adapter,
        *(
            (
                layer.disable_adapters,
                tuple(layer.active_adapters),
                tuple(getattr(layer, "merged_adapters", ())),
                tuple(getattr(layer, "scaling", {}).values()),
            )
            for layer in layers(model)
        ),
        *((p._version, p.data_ptr()) for p in model.parameters()),
    )


def trained_beside(model: Any) -> list[str]:
    """Names of what is trained of `model` and is neither an adapter nor a value head."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    own: set[int] = set()  # of the model, although inside a layer with adapters
    adapted: set[int] = set()
    for layer in layers(model):
        tuned = isinstance(layer, BaseTunerLayer)
        inner = layer.get_base_layer() if tuned else layer.original_module
        own |= {id(p) for p in inner.parameters()}
        adapted |= {id(p) for p in layer.parameters()}
    if (prompts := getattr(model, "prompt_encoder", None)) is not None:
        adapted |= {id(p) for p in prompts.parameters()}
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad
        and (id(p) not in adapted or id(p) in own)
        and not name.startswith("value_head.")
    ]


def removed(model: Any, name: str) -> Any:
    """`model` without the adapter `name`; the plain model if there was no other one."""
    others = [other for other in model.peft_config if other != name]
    if others:
        model.delete_adapter(name)
        model.set_adapter(others[0])
        return model
    return model.get_base_model() if hasattr(model, "prompt_encoder") else model.unload()


def merged(model: Any) -> Any:
    """The model without adapters; what they added is now part of its weights.

    A head that shares its weights with the token embedding gets weights of its own if an adapter
    changes one of the two.

    Raises:
        AdapterError: There is no adapter, or it cannot be merged; nothing has changed then.
    """
    if not hasattr(model, "peft_config"):
        raise AdapterError("there is no adapter to merge: policy.add_adapter(config) adds one")
    _try_to_merge(model)
    _separate_tables(model)
    with _expected_warnings():
        return model.merge_and_unload(adapter_names=list(model.active_adapters))


def _separate_tables(model: Any) -> None:
    """Give adapted layers weights of their own where they share them with others."""
    users = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    for layer in layers(model):
        inner = layer.get_base_layer() if hasattr(layer, "get_base_layer") else None
        for name, weight in [] if inner is None else list(inner.named_parameters(recurse=False)):
            if users[id(weight)] > 1:
                users[id(weight)] -= 1
                setattr(inner, name, nn.Parameter(weight.detach().clone()))


def _try_to_merge(module: nn.Module) -> None:
    """Merge copies of the layers one by one, so that nothing is left half merged.

    Raises:
        AdapterError: One cannot be merged.
    """
    for layer in layers(module):
        if hasattr(layer, "get_base_layer"):
            try:
                copy.deepcopy(layer).merge()
            except (ValueError, TypeError, RuntimeError) as error:
                raise AdapterError(
                    f"this adapter cannot be merged into the weights: keep it. peft says: {error}"
                ) from error


def merge(policy: Policy) -> None:
    """Work the adapters of a network of our own into its weights, and train all of them again.

    Raises:
        AdapterError: There is no adapter, or it cannot be merged; nothing has changed then.
    """
    adapted = [place for place in _places(policy) if hasattr(place[2], "get_base_layer")]
    if not adapted:
        raise AdapterError("there is no adapter to merge: add_adapter(policy, config) adds one")
    if any(name == "token_embedding" for _, name, _ in adapted):
        raise AdapterError(
            "the token embedding is the head too, and its adapter changes the embedding alone: "
            "keep the adapter, or leave token_embedding out of target_modules"
        )
    _try_to_merge(policy)
    for parent, name, child in adapted:
        child.merge()
        setattr(parent, name, child.get_base_layer())
    del policy.peft_config
    policy.requires_grad_(True)


InForce = list[tuple[bool, list[str]]]
"""For each layer that has adapters: whether they are off, and which are active."""


@contextmanager
def switched(module: nn.Module, name: str | None) -> Iterator[None]:
    """Compute with the adapter of that name, or with none; restores the state afterwards."""
    now = in_force(module)
    wanted = [(name is None, active if name is None else [name]) for _, active in now]
    with reinstated(module, wanted):
        yield


def in_force(module: nn.Module) -> InForce:
    """The present state of the adapters in the layers of `module`."""
    return [(layer.disable_adapters, list(layer.active_adapters)) for layer in layers(module)]


@contextmanager
def reinstated(module: nn.Module, wanted: InForce) -> Iterator[None]:
    """Compute in a state that `in_force` returned; restores the present one afterwards."""
    adapted = layers(module)
    before = [(layer.disable_adapters, list(layer.active_adapters)) for layer in adapted]
    if before == wanted:
        yield
        return
    trained = [p for p in module.parameters() if p.requires_grad]
    try:
        _put_in_force(adapted, wanted)
        yield
    finally:
        _put_in_force(adapted, before)
        # peft changes what is trained when it switches adapters: put it back.
        module.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)


def _put_in_force(adapted: list[Any], wanted: InForce) -> None:
    for layer, (off, active) in zip(adapted, wanted, strict=True):
        if layer.disable_adapters:
            layer.enable_adapters(True)
        if list(layer.active_adapters) != active:
            layer.set_adapter(active)
        if off:
            layer.enable_adapters(False)


def add_beside(model: Any, config: Any, name: str) -> list[nn.Parameter]:
    """Add an adapter while the active one stays active; returns its parameters.

    Raises:
        AdapterError: There is no adapter, or more than one is active, or it does not fit.
    """
    peft = import_peft()
    active = active_adapter(model)
    if name in model.peft_config:
        raise AdapterError(f"the model has an adapter {name!r} already: give it another name")
    # peft activates what it adds, and changes what is trained; both are put back below.
    before = {id(p) for p in model.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    places = _places(model)
    try:
        with _expected_warnings(), model_unchanged(model):
            if isinstance(model, peft.PeftModel):
                model.add_adapter(name, config)
            else:
                peft.inject_adapter_in_model(config, model, adapter_name=name)
    except (ValueError, TypeError) as error:
        raise AdapterError(f"this adapter does not fit the model; peft says: {error}") from error
    if any(getattr(parent, place) is not layer for parent, place, layer in places):
        # As with trained tokens of a head that is tied to the embedding.
        for parent, place, layer in places:
            setattr(parent, place, layer)
        model.delete_adapter(name)
        raise AdapterError(
            f"peft cannot keep a second adapter of type {config.peft_type.value} beside the first "
            "one in this model: use LoRA, or copy the whole policy by copy.deepcopy(policy)"
        )
    for layer in layers(model):
        layer.set_adapter([active])
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    model.eval()
    return [p for p in model.parameters() if id(p) not in before]


def copy_adapter(model: Any) -> str:
    """Keep a copy of the active adapter of `model` beside it; returns its name.

    Raises:
        AdapterError: There is no adapter, or more than one is active.
    """
    name = active_adapter(model)
    number = sum(other.startswith(REFERENCE) for other in model.peft_config)
    kept = REFERENCE if not number else f"{REFERENCE}_{number + 1}"
    weights = {key: value.detach().clone() for key, value in _weights(model, name).items()}
    config = copy.deepcopy(model.peft_config[name])
    config.inference_mode = True
    add_beside(model, config, kept)
    import_peft().set_peft_model_state_dict(model, weights, adapter_name=kept)
    return kept


def active_adapter(model: Any) -> str:
    """Name of the adapter that is active.

    Raises:
        AdapterError: There is no active adapter, or more than one.
    """
    names = {name for layer in layers(model) for name in layer.active_adapters}
    if hasattr(model, "prompt_encoder"):
        names = set(model.active_adapters)
    if len(names) != 1:
        raise AdapterError(f"one adapter has to be active, but there are {sorted(names)}")
    return str(names.pop())


def save_adapter(model: Any, folder: str | Path, name: str | None = None) -> Path:
    """Write an adapter as `peft` does: adapter_config.json and adapter_model.safetensors.

    For virtual tokens peft keeps the output of their encoder. The encoder goes into a file of its
    own, so that training can be resumed.

    Args:
        model: The model with adapters.
        folder: Made if needed.
        name: Name of the adapter; the active one if None.
    """
    name = name or active_adapter(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(_weights(model, name), folder / WEIGHTS)
    if (encoder := _encoder(model, name)) is not None:
        _write(encoder.state_dict(), folder / ENCODER)
    config = copy.deepcopy(model.peft_config[name])
    config.inference_mode = True
    config.save_pretrained(str(folder))
    return folder


def load_adapter(model: Any, folder: str | Path, name: str | None = None) -> None:
    """Take the weights of an adapter that `save_adapter` wrote; the active one if `name` is None.

    Raises:
        AdapterError: They are of another shape.
    """
    peft = import_peft()
    name = name or active_adapter(model)
    encoder = _encoder(model, name)
    weights = load_file(Path(folder) / (WEIGHTS if encoder is None else ENCODER))
    have = _weights(model, name)
    have = have if encoder is None else encoder.state_dict()
    types = {value.data_ptr(): weights[key].dtype for key, value in have.items() if key in weights}
    for parameter in model.parameters():  # in the number type they had
        parameter.data = parameter.data.to(types.get(parameter.data_ptr(), parameter.dtype))
    shapes = [{key: tuple(value.shape) for key, value in w.items()} for w in (weights, have)]
    if shapes[0] != shapes[1]:
        raise AdapterError(f"the adapter in {folder} has another shape than the policy's")
    if encoder is None:
        peft.set_peft_model_state_dict(model, weights, adapter_name=name)
    else:
        encoder.load_state_dict(weights)


def sum_of_bits(model: Any) -> int:
    """A number that changes with the weights of `model` itself; those of adapters do not count."""
    base = base_model(model)
    adapted: set[int] = set()
    own: set[int] = set()
    for layer in layers(base):
        tuned = hasattr(layer, "get_base_layer")
        inner = layer.get_base_layer() if tuned else layer.original_module
        adapted |= {id(p) for p in layer.parameters()}
        own |= {id(p) for p in inner.parameters()}
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    total = 0
    for weight in base.parameters():
        if weight.numel() and (id(weight) in own or id(weight) not in adapted):
            bits = weight.detach().contiguous().view(whole[weight.element_size()])
            total += int(bits.sum(dtype=torch.int64))
    return total


def descriptions(policy: Policy) -> dict[str, Any]:
    """The adapters of a network of our own as JSON; empty if there are none."""
    configs = getattr(policy, "peft_config", {})
    if not configs:
        return {}
    plain = {name: config.to_dict() for name, config in configs.items()}
    described = {"adapters": plain, "active": sorted(in_force(policy)[0][1])}
    made: dict[str, Any] = json.loads(json.dumps(described, default=_plain))
    return made


def add_described(policy: Policy, description: Mapping[str, Any]) -> None:
    """Add the adapters that `descriptions` told of; their weights are loaded with the others."""
    for name, values in description.get("adapters", {}).items():
        config = import_peft().PeftConfig.from_peft_type(**values)
        add_adapter(policy, config, name)
    for layer in layers(policy):
        layer.set_adapter(description["active"])


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)


def _weights(model: Any, name: str) -> dict[str, Tensor]:
    """Weights of one adapter, without embeddings, for which peft would ask the hub."""
    peft = import_peft()
    with _expected_warnings():
        weights: dict[str, Tensor] = peft.get_peft_model_state_dict(
            model, adapter_name=name, save_embedding_layers=False
        )
    return weights


def _encoder(model: Any, name: str) -> Any:
    """The module that makes the virtual tokens of an adapter; None if it has none."""
    encoders = getattr(model, "prompt_encoder", {})
    return encoders[name] if name in encoders else None


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    # Copies: some adapters share tensors between layers, which safetensors refuses.
    form = torch.contiguous_format
    save_file({k: v.detach().cpu().clone(memory_format=form) for k, v in tensors.items()}, path)


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Hide warnings of peft about things that are intended here."""
    with warnings.catch_warnings():
        for message in (
            "fan_in_fan_out",
            "`is_gradient_checkpointing`",
            "Already found a",
            "The PEFT config's `base_model_name_or_path` was renamed",  # a path, now absolute
            "Model with `tie_word_embeddings=True`",  # is merged as it warns to
            "Input and output embeddings are no longer tied",
            r".*LoRA tensor\(s\) have invalid shape",  # of biases: peft looks for matrices
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
