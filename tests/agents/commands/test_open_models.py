"""Every stage on a model of Hugging Face: what `textenv` does with a name or a folder of one."""

import json

import pytest
import torch
from command_line import run_command
from published import FAMILIES, publish

from agents.feedback import read_rankings
from policies import HuggingFacePolicy, RewardModel, load_policy

pytest.importorskip("peft")
torch.set_num_threads(1)
MINE = """
def odd(prompt, answers):
    return [sum(answer.encode()) % 101 for answer in answers]
"""
EXAMPLES = ("--examples", "my.jsonl", "--out", "out")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(MINE)
    (tmp_path / "my.txt").write_text("\n".join(f"Say {n}." for n in range(8)))
    records = [{"prompt": f"Say {n}.", "response": f" {n}"} for n in range(8)]
    (tmp_path / "my.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path


def run(*arguments, **options):
    result = run_command(*arguments, **options)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    result = run_command(*arguments)
    assert result.exit_code != 0
    return " ".join(result.output.split())


def trained(policy):
    return {name for name, weight in policy.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(("family", "lora"), [(f, 0) for f in FAMILIES] + [("llama", 2)])
def test_all_stages_on_one_model(folder, family, lora):
    publish(folder / "base", family)
    adapter = ("--lora", lora) if lora else ()
    (folder / "book.txt").write_text("It says 1. " * 60)
    run(
        *("pretrain", "--text", "book.txt", "--policy", "base", "--out", "read", *adapter),
        *("--window", 16, "--batch-size", 2, "--tokens", 64, "--report-every", 2),
    )
    # The whole model is read on; an adapter is one of the published model.
    begin = ("base", *adapter) if lora else ("read",)
    run("sft", "--policy", *begin, "--examples", "my.jsonl", "--out", "sft", "--epochs", 1)
    sft = load_policy("sft")
    assert isinstance(sft, HuggingFacePolicy)
    assert ("lora" in str(trained(sft))) == bool(lora)
    run(
        *("preferences", "--policy", "sft", "--prompts", "my.txt", "--labeller", "my.py:odd"),
        *("--out", "ranked.jsonl", "--max-new-tokens", 4, "--answers-per-prompt", 6),
    )
    assert len(read_rankings("ranked.jsonl")) == 8
    # From here on the adapter of SFT is trained further.
    run("reward-model", "--policy", "sft", "--preferences", "ranked.jsonl", "--out", "rm")
    model = RewardModel.load("rm")
    assert model.trunk.value_head.weight.any()
    assert trained(model.trunk) - {"value_head.weight", "value_head.bias"} == trained(sft) - {
        "value_head.weight",
        "value_head.bias",
    }
    run("dpo", "--policy", "sft", "--preferences", "ranked.jsonl", "--out", "dpo")
    assert moved(sft, load_policy("dpo"))
    said = run(
        *("train", "--policy", "sft", "--reward-model", "rm", "--prompts", "my.txt"),
        *("--tokens", 32, "--rows", 4, "--max-new-tokens", 4, "--eval-answers", 4),
    )
    assert "Gain in score" in said
    (made,) = (folder / "runs").iterdir()
    assert moved(sft, load_policy(made / "checkpoint" / "policy"))
    run(
        *("eval", "base", "sft", "dpo", "--prompts", "my.txt", "--reward-model", "rm"),
        *("--reference", "sft", "--max-new-tokens", 4, "--answers", 4, "--json", "figures.json"),
    )
    rows = json.loads((folder / "figures.json").read_text())
    kl = [row["kl"]["mean"] for row in rows]
    assert kl[1] == pytest.approx(0, abs=1e-4) and kl[0] != 0 != kl[2]


def test_an_adapter_of_the_model_itself_has_the_model_as_reference(folder):
    publish(folder / "base")
    rankings = [{"prompt": f"{n}", "chosen": " a", "rejected": " bb"} for n in range(8)]
    (folder / "ranked.jsonl").write_text("\n".join(map(json.dumps, rankings)))
    rest = ("--preferences", "ranked.jsonl", "--epochs", 3, "--learning-rate", 0.01)
    run("dpo", "--policy", "base", "--lora", 2, *rest, "--out", "dpo", "--loss", "ipo")
    run("reward-model", "--policy", "base", "--lora", 2, *rest, "--out", "rm")
    learned = load_policy("dpo").model
    assert learned.peft_config["default"].r == 2
    base = HuggingFacePolicy.from_pretrained("base").model
    with learned.disable_adapter():
        ids = torch.arange(20)[None]
        assert torch.equal(learned(ids).logits, base(ids).logits)
    score = RewardModel.load("rm").score_texts
    assert (score(map(str, range(8)), [" a"] * 8) > score(map(str, range(8)), [" bb"] * 8)).all()


def test_chat_takes_a_models_own_template_and_its_stop_tokens(folder, monkeypatch):
    publish(folder / "base")
    policy = HuggingFacePolicy.from_pretrained("base")
    seen = []
    extend = HuggingFacePolicy.extend

    def watched(self, store, plan):
        seen.append(plan.tokens.tolist())
        return extend(self, store, plan)

    monkeypatch.setattr(HuggingFacePolicy, "extend", watched)
    run("chat", "base", "--max-new-tokens", 3, "--temperature", 0, typed="Hi\n/exit\n")
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ids = policy.transformers_tokenizer(text)["input_ids"]
    assert max(seen, key=len) == ids


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("sft", "--policy", "nowhere/model", *EXAMPLES), "no such folder"),
        (("sft", "--policy", "lora", "--lora", 2, *EXAMPLES), "leave --lora out"),
        (("chat", "lora", "--stop", "a"), "leave --stop out"),
        (("pretrain", "--text", "my.txt", "--policy", "t5", "--out", "out"), "encoder-decoder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_a_way_out(folder, monkeypatch, line, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    publish(folder / "base")
    publish(folder / "t5", "t5")
    run("sft", "--policy", "base", "--lora", 1, "--examples", "my.jsonl", "--out", "lora")
    assert message in refused(*line)


def moved(one, other):
    """Whether weights that are trained differ."""
    weights = dict(other.named_parameters())
    return any(not torch.equal(p, weights[n]) for n, p in one.named_parameters() if p.requires_grad)
