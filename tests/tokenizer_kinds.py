"""Tokenizers of every kind, learnt from a few lines, for tests of what prompts and answers read."""

import json
from collections.abc import Callable

from letters import Letters
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import ByT5Tokenizer

from textenv.tokenizers import (
    BytesTokenizer,
    CharacterTokenizer,
    HuggingFaceTokenizer,
    load_tokenizer,
    train_bpe,
)

BEGIN, END, ADDED = "<s>", "</s>", "<tool>"
CORPUS = [
    "The cat sat on the mat. The dog's bone is the cat's, isn't it? 1234 and 12345.\n" * 3,
    "a b ab the other thing, there they were: together\n\n  indented   text\n" * 3,
    "naïve café, 你好世界 the café.\n" * 3,
]
MARK = "▁"  # the space before a word, as sentencepiece writes it


def _learnt(tokenizer: Tokenizer, trainer: trainers.Trainer, added: bool = False) -> Tokenizer:
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _with_added(tokenizer) if added else tokenizer


def _with_added(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_tokens([ADDED])
    tokenizer.add_special_tokens([AddedToken("<extra>", special=True)])
    return tokenizer


def byte_level(added: bool = False, prefix: bool = False) -> Tokenizer:
    """As GPT-2's; with `prefix` as RoBERTa's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[BEGIN, END], initial_alphabet=alphabet, show_progress=False
    )
    return _learnt(made, trainer, added)


def space_marks(added: bool = False, scheme: str = "always") -> Tokenizer:
    """A unigram model as T5's, its words written down by hand: training is not repeatable."""
    letters = sorted(set("".join(CORPUS)) - {" "})
    known = [*letters, MARK, f"{MARK}the", f"{MARK}cat", f"{MARK}a", f"{MARK}b", "at", "er", "ther"]
    scored = [(piece, -10.0 + len(piece)) for piece in known]
    made = Tokenizer(models.Unigram([("<unk>", -20.0), (BEGIN, -20.0), (END, -20.0), *scored], 0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    made.add_special_tokens(["<unk>", BEGIN, END])
    return _with_added(made) if added else made


def byte_fallback(added: bool = False) -> Tokenizer:
    """As Llama 2's: space marks by normalising, and bytes of what it has no word for."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace(MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", BEGIN, END, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        limit_alphabet=50,
        show_progress=False,
        max_token_length=8,
    )
    learnt = _learnt(made, trainer, added)
    # Bytes are tokens of the model like any other.
    rules = json.loads(learnt.to_str())
    rules["added_tokens"] = [t for t in rules["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(rules))


def word_pieces(added: bool = False) -> Tokenizer:
    """As BERT's, without capitals."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[UNK]", BEGIN, END], show_progress=False
    )
    return _learnt(made, trainer, added)


def words() -> Tokenizer:
    """One token a word."""
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", BEGIN, END], show_progress=False)
    return _learnt(made, trainer)


def with_beginning(made: Tokenizer) -> Tokenizer:
    """`made`, which from now on puts `<s>` before texts and `</s>` behind them."""
    special = [(name, made.token_to_id(name)) for name in (BEGIN, END)]
    made.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=special
    )
    return made


KINDS: dict[str, Callable[[], object]] = {
    "bytes": BytesTokenizer,
    "characters": lambda: CharacterTokenizer.of_texts(CORPUS),
    "letters": lambda: Letters(26, stop=True),
    "trained": lambda: train_bpe(CORPUS, 320),
    "byte level": byte_level,
    "byte level, added tokens": lambda: byte_level(added=True),
    "byte level, space before": lambda: byte_level(prefix=True),
    "byte level, beginning": lambda: with_beginning(byte_level(added=True)),
    "space marks": space_marks,
    "space marks, added tokens": lambda: space_marks(added=True),
    "space marks, first": lambda: space_marks(scheme="first"),
    "space marks, never": lambda: space_marks(scheme="never"),
    "space marks, beginning": lambda: with_beginning(space_marks(added=True)),
    "byte fallback": byte_fallback,
    "byte fallback, beginning": lambda: with_beginning(byte_fallback(added=True)),
    "word pieces": word_pieces,
    "word pieces, added tokens": lambda: word_pieces(added=True),
    "words": words,
    "python": ByT5Tokenizer,
}


def tokenizer_of_kind(kind: str):
    """The tokenizer of a kind, ended by `</s>`."""
    made = KINDS[kind]()
    is_raw = isinstance(made, Tokenizer)
    return HuggingFaceTokenizer(made, kind, END) if is_raw else load_tokenizer(made)
