"""`textenv revise` and `textenv instruct`, with a server and with a small policy."""

import json
from pathlib import Path

import pytest
import torch
from command_line import run_command
from published_forms import talk

from agents.supervised import read_examples
from policies import TransformerConfig, TransformerPolicy
from textenv.tokenizers import BytesTokenizer

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("rouge_score", reason="rouge_score is not installed")
from servers import serving

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "my.txt").write_text("\n".join(f"Question {n}?" for n in range(20)))
    (tmp_path / "principles.txt").write_text("Be kind.\n")
    seeds = [{"instruction": f"Do task {w}.", "output": "done"} for w in ("one", "two", "three")]
    (tmp_path / "seeds.jsonl").write_text("\n".join(map(json.dumps, seeds)))
    shape = TransformerConfig(257, 1024, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(shape, tokenizer=BytesTokenizer()).save(tmp_path / "small")


class Server:
    """Counts what it is asked; says what `speak` says."""

    def __init__(self, speak):
        self.speak, self.asked = speak, []

    def __call__(self, data, headers, path):
        question = data["messages"][0]["content"]
        self.asked.append(question)
        text = self.speak(question)
        return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def rewrite(question):
    if "Say briefly" in question:
        return "It is curt."
    if "Write a better" in question:
        return "No." if "Question 3?" in question else "No, sorry."
    return "No."


def test_revisions_are_written_for_fine_tuning_and_a_stopped_run_goes_on():
    server = Server(rewrite)
    command = [
        "revise",
        "--prompts",
        "my.txt",
        "--principles",
        "principles.txt",
        "--out",
        "r.jsonl",
    ]
    with serving(server) as url:
        first = run_command(*command, "--model", f"{url}#m", "--limit", "10")
        assert first.exit_code == 0, first.output
        assert len(server.asked) == 30
        again = run_command(*command, "--model", f"{url}#m")
    assert "9 answers were revised; 1 revisions were empty or the first" in first.output
    assert again.exit_code == 0, again.output
    assert len(server.asked) == 30 + 3 * 11  # the one that stayed is asked again
    records = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert len(records) == 19 and records[0]["principles"] == ["Be kind."]
    assert records[0]["first_answer"] == "No." and records[0]["critiques"] == ["It is curt."]
    examples = read_examples("r.jsonl")
    assert len(examples) == 19 and examples[0].pieces[-1] == (" No, sorry.", True)


def test_a_policy_answers_and_another_model_revises():
    server = Server(rewrite)
    with serving(server) as url:
        result = run_command(
            *("revise", "--model", f"{url}#m", "--policy", "small", "--prompts", "my.txt"),
            *("--limit", "2", "--out", "r.jsonl", "--max-new-tokens", "8", "--times", "2"),
        )
    assert result.exit_code == 0, result.output
    assert len(server.asked) == 2 * 2 * 2  # no answer is asked for
    local = run_command(
        *("revise", "--model", "small", "--prompts", "my.txt", "--limit", "2"),
        *("--out", "own.jsonl", "--max-new-tokens", "8"),
    )
    assert local.exit_code == 0, local.output
    assert "2 answers were revised" in local.output


def test_the_last_answer_of_a_dialogue_is_revised_with_what_was_said_before():
    said = talk("2 + 3?", "5", "And twice that?", "10")
    records = [{"messages": said}, {"messages": talk("And twice that?", "10")}]
    Path("talks.jsonl").write_text("\n".join(map(json.dumps, records)))
    heard = []

    class Listens(Server):
        def __call__(self, data, headers, path):
            heard.append(data["messages"])
            return super().__call__(data, headers, path)

    command = ("revise", "--prompts", "talks.jsonl", "--out", "r.jsonl")
    with serving(Listens(rewrite)) as url:
        result = run_command(*command, "--model", f"{url}#m")
        again = run_command(*command, "--model", f"{url}#m")
    assert result.exit_code == 0, result.output
    assert "0 answers were revised" in again.output and len(heard) == 6
    assert said[:3] in heard and said[2:3] in heard
    critiques = [m[0]["content"] for m in heard if "Say briefly" in m[0]["content"]]
    assert any("User: 2 + 3?\n\nAssistant: 5\n\nUser: And twice that?" in c for c in critiques)
    made = [json.loads(line)["messages"] for line in Path("r.jsonl").read_text().splitlines()]
    answer = {"role": "assistant", "content": "No, sorry."}
    assert made == [[*said[:3], answer], [said[2], answer]]
    assert [is_answer for _, is_answer in read_examples("r.jsonl")[0].pieces].count(True) == 2
    local = run_command(*command[:3], "--out", "own.jsonl", "--model", "small", "--limit", "1")
    assert local.exit_code == 0, local.output


def make_up(question):
    if question.startswith("Here are"):
        make_up.count += 1
        words = ("birds", "rivers", "songs", "trains", "bread", "winter", "chess", "stars")
        word = words[make_up.count % len(words)]
        return f"4. Tell something that nobody knows of {word}.\n5. Draw {word}."
    return "B" if "one letter" in question else "none" if "Write one input" in question else "So."


def test_instructions_are_made_up_and_a_run_goes_on():
    make_up.count = 0
    command = ["instruct", "--seeds", "seeds.jsonl", "--out", "made.jsonl", "--similar", "0.95"]
    with serving(Server(make_up)) as url:
        first = run_command(*command, "--model", f"{url}#m", "--count", "2")
        assert first.exit_code == 0, first.output
        assert "2 instructions are kept." in first.output
        assert "too short" in first.output and "Draw" in first.output
        more = run_command(*command, "--model", f"{url}#m", "--count", "4")
    assert more.exit_code == 0, more.output
    records = [json.loads(line) for line in Path("made.jsonl").read_text().splitlines()]
    assert len({record["instruction"] for record in records}) == 4 == len(records)
    assert records[0]["output"] == "So." and len(read_examples("made.jsonl")) == 4


def test_a_policy_that_writes_nothing_of_use_comes_to_an_end():
    result = run_command(
        *("instruct", "--model", "small", "--seeds", "seeds.jsonl", "--out", "made.jsonl"),
        *("--count", "2", "--most-requests", "2", "--max-new-tokens", "4"),
    )
    assert result.exit_code == 0, result.output
    assert "0 instructions are kept." in result.output and "no more that could be" in result.output


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("revise", "--prompts", "none.txt"), "none.txt"),
        (("revise", "--prompts", "my.txt", "--principles", "none.txt"), "none.txt"),
        (("revise", "--prompts", "talks.jsonl"), "ends in '10' ends in an answer"),
        (("instruct", "--seeds", "none.jsonl"), "none.jsonl"),
        (("instruct", "--seeds", "my.txt"), "the file of instructions my.txt"),
    ],
)
def test_mistakes_give_one_message(command, message):
    record = {"prompt": talk("2 + 3?", "5", "And twice that?", "10")}
    Path("talks.jsonl").write_text(json.dumps(record))
    result = run_command(*command, "--model", "small", "--out", "out.jsonl")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert message in result.output
