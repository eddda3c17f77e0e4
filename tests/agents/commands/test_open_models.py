"""Every stage on a model of Hugging Face: what `textenv` does with a name or a folder of one."""

import json

import pytest
import torch
from command_line import run_command
from published import FAMILIES, publish

from agents.feedback import read_rankings
from policies import EncoderDecoderPolicy, HuggingFacePolicy, RewardModel, load_policy

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


@pytest.mark.parametrize(
    ("family", "lora"), [*((family, 0) for family in FAMILIES), ("llama", 2), ("t5", 2)]
)
def test_all_stages_on_one_model(folder, family, lora):
    publish(folder / "base", family)
    adapter = ("--lora", lora) if lora else ()
    run("sft", "--policy", "base", *adapter, "--examples", "my.jsonl", "--out", "sft")
    sft = load_policy("sft")
    assert isinstance(sft, EncoderDecoderPolicy if family == "t5" else HuggingFacePolicy)
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


@pytest.mark.parametrize("lora", [0, 2])
def test_a_model_reads_on_and_goes_on(folder, lora):
    publish(folder / "base", context=32)
    (folder / "book.txt").write_text("It says 1. " * 60)
    rest = ("--window", 16, "--batch-size", 2, "--report-every", 2, "--lora", lora)
    rest = ("pretrain", "--text", "book.txt", "--policy", "base", "--out", "read", *rest)
    run(*rest, "--tokens", 64)
    begun = load_policy("read")
    assert ("lora" in str(trained(begun))) == bool(lora)
    assert "Going on after step 2" in run(*rest, "--tokens", 128)
    assert moved(begun, load_policy("read"))


def test_an_adapter_of_the_model_itself_has_the_model_as_reference(folder):
    publish(folder / "base")
    rest = ("--preferences", ranked(folder), "--epochs", 3, "--learning-rate", 0.01)
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


def test_a_person_rewards_a_model_in_its_own_template_and_trains_an_adapter(folder):
    publish(folder / "base")
    said = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "More"},
    ]
    (folder / "talks.jsonl").write_text(json.dumps({"prompt": said}))
    command = ("live", "--policy", "base", "--prompts", "talks.jsonl", "--out", "out")
    adapter = ("--lora", 2, "--tokens", 64, "--learning-rate", 0.01)
    run(*command, *adapter, "--max-new-tokens", 2, "--reward", "answer", typed="+")
    learned = load_policy("out/policy")
    assert trained(learned) and all("lora" in n or "value" in n for n in trained(learned))
    base = HuggingFacePolicy.from_pretrained("base")
    (line,) = (folder / "out" / "watched.jsonl").read_text().splitlines()
    ids = json.loads(line)["prompt_tokens"]
    assert ids == base.transformers_tokenizer.apply_chat_template(
        said, add_generation_prompt=True, return_dict=False
    )
    with learned.model.disable_adapter():
        ids = torch.arange(20)[None]
        assert torch.equal(learned.model(ids).logits, base.model(ids).logits)


def test_a_model_without_a_template_reads_dialogues_in_plain_text(folder):
    publish(folder / "base", chat_template=None)
    said = [[{"role": "user", "content": f"Say {n}"}] for n in range(4)]
    (folder / "talks.jsonl").write_text("\n".join(json.dumps({"prompt": one}) for one in said))
    both = ("--policy", "base", "--prompts", "talks.jsonl", "--max-new-tokens", 2)
    rounds = ("--rounds", 1, "--prompts-per-round", 2, "--answers-per-prompt", 2, "--rows", 4)
    rounds += ("--tokens-per-round", 8, "--held-out", 0)
    run("online", *both, *rounds, "--labeller", "my.py:odd", "--out", "online")
    run("live", *both, "--tokens", 8, "--reward", "answer", "--out", "live", typed="+")
    for made in ("online", "live"):
        assert load_policy(f"{made}/policy").chat_template["user"] == "User: {content}\nAssistant:"


@pytest.fixture
def read(monkeypatch):
    """The beginnings that policies read, one text for each row that begins."""
    seen = []
    extend = HuggingFacePolicy.extend

    def watched(self, store, plan):
        for begin in (plan.positions == 0).nonzero()[0]:
            ids = plan.tokens[begin:][plan.rows[begin:] == plan.rows[begin]]
            seen.append(self.transformers_tokenizer.decode(ids))
        return extend(self, store, plan)

    monkeypatch.setattr(HuggingFacePolicy, "extend", watched)
    return seen


def test_chat_takes_a_models_own_template_and_its_stop_tokens(folder, read):
    publish(folder / "base")
    said = ("--max-new-tokens", 2, "--temperature", 0, "--allowed-tokens", 66)
    run("chat", "base", *said, "--system", "Be brief.", typed="Hi\nMore\n/exit\n")
    head = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    head += "<|im_start|>assistant\n"
    first, second = [text for text in read if "Hi" in text]  # a policy that is made reads too
    assert first == head
    answer = HuggingFacePolicy.from_pretrained("base").tokenizer.decode([66, 66])
    more = "<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n"
    assert second == head + answer + more


def test_every_stage_talks_in_the_models_own_template(folder, read):
    publish(folder / "base")

    def ask(n):
        return [{"role": "user", "content": f"Say {n}."}]

    talks = [{"messages": [*ask(n), {"role": "assistant", "content": f"{n}"}]} for n in range(8)]
    (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, talks)))
    asked = "\n".join(json.dumps({"prompt": ask(n)}) for n in range(8))
    (folder / "asked.jsonl").write_text(asked)
    prompts, answers = ("--prompts", "asked.jsonl"), ("--max-new-tokens", 4)
    run("sft", "--policy", "base", "--lora", 2, "--examples", "talk.jsonl", "--out", "sft")
    ranked = ("--labeller", "my.py:odd", "--out", "ranked.jsonl", "--answers-per-prompt", 6)
    run("preferences", "--policy", "sft", *prompts, *answers, *ranked)
    run("reward-model", "--policy", "sft", "--preferences", "ranked.jsonl", "--out", "rm")
    run("dpo", "--policy", "sft", "--preferences", "ranked.jsonl", "--out", "dpo")
    rest = ("--reward-model", "rm", *prompts, *answers, "--frame", "chat", "--rows", 4)
    run("train", "--policy", "sft", *rest, "--tokens", 32, "--eval-answers", 4)
    run("eval", "sft", "dpo", *rest, "--answers", 4)
    run("chat", "dpo", *answers, typed="Say 1.\n/exit\n")
    heads = [f"<|im_start|>user\nSay {n}.<|im_end|>\n<|im_start|>assistant\n" for n in range(8)]
    asked = {text for text in read if "Say" in text}
    for text in asked:  # what rows have in common is read before the rest of them
        assert any(head.startswith(text) or text.startswith(head) for head in heads), text
    assert len(asked) >= len(heads)
    # What the reward model reads of an answer is what it has learned from.
    model = RewardModel.load("rm")
    (ids,) = model.encode([ask(1)], ["1"])
    assert model.trunk.transformers_tokenizer.decode(ids) == heads[1] + "1<|im_end|>"


def test_a_model_without_a_template_is_asked_as_it_was_taught(folder, read):
    publish(folder / "base", chat_template=None)
    dialogue = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    records = "\n".join([json.dumps({"messages": dialogue})] * 2)
    (folder / "talk.jsonl").write_text(records)
    run("sft", "--policy", "base", "--lora", 2, "--examples", "talk.jsonl", "--out", "sft")
    run("dpo", "--policy", "sft", "--preferences", ranked(folder), "--out", "dpo")
    for taught in ("sft", "dpo"):
        read.clear()
        run("chat", taught, "--max-new-tokens", 2, typed="Hi\n/exit\n")
        assert "User: Hi\nAssistant:" in read


def ranked(folder):
    """A file of rankings."""
    rankings = [{"prompt": f"{n}", "chosen": " a", "rejected": " bb"} for n in range(8)]
    (folder / "ranked.jsonl").write_text("\n".join(map(json.dumps, rankings)))
    return "ranked.jsonl"


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
