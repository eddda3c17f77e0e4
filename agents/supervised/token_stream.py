"""Text as one long stream of token ids in a file, mapped into memory and never read whole.

Documents stand end to end, with a stop token behind each, and begin as prompts do. The file
`NAME.tokens` holds nothing but the ids. An id has two bytes if the vocabulary allows it, else four.
`NAME.tokens.json` names the number format and the vocabulary.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textenv import Tokenizer
from textenv.errors import CheckpointError, TokenizerError, VocabularyMismatchError
from textenv.tokenizers import prompt_frame


def write_stream(path: str | Path, documents: Iterable[str], tokenizer: Tokenizer) -> Path:
    """Encode `documents` one by one into the file `path`, and describe the file in `path`.json.

    Raises:
        TokenizerError: The tokenizer has no stop token to put between documents.
    """
    path = Path(path)
    if tokenizer.stop_token is None:
        raise TokenizerError(f"{tokenizer.name} has no stop token to put between documents")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Little-endian whatever the machine, so that the file can be moved.
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32).newbyteorder("<")
    before, _ = prompt_frame(tokenizer)
    count = 0
    with path.open("wb") as file:
        for document in documents:
            encoded = [*before, *tokenizer.encode(document), tokenizer.stop_token]
            ids = np.array(encoded, dtype=dtype)
            file.write(ids.tobytes())
            count += len(ids)
    described = {"dtype": dtype.str, "tokens": count, "fingerprint": tokenizer.fingerprint}
    _description(path).write_text(json.dumps(described), encoding="utf-8")
    return path


def open_stream(path: str | Path, tokenizer: Tokenizer) -> NDArray[np.integer]:
    """The ids in a file of `write_stream`, shape (N,), mapped from the file and read-only.

    Raises:
        CheckpointError: The file or its description is missing or damaged.
        VocabularyMismatchError: It was written with another vocabulary.
    """
    path = Path(path)
    try:
        described = json.loads(_description(path).read_text(encoding="utf-8"))
        dtype, count = np.dtype(described["dtype"]), described["tokens"]
        # An empty file cannot be mapped.
        stream = np.memmap(path, dtype, "r", shape=(count,)) if count else np.zeros(0, dtype)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a stream of tokens: {error}") from error
    if described["fingerprint"] != tokenizer.fingerprint:
        raise VocabularyMismatchError(
            f"{path} was written with another vocabulary than {tokenizer.name!r}: write it again"
        )
    return stream


def _description(path: Path) -> Path:
    return path.with_name(path.name + ".json")
