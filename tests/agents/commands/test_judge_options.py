"""`--labeller judge:...` and `--judge judge:...`: a language model that compares answers."""

import json
from pathlib import Path

import pytest
import torch
from command_line import run_command

from agents.feedback import read_rankings
from policies import TransformerConfig, TransformerPolicy
from textenv.tokenizers import BytesTokenizer

pytest.importorskip("httpx", reason="httpx is not installed")
from servers import serving

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "my.txt").write_text("\n".join(f"p{n} " for n in range(5)))
    (tmp_path / "principles.txt").write_text("Be long.\nBe short.\n")
    (tmp_path / "my.py").write_text("def length(episodes): return [len(e.text) for e in episodes]")
    for seed, name in enumerate(("one", "two")):
        shape = TransformerConfig(257, 32, n_layer=1, n_head=2, n_embd=16)
        policy = TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=seed)
        with torch.no_grad():  # on common numbers policies that differ little say the same
            policy.transformer.token_embedding.weight.mul_(1 + 20 * seed)
        policy.save(tmp_path / name)
    judge = TransformerConfig(257, 512, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(judge, tokenizer=BytesTokenizer()).save(tmp_path / "judge")
    return tmp_path


def says(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def parts(question):
    principle, rest = question.split("\n\nQuestion:\n")
    prompt, rest = rest.split("\n\nAnswer A:\n")
    first, rest = rest.split("\n\nAnswer B:\n")
    return principle, prompt, first, rest.rsplit("\n\nWhich answer", 1)[0]


def by_digits(data, headers, path):
    """Prefers the answer with more even bytes; the one shown first if they have the same."""
    _, _, first, second = parts(data["messages"][0]["content"])
    return says("A" if count(first) >= count(second) else "B")


def count(answer):
    return sum(byte % 2 == 0 for byte in answer.encode())


def label(labeller, *arguments):
    return run_command(
        "preferences",
        *("--policy", "one", "--prompts", "my.txt", "--labeller", labeller, "--out", "p.jsonl"),
        *("--max-new-tokens", "6", *arguments),
    )


def test_a_server_ranks_answers_with_ties_and_its_bias_is_told():
    with serving(by_digits) as url:
        result = label(f"judge:{url}/v1#tiny")
    assert result.exit_code == 0, result.output
    rankings = read_rankings("p.jsonl")
    assert len(rankings) == 5
    assert {ranking.labeller for ranking in rankings} == {f"judge:{url}/v1#tiny"}
    ties = 0
    for ranking in rankings:
        counts = [count(answer) for answer in ranking.answers]
        assert ranking.ranks == tuple(1 + sum(c > d for c in counts) for d in counts)
        ties += sum(a == b for n, a in enumerate(counts) for b in counts[:n])
    assert "compared 30 pairs in both orders" in result.output
    assert ties and f"both orders agreed on {1 - ties / 30:.3f}" in result.output


def test_a_policy_ranks_answers_by_a_principle_of_the_file(monkeypatch):
    monkeypatch.setattr("agents.jobs.models.PairwiseJudge", noted := Noted())
    result = label("judge:judge", "--principles", "principles.txt", "--verdict", "unbiased")
    assert result.exit_code == 0, result.output
    assert "compared 30 pairs" in result.output and len(read_rankings("p.jsonl")) == 5
    assert noted.judge.principles == ["Be long.", "Be short."]
    assert noted.judge.principles_per_prompt == 1
    assert noted.judge.decide.__name__ == "unbiased"
    Path("p.jsonl").unlink()
    every = ("--principles", "principles.txt", "--principles-per-prompt", "0", "--limit", "1")
    assert label("judge:judge", *every).exit_code == 0
    assert noted.judge.principles_per_prompt is None


class Noted:
    """Makes a judge and remembers it."""

    def __call__(self, *given, **more):
        from agents.feedback import PairwiseJudge

        self.judge = PairwiseJudge(*given, **more)
        return self.judge


def test_a_judge_of_pairs_decides_who_wins_an_evaluation():
    command = ("eval", "one", "two", "one", "--prompts", "my.txt", "--max-new-tokens", "6")
    command = (*command[:3], *command[4:], "--json", "out.json", "--answers", "5")
    with serving(by_digits) as url:
        alone = run_command(*command, "--judge", f"judge:{url}#tiny")
        assert alone.exit_code == 0, alone.output
        assert "wins against one" in alone.output and "compared 5 pairs" in alone.output
        one, two = json.loads(Path("out.json").read_text())
        beside = run_command(*command, "--judge", f"judge:{url}#tiny", "--reward", "my.py:length")
    assert one["reward"] is None and one["judge"] is None
    assert one["wins"]["two"]["mean"] == pytest.approx(1 - two["wins"]["one"]["mean"])
    assert two["wins"]["one"]["low"] <= two["wins"]["one"]["mean"] <= two["wins"]["one"]["high"]
    assert beside.exit_code == 0, beside.output
    rewarded = json.loads(Path("out.json").read_text())
    assert rewarded[0]["reward"]["mean"] > 0 and rewarded[0]["wins"] == one["wins"]


@pytest.mark.parametrize(
    ("labeller", "arguments", "message"),
    [
        ("judge:http://localhost:1/v1", (), "write http://localhost:1/v1#MODEL"),
        ("judge:nothing", (), "nothing"),
        ("judge:judge", ("--principles", "none.txt"), "none.txt"),
        ("judge:one", (), "take a model with a longer context"),
        ("judge", (), "it must be vader, snownlp, terminal, judge:POLICY, judge:URL#MODEL or"),
    ],
)
def test_mistakes_give_one_message(labeller, arguments, message):
    result = label(labeller, *arguments)
    assert result.exit_code in (1, 2) and "Traceback" not in result.output
    assert message in result.output


def test_a_person_compares_policies_blindly_and_may_stop():
    command = ("eval", "one", "two", "--prompts", "my.txt", "--max-new-tokens", "6")
    command = (*command, "--answers", "5", "--json", "out.json", "--judge", "terminal")
    stopped = run_command(*command, typed="1\n2\nq\n")
    assert stopped.exit_code == 0, stopped.output
    votes = read_rankings("votes.jsonl")
    assert [vote.ranks for vote in votes] == [(1, 2), (2, 1)]
    result = run_command(*command, typed="=\n=\n=\n")
    assert result.exit_code == 0, result.output
    assert "wins against one" in result.output and len(read_rankings("votes.jsonl")) == 5
    nobody = run_command(*command, "--votes", "other.jsonl", typed="q\n")
    assert nobody.exit_code == 1 and "nobody has compared an answer of one" in nobody.output
