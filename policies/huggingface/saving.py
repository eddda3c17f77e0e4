"""Files of policies around models of transformers: a model or an adapter, and a value head."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from policies import adapters
from policies.huggingface.loading import load_model, load_models_tokenizer
from policies.policy_files import generator_of, plain_state
from textenv.errors import CheckpointError, ModelError, TokenizerError, VocabularyMismatchError
from textenv.files import reason
from textenv.tokenizers import Tokenizer
from textenv.tokenizers.loading import (
    load_saved_tokenizer,
    save_tokenizer,
    saved_options,
    tokenizer_options,
)

DESCRIPTION, VALUE_HEAD, ADAPTER = "policy.json", "value_head.safetensors", "adapter_config.json"
TOKENIZER = "textenv_tokenizer.json"
"""A tokenizer that is not one of transformers, whose own file is called tokenizer.json."""
FORMAT = 1


class OnDisk(Protocol):
    """What is asked of a policy that is saved; see `policies.huggingface.base`."""

    kind: ClassVar[str]
    auto_class: ClassVar[str]
    task_type: ClassVar[str]
    model: Any
    tokenizer: Tokenizer | None
    context: int
    value_head: nn.Linear
    generator: np.random.Generator
    checkpointing: bool
    chat_template: dict[str, str] | None
    loaded_with: dict[str, Any]

    def checkpoint_activations(self) -> None:
        """See `policies.huggingface.base`."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the model's weights."""
        ...


P = TypeVar("P", bound=OnDisk)


def save(policy: OnDisk, folder: str | Path, tokenizer: Any, value_head: nn.Linear) -> Path:
    """Write `policy` with this value head into `folder`; see `TransformersPolicy.save`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    adapted = hasattr(policy.model, "peft_config")
    model = adapters.base_model(policy.model)
    if adapted:
        adapters.save_adapter(policy.model, folder)
    else:
        model.save_pretrained(folder)
    assert policy.tokenizer is not None
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        kept = {"name": None, "fingerprint": policy.tokenizer.fingerprint}
        kept |= tokenizer_options(policy.tokenizer)
    else:
        kept = save_tokenizer(policy.tokenizer, folder / TOKENIZER)
    # The value head has a file of its own: transformers must be able to read all others.
    head = {name: weight.contiguous() for name, weight in value_head.state_dict().items()}
    save_file(head, folder / VALUE_HEAD)
    description = {
        "format": FORMAT,
        "kind": policy.kind,
        # By this name the model is loaded again, since only the adapter is here.
        "base": _place_of(model) if adapted else None,
        "base_options": _base_options(policy) if adapted else {},
        "base_weights": adapters.sum_of_bits(policy.model) if adapted else None,
        "dtype": str(policy.dtype).removeprefix("torch."),
        "context": policy.context,
        "checkpointing": policy.checkpointing,
        "chat_template": policy.chat_template,
        "generator": plain_state(policy.generator),
        "tokenizer": kept,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")
    rights = (folder / DESCRIPTION).stat().st_mode  # see `policies.policy_files.write_tensors`
    for weights in folder.glob("*.safetensors"):
        weights.chmod(rights)
    return folder


def load(made: type[P], folder: str | Path, model: Any, tokenizer: Any) -> P:
    """Read what `save` wrote; see `TransformersPolicy.load`."""
    folder = Path(folder)
    description = _description(folder, made.kind)
    adapted = (folder / ADAPTER).exists()
    if model is None and adapted and not description["base"]:
        raise CheckpointError(
            f"{folder} holds an adapter, and its model has no name to load it by: pass model=..."
        )
    dtype = getattr(torch, description["dtype"])
    try:
        if model is not None:
            model = model.to(dtype)
        else:
            base = description["base"] if adapted else folder
            options = description.get("base_options", {})
            model = load_model(base, made.auto_class, dtype=dtype, **options)
        if adapted:
            config = adapters.import_peft().PeftConfig.from_pretrained(str(folder))
            config.inference_mode = False
            model = adapters.wrap(model, config, "default", made.task_type)
            _check_base(model, folder, description)
            adapters.load_adapter(model, folder)
        if tokenizer is None:
            saved = description["tokenizer"]
            by_transformers = saved["name"] is None
            tokenizer = (
                load_models_tokenizer(folder)
                if by_transformers
                else load_saved_tokenizer(folder, saved)
            )
    except (ModelError, TokenizerError, OSError, SafetensorError) as error:
        raise CheckpointError(f"the policy in {folder} cannot be loaded: {error}") from error
    foreign = not isinstance(tokenizer, Tokenizer)
    options = saved_options(description["tokenizer"]) if foreign else {}
    context = description["context"]
    policy = made(model, tokenizer, context=context, **options)  # type: ignore[call-arg]
    policy.context = context  # virtual tokens have been taken off it already
    policy.generator = generator_of(description) or policy.generator
    policy.chat_template = description.get("chat_template")
    if description.get("checkpointing"):
        policy.checkpoint_activations()
    _check_saved_vocabulary(policy, folder, description)
    _load_value_head(policy.value_head, folder)
    return policy


def load_weights(policy: OnDisk, folder: str | Path, value_head: nn.Linear) -> None:
    """Take the weights in `folder`, those of the value head into `value_head`; see `Policy`."""
    folder = Path(folder)
    _check_saved_vocabulary(policy, folder, _description(folder, policy.kind))
    adapted = (folder / ADAPTER).exists()
    if adapted != hasattr(policy.model, "peft_config"):
        raise CheckpointError(
            f"{folder} holds {'an adapter' if adapted else 'a whole model'}, the policy has "
            f"{'none' if adapted else 'an adapter'}: make it as it was when it was saved"
        )
    try:
        if adapted:
            adapters.load_adapter(policy.model, folder)
        else:
            saved = load_model(folder, policy.auto_class, dtype=policy.dtype)
            policy.model.load_state_dict(saved.state_dict())
    except (ModelError, OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the weights in {folder} cannot be used: {error}") from error
    _load_value_head(value_head, folder)


def _place_of(model: Any) -> str:
    """Where transformers has read the model: a name on the hub, or an absolute path."""
    place: str = model.config._name_or_path
    return str(Path(place).resolve()) if place and Path(place).exists() else place


def _base_options(policy: OnDisk) -> dict[str, Any]:
    """Arguments of `load_model` by which the model of an adapter is found again, as JSON.

    Warns:
        UserWarning: Some cannot be kept.
    """
    kept, lost = {}, []
    for name, value in policy.loaded_with.items():
        try:
            json.dumps(value)
            kept[name] = value
        except TypeError:
            lost.append(name)
    if lost:
        warnings.warn(
            f"{', '.join(lost)} of from_pretrained cannot be kept in a file: load this policy with "
            "model=..., the model loaded with them",
            stacklevel=5,
        )
    return kept


def _check_base(model: Any, folder: Path, description: Mapping[str, Any]) -> None:
    """Find out whether an adapter meets the model that it was trained on.

    Raises:
        CheckpointError: The weights differ.
    """
    wanted = description.get("base_weights")
    if wanted is not None and adapters.sum_of_bits(model) != wanted:
        raise CheckpointError(
            f"{folder} holds an adapter of a model whose weights differ from those of "
            f"{description['base'] or 'this model'!r}, as after training, merging or rounding "
            "them: pass the model it was trained on as model=... (policy.merge() before "
            "policy.save(folder) writes a whole model)"
        )


def _load_value_head(value_head: nn.Linear, folder: Path) -> None:
    try:
        weights = load_file(folder / VALUE_HEAD)
        value_head.to(weights["weight"].dtype).load_state_dict(weights)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / VALUE_HEAD} cannot be read: {error}") from error


def _description(folder: Path, kind: str) -> dict[str, Any]:
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["kind"] != kind or description["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} holds a policy of kind {description['kind']!r}, format "
                f"{description['format']}; this reads {kind!r}, format {FORMAT}"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} holds no policy that can be read: {reason(error)}; policy.save writes "
            f"{DESCRIPTION}"
        ) from error
    return dict(description)


def _check_saved_vocabulary(policy: OnDisk, folder: Path, description: dict[str, Any]) -> None:
    assert policy.tokenizer is not None
    if policy.tokenizer.fingerprint != description["tokenizer"]["fingerprint"]:
        raise VocabularyMismatchError(
            f"the policy in {folder} was made with another vocabulary than "
            f"{policy.tokenizer.name!r}"
        )
