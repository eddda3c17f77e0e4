"""What can go wrong on a command line is said in one line with a way out, before the work."""

import json
from pathlib import Path
from typing import get_args

import pytest
from command_line import Ran, run_command

from agents.commands import COMMANDS
from agents.commands.evaluate import JUDGES
from agents.commands.options import groups_of
from agents.commands.preferences import LABELLERS
from agents.commands.pretrain import TOKENIZERS
from agents.commands.train import Output
from agents.evaluation import judges
from agents.jobs import labellers
from agents.runs.loggers import LOGGERS
from policies import RewardModel, TransformerConfig, TransformerPolicy
from textenv import load_tokenizer
from textenv.tokenizers import BytesTokenizer

MINE = """
def reward(episodes):
    return [float(len(e.text)) for e in episodes]

def judge(prompt, answer):
    return float(len(answer))

def labeller(prompt, answers):
    return [len(a) for a in answers]

def template(text):
    return {}[text]

def no_prompts():
    return "a"

def broken_prompts(rng):
    return {}[str(rng)]

number = 3
"""
OUT = ["--out", "out"]
PRETRAIN = ["pretrain", *OUT, "--n-layer", 1, "--n-head", 2, "--n-embd", 16, "--window", 16]
SFT = ["sft", *OUT, "--policy", "p"]
REWARD_MODEL = ["reward-model", *OUT, "--policy", "p"]
PREFERENCES = ["preferences", "--policy", "p", "--max-new-tokens", 4, "--out", "o.jsonl"]
TRAIN = ["train", "--tokens", 64, "--rows", 4, "--max-new-tokens", 4, "--eval-answers", 4]
OWN = ["--policy", "p", "--prompts", "p.txt", "--reward", "my.py:reward"]
EVAL = ["eval", "p", "--answers", 4, "--max-new-tokens", 4, "--rows", 4]
BROKEN_PROMPTS = "my.py, line 18: return {}[str(rng)]"
JUDGED = ["--prompts", "p.txt", "--judge", "my.py:judge"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder: a policy, a reward model, functions, and files that are too short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    policy = TransformerPolicy(TransformerConfig(257, 32, 1, 2, 16), tokenizer=BytesTokenizer())
    policy.save("p")
    RewardModel.from_policy(policy).save("model")
    texts = {
        "empty.txt": "",
        "one.txt": "a",
        "blank.txt": "\n\n  \n",
        "text.txt": "the cat sat on the mat. " * 9,
        "p.txt": "".join(f"prompt {n}\n" for n in range(9)),
        "empty.jsonl": "",
        "no_text.jsonl": '{"text": ""}\n',
        "one.jsonl": '{"prompt": "a", "response": "b"}\n',
        "two.jsonl": '{"prompt": "a", "response": "b"}\n' * 2,
        "long.jsonl": (json.dumps({"prompt": "y" * 99, "response": "b"}) + "\n") * 3,
        "pairs.jsonl": "".join(
            json.dumps({"prompt": f"a{n}", "chosen": "b", "rejected": "c"}) + "\n" for n in range(9)
        ),
        "my.py": MINE,
    }
    for name, text in texts.items():
        Path(name).write_text(text)
    return tmp_path


def message_of(ran: Ran) -> str:
    """The one line that a command ends with; bars may stand before it."""
    assert isinstance(ran.exception, SystemExit), ran.exception
    assert ran.exit_code in (1, 2) and "Traceback" not in ran.output
    last = ran.output.splitlines()[-1]
    assert "Error: " in last, ran.output
    return last


# -------------------------------------------------------------------- names


def test_the_names_on_the_command_line_are_those_that_exist():
    assert (*judges.JUDGES, labellers.TERMINAL) == JUDGES
    assert (*labellers.LABELLERS, labellers.TERMINAL) == LABELLERS
    assert list(LOGGERS) == list(get_args(get_args(Output.__annotations__["logger"])[0]))
    for name in TOKENIZERS[2:]:
        if name == "bytes":
            assert load_tokenizer(name).name == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--judge", "afin"], "'afin'; it must be afinn, textblob, chinese, terminal, j"),
        (["eval", "--judge", "afin"], "did you mean afinn?"),
        (["eval", "--judge", ""], "--judge is ''; it must be afinn"),
        (["preferences", "--labeller", "vadre"], "vader, snownlp, terminal, judge:"),
        (["pretrain", "--tokenizer", "byte"], "bytes, gpt2"),
        (["train", "--logger", "tensorbord"], "tensorboard, wandb, mlflow or trackio; did you"),
        (["train", "--precision", "fp16"], "must be float32, bfloat16 or float16"),
        (["train", "--algorithm", "nosuch"], "There are a2c, best-of-n"),
        (
            ["train", "--credit", "gae_turn"],
            "it must be gae, gae_by_turn, gae_by_answer or file.py",
        ),
        (["recipe", "--size", "huge"], "must be small, medium or large"),
        (["recipe", "--language", "fr"], "must be en or zh"),
        (["reward-model", "--loss", "pair"], "must be kwise, pairwise or plackett-luce"),
        (["evall"], "did you mean eval? There are data, pretrain, sft"),
        (["train", "--device", "gpu"], "take cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_wrong_name_lists_those_that_exist(arguments, message):
    ran = run_command(*arguments)
    assert message in message_of(ran)
    assert len(ran.output.splitlines()) == 1


def test_names_in_a_configuration_file_are_looked_at_too(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"judge": "afin", "policies": ["p"], "prompts": "p.txt"}')
    ran = run_command("eval", "--config", path)
    assert "judge is 'afin'; it must be afinn" in message_of(ran)


def options_with_a_value():
    for name, command in COMMANDS.items():
        for group in groups_of(command.settings):
            if group.choice is not None:
                yield pytest.param(name, f"--{group.name}", "a2c, ", id=f"{name}-{group.name}")
            for option in group.options:
                if option.type is not bool and not option.metadata.get("positional"):
                    listed = option.choices or "a"
                    yield pytest.param(name, option.flag, listed, id=f"{name}{option.flag}")


@pytest.mark.parametrize(("command", "flag", "listed"), list(options_with_a_value()))
def test_an_option_without_its_value_says_what_it_takes(command, flag, listed):
    ran = run_command(command, flag)
    assert (ran.exit_code, len(ran.output.splitlines())) == (2, 1)
    assert f"{flag} needs a value: {listed}" in message_of(ran)
    followed = run_command(command, flag, "--debug")
    assert str(followed.exception).startswith(f"{flag} needs a value: {listed}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "extra"], "'extra' belongs to no option"),
        (["chat", "p", "q"], "'q' belongs to no option"),
        (["chat"], "FOLDER must be given"),
        (["sft", "--policy", "p", *OUT], "--examples must be given"),
        (["sft", "--polcy", "p"], "there is no option --polcy: did you mean --policy?"),
        (["train", "--tokens", "many"], "--tokens is 'many'; it must be a whole number, at least"),
        (["train", "--kl-coef=x"], "--kl-coef is 'x'; it must be a number, at least 0"),
        (["train", "--clip", "-1"], "--clip is -1.0; it must be more than 0"),
    ],
)
def test_a_line_that_cannot_be_understood(arguments, message):
    ran = run_command(*arguments)
    assert ran.exit_code == 2
    assert message in message_of(ran)
    assert len(ran.output.splitlines()) == 1


# -------------------------------------------------------------------- what is too short


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PRETRAIN, "--text", "empty.txt"], "there is no text in empty.txt"),
        ([*PRETRAIN, "--text", "blank.txt"], "there is no text in blank.txt"),
        ([*PRETRAIN, "--text", "empty.jsonl"], "there is no text in empty.jsonl"),
        ([*PRETRAIN, "--text", "no_text.jsonl"], "there is no text in no_text.jsonl"),
        ([*PRETRAIN, "--text", "one.txt", "--tokenizer", "bytes"], "and a window of 16 needs 17"),
        ([*PRETRAIN, "--text", "empty.txt", "--policy", "p"], "gives 0 tokens to learn from"),
        ([*PRETRAIN, "--text", "empty.jsonl", "--policy", "p"], "gives 0 tokens to learn from"),
        (
            [*PRETRAIN, "--text", "text.txt", "--tokenizer", "bytes", "--held-out", "0.002"],
            "is 1 tokens, and 2 are needed to measure on",
        ),
        ([*PRETRAIN, "--text", "text.txt", "--policy", "p", "--window", 64], "take 32 or less"),
        ([*SFT, "--examples", "empty.jsonl"], "there are 0 examples"),
        ([*SFT, "--examples", "one.jsonl"], "there are 1 examples"),
        ([*SFT, "--examples", "long.jsonl"], "none of the 3 examples has an answer within the con"),
        ([*REWARD_MODEL, "--preferences", "empty.jsonl"], "there is no ranking in empty.jsonl"),
        (
            [*REWARD_MODEL, "--preferences", "pairs.jsonl", "--reference", "empty.jsonl"],
            "there is no example in empty.jsonl",
        ),
        ([*TRAIN, *OWN, "--prompts", "blank.txt"], "there is no prompt in blank.txt"),
        ([*TRAIN, *OWN, "--ptx-text", "one.txt"], "one.txt has 1 tokens: there is none to"),
        ([*TRAIN, *OWN, "--ptx-text", "empty.txt"], "empty.txt has 0 tokens: there is none to"),
        ([*EVAL, *JUDGED, "--prompts", "empty.txt"], "there is no prompt in empty.txt"),
        ([*EVAL, *JUDGED, "--text", "one.txt"], "one.txt has 1 tokens"),
        (
            [*PREFERENCES, "--prompts", "empty.txt", "--labeller", "my.py:labeller"],
            "there is no prompt in empty.txt",
        ),
    ],
)
def test_what_is_too_short(folder, arguments, message):
    ran = run_command(*arguments)
    assert message in message_of(ran)
    assert "Answers" not in ran.output  # found before anything was answered


# -------------------------------------------------------------------- what cannot be written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PRETRAIN, "--text", "text.txt", "--out", "one.txt"], "one.txt is a file, not a folder"),
        ([*SFT, "--examples", "two.jsonl", "--out", "one.txt/x"], "one.txt is a file"),
        ([*REWARD_MODEL, "--preferences", "pairs.jsonl", "--out", "one.txt"], "is a file"),
        ([*TRAIN, *OWN, "--run-folder", "one.txt/x"], "one.txt is a file, not a folder"),
        (["recipe", "--out", "one.txt/x"], "one.txt is a file, not a folder"),
        (
            [*PREFERENCES, "--prompts", "p.txt", "--labeller", "my.py:labeller", "--out", "p"],
            "--out p is a folder, not a file",
        ),
        ([*EVAL, *JUDGED, "--json", "p"], "--json p is a folder, not a file"),
        ([*EVAL, *JUDGED, "--report", "p"], "--report p is a folder, not a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_before_the_work(folder, arguments, message):
    before = sorted(Path().rglob("*"))
    ran = run_command(*arguments)
    assert ran.exit_code == 2
    assert message in message_of(ran)
    assert sorted(Path().rglob("*")) == before


def test_a_file_that_cannot_be_written_at_the_end_is_one_line_too(folder, monkeypatch):
    def full(self, *arguments, **settings):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    ran = run_command(*EVAL, *JUDGED, "--json", "figures.json")
    assert message_of(ran) == "OSError: No space left on device: figures.json"


# -------------------------------------------------------------------- the user's own code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*EVAL, *JUDGED, "--template", "my.py:template"], "KeyError: 'prompt 0'; at my.py, line "),
        (
            [*EVAL, *JUDGED, "--template", "my.py:template"],
            "line 12: return {}[text] (--debug ",
        ),
        ([*EVAL, *JUDGED, "--template", "my.py:number"], "is 3, not a function of a prompt's text"),
        ([*EVAL, *JUDGED, "--judge", "my.py:number"], "is 3, not a function of a prompt and an an"),
        (
            [*EVAL, *JUDGED, "--prompts", "my.py:broken_prompts"],
            BROKEN_PROMPTS,
        ),
        ([*EVAL, *JUDGED, "--prompts", "my.py:no_prompts"], "'no_prompts' must take one argument"),
        (
            [*TRAIN, *OWN, "--prompts", "my.py:broken_prompts"],
            BROKEN_PROMPTS,
        ),
        (
            [*TRAIN, *OWN, "--credit", "my.py:number"],
            "the credit my.py:number is 3, not a function of a rollout's arrays",
        ),
        (
            [*PREFERENCES, "--prompts", "my.py:broken_prompts", "--labeller", "my.py:labeller"],
            BROKEN_PROMPTS,
        ),
    ],
)
def test_an_error_in_the_users_code_names_file_and_line(folder, arguments, message):
    assert message in message_of(run_command(*arguments))


def test_with_debug_the_error_itself_comes_out(folder):
    ran = run_command(*EVAL, *JUDGED, "--template", "my.py:template", "--debug")
    assert isinstance(ran.exception, KeyError)


def test_a_mistake_of_the_project_is_not_hidden(folder, monkeypatch):
    monkeypatch.setattr("agents.jobs.evaluate.compare", None)
    assert isinstance(run_command(*EVAL, *JUDGED).exception, TypeError)


def test_a_policy_that_is_named_twice(folder):
    ran = run_command("eval", "p", "./p", *JUDGED)
    assert "a policy is named twice: p p" in message_of(ran)
