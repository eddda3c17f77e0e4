"""Files that people name: their text, and what is said where they are not there."""

import pytest

from agents.algorithms.names import algorithm_named
from agents.commands.options import Choice
from agents.commands.parsing import read_config
from agents.commands.train import Task, TrainSettings
from agents.feedback import read_rankings
from agents.jobs.evaluate import _stream
from agents.jobs.inputs import make_algorithm
from agents.supervised import read_examples
from policies import RewardModel, TransformerConfig, TransformerPolicy, load_policy
from textenv.errors import (
    CheckpointError,
    MalformedRecordError,
    MissingFileError,
    OptionError,
    TokenizerError,
)
from textenv.files import check_there, read_text
from textenv.prompts import load_prompts
from textenv.tasks import gsm8k
from textenv.tokenizers import BytesTokenizer, load_tokenizer
from textenv.tokenizers.rank_files import provide_ranks

MARK = "\ufeff"


@pytest.fixture
def marked(tmp_path):
    """Writes a file as editors on Windows do, with a byte order mark."""

    def write(name: str, text: str):
        path = tmp_path / name
        path.write_bytes(f"{MARK}{text}".encode())
        return path

    return write


def test_a_mark_is_not_text(marked):
    assert read_text(marked("a.txt", "one\r\ntwo\n")) == "one\ntwo\n"
    assert read_text(marked("b.txt", f"one {MARK} two")) == f"one {MARK} two"
    assert [p.text for p in load_prompts(marked("c.txt", "one\ntwo")).prompts] == ["one", "two"]
    (prompt,) = load_prompts(marked("c.jsonl", '{"prompt": "one"}')).prompts
    assert prompt.text == "one"
    (example,) = read_examples(marked("d.jsonl", '{"prompt": "one", "response": "two"}'))
    assert example.pieces[0] == ("one", False)
    assert read_config(marked("e.json", '{"tokens": 5}')) == {"tokens": 5}
    assert read_config(marked("e.toml", "tokens = 5")) == {"tokens": 5}


def test_a_mark_in_a_text_to_measure_on(marked):
    tokenizer = BytesTokenizer()
    policy = TransformerPolicy(TransformerConfig(257, 8, 1, 1, 8), tokenizer=tokenizer)
    assert _stream(marked("a.txt", "one"), policy).tolist() == tokenizer.encode("one")


def test_a_mark_in_a_text_to_go_on_reading(marked):
    tokenizer = BytesTokenizer()
    policy = TransformerPolicy(TransformerConfig(257, 8, 1, 1, 8), tokenizer=tokenizer)
    settings = TrainSettings(
        task=Task(ptx_text=str(marked("a.txt", "one two"))),
        algorithm=Choice("ppo-ptx", {"ptx_window": 4}),
    )
    made = make_algorithm(settings, algorithm_named("ppo-ptx"), policy)
    assert made.stream.tolist() == tokenizer.encode("one two")


def test_other_encodings(tmp_path):
    (tmp_path / "a.txt").write_bytes("é".encode("utf-16"))
    with pytest.raises(MalformedRecordError, match=r"a\.txt is no text of UTF-8.*save it as UTF-8"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (read_text, MissingFileError),
        (load_prompts, MissingFileError),
        (gsm8k, MissingFileError),
        (read_rankings, MissingFileError),
        (read_examples, MissingFileError),
        (read_config, OptionError),
        (lambda path: load_tokenizer(str(path.with_suffix(".json"))), TokenizerError),
        (lambda path: provide_ranks("gpt2", path), TokenizerError),
    ],
)
def test_a_missing_file_is_called_one(read, error, tmp_path):
    (tmp_path / "here").mkdir()
    with pytest.raises(error, match=r"there is no file /.*here/gone\.") as raised:
        read(tmp_path / "here" / "gone.jsonl")
    assert "Errno" not in str(raised.value)
    with pytest.raises(error, match=r"there is no folder /.*nowhere"):
        read(tmp_path / "nowhere" / "gone.jsonl")


@pytest.mark.parametrize("load", [load_policy, RewardModel.load, TransformerPolicy.load])
def test_a_missing_folder_is_called_one(load, tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no folder /.*nowhere") as raised:
        load(tmp_path / "nowhere" / "model")
    assert "Errno" not in str(raised.value)
    with pytest.raises(CheckpointError, match=r"there is no file /.*\.json"):
        load(tmp_path)


def test_all_missing_files_are_named(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(MissingFileError, match=r"there is no file .*/b, .*/c to read text from"):
        check_there([tmp_path / name for name in "abc"], "text")
    check_there([tmp_path / "a"], "text")
