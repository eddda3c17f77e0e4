"""Vocabularies of Hugging Face models, from the libraries transformers and tokenizers."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from textenv.errors import TokenizerError, TokenizerUnavailableError
from textenv.imports import optional
from textenv.tokenizers.base import new_file
from textenv.tokenizers.spelling import byte_of_character

FORMAT = "textenv hugging face 1"

Stop: TypeAlias = str | int | Iterable[str | int]
"""What ends an answer: a token by its name in the vocabulary, its text or its id, or several."""


@dataclass(frozen=True)
class ChatTemplateText:
    """A chat template as it is published: what renders messages to a text.

    Attributes:
        jinja: The template in the language of the library jinja.
        names: Texts that it calls by name, such as `bos_token`.
    """

    jinja: str
    names: Mapping[str, str]

    @classmethod
    def of(cls, tokenizer: Any) -> "ChatTemplateText | None":
        """That of a tokenizer of transformers; None if it has none."""
        if not getattr(tokenizer, "chat_template", None):
            return None
        jinja = tokenizer.get_chat_template()
        return cls(jinja, {name: str(text) for name, text in tokenizer.special_tokens_map.items()})


class HuggingFaceTokenizer:
    """A tokenizer of the transformers or the tokenizers library.

    Text is encoded as it is: no template, no special token, whatever the text spells. Prompts begin
    with the special tokens that the library puts before a text, such as Llama's
    `<|begin_of_text|>`, since models are trained with them. Decoding spells out special tokens; ids
    that the vocabulary skips have no text. Some vocabularies change case or white space, so that
    decoding does not give back the text that was encoded.

    Args:
        tokenizer: A `transformers.PreTrainedTokenizerBase` or a `tokenizers.Tokenizer`. The latter
            is copied, also when it is inside the former.
        name: Its name for `load_tokenizer`; by default `"hf:"` and the place it was loaded from.
        stop: The token that ends an answer, such as `"<|im_end|>"`, its text, its id, or several of
            these, of which fine-tuning puts the first behind answers. By default transformers' end
            of sequence; a `tokenizers.Tokenizer` has no default.
        bos: False leaves out what the library puts before a text.

    Attributes:
        stop_tokens: Ids that end an answer.
        unused_tokens: Ids that the vocabulary skips.
        frame: Ids before and after every prompt; there are none after it.
        chat_template: The chat template that it was published with, or None.

    Raises:
        TokenizerError: `stop` is not in the vocabulary.
    """

    def __init__(
        self, tokenizer: Any, name: str | None = None, stop: Stop | None = None, *, bos: bool = True
    ) -> None:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        eos: int | None = getattr(tokenizer, "eos_token_id", None)
        self.name = name or f"hf:{getattr(tokenizer, 'name_or_path', '')}"
        self.vocab_size = max(vocabulary.values()) + 1
        if stop is None:
            stop = () if eos is None else eos
        several = [stop] if isinstance(stop, str | int) else stop
        names = {token: name for name, token in vocabulary.items()}
        self.unused_tokens = tuple(sorted(set(range(self.vocab_size)) - names.keys()))

        # Most of transformers' tokenizers wrap one of the tokenizers library; calling that directly
        # takes half the time.
        itself = tokenizer if hasattr(tokenizer, "to_str") else None
        fast: Any = getattr(tokenizer, "backend_tokenizer", itself)
        self._is_fast = fast is not None
        self._tokenizer = type(fast).from_str(fast.to_str()) if self._is_fast else tokenizer
        self._read_plainly()

        def id_of(token: str | int) -> int:
            if token in names:
                return int(token)
            if token in vocabulary:
                return vocabulary[str(token)]
            # A text: the line end is called "Ċ" in vocabularies of bytes.
            found = self._ids(token) if isinstance(token, str) else []
            if len(found) != 1 or self.decode(found) != token:
                raise TokenizerError(f"stop={token!r} is not a token of {self.name!r}")
            return found[0]

        self.stop_tokens = tuple(dict.fromkeys(map(id_of, several)))
        self.stop_token: int | None = next(iter(self.stop_tokens), None)
        special = special_tokens(tokenizer)
        # Some vocabularies (T5's, for one) hold the stop token's spelling as a word too. A line end
        # that was chosen to end answers stays in prompts.
        self._no_words = {
            token
            for token in self.stop_tokens
            if token in special or (names[token][0], names[token][-1]) == ("<", ">")
        }
        self.frame = (tuple(self.special_frame()[0]) if bos else (), ())
        self.chat_template = ChatTemplateText.of(tokenizer)

    def _read_plainly(self) -> None:
        if self._is_fast:
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self._tokenizer.encode_special_tokens = True  # as text: "</s>" is then four characters

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str, stop: Stop | None = None, *, bos: bool = True
    ) -> "HuggingFaceTokenizer":
        """The tokenizer of a model, by its name on the hub or its folder.

        Args:
            name_or_folder: Its name or folder.
            stop: What ends an answer; by default the tokenizer's end of sequence and those of the
                model's `generation_config`.
            bos: False leaves out what the library puts before a text.

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
            ends = ends_of_folder(name_or_folder, tokenizer) if stop is None else stop
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
        return cls(tokenizer, f"hf:{name_or_folder}", ends, bos=bos)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; a lone surrogate, which is not text, becomes "?"."""
        text = text.encode("utf-8", errors="replace").decode()
        ids = self._ids(text)
        if not self._no_words.isdisjoint(ids):
            ids = [token for token in ids if token not in self._no_words]
        return ids

    def encode_marked(self, text: str, *, further: bool = False) -> list[int]:
        """Ids of a text in which the spelling of a special token is that token.

        Use it for texts that nobody but the program has written, such as a chat template's.

        Args:
            text: The text.
            further: It goes on from another text; see `encode_further`.
        """
        if further:
            return self._behind(text, self.encode_marked)
        if not self._is_fast:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
            return ids
        self._tokenizer.encode_special_tokens = False
        try:
            return self._ids(text)
        finally:
            self._tokenizer.encode_special_tokens = True

    @cached_property
    def added_tokens(self) -> frozenset[int]:
        """Ids that were added to the vocabulary that was learned, special ones among them."""
        return frozenset(special_tokens(self._tokenizer))

    @cached_property
    def special_texts(self) -> dict[int, str]:
        """The spelling of each special token: text that `encode` and `encode_marked` read apart."""
        added = getattr(self._tokenizer, "get_added_tokens_decoder", None)
        known = added() if added else self._tokenizer.added_tokens_decoder
        return {token: one.content for token, one in known.items() if one.special}

    def _ids(self, text: str, special: bool = False) -> list[int]:
        ids: list[int]
        if self._is_fast:
            ids = self._tokenizer.encode(text, add_special_tokens=special).ids
        else:
            ids = self._tokenizer.encode(
                text, add_special_tokens=special, split_special_tokens=True
            )
        return ids

    def encode_further(self, text: str) -> list[int]:
        """Ids of `text` behind other text: without the mark that some put where a text begins."""
        return self._behind(text, self.encode)

    def _behind(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        for anchor, known in self._anchors:
            ids = encode(anchor + text)
            if ids[: len(known)] == known:
                return ids[len(known) :]
        return encode(text)

    @cached_property
    def _anchors(self) -> list[tuple[str, list[int]]]:
        """Texts behind which others are encoded as they stand; none if each is so by itself."""
        found = []
        for anchor in ("", "\n", ".", ":"):
            with suppress(Exception):  # of no class: a character that the vocabulary lacks
                known, other = self.encode(anchor), self.encode("a")
                ends = {end: self.encode(anchor + end)[len(known) :] for end in ("b", " b")}
                before = self.decode(other)
                if all(self.decode([*other, *ids]) == before + end for end, ids in ends.items()):
                    found.append((anchor, known))
        return [] if ("", []) in found else found

    def special_frame(self) -> tuple[list[int], list[int]]:
        """Special ids that the library itself puts before and after a text.

        `encode` leaves them out; an encoder-decoder's prompts need them.
        """
        if not self._ids("", special=True):
            return [], []
        plain, framed = self._ids("a"), self._ids("a", special=True)
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

    def is_boundary(self, token: int) -> bool:
        """Whether no character can continue behind `token`; True in vocabularies of bytes alone."""
        return token in self._boundaries

    @cached_property
    def _boundaries(self) -> frozenset[int]:
        rules = json.loads(self._tokenizer.to_str()) if self._is_fast else {"decoder": None}
        if (rules["decoder"] or {}).get("type") != "ByteLevel":
            return frozenset()
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        # GPT-2's spelling of the bytes below 128: themselves, and U+0100 to U+0121 for the rest.
        ends = {*map(chr, range(33, 127)), *map(chr, range(0x100, 0x122))}
        return frozenset(token for name, token in vocabulary.items() if name[-1:] in ends)

    def vocabulary_bytes(self) -> list[bytes | None]:
        """The bytes that each id adds behind other text; None for special tokens.

        Raises:
            TokenizerError: How the library decodes is not known to join bytes, as with WordPiece.
        """
        rules = json.loads(self._tokenizer.to_str()) if self._is_fast else {}
        spelling = spelling_of(rules.get("decoder"))
        if spelling is None:
            raise TokenizerError(
                f"the tokens of {self.name!r} are no bytes that are put one behind the other (its "
                f"decoder is {(rules.get('decoder') or {}).get('type')}): take a model with a "
                "vocabulary of byte-level BPE or SentencePiece"
            )
        added = {token["id"]: token for token in rules["added_tokens"]}
        of_ids: list[bytes | None] = [None] * self.vocab_size
        for text, token in self._tokenizer.get_vocab().items():
            if token not in added:
                of_ids[token] = spelling(text)
            elif not added[token]["special"]:
                of_ids[token] = text.encode()
        return of_ids

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the vocabulary and of the rules that apply it."""
        if self._is_fast:
            rules = json.loads(self._tokenizer.to_str())
            del rules["post_processor"]  # adds the special tokens that `encode` leaves out
        else:
            rules = {type(self._tokenizer).__name__: self._tokenizer.get_vocab()}
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary, the ends and how prompts begin, for `load_tokenizer(path)`.

        Args:
            path: Ends in `.json`. A tokenizer that is written in Python has a folder beside it.

        Raises:
            TokenizerError: `path` has another ending.
        """
        path = new_file(path)
        contents = {
            "format": FORMAT,
            "tokenizer": self._tokenizer.to_str() if self._is_fast else None,
            "stop_tokens": self.stop_tokens,
            "no_words": sorted(self._no_words),
            "bos": bool(self.frame[0]),
            "chat_template": self.chat_template and asdict(self.chat_template),
        }
        if not self._is_fast:
            self._tokenizer.save_pretrained(path.with_suffix(""))
        path.write_text(json.dumps(contents), encoding="utf-8")

    @classmethod
    def from_contents(cls, contents: dict[str, Any], name: str) -> "HuggingFaceTokenizer":
        """The tokenizer that `save` wrote, from the contents of its file."""
        if contents["tokenizer"] is None:
            tokenizer = cls.from_pretrained(str(Path(name).with_suffix("")))._tokenizer
        else:
            with optional("tokenizers", extra="train", purpose=f"tokenizer {name!r}"):
                from tokenizers import Tokenizer
            tokenizer = Tokenizer.from_str(contents["tokenizer"])
        made = cls(tokenizer, name, contents["stop_tokens"], bos=contents["bos"])
        made._no_words = set(contents["no_words"])
        if template := contents.get("chat_template"):  # files of earlier versions have none
            made.chat_template = ChatTemplateText(**template)
        return made

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read_plainly()  # the library's own pickle does not keep all of these settings

    def __deepcopy__(self, memo: object) -> "HuggingFaceTokenizer":
        return self  # nothing in it ever changes

    def __repr__(self) -> str:
        return f"HuggingFaceTokenizer({self.name!r}, vocab_size={self.vocab_size})"


def spelling_of(decoder: Mapping[str, Any] | None) -> Callable[[str], bytes | None] | None:
    """From a token as a vocabulary spells it to its bytes; None if tokens are not joined bytes.

    Args:
        decoder: The decoder in a file of the library tokenizers.
    """
    steps = [] if decoder is None else decoder.get("decoders", [decoder])
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        byte_of = byte_of_character()
        return lambda text: (
            bytes(byte_of[c] for c in text) if byte_of.keys() >= set(text) else text.encode()
        )
    spaces = [s["pattern"].get("String") for s in steps if s["type"] == "Replace"]
    spaces += [s["replacement"] for s in steps if s["type"] == "Metaspace"]
    if len(spaces) != 1 or not kinds <= {"Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"}:
        return None
    space, falls_back = spaces[0], "ByteFallback" in kinds

    def of_piece(text: str) -> bytes:
        if falls_back and re.fullmatch(r"<0x[0-9A-F]{2}>", text):
            return bytes([int(text[3:5], 16)])
        return text.replace(space, " ").encode("utf-8", errors="replace")

    return of_piece


def special_tokens(tokenizer: Any) -> set[int]:
    """Ids that a tokenizer of transformers or tokenizers marks as special or added."""
    added = getattr(tokenizer, "get_added_tokens_decoder", None)
    known = added() if added else getattr(tokenizer, "added_tokens_decoder", {})
    return {*known, *getattr(tokenizer, "all_special_ids", ())}


def ends_of_model(tokenizer: Any, generation_config: Any) -> list[int]:
    """Ids that end an answer of a model: the tokenizer's end of sequence, then the model's.

    Every Llama made from its configuration's defaults names the id 2, whatever its vocabulary. So
    where transformers has derived one end from there, it counts only if it is a special token.

    Args:
        tokenizer: Of transformers or tokenizers.
        generation_config: The model's `generation_config`.
    """
    named = generation_config.eos_token_id
    if isinstance(named, int):
        chosen = not getattr(generation_config, "_from_model_config", None)
        named = [named] if chosen or named in special_tokens(tokenizer) else []
    ends = [getattr(tokenizer, "eos_token_id", None), *(named or ())]
    known = set(tokenizer.get_vocab().values())
    return [token for token in dict.fromkeys(ends) if token in known]


def ends_of_folder(name_or_folder: str, tokenizer: Any) -> list[int] | None:
    """`ends_of_model` of the model that lies beside a tokenizer; None if there is none."""
    from transformers import AutoConfig, GenerationConfig

    try:
        generation_config = GenerationConfig.from_pretrained(name_or_folder)
    except OSError:  # the file is younger than many models
        try:
            config = AutoConfig.from_pretrained(name_or_folder)
        except (OSError, ValueError):  # a tokenizer alone, or an unknown model
            return None
        generation_config = GenerationConfig.from_model_config(config)
    return ends_of_model(tokenizer, generation_config)
