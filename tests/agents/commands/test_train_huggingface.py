"""`textenv train` on a model of Hugging Face, whole or through an adapter."""

import json

import pytest
import torch
from command_line import run_command
from published import publish

from policies import HuggingFacePolicy, TransformerConfig, TransformerPolicy
from textenv.tokenizers import BytesTokenizer

pytest.importorskip("peft")
torch.set_num_threads(1)
WORDS = ["<unk>", "<eos>", "aa", "xx", "ee", "yy", "prompt", *map(str, range(10))]
SMALL = ["--tokens", "96", "--rows", "4", "--max-new-tokens", "6", "--eval-answers", "6"]
REWARD = """
def vowels(episodes):
    return [sum(c in "ae" for c in e.text) for e in episodes]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder of a user with prompts, a reward and a tiny GPT-2."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(REWARD)
    (tmp_path / "my.txt").write_text("\n".join(f"prompt {n}" for n in range(10)))
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    torch.manual_seed(0)
    shape = {"vocab_size": len(WORDS), "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**shape, bos_token_id=1, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    return tmp_path


def run(*arguments):
    return run_command("train", *arguments)


def own(policy="gpt2"):
    return ["--prompts", "my.txt", "--reward", "my.py:vowels", "--policy", policy, *SMALL]


def test_an_adapter_is_trained_and_the_run_goes_on(folder):
    result = run(*own(), "--lora", 2, "--micro-batch-tokens", 20)
    assert result.exit_code == 0, result.output
    (made,) = (folder / "runs").iterdir()
    policy = HuggingFacePolicy.load(made / "checkpoint" / "policy")
    trained = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert trained and all("lora" in name for name in trained)
    assert any(p.any() for n, p in policy.model.named_parameters() if "lora_B" in n)
    numbers = json.loads((made / "result.json").read_text())
    assert numbers["before"]["kl_per_answer"] == pytest.approx(0, abs=1e-5)
    assert numbers["after"]["kl_per_answer"] != 0
    more = run("--resume", made, "--tokens", 140)
    assert more.exit_code == 0, more.output
    again = json.loads((made / "result.json").read_text())
    assert again["before"] == numbers["before"]  # the reference is the model without the adapter


def test_the_whole_model_is_trained_and_the_run_goes_on(folder):
    assert run(*own()).exit_code == 0
    (made,) = (folder / "runs").iterdir()
    policy = HuggingFacePolicy.load(made / "checkpoint" / "policy")
    assert all(p.requires_grad for p in policy.parameters())
    more = run("--resume", made, "--tokens", 140)
    assert more.exit_code == 0, more.output
    again = run(*own(made / "checkpoint" / "policy"))
    assert again.exit_code == 0, again.output


def test_mistakes_give_one_message(folder):
    policy = TransformerPolicy(TransformerConfig(257, 32, 1, 2, 16), tokenizer=BytesTokenizer())
    policy.save(folder / "ours")
    (folder / "empty").mkdir()
    for options, message in (
        ((*own("ours"), "--lora", 2), "--lora 2 needs a model of Hugging Face"),
        (own("empty"), "empty holds no policy"),
    ):
        result = run(*options)
        assert result.exit_code == 1
        assert message in " ".join(result.output.split())


TALK = """
from textenv import Reply, World

class Talk(World):
    def begin(self, record, rng):
        return [{"role": "system", "content": "sys"}, {"role": "user", "content": record["prompt"]}]

    def reply(self, turn, rng):
        return Reply("more", reward=0.5)

def framed(episodes):
    read = [e.tokenizer.decode([*e.prompt_tokens, *e.tokens]) for e in episodes]
    begin = "<|im_start|>system\\nsys<|im_end|>\\n<|im_start|>user\\n"
    heads = [text.count("<|im_start|>assistant\\n") for text in read]
    return [
        float(text.startswith(begin) and head == len(e.turns) // 2 == 2)
        for text, head, e in zip(read, heads, episodes)
    ]
"""


def test_frame_chat_takes_the_template_that_the_model_was_published_with(folder):
    publish(folder / "chat")
    (folder / "my.py").write_text(TALK)
    given = ["--prompts", "my.txt", "--world", "my.py:Talk", "--frame", "chat", *SMALL]
    given += ["--policy", "chat", "--max-turn-tokens", 4, "--max-turns", 2]
    result = run(*given, "--max-new-tokens", 60, "--reward", "my.py:framed")
    assert result.exit_code == 0, result.output
    (made,) = (folder / "runs").iterdir()
    samples = [json.loads(line) for line in (made / "samples.jsonl").read_text().splitlines()]
    assert {sample["score"] for sample in samples} == {2.0}  # of world and reward
    for sample in samples:
        _, said, _ = (text for _, text in sample["turns"])
        assert said.endswith("<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n")
    assert run("--resume", str(made), "--tokens", 128).exit_code == 0
    (folder / "own.py").write_text("from textenv.frames import ChatTemplate\nown = ChatTemplate()")
    result = run(*given, "--frame", "own.py:own", "--max-new-tokens", 60)
    assert result.exit_code == 0, result.output
