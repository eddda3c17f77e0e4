"""Text as one long stream of token ids in a file, mapped into memory and never read whole.

Documents stand end to end, with a stop token behind each, and begin as prompts do. The file
`NAME.tokens` holds nothing but the ids. An id has two bytes if the vocabulary allows it, else four.
`NAME.tokens.json` names the number format and the vocabulary.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class StreamMixture:
    """Several streams from which windows are drawn in given shares, whatever their lengths.

    A stream that is shorter than its share of what is read is read several times.

    Attributes:
        streams: Token ids of each source, shape (N,).
        weights: Their shares, up to a common factor.

    Raises:
        ValueError: There is not one positive weight for each stream.
    """

    streams: tuple[NDArray[np.integer], ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        right = all(0 < weight < np.inf for weight in self.weights)
        if not self.streams or len(self.streams) != len(self.weights) or not right:
            raise ValueError(
                f"the weights {self.weights} are not a positive number for each of "
                f"{len(self.streams)} streams"
            )

    @property
    def shares(self) -> NDArray[np.float64]:
        """The weights with a sum of 1, shape (k,)."""
        return np.array(self.weights) / sum(self.weights)

    def passes(self, tokens: int) -> list[float]:
        """How often each stream is read, in parts of it, where so many tokens are drawn."""
        return [
            float(share) * tokens / len(stream)
            for share, stream in zip(self.shares, self.streams, strict=True)
        ]


def random_windows(
    stream: NDArray[np.integer] | StreamMixture,
    generator: np.random.Generator,
    count: int,
    window: int,
) -> NDArray[np.int64]:
    """`count` windows of `window` tokens and one more from anywhere in the stream, int64.

    Of a mixture the source of each window is drawn first.
    """
    if not isinstance(stream, StreamMixture):
        return windows_at(stream, generator.integers(0, len(stream) - window, count), window)
    drawn = generator.choice(len(stream.streams), count, p=stream.shares)
    parts = [
        random_windows(stream.streams[source], generator, 1, window) for source in drawn.tolist()
    ]
    return np.concatenate(parts)


def windows_at(
    stream: NDArray[np.integer], starts: NDArray[np.int64], window: int
) -> NDArray[np.int64]:
    """Windows (B, window + 1) of the stream beginning at `starts`, shape (B,)."""
    return np.asarray(stream[starts[:, None] + np.arange(window + 1)], dtype=np.int64)


def shortest_of(stream: NDArray[np.integer] | StreamMixture) -> int:
    """Tokens of the stream, or of the shortest one of a mixture."""
    return min(map(len, stream.streams if isinstance(stream, StreamMixture) else (stream,)))


def _description(path: Path) -> Path:
    return path.with_name(path.name + ".json")
