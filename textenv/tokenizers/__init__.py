"""Text to ids and back: bytes, characters, vocabularies of tiktoken, Hugging Face and your own."""

from textenv.tokenizers.base import (
    Tokenizer,
    prompt_frame,
    stop_tokens_of,
    unused_tokens_of,
)
from textenv.tokenizers.bpe import train_bpe
from textenv.tokenizers.bytes import BytesTokenizer
from textenv.tokenizers.characters import CharacterTokenizer
from textenv.tokenizers.huggingface import HuggingFaceTokenizer
from textenv.tokenizers.loading import load_tokenizer
from textenv.tokenizers.rank_files import provide_ranks
from textenv.tokenizers.sources import SourceTokenizer
from textenv.tokenizers.texts import decode_answer, decode_prompt, encode_answer, encode_prompt
from textenv.tokenizers.tiktoken_ranks import TiktokenTokenizer

__all__ = [
    "BytesTokenizer",
    "CharacterTokenizer",
    "HuggingFaceTokenizer",
    "SourceTokenizer",
    "TiktokenTokenizer",
    "Tokenizer",
    "decode_answer",
    "decode_prompt",
    "encode_answer",
    "encode_prompt",
    "load_tokenizer",
    "prompt_frame",
    "provide_ranks",
    "stop_tokens_of",
    "train_bpe",
    "unused_tokens_of",
]
