"""Makes a tokenizer from a name, a file or another library's object."""

import difflib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tiktoken

from textenv.errors import TokenizerError, UnknownTokenizerError
from textenv.tokenizers import characters, huggingface
from textenv.tokenizers.base import Tokenizer, prompt_frame, stop_tokens_of
from textenv.tokenizers.bytes import BytesTokenizer
from textenv.tokenizers.characters import CharacterTokenizer
from textenv.tokenizers.huggingface import HuggingFaceTokenizer
from textenv.tokenizers.rank_files import load_encoding
from textenv.tokenizers.sources import SourceTokenizer
from textenv.tokenizers.tiktoken_ranks import TiktokenTokenizer


def load_tokenizer(spec: Any) -> Tokenizer:
    """The tokenizer that `spec` names, or `spec` as a tokenizer.

    Args:
        spec: One of

            - `"bytes"`;
            - a tiktoken encoding: `"gpt2"`, `"cl100k_base"`, `"o200k_base"`, ...;
            - `"hf:"` and a model's name on the Hugging Face hub or its folder;
            - a path that ends in `.json`, written by a tokenizer's `save`;
            - a `Tokenizer`, which is returned as it is;
            - a `tiktoken.Encoding`, a `tokenizers.Tokenizer` or a tokenizer of transformers.

    Raises:
        UnknownTokenizerError: No tokenizer has that name.
        TokenizerUnavailableError: Its files are not on this machine and cannot be downloaded.
        MissingExtraError: It needs a package that is not installed.
        TokenizerError: `spec`, or the file it names, is not a tokenizer.

    >>> load_tokenizer("bytes").encode("hi")
    [104, 105]
    """
    if isinstance(spec, str | os.PathLike):
        return _by_name(os.fspath(spec))
    if isinstance(spec, tiktoken.Encoding):
        return TiktokenTokenizer(spec)
    if isinstance(spec, Tokenizer):
        return spec
    if hasattr(spec, "get_vocab"):
        return HuggingFaceTokenizer(spec)
    raise TokenizerError(f"{spec!r} is neither a tokenizer nor the name of one")


def tokenizer_options(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a saved policy notes of its tokenizer beside the name: ends, and whether texts begin."""
    return {
        "stop_tokens": list(stop_tokens_of(tokenizer)),
        "bos": bool(prompt_frame(tokenizer)[0]),
    }


def saved_options(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `HuggingFaceTokenizer` from what `tokenizer_options` gave.

    Version 0.1 noted one stop token by its text, and put nothing before prompts.
    """
    return {"stop": saved.get("stop_tokens", saved.get("stop")), "bos": saved.get("bos", False)}


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> dict[str, Any]:
    """Write a tokenizer to `path` if it has a `save`; others are found by their name.

    Returns:
        What `load_saved_tokenizer` asks for, as JSON.
    """
    if isinstance(tokenizer, SourceTokenizer):
        inner = save_tokenizer(tokenizer.tokenizer, path)
        return {**inner, "fingerprint": tokenizer.fingerprint, "frame": tokenizer.frame}
    save = getattr(tokenizer, "save", None)
    if save is not None:
        save(path)
    return {
        "name": tokenizer.name if save is None else path.name,
        "fingerprint": tokenizer.fingerprint,
        **tokenizer_options(tokenizer),
    }


def load_saved_tokenizer(folder: Path, saved: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `save_tokenizer` noted, with the options it was saved with.

    Raises:
        TokenizerError: See `load_tokenizer`.
    """
    name: str = saved["name"]
    if name.endswith(".json") and (folder / name).exists():
        made = load_tokenizer(folder / name)
    elif name.startswith("hf:"):
        place = name.removeprefix("hf:")
        made = HuggingFaceTokenizer.from_pretrained(place, **saved_options(saved))
    else:
        made = load_tokenizer(name)
    return SourceTokenizer(made, *saved["frame"]) if "frame" in saved else made


def _by_name(name: str) -> Tokenizer:
    if name == BytesTokenizer.name:
        return BytesTokenizer()
    if name.startswith("hf:"):
        return HuggingFaceTokenizer.from_pretrained(name.removeprefix("hf:"))
    if name.endswith(".json"):
        return _from_file(name)
    known = [BytesTokenizer.name, *tiktoken.list_encoding_names()]
    if name in known:
        return TiktokenTokenizer(load_encoding(name), name)
    close = difflib.get_close_matches(name, known, n=1) or [f"hf:{name}"] * ("/" in name)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UnknownTokenizerError(
        f"no tokenizer is called {name!r}{hint}. Known: {', '.join(known)}, "
        "'hf:<name on the hub, or folder>' and '<file>.json'"
    )


def _from_file(name: str) -> Tokenizer:
    with suppress(OSError, ValueError):  # the other reader then raises the right error
        contents = json.loads(Path(name).read_text(encoding="utf-8-sig"))
        form = contents.get("format") if isinstance(contents, dict) else None
        if form == characters.FORMAT:
            return CharacterTokenizer.from_contents(contents, name)
        if form == huggingface.FORMAT:
            return HuggingFaceTokenizer.from_contents(contents, name)
    return TiktokenTokenizer.from_file(name)
