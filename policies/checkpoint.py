"""Policies on disk: safetensors and JSON, never pickles."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from policies.huggingface import EncoderDecoderPolicy, HuggingFacePolicy
from policies.policy import Policy
from policies.transformer import TransformerConfig
from policies.transformer_policy import TransformerPolicy
from textenv.errors import CheckpointError, TokenizerError, VocabularyMismatchError
from textenv.tokenizers import Tokenizer, load_tokenizer

WEIGHTS, DESCRIPTION, TOKENIZER = "policy.safetensors", "policy.json", "tokenizer.json"
ACTOR, CRITIC = "actor", "critic"
"""The two folders of a `SeparateValue` policy."""
FORMAT = 1


def save_policy(policy: TransformerPolicy, folder: str | Path) -> Path:
    """Write weights, shape and vocabulary of `policy` into `folder`, which is made if needed.

    A tokenizer that was trained here is saved with it; others are noted by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in policy.state_dict().items()}, folder / WEIGHTS)
    description: dict[str, Any] = {
        "format": FORMAT,
        "kind": "transformer",
        "config": dataclasses.asdict(policy.config),
    }
    tokenizer = policy.tokenizer
    if tokenizer is not None:
        save = getattr(tokenizer, "save", None)
        if save is not None:
            save(folder / TOKENIZER)
        description["tokenizer"] = {
            "name": TOKENIZER if save is not None else tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
        }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")
    return folder


def load_policy(folder: str | Path, tokenizer: Tokenizer | None = None) -> Policy:
    """Read any policy that was saved: ours, or one around a model of transformers.

    The arguments and errors are those of `load_transformer`.
    """
    folder = actors_folder(folder)
    try:
        kind = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None  # for the other reader to complain of
    for made in (HuggingFacePolicy, EncoderDecoderPolicy):
        if kind == made.kind:
            return made.load(folder, tokenizer=tokenizer)
    return load_transformer(folder, tokenizer)


def is_policy(folder: str | Path) -> bool:
    """Whether a policy was saved there, rather than a bare model of Hugging Face."""
    return (actors_folder(folder) / DESCRIPTION).exists()


def actors_folder(folder: str | Path) -> Path:
    """The folder itself, or that of the actor in it if the policy had a critic of its own."""
    folder = Path(folder)
    return folder / ACTOR if (folder / ACTOR).is_dir() else folder


def load_transformer(folder: str | Path, tokenizer: Tokenizer | None = None) -> TransformerPolicy:
    """Read a policy written by `save_policy`; of one with a critic of its own, the actor.

    Args:
        folder: Where it was saved.
        tokenizer: The vocabulary it is to be used with, if it must be that one.

    Raises:
        CheckpointError: Files are missing, damaged, or of another format.
        VocabularyMismatchError: The checkpoint was made with another vocabulary.
    """
    folder = actors_folder(folder)
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
        if description["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has checkpoint format {description['format']}, this version reads "
                f"{FORMAT}"
            )
        config = TransformerConfig(**description["config"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} holds no policy that can be read ({type(error).__name__}: {error}); it "
            f"should have the files {DESCRIPTION} and {WEIGHTS}"
        ) from error
    policy = TransformerPolicy(config, tokenizer=_tokenizer(folder, description, tokenizer))
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {folder} do not fit its description") from error
    return policy


def _tokenizer(
    folder: Path, description: dict[str, Any], wanted: Tokenizer | None
) -> Tokenizer | None:
    saved = description.get("tokenizer")
    if saved is None:
        vocab_size = description["config"]["vocab_size"]
        if wanted is not None and wanted.vocab_size != vocab_size:
            raise VocabularyMismatchError(
                f"the policy in {folder} has {vocab_size} tokens, {wanted.name} has "
                f"{wanted.vocab_size}"
            )
        return wanted
    if wanted is not None:
        if wanted.fingerprint != saved["fingerprint"]:
            raise VocabularyMismatchError(
                f"the policy in {folder} was made with the tokenizer {saved['name']!r}, whose "
                f"vocabulary differs from {wanted.name!r}: make the environment with "
                f"tokenizer=policy.tokenizer"
            )
        return wanted
    name = saved["name"]
    try:
        return load_tokenizer(str(folder / TOKENIZER) if name == TOKENIZER else name)
    except TokenizerError as error:
        raise CheckpointError(
            f"the tokenizer {name!r} of the policy in {folder} cannot be loaded: {error}"
        ) from error
