"""`textenv pretrain` and `textenv sft`, with files of a few lines."""

import json

import pytest
import torch
from command_line import run_command

from policies import RewardModel, TransformerConfig, TransformerPolicy
from policies.rotary import Rope, YaRN
from textenv.tokenizers import BytesTokenizer, CharacterTokenizer

TEXT = "the cat sat on the mat. " * 60


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def small(text, out, **options) -> list[object]:
    settings = {"tokenizer": "characters", "n-layer": 1, "n-head": 2, "n-embd": 16, "window": 16}
    settings |= {"tokens": 4096, "batch-size": 4, "report-every": 20, "learning-rate": 1e-2}
    settings |= {name.replace("_", "-"): value for name, value in options.items()}
    return ["pretrain", "--text", text, "--out", out] + [
        part for name, value in settings.items() for part in (f"--{name}", value)
    ]


def test_pretraining_reports_samples_and_saves(text, tmp_path):
    result = run_command(*small(text, tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "step 64: loss" in result.output
    policy = TransformerPolicy.load(tmp_path / "out")
    assert isinstance(policy.tokenizer, CharacterTokenizer)
    assert policy.tokenizer.alphabet == "".join(sorted(set(TEXT)))
    assert policy.generate(["the cat s"], 5, temperature=0)[0].startswith("at")


def test_the_mark_at_the_beginning_of_a_text_is_no_character(text, tmp_path):
    text.write_text(TEXT, encoding="utf-8-sig")
    result = run_command(*small(text, tmp_path / "out", tokens=64))
    assert result.exit_code == 0, result.output
    tokenizer = TransformerPolicy.load(tmp_path / "out").tokenizer
    assert isinstance(tokenizer, CharacterTokenizer)
    assert tokenizer.alphabet == "".join(sorted(set(TEXT)))


def test_missing_texts_are_named_before_anything_is_made(text, tmp_path):
    arguments = small(text, tmp_path / "out")
    result = run_command(*arguments, "--text", "gone.txt", "--text", "lost.jsonl")
    assert result.exit_code == 1
    assert "MissingFileError: there is no file gone.txt, lost.jsonl" in result.output
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_ends_as_one_that_was_not(text, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    assert run_command(*small(text, whole)).exit_code == 0
    steps = []

    def stop_once(*arguments):
        steps.append(arguments[3])
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("agents.jobs.pretrain._report", stop_once)
    parts = tmp_path / "parts"
    stopped = run_command(*small(text, parts))
    assert stopped.exit_code == 130
    assert "The same command goes on with it" in stopped.output
    again = run_command(*small(text, parts))
    assert "Going on after step 40 of 64" in again.output
    first, second = (TransformerPolicy.load(folder).state_dict() for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_run_is_not_overwritten(text, tmp_path):
    assert run_command(*small(text, tmp_path / "out", tokens=128)).exit_code == 0
    result = run_command(*small(text, tmp_path / "out", tokens=128, seed=1))
    assert result.exit_code == 1
    assert "other settings (seed)" in " ".join(result.output.split())


def test_pretraining_goes_on_from_a_policy(text, tmp_path):
    assert run_command(*small(text, tmp_path / "one")).exit_code == 0
    result = run_command(*small(text, tmp_path / "two", policy=tmp_path / "one", tokens=640))
    assert result.exit_code == 0, result.output
    loss = float(result.output.split("loss ")[-1].split()[0])
    assert loss < 1.0


def test_pretraining_of_llamas_form_and_on_to_longer_texts(text, tmp_path):
    form = {"form": "llama", "n_head": 4, "n_kv_head": 2}
    result = run_command(*small(text, tmp_path / "one", **form))
    assert result.exit_code == 0, result.output
    policy = TransformerPolicy.load(tmp_path / "one")
    expected = TransformerConfig.llama(
        policy.vocab_size, policy.context, n_layer=1, n_head=4, n_embd=policy.config.n_embd,
        n_kv_head=2,
    )  # fmt: skip
    assert policy.config == expected
    longer = {"policy": tmp_path / "one", "window": 2 * policy.context, "tokens": 64}
    refused = run_command(*small(text, tmp_path / "two", **longer))
    assert refused.exit_code == 2 and "--rope-scaling" in refused.output
    longer["rope_scaling"] = "yarn"
    result = run_command(*small(text, tmp_path / "two", **longer))
    assert result.exit_code == 0, result.output
    stretched = TransformerPolicy.load(tmp_path / "two")
    assert stretched.context == 2 * policy.context
    assert stretched.config.rope == Rope(10_000.0, YaRN(2.0, policy.context))
    # The same command goes on, without being stretched again.
    result = run_command(*small(text, tmp_path / "two", **(longer | {"tokens": 128})))
    assert result.exit_code == 0 and "Going on" in result.output
    assert TransformerPolicy.load(tmp_path / "two").config == stretched.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_kv_head": 3}, "--n-kv-head 3 does not divide --n-head 2"),
        ({"form": "llama", "n_head": 8, "n_embd": 24}, "it must be an even number"),
        ({"rope_scaling": "linear"}, "name it by --policy"),
    ],
)
def test_forms_that_make_no_network_are_refused(text, tmp_path, options, message):
    result = run_command(*small(text, tmp_path / "out", **options))
    assert result.exit_code == 2 and message in " ".join(result.output.split())


def test_records_without_a_text_are_all_reported(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "ok"}\n{"body": 1}\n{"text": 2}\n')
    result = run_command("pretrain", "--text", bad, "--out", tmp_path / "out")
    assert result.exit_code == 1
    shown = result.output.replace("\n", "")
    assert "bad.jsonl:2:" in shown and "bad.jsonl:3:" in shown


def test_sft_learns_answers_and_says_by_how_much(tmp_path):
    policy = TransformerPolicy(TransformerConfig(257, 32, 1, 2, 16), tokenizer=BytesTokenizer())
    policy.save(tmp_path / "policy")
    examples = tmp_path / "examples.jsonl"
    examples.write_text(
        '{"prompt": "a=", "response": "b"}\n' * 40
        + '{"prompt": "%s", "response": "x"}\n' % ("y" * 40)
    )
    arguments = (
        "sft",
        "--policy",
        tmp_path / "policy",
        "--examples",
        examples,
        "--out",
        tmp_path / "out",
    )
    result = run_command(*arguments, "--epochs", 20, "--learning-rate", 1e-2, "--held-out", 0.0)
    assert result.exit_code == 0, result.output
    assert "1 of 41 examples have no answer" in result.output
    assert TransformerPolicy.load(tmp_path / "out").generate(["a="], 4, temperature=0) == ["b"]
    result = run_command(*arguments, "--epochs", 1)  # a tenth of one question is none
    assert "too few different questions" in result.output
    examples.write_text("".join(f'{{"prompt": "{n}=", "response": "b"}}\n' for n in range(40)))
    result = run_command(*arguments, "--epochs", 1)
    assert "Loss of held-out answers, nats a token: 5." in result.output


def test_bad_examples_are_reported_before_anything_is_trained(tmp_path):
    examples = tmp_path / "examples.jsonl"
    examples.write_text(json.dumps({"prompt": "a"}) + "\n[]\n")
    arguments = ("--policy", tmp_path / "absent", "--examples", examples, "--out", tmp_path / "out")
    result = run_command("sft", *arguments)
    assert result.exit_code == 1
    shown = result.output.replace("\n", "")
    assert "examples.jsonl:1:" in shown and "examples.jsonl:2:" in shown
    assert not (tmp_path / "out").exists()


def test_pretraining_with_a_ramp_dropout_and_a_schedule_goes_on_as_it_was(text, tmp_path):
    options = {"ramp_tokens": 512, "ramp_start": 1, "warmup": 3, "lr_floor": 0, "decay_steps": 20}
    options |= {"residual_dropout": 0.1, "tokens": 1024, "schedule": "linear"}
    whole = run_command(*small(text, tmp_path / "whole", **options))
    assert whole.exit_code == 0, whole.output
    # Windows of 16 tokens, 1 + 3 * tokens // 512 of them: 11 steps of 1 (176 tokens are read), 6 of
    # 2 (368), 3 of 3 (512), and 8 of 4.
    assert "step 28: loss" in whole.output
    part = run_command(*small(text, tmp_path / "part", **(options | {"tokens": 400})))
    assert part.exit_code == 0, part.output
    rest = run_command(*small(text, tmp_path / "part", **options))
    assert rest.exit_code == 0 and "Going on after" in rest.output
    first, second = (TransformerPolicy.load(tmp_path / name) for name in ("whole", "part"))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_of_the_version_before_goes_on(text, tmp_path):
    """Its folder says nothing of the options that are new: they are taken at their defaults."""
    assert run_command(*small(text, tmp_path / "out", tokens=640)).exit_code == 0
    file = tmp_path / "out" / "pretraining.json"
    known = json.loads(file.read_text())
    new = ("form", "n_kv_head", "rope_scaling", "schedule", "warmup", "lr_floor", "decay_steps")
    dropouts = ("residual_dropout", "attention_dropout", "embedding_dropout")
    for name in (*new, *dropouts, "ramp_tokens", "ramp_start"):
        del known[name]
    file.write_text(json.dumps(known))
    result = run_command(*small(text, tmp_path / "out", tokens=704))
    assert result.exit_code == 0 and "Going on after step 10 of 11" in result.output
    file.write_text(json.dumps(known))
    other = run_command(*small(text, tmp_path / "out", tokens=768, residual_dropout=0.5))
    assert other.exit_code == 1 and "residual_dropout" in other.output


def asked(tmp_path, letters="abcdefgh"):
    examples = tmp_path / "examples.jsonl"
    records = [{"prompt": f"{letter}{n}: ", "response": "xy"} for letter in letters for n in "123"]
    examples.write_text("".join(json.dumps(record) + "\n" for record in records))
    policy = TransformerPolicy(TransformerConfig(257, 32, 1, 2, 16), tokenizer=BytesTokenizer())
    policy.save(tmp_path / "base")
    return ["sft", "--policy", tmp_path / "base", "--examples", examples, "--learning-rate", 1e-2]


def test_the_epoch_with_the_lowest_held_out_loss_is_kept(tmp_path):
    line = [*asked(tmp_path), "--epochs", 3, "--batch-size", 6, "--out", tmp_path / "out"]
    # The learning rate ends so high that later epochs are worse.
    line += ["--choose-by", "loss", "--schedule", "constant", "--residual-dropout", 0.1]
    result = run_command(*line)
    assert result.exit_code == 0, result.output
    known = json.loads((tmp_path / "out" / "epochs.json").read_text())
    losses = [epoch["measured"]["held-out loss"] for epoch in known["epochs"]]
    assert len(losses) == 4
    assert known["chosen"] == 1 + min(range(3), key=lambda i: losses[1 + i])
    assert "chosen" in result.output
    kept = TransformerPolicy.load(tmp_path / "out").state_dict()
    chosen = tmp_path / "out" / known["epochs"][known["chosen"]]["folder"]
    for name, weight in TransformerPolicy.load(chosen).state_dict().items():
        assert torch.equal(weight, kept[name])


def test_the_epoch_that_a_reward_model_likes_best_is_kept(tmp_path):
    line = [*asked(tmp_path), "--epochs", 2, "--out", tmp_path / "out"]
    trunk = TransformerPolicy(TransformerConfig(257, 40, 1, 2, 8), tokenizer=BytesTokenizer())
    RewardModel.from_policy(trunk).save(tmp_path / "rm")
    line += ["--choose-by", "reward-model", "--choosing-tokens", 4]
    refused = run_command(*line)
    assert refused.exit_code == 2 and "--reward-model FOLDER go together" in refused.output
    result = run_command(*line, "--reward-model", tmp_path / "rm")
    assert result.exit_code == 0, result.output
    known = json.loads((tmp_path / "out" / "epochs.json").read_text())
    scores = [epoch["measured"]["reward model"] for epoch in known["epochs"]]
    assert known["chosen"] == 1 + max(range(2), key=lambda i: scores[1 + i])
    assert known["by"] == "reward-model"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schedule", "constant", "--decay-steps", 5], "does not fall"),
        (["--warmup", 9, "--decay-steps", 5], "--warmup 9 is not below --decay-steps 5"),
        (["--choose-by", "loss", "--held-out", 0], "there are none"),
        (["--residual-dropout", 1], "from 0 to 0.99"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, options, message):
    result = run_command(*asked(tmp_path), "--out", tmp_path / "out", *options)
    assert result.exit_code == 2 and message in " ".join(result.output.split())
