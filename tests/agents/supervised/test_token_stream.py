import numpy as np
import pytest

from agents.supervised import StreamMixture, open_stream, write_stream
from agents.supervised.token_stream import random_windows, shortest_of
from textenv.errors import CheckpointError, VocabularyMismatchError
from textenv.tokenizers import BytesTokenizer, train_bpe

TEXTS = ["one two", "", "three \N{SNOWMAN}"]


def test_documents_stand_end_to_end_with_a_stop_token_behind_each(tmp_path):
    tokenizer = BytesTokenizer()
    stream = open_stream(write_stream(tmp_path / "a.tokens", TEXTS, tokenizer), tokenizer)
    expected = [i for text in TEXTS for i in [*text.encode(), 256]]
    assert stream.tolist() == expected
    assert isinstance(stream, np.memmap)
    assert stream.dtype.itemsize == 2
    assert (tmp_path / "a.tokens").stat().st_size == 2 * len(expected)
    with pytest.raises(ValueError, match="read-only"):
        stream[0] = 1


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    class Large(BytesTokenizer):
        vocab_size = 100_000
        stop_token = 99_999

    stream = open_stream(write_stream(tmp_path / "a.tokens", ["x"], Large()), Large())
    assert stream.tolist() == [120, 99_999]


def test_another_vocabulary_is_refused(tmp_path):
    path = write_stream(tmp_path / "a.tokens", TEXTS, BytesTokenizer())
    with pytest.raises(VocabularyMismatchError, match="another vocabulary"):
        open_stream(path, train_bpe(["a b a b"], 258))


@pytest.mark.parametrize("damage", ["tokens", "description"])
def test_what_is_damaged_is_refused(tmp_path, damage):
    path = write_stream(tmp_path / "a.tokens", TEXTS, BytesTokenizer())
    if damage == "tokens":
        path.write_bytes(path.read_bytes()[:4])
    else:
        (tmp_path / "a.tokens.json").unlink()
    with pytest.raises(CheckpointError, match=r"a\.tokens"):
        open_stream(path, BytesTokenizer())


def test_windows_of_a_mixture_come_in_the_shares_of_its_weights():
    streams = (np.zeros(20, dtype=np.int64), np.arange(1, 1001))
    mixture = StreamMixture(streams, (3.0, 1.0))
    windows = random_windows(mixture, np.random.default_rng(0), 4000, 5)
    assert windows.shape == (4000, 6)
    from_first = (windows == 0).all(1)
    assert from_first.mean() == pytest.approx(0.75, abs=4 * 0.44 / 4000**0.5)
    assert (np.diff(windows[~from_first], axis=1) == 1).all()
    assert mixture.passes(4000) == [150.0, 1.0]
    assert shortest_of(mixture) == 20 and shortest_of(streams[1]) == 1000


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, float("inf"))])
def test_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="positive number for each"):
        StreamMixture((np.arange(3), np.arange(3)), weights)
