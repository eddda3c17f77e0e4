import json

import numpy as np
import pytest
from command_line import run_command

from agents.evaluation import perplexity
from agents.supervised.token_stream import write_stream
from policies import TransformerConfig, TransformerPolicy
from policies.reward_model import RewardModel
from textenv import load_tokenizer
from textenv.tokenizers import train_bpe

TOKENIZER = load_tokenizer("bytes")
MINE = """
def length(episodes):
    return [len(e.text) for e in episodes]

def judge(prompt, answer):
    return -len(answer)

def shout(text):
    return text.upper() + "!"

def prompts_seen(episodes):
    assert all(e.prompt.startswith("PROMPT") and e.prompt.endswith("!") for e in episodes)
    return [1.0] * len(episodes)
"""
SMALL = ["--prompts", "my.jsonl", "--answers", "6", "--max-new-tokens", "6", "--rows", "4"]


def policy(seed: int) -> TransformerPolicy:
    config = TransformerConfig(TOKENIZER.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(config, tokenizer=TOKENIZER, seed=seed)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "220")
    (tmp_path / "my.py").write_text(MINE)
    records = [json.dumps({"prompt": f"prompt {n}"}) for n in range(20)]
    (tmp_path / "my.jsonl").write_text("\n".join(records))
    (tmp_path / "held.txt").write_text("A text that nobody has read, as long as it is.")
    for seed, name in enumerate(("one", "two", "ref")):
        policy(seed).save(tmp_path / name)
    return tmp_path


def run(*arguments: str):
    return run_command("eval", *arguments, *SMALL)


def test_one_table_and_the_same_as_json(folder):
    result = run(
        *("one", "two", "--reward", "my.py:length", "--judge", "my.py:judge"),
        *("--reference", "ref", "--text", "held.txt", "--toxicity", "--json", "out.json"),
    )
    assert result.exit_code == 0, result.output
    assert "6 answers of each policy" in result.output
    for heading in (
        "reward",
        "judge",
        "wins against one",
        "above one",
        "KL an answer",
        "perplexity",
        "toxicity",
    ):
        assert heading in result.output
    one, two = json.loads((folder / "out.json").read_text())
    assert (one["name"], two["name"]) == ("one", "two")
    assert one["judge"]["mean"] == pytest.approx(-one["reward"]["mean"])
    assert one["wins"]["two"]["mean"] + two["wins"]["one"]["mean"] == pytest.approx(1)
    ids = TOKENIZER.encode((folder / "held.txt").read_text())
    assert two["perplexity"] == pytest.approx(perplexity(policy(1), np.array(ids)))
    assert one["gain"] is None  # as the judge says; for so few answers nothing is fitted
    assert two["gain"]["mean"] == pytest.approx(two["judge"]["mean"] - one["judge"]["mean"])
    assert one["kl"]["mean"] != 0
    assert f"{one['reward']['mean']:.3f} [" in result.output


def test_a_judge_alone_is_the_reward(folder):
    result = run("one", "--judge", "my.py:judge", "--json", "out.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((folder / "out.json").read_text())
    assert row["reward"] == row["judge"] and row["reward"]["mean"] < 0
    assert row["wins"] == {} and row["kl"] is None and row["perplexity"] is None


def test_a_reward_model(folder):
    model = RewardModel.from_policy(policy(5))
    model.save(folder / "model")
    result = run("one", "--reward-model", "model", "--json", "out.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((folder / "out.json").read_text())
    assert row["reward"]["low"] < row["reward"]["high"]
    alone = row["reward"]["mean"]
    RewardModel.from_policy(policy(5), seed=1).save(folder / "other")
    several = ["--reward-model", "model", "--reward-model", "other", "--spread-penalty", "9"]
    result = run("one", *several, "--json", "out.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((folder / "out.json").read_text())
    assert row["reward"]["mean"] < alone


def test_answers_in_bfloat16(folder):
    figures = []
    for precision in ("float32", "bfloat16"):
        options = ["--judge", "my.py:judge", "--reference", "one", "--precision", precision]
        result = run("two", *options, "--json", "out.json")
        assert result.exit_code == 0, result.output
        figures.append(json.loads((folder / "out.json").read_text())[0]["kl"]["mean"])
    assert figures[0] != figures[1] and figures[1] == pytest.approx(figures[0], rel=0.5)


def test_a_template(folder):
    result = run("one", "--reward", "my.py:prompts_seen", "--template", "my.py:shout")
    assert result.exit_code == 0, result.output


def test_the_mark_at_the_beginning_of_a_text_is_no_character(folder):
    figures = []
    for encoding in ("utf-8", "utf-8-sig"):
        (folder / "held.txt").write_text("A text that nobody has read.", encoding=encoding)
        result = run("one", "--judge", "my.py:judge", "--text", "held.txt", "--json", "out.json")
        assert result.exit_code == 0, result.output
        figures.append(json.loads((folder / "out.json").read_text())[0]["perplexity"])
    assert figures[0] == figures[1]


def test_a_stream_of_tokens_as_held_out_text(folder):
    write_stream(folder / "held.tokens", ["A text.", "Another."], TOKENIZER)
    result = run("one", "--judge", "my.py:judge", "--text", "held.tokens", "--json", "out.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((folder / "out.json").read_text())
    assert 200 < row["perplexity"] < 400  # it has learned nothing, of 257 tokens


def test_a_report(folder):
    result = run("one", "two", "--reward", "my.py:length", "--report", "report.html")
    assert result.exit_code == 0, result.output
    page = (folder / "report.html").read_text()
    assert page.count("<article") == 10 and "wins against one" in page


def test_folders_of_the_same_name_are_told_apart(folder):
    policy(4).save(folder / "other" / "one")
    result = run("one", "other/one", "--judge", "my.py:judge")
    assert result.exit_code == 0, result.output
    assert "other/one" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one"], "nothing to measure"),
        (["one", "--reward", "a:b", "--reward-model", "m"], "not both"),
        (["none", "--judge", "my.py:judge"], "holds no policy"),
        (["one", "--judge", "nobody"], "nobody"),
        (["one", "--judge", "my.py:judge", "--text", "empty.txt"], "none to predict"),
        (["one", "--judge", "my.py:judge", "--text", "latin.txt"], "no text of UTF-8"),
        (["one", "--judge", "my.py:judge", "--reference", "bpe"], "different vocabularies"),
    ],
)
def test_what_cannot_be_used_is_said(folder, arguments, message):
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes("é".encode("latin-1"))
    tokenizer = train_bpe(["the end, the end, the end"], 258)
    config = TransformerConfig(tokenizer.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(config, tokenizer=tokenizer).save(folder / "bpe")
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.replace("│", " ").split())


def test_prompts_that_are_too_long(folder):
    (folder / "long.txt").write_text("short\n" + "x" * 27 + "\nshort, too\n" + "y" * 28)
    arguments = ["one", "two", "--judge", "my.py:judge", "--prompts", "long.txt"]
    result = run_command("eval", *arguments, "--max-new-tokens", "6")
    assert result.exit_code == 1
    first, second, way_out = result.output.splitlines()
    assert "long.txt:2: " in first and "long.txt:4: " in second and "--long-prompts" in way_out
    for how, answers in (("cut", 4), ("drop", 2)):
        options = ["--max-new-tokens", "6", "--long-prompts", how, "--rows", "4"]
        result = run_command("eval", *arguments, *options)
        assert result.exit_code == 0, result.output
        assert "2 of 4 prompts have more than 26 tokens" in result.output
        assert f"{answers} answers of each policy" in result.output


@pytest.mark.parametrize("option", ["--reward", "--judge"])
def test_what_scores_is_tried_before_a_policy_is_loaded(folder, option):
    (folder / "tried.py").write_text("def score(*given):\n    return 1 / 0\n")
    result = run("none", option, "tried.py:score")
    assert result.exit_code == 1
    output = " ".join(result.output.split())
    assert "tried on a made-up episode" in output
    assert "in tried.py, line 2: return 1 / 0" in output


def test_answers_that_fill_the_context(folder):
    arguments = ["one", "--judge", "my.py:judge", *SMALL, "--max-new-tokens", "32"]
    result = run_command("eval", *arguments)
    assert result.exit_code == 1
    assert "leave no room" in " ".join(result.output.split())


def test_policies_answer_under_the_masks_they_are_given(folder):
    (folder / "my.py").write_text(
        MINE
        + "def only_a(episodes):\n"
        + "    return [float(e.text == 'a' * len(e.text) and len(e.text) >= 2) for e in episodes]\n"
    )
    masks = ("--allowed-tokens", "97", "--min-new-tokens", "2", "--json", "out.json")
    result = run("one", "two", "--reward", "my.py:only_a", *masks)
    assert result.exit_code == 0, result.output
    assert [row["reward"]["mean"] for row in json.loads((folder / "out.json").read_text())] == [
        1,
        1,
    ]
    refused = run("one", "--reward", "my.py:length", "--allowed-tokens", "300")
    assert refused.exit_code == 2 and "allowed_tokens holds 300" in refused.output


# ------------------------------------------------------------------------- ways to put prompts

ASKED = ["--prompts", "my.jsonl", "--answers", "6", "--rows", "4", "--max-new-tokens", "4"]


def ask(*arguments: object):
    return run_command("eval", *arguments, *ASKED)


@pytest.fixture
def shots(folder):
    config = TransformerConfig(TOKENIZER.vocab_size, 200, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(config, tokenizer=TOKENIZER).save(folder / "long")
    lines = [json.dumps({"question": f"prompt {n}", "answer": str(n)}) for n in (30, 31, 32)]
    (folder / "examples.jsonl").write_text("\n".join(lines))
    mine = (
        "def shown(episodes):\n"
        "    assert all(e.prompt.startswith('Count.') for e in episodes)\n"
        "    return [float(e.prompt.count('A: ')) for e in episodes]\n"
    )
    (folder / "shown.py").write_text(mine)
    return folder


def test_rows_by_the_number_of_shots(shots):
    line = ["--examples", "examples.jsonl", "--shots", "0", "--shots", "2", "--json", "out.json"]
    ran = ask("long", "--reward", "shown.py:shown", "--description", "Count.", *line)
    assert ran.exit_code == 0, ran.output
    none, two = json.loads((shots / "out.json").read_text())
    assert (none["name"], two["name"]) == ("long, 0 shots", "long, 2 shots")
    assert (none["reward"]["mean"], two["reward"]["mean"]) == (0.0, 2.0)
    assert two["wins"]["long, 0 shots"]["mean"] == 1.0


def test_rows_by_wording_and_how_much_depends_on_it(shots):
    (shots / "wordings.txt").write_text("{prompt}\nDo this: {prompt}!\n")
    (shots / "odd.py").write_text("def judge(prompt, answer): return sum(map(ord, answer)) % 7")
    line = ["--judge", "odd.py:judge", "--wordings", "wordings.txt", "--json", "out.json"]
    ran = ask("one", "two", *line)
    assert ran.exit_code == 0, ran.output
    assert "How much depends on the wording" in ran.output
    rows = json.loads((shots / "out.json").read_text())
    names = ["one, {prompt}", "one, Do this: {prompt}!", "two, {prompt}", "two, Do this: {prompt}!"]
    assert [row["name"] for row in rows] == names
    found = rows[0]["robustness"]
    assert found == rows[1]["robustness"] != rows[2]["robustness"]
    means = [row["judge"]["mean"] for row in rows[:2]]
    assert found["spread"] == pytest.approx(max(means) - min(means))
    assert found["by_wording"]["{prompt}"]["mean"] == pytest.approx(means[0])


def test_refusals_by_a_column_of_the_prompts(folder):
    records = [{"prompt": f"prompt {n}", "refuse": n % 2 == 0} for n in range(6)]
    (folder / "my.jsonl").write_text("\n".join(map(json.dumps, records)))
    ran = ask("one", "--judge", "my.py:judge", "--refusals", "--json", "out.json")
    assert ran.exit_code == 0, ran.output
    (row,) = json.loads((folder / "out.json").read_text())
    assert row["refused_when_due"]["mean"] == row["refused_otherwise"]["mean"] == 0
    assert "refused when due" in ran.output and "refused otherwise" in ran.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--examples", "examples.jsonl"], "--examples stands with worked examples"),
        (["--description", "Count."], "--description stands with worked examples"),
        (["--shots", "2"], "--shots 2 of which examples? Name a file, --examples"),
        (["--shots", "3", "--examples", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--shots", "4", "--examples", "examples.jsonl"], "4 worked examples are asked for"),
        (["--shots", "1", "--examples", "examples.jsonl", "--reasoning"], "has no reasoning"),
        (["--shots", "0", "--wordings", "wordings.txt"], "give one of them at a time"),
        (["--wordings", "wordings.txt"], "holds 1 wordings: give two or more"),
        (["--refusals"], "prompt 0 has the value None in its column 'refuse'"),
    ],
)
def test_ways_that_cannot_be_are_refused(shots, line, message):
    (shots / "wordings.txt").write_text("{prompt}\n")
    ran = ask("long", "--judge", "my.py:judge", *line)
    assert ran.exit_code in (1, 2)
    assert message in ran.output, ran.output


def test_weights_of_eight_bits_answer_and_do_not_learn(folder):
    pytest.importorskip("torchao")
    common = ("one", "--reward", "my.py:length", "--text", "held.txt")
    shown = []
    for name in ("float32", "int8"):
        result = run(*common, "--precision", name, "--json", "out.json")
        assert result.exit_code == 0, result.output
        shown.append(json.loads((folder / "out.json").read_text())[0]["perplexity"])
    assert shown[0] != shown[1] == pytest.approx(shown[0], rel=1e-2)
    refused = run_command("train", "--precision", "int8")
    assert refused.exit_code == 2 and "int8" in refused.output
