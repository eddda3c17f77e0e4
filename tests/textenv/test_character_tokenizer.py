import pytest
from hypothesis import given
from hypothesis import strategies as st

from textenv.errors import TokenizerError
from textenv.tokenizers import CharacterTokenizer, Tokenizer, load_tokenizer

ALPHABET = "ab\n\N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-4E2D}"


@given(st.text(alphabet=ALPHABET))
def test_decoding_undoes_encoding(text):
    tokenizer = CharacterTokenizer(ALPHABET)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_by_hand():
    tokenizer = CharacterTokenizer.of_texts(["cab", "d"])
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.alphabet == "abcd"
    assert (tokenizer.vocab_size, tokenizer.stop_token) == (5, 4)
    assert tokenizer.decode([0, 4, 1, 99]) == "ab\N{REPLACEMENT CHARACTER}"


def test_file_round_trip(tmp_path):
    tokenizer = CharacterTokenizer(ALPHABET)
    tokenizer.save(tmp_path / "t.json")
    loaded = load_tokenizer(str(tmp_path / "t.json"))
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.name == str(tmp_path / "t.json")
    with pytest.raises(TokenizerError, match=r"\.json"):
        tokenizer.save(tmp_path / "t.txt")


def test_what_cannot_be_written_is_named():
    with pytest.raises(TokenizerError, match="'x' is not among the 5"):
        CharacterTokenizer(ALPHABET).encode("abx")
    for alphabet in ("", "aa"):
        with pytest.raises(TokenizerError, match="alphabet"):
            CharacterTokenizer(alphabet)
