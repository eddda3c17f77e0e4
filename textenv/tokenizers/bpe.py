"""A vocabulary of your own, learnt from text by byte-pair encoding.

Hugging Face's `tokenizers` library trains it. tiktoken runs it, with the same ids and several times
as fast. Ids 0-255 are the bytes, the learnt merges follow in the order in which they were learnt,
and the stop token is last.

Reference: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units"
(2016), https://arxiv.org/abs/1508.07909
"""

from collections.abc import Iterable
from typing import Any

import tiktoken

from textenv.errors import TokenizerError
from textenv.imports import optional
from textenv.tokenizers.spelling import byte_of_character
from textenv.tokenizers.tiktoken_ranks import STOP_TEXT, TiktokenTokenizer

# Cuts text into words; no token spans two words. This is GPT-4's pattern (contractions, a word with
# the space before it, up to three digits, punctuation, white space), written only with features
# that the regular expressions of both libraries have.
WORD_PATTERN = (
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_bpe(
    texts: Iterable[str], vocab_size: int, *, pattern: str = WORD_PATTERN, progress: bool = False
) -> TiktokenTokenizer:
    """Learn a vocabulary from texts.

    A pair of tokens is merged only if it occurs at least twice.

    Args:
        texts: Texts to learn from; they are read once.
        vocab_size: Number of ids, the 256 bytes and the stop token included.
        pattern: Regular expression that matches one word at a time. It must mean the same to
            Oniguruma, which trains, and to Rust's `fancy-regex`, which encodes: no possessive
            quantifiers.
        progress: Show a progress bar.

    Returns:
        A tokenizer called `"bpe"`. Save it to a file to give it a name that `load_tokenizer` knows.

    Raises:
        TokenizerError: `vocab_size` is below 257 or more than the texts give, `texts` is one
            string, or `pattern` is not a regular expression.
        MissingExtraError: The `tokenizers` package is not installed.
    """
    if isinstance(texts, str):
        raise TokenizerError("texts must be several strings, not one: pass [text]")
    if vocab_size < 257:
        raise TokenizerError(
            f"vocab_size={vocab_size} leaves no room for the 256 bytes and the stop token: "
            "ask for 257 or more"
        )
    ranks = _ranks(_train(texts, vocab_size - 1, pattern, progress))
    if len(ranks) < vocab_size - 1:
        raise TokenizerError(
            f"vocab_size={vocab_size} is more than these texts give, since only "
            f"{len(ranks) - 256} merges occur twice: give more text, or ask for {len(ranks) + 1}"
        )
    encoding = tiktoken.Encoding(
        "bpe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={STOP_TEXT: len(ranks)}
    )
    return TiktokenTokenizer(encoding)


def _train(texts: Iterable[str], size: int, pattern: str, progress: bool) -> Any:
    """A trained `tokenizers.Tokenizer` whose ids are 256 bytes, in its own order, then merges."""
    with optional("tokenizers", extra="train", purpose="training a vocabulary"):
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    try:
        words = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    except Exception as error:  # the library raises no narrower class
        raise TokenizerError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    # A lone surrogate is not text, and the library refuses it.
    tokenizer.train_from_iterator(
        (text.encode("utf-8", errors="replace").decode() for text in texts), trainer
    )
    return tokenizer


def _ranks(tokenizer: Any) -> dict[bytes, int]:
    """Ranks for tiktoken of a trained `tokenizers.Tokenizer`: bytes by value, then the merges."""
    byte_of = byte_of_character()
    ids = tokenizer.get_vocab()
    merges = sorted((token for token in ids if len(token) > 1), key=ids.__getitem__)
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [bytes(byte_of[character] for character in token) for token in merges]
    return {token: rank for rank, token in enumerate(tokens)}
