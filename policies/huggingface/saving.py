"""Files of policies around models of transformers: a model or an adapter, and a value head."""

import json
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from policies import adapters
from policies.huggingface.loading import load_model, load_models_tokenizer
from textenv.errors import CheckpointError, ModelError, TokenizerError, VocabularyMismatchError
from textenv.files import reason
from textenv.tokenizers import Tokenizer
from textenv.tokenizers.loading import load_saved_tokenizer, saved_options, tokenizer_options

DESCRIPTION, VALUE_HEAD, ADAPTER = "policy.json", "value_head.safetensors", "adapter_config.json"
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
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    # The value head has a file of its own: transformers must be able to read all others.
    head = {name: weight.contiguous() for name, weight in value_head.state_dict().items()}
    save_file(head, folder / VALUE_HEAD)
    assert policy.tokenizer is not None
    description = {
        "format": FORMAT,
        "kind": policy.kind,
        # By this name the model is loaded again, since only the adapter is here.
        "base": model.config._name_or_path if adapted else None,
        "dtype": str(policy.dtype).removeprefix("torch."),
        "context": policy.context,
        "tokenizer": {
            "name": None if tokenizer is not None else policy.tokenizer.name,
            "fingerprint": policy.tokenizer.fingerprint,
            **tokenizer_options(policy.tokenizer),
        },
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")
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
    try:
        if model is None:
            dtype = getattr(torch, description["dtype"])
            base = description["base"] if adapted else folder
            model = load_model(base, made.auto_class, dtype=dtype)
        if adapted:
            config = adapters.import_peft().PeftConfig.from_pretrained(str(folder))
            config.inference_mode = False
            model = adapters.wrap(model, config, "default", made.task_type)
            adapters.load_adapter(model, folder)
        if tokenizer is None:
            name = description["tokenizer"]["name"]
            tokenizer = (
                load_models_tokenizer(folder)
                if name is None
                else load_saved_tokenizer(name, description["tokenizer"])
            )
    except (ModelError, TokenizerError, OSError, SafetensorError) as error:
        raise CheckpointError(f"the policy in {folder} cannot be loaded: {error}") from error
    foreign = not isinstance(tokenizer, Tokenizer)
    options = saved_options(description["tokenizer"]) if foreign else {}
    context = description["context"]
    policy = made(model, tokenizer, context=context, **options)  # type: ignore[call-arg]
    policy.context = context  # virtual tokens have been taken off it already
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


def _load_value_head(value_head: nn.Linear, folder: Path) -> None:
    try:
        value_head.load_state_dict(load_file(folder / VALUE_HEAD))
    except (OSError, RuntimeError, SafetensorError) as error:
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
