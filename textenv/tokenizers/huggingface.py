"""Vocabularies of Hugging Face models, from the libraries transformers and tokenizers."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from textenv.errors import TokenizerError, TokenizerUnavailableError
from textenv.imports import optional


class HuggingFaceTokenizer:
    """A tokenizer of the transformers or the tokenizers library.

    Text is encoded as it is: no template, no beginning or end token. Decoding spells out special
    tokens; ids that the vocabulary skips have no text. Some vocabularies change case or white
    space, so that decoding does not give back the text that was encoded.

    Args:
        tokenizer: A `transformers.PreTrainedTokenizerBase` or a `tokenizers.Tokenizer`. The latter
            is copied, also when it is inside the former.
        name: Its name for `load_tokenizer`; by default `"hf:"` and the place it was loaded from.
        stop: The token that ends an answer, such as `"<|im_end|>"`; by default transformers' end
            of sequence. A `tokenizers.Tokenizer` has no default.

    Raises:
        TokenizerError: `stop` is not in the vocabulary.
    """

    def __init__(self, tokenizer: Any, name: str | None = None, stop: str | None = None) -> None:
        vocabulary = tokenizer.get_vocab()
        if stop is not None and stop not in vocabulary:
            raise TokenizerError(f"stop={stop!r} is not a token of {name or tokenizer!r}")
        eos: int | None = getattr(tokenizer, "eos_token_id", None)
        self.name = name or f"hf:{getattr(tokenizer, 'name_or_path', '')}"
        self.vocab_size = max(vocabulary.values()) + 1
        self.stop_token: int | None = eos if stop is None else vocabulary[stop]

        # Most of transformers' tokenizers wrap one of the tokenizers library; calling that directly
        # takes half the time.
        itself = tokenizer if hasattr(tokenizer, "to_str") else None
        fast: Any = getattr(tokenizer, "backend_tokenizer", itself)
        self._is_fast = fast is not None
        self._tokenizer = type(fast).from_str(fast.to_str()) if self._is_fast else tokenizer
        self._read_plainly()

    def _read_plainly(self) -> None:
        if self._is_fast:
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self._tokenizer.encode_special_tokens = True  # as text: "</s>" is then four characters

    @classmethod
    def from_pretrained(cls, name_or_folder: str) -> "HuggingFaceTokenizer":
        """The tokenizer of a model, by its name on the hub or its folder.

        Raises:
            MissingExtraError: transformers is not installed.
            TokenizerUnavailableError: The tokenizer is not on this machine and cannot be
                downloaded.
            TokenizerError: The tokenizer is there but cannot be read.
        """
        with optional(
            "transformers", extra="huggingface", purpose=f"tokenizer 'hf:{name_or_folder}'"
        ):
            from transformers import AutoTokenizer
        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_folder)
        except Exception as error:  # of many classes, and not always of a narrow one
            if isinstance(error, OSError) and not Path(name_or_folder).is_dir():
                raise TokenizerUnavailableError(
                    f"tokenizer 'hf:{name_or_folder}': there is no such folder, and the hub cannot "
                    "be reached or has none of that name. Check the spelling; without a network, "
                    "copy the model's folder to this machine and use 'hf:<folder>'. "
                    f"transformers says: {error}"
                ) from error
            raise TokenizerError(
                f"tokenizer 'hf:{name_or_folder}' cannot be read; transformers says: {error!r}"
            ) from error
        if len(tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys()) < 2:
            # Transformers silently makes this from a folder with a model but no tokenizer.
            raise TokenizerError(
                f"tokenizer 'hf:{name_or_folder}' holds special tokens only: are its files there? "
                "tokenizer.save_pretrained(folder) writes them"
            )
        return cls(tokenizer, name=f"hf:{name_or_folder}")

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; a lone surrogate, which is not text, becomes "?"."""
        text = text.encode("utf-8", errors="replace").decode()
        ids: list[int]
        if self._is_fast:
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        else:
            ids = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        if self.stop_token in ids:
            # Some vocabularies (T5's, for one) hold the stop token's spelling as a word too.
            ids = [token for token in ids if token != self.stop_token]
        return ids

    def special_frame(self) -> tuple[list[int], list[int]]:
        """Special ids that the library itself puts before and after a text.

        `encode` leaves them out; an encoder-decoder's prompts need them.
        """
        word = "a"
        options = {} if self._is_fast else {"split_special_tokens": True}
        plain, framed = (
            self._tokenizer.encode(word, add_special_tokens=special, **options)
            for special in (False, True)
        )
        plain, framed = (getattr(made, "ids", made) for made in (plain, framed))
        if plain == framed:
            return [], []
        begins = [b for b in range(len(framed)) if framed[b : b + len(plain)] == plain]
        return (framed[: begins[0]], framed[begins[0] + len(plain) :]) if begins else ([], [])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; if the vocabulary has bytes, invalid UTF-8 becomes U+FFFD."""
        text: str
        if self._is_fast:
            text = self._tokenizer.decode(ids, skip_special_tokens=False)
        else:
            text = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the vocabulary and of the rules that apply it."""
        if self._is_fast:
            rules = json.loads(self._tokenizer.to_str())
            del rules["post_processor"]  # adds the special tokens that `encode` leaves out
        else:
            rules = {type(self._tokenizer).__name__: self._tokenizer.get_vocab()}
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read_plainly()  # the library's own pickle does not keep all of these settings

    def __deepcopy__(self, memo: object) -> "HuggingFaceTokenizer":
        return self  # nothing in it ever changes

    def __repr__(self) -> str:
        return f"HuggingFaceTokenizer({self.name!r}, vocab_size={self.vocab_size})"
