"""Any policy on disk: read it whatever its kind, and say what a folder holds."""

import json
from pathlib import Path

from policies.huggingface import EncoderDecoderPolicy, HuggingFacePolicy
from policies.huggingface.loading import is_encoder_decoder
from policies.policy import OWN, Policy
from policies.policy_files import (
    DESCRIPTION,
    TOKENIZER,
    actors_folder,
    kind_of,
    read_policy,
)
from policies.transformer_policy import TransformerPolicy
from textenv.errors import CheckpointError, TextEnvError
from textenv.tokenizers import Tokenizer, load_tokenizer


def save_policy(policy: Policy, folder: str | Path) -> Path:
    """Write `policy` into `folder`, which is made if needed: the same as `policy.save(folder)`."""
    return policy.save(folder)


def load_policy(folder: str | Path, tokenizer: Tokenizer | None = None) -> Policy:
    """Read any policy that was saved: our transformer, or one around a model of transformers.

    Of a policy with a critic of its own, the actor is read.

    Args:
        folder: Where it was saved.
        tokenizer: The vocabulary it is to be used with, if it must be that one.

    Raises:
        CheckpointError: Files are missing, damaged, or of another format; or the policy has a class
            of the user's own, which must make it.
        VocabularyMismatchError: The checkpoint was made with another vocabulary.
    """
    folder = actors_folder(folder)
    kind = kind_of(folder)
    for made in (HuggingFacePolicy, EncoderDecoderPolicy):
        if kind == made.kind:
            return made.load(folder, tokenizer=tokenizer)
    if kind == OWN:
        name = read_policy(folder)[0].get("class", "another class")
        raise CheckpointError(
            f"{folder} holds the weights of {name}, and only that class can make the network: make "
            "the policy with the same arguments as before, then call policy.load_weights(folder)"
        )
    return TransformerPolicy.load(folder, tokenizer)


def is_published(name: str | Path) -> bool:
    """Whether `name` is a model of Hugging Face as it was published, not a policy that was saved.

    Args:
        name: A folder, or owner/name on the hub.
    """
    folder = Path(name)
    on_the_hub = not folder.exists() and len(folder.parts) == 2
    return on_the_hub or ((folder / "config.json").exists() and not is_policy(folder))


def open_policy(name: str | Path, *, stop: str | None = None, bos: bool = True) -> Policy:
    """A policy that was saved, or a model of Hugging Face: a folder or owner/name on the hub.

    Args:
        name: Folder or name.
        stop: Of a published model that has none of its own, the text of the token that ends an
            answer.
        bos: Whether prompts of a published model begin with what its tokenizer puts before texts.

    Raises:
        CheckpointError: The folder holds no policy that can be read.
        ModelError: The model is not there, or cannot be used as a policy.
    """
    if not is_published(name):
        return load_policy(name)
    made = EncoderDecoderPolicy if is_encoder_decoder(name) else HuggingFacePolicy
    return made.from_pretrained(str(name), stop=stop, bos=bos)


def saved_tokenizer(folder: str | Path) -> Tokenizer | None:
    """The tokenizer of a policy that was saved, without its network.

    Returns:
        None if the folder holds no policy, or its tokenizer cannot be loaded.
    """
    folder = actors_folder(folder)
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        name = description["tokenizer"]["name"]
        if name is None:  # beside a model of Hugging Face
            name = f"hf:{folder}"
        return load_tokenizer(str(folder / TOKENIZER) if name == TOKENIZER else name)
    except (OSError, ValueError, KeyError, TypeError, TextEnvError):
        return None


def is_policy(folder: str | Path) -> bool:
    """Whether a policy was saved there, rather than a bare model of Hugging Face."""
    return (actors_folder(folder) / DESCRIPTION).exists()
