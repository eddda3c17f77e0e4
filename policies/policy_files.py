"""The files of a policy: weights as safetensors, their description as JSON, never pickles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from textenv.errors import CheckpointError, TokenizerError, VocabularyMismatchError
from textenv.files import reason
from textenv.tokenizers import Tokenizer
from textenv.tokenizers.loading import load_saved_tokenizer, save_tokenizer

WEIGHTS, DESCRIPTION, TOKENIZER = "policy.safetensors", "policy.json", "tokenizer.json"
ACTOR, CRITIC = "actor", "critic"
"""The two folders of a `SeparateValue` policy."""
FORMAT = 1

CHECKPOINT, CHECKPOINTS_POLICY = "checkpoint", "policy"
"""Where trainings save on the way, and where most of them have a policy in it."""
PRETRAINING, STREAM = "pretraining.json", "text.tokens"
"""What a pretraining leaves before its first checkpoint."""


def write_policy(
    folder: str | Path,
    weights: Mapping[str, Tensor],
    description: Mapping[str, Any],
    tokenizer: Tokenizer | None,
) -> Path:
    """Write weights, description and vocabulary into `folder`, which is made if needed.

    A tokenizer that has a `save` is saved with them; others are noted by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(_separate(weights), folder / WEIGHTS)
    whole: dict[str, Any] = {"format": FORMAT, **description}
    if tokenizer is not None:
        whole["tokenizer"] = save_tokenizer(tokenizer, folder / TOKENIZER)
    (folder / DESCRIPTION).write_text(json.dumps(whole, indent=2), encoding="utf-8")
    return folder


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file of safetensors that those may read who may read other new files.

    safetensors itself gives it to its owner alone, whatever the umask says.
    """
    # A file beside it has the umask's rights; on some systems no other call tells them. The one
    # that is there is replaced when the new one is whole: its weights may be mapped somewhere.
    beside = path.with_name(f".{path.name}.rights")
    beside.write_bytes(b"")
    rights = beside.stat().st_mode
    beside.unlink()
    save_file(tensors, path)
    path.chmod(rights)


def read_policy(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the weights that `write_policy` wrote.

    Raises:
        CheckpointError: Files are missing, damaged, or of another format.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
        if description["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has checkpoint format {description['format']}, this version reads "
                f"{FORMAT}"
            )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise unreadable(folder, error) from error
    return description, weights


def unreadable(folder: Path, error: Exception) -> CheckpointError:
    """What to raise for a folder whose files are missing or damaged."""
    return CheckpointError(
        f"{folder} holds no policy that can be read: {reason(error)}; {way_out(folder)}"
    )


def way_out(folder: Path) -> str:
    """What a person can do who has named a folder that holds no policy."""
    checkpoint = folder / CHECKPOINT
    if not folder.exists():
        return "name a folder that policy.save has written, or a model of the hub as owner/name"
    if (checkpoint / CHECKPOINTS_POLICY / DESCRIPTION).exists():
        return (
            f"a training stands there that has not ended, or a run: its command goes on with it, "
            f"and what it has saved last is in {checkpoint / CHECKPOINTS_POLICY}"
        )
    if checkpoint.exists() or (folder / PRETRAINING).exists() or (folder / STREAM).exists():
        return "a training was begun there and has not ended: its command goes on with it"
    return f"it should have the files {DESCRIPTION} and {WEIGHTS}"


def kind_of(folder: Path) -> str | None:
    """The kind of policy that was saved in `folder`; None if its description cannot be read."""
    try:
        kind: str | None = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kind


def actors_folder(folder: str | Path) -> Path:
    """The folder itself, or that of the actor in it if the policy had a critic of its own."""
    folder = Path(folder)
    return folder / ACTOR if (folder / ACTOR).is_dir() else folder


def check_saved_vocabulary(
    folder: Path, description: Mapping[str, Any], tokenizer: Tokenizer | None
) -> None:
    """Compare the vocabulary that a policy was saved with to `tokenizer`, where both are known.

    Raises:
        VocabularyMismatchError: They differ.
    """
    saved = description.get("tokenizer")
    if saved and tokenizer is not None and tokenizer.fingerprint != saved["fingerprint"]:
        raise VocabularyMismatchError(
            f"the policy in {folder} was made with the tokenizer {saved['name']!r}, whose "
            f"vocabulary differs from {tokenizer.name!r}: make the environment with "
            f"tokenizer=policy.tokenizer"
        )


def read_tokenizer(
    folder: Path, description: Mapping[str, Any], vocab_size: int, wanted: Tokenizer | None
) -> Tokenizer | None:
    """The tokenizer of a saved policy: `wanted` if it fits, otherwise the one that was saved.

    Raises:
        CheckpointError: The saved one cannot be loaded.
        VocabularyMismatchError: `wanted` has another vocabulary.
    """
    saved = description.get("tokenizer")
    if saved is None:
        if wanted is not None and wanted.vocab_size != vocab_size:
            raise VocabularyMismatchError(
                f"the policy in {folder} has {vocab_size} tokens, {wanted.name} has "
                f"{wanted.vocab_size}"
            )
        return wanted
    if wanted is not None:
        check_saved_vocabulary(folder, description, wanted)
        return wanted
    try:
        found = load_saved_tokenizer(folder, saved)
    except TokenizerError as error:
        raise CheckpointError(
            f"the tokenizer {saved['name']!r} of the policy in {folder} cannot be loaded; pass it "
            f"as tokenizer=...: {error}"
        ) from error
    check_saved_vocabulary(folder, description, found)
    return found


def plain_state(generator: np.random.Generator) -> dict[str, Any]:
    """The state of a generator as JSON."""
    return json.loads(json.dumps(dict(generator.bit_generator.state), default=np.ndarray.tolist))


def generator_of(description: Mapping[str, Any]) -> np.random.Generator | None:
    """The generator whose state was saved; None in the files of version 0.1."""
    state = description.get("generator")
    if state is None:
        return None
    generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
    generator.bit_generator.state = state
    return generator


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor with memory of its own; safetensors refuses weights that are tied."""
    seen: set[int] = set()
    separate = {}
    for name, weight in weights.items():
        address = weight.untyped_storage().data_ptr()
        separate[name] = weight.contiguous() if address not in seen else weight.clone()
        seen.add(address)
    return separate
