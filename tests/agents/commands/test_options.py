"""Options, configuration files and help, which all come from the fields of dataclasses."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from command_line import run_command

import textenv
from agents.algorithms.names import ALGORITHMS
from agents.commands import COMMANDS
from agents.commands.options import Choice, groups_of, options_of
from agents.commands.parsing import from_flat, parse, to_flat
from agents.commands.train import TrainSettings, complete
from agents.optimisation.settings import Optimisation, OptimisationFields
from textenv.errors import OptionError

ROOT = Path(__file__).parents[3]
FLAWS = ("Of ", "None ")


OWN = """
from dataclasses import dataclass
from agents import GRPO

@dataclass(frozen=True)
class Clash(GRPO):
    temperature: float = 1.0

class Plain(GRPO):
    pass
"""


def settings_of(*arguments: str) -> TrainSettings:
    return parse(TrainSettings, arguments, "textenv train", complete)[0]


def every_option():
    for name, command in COMMANDS.items():
        for group in groups_of(command.settings):
            for option in group.options:
                yield pytest.param(option, id=f"{name}-{option.name}")
    for name, cls in ALGORITHMS.items():
        for option in options_of(cls):
            yield pytest.param(option, id=f"{name}-{option.name}")


@pytest.mark.parametrize("option", list(every_option()))
def test_every_option_has_a_sentence_of_help(option):
    assert option.help.endswith(".")
    assert option.help[0].isupper() or option.help.startswith(".json")
    assert not option.help.startswith(FLAWS) and "so many" not in option.help


def test_no_two_groups_of_a_command_have_an_option_of_the_same_name():
    for command in COMMANDS.values():
        for choice in ALGORITHMS:
            groups = groups_of(command.settings, {"algorithm": choice})
            names = [option.name for group in groups for option in group.options]
            assert len(names) == len(set(names))


def test_an_algorithm_is_chosen_with_its_own_fields():
    settings = settings_of("--algorithm", "grpo", "--group-size", "8", "--clip-high", "0.3")
    assert settings.algorithm.name == "grpo"
    assert settings.algorithm.fields["clip_high"] == 0.3
    assert "gae_lambda" not in settings.algorithm.fields
    assert settings.answers.group_size == 8
    made = ALGORITHMS["grpo"](**settings.algorithm.fields)
    assert made == ALGORITHMS["grpo"](clip_high=0.3)


def test_credit_is_chosen_by_name():
    settings = settings_of("--credit", "gae_by_turn")
    assert ALGORITHMS["ppo"](**settings.algorithm.fields).credit == "gae_by_turn"
    assert settings_of("--algorithm", "rloo").algorithm.fields["credit"] == "by_answer"
    own = settings_of("--credit", "agents.returns:gae_by_answer").algorithm.fields
    assert ALGORITHMS["ppo"](**own).credit == "agents.returns:gae_by_answer"
    with pytest.raises(OptionError, match=r"--credit is 'by_turn'; .* did you mean gae_by_turn"):
        settings_of("--credit", "by_turn")


def test_the_job_has_other_defaults_than_the_class():
    assert settings_of().algorithm.fields["n_epochs"] == 2 != ALGORITHMS["ppo"]().n_epochs
    assert settings_of("--n-epochs", "3").algorithm.fields["n_epochs"] == 3


@pytest.mark.parametrize("ending", ["json", "toml"])
def test_a_configuration_file_is_read_and_options_beside_it_win(tmp_path, ending):
    path = tmp_path / f"run.{ending}"
    stored = {"algorithm": "grpo", "group-size": 4, "clip": 0.1, "tokens": 100, "kl_coef": 1}
    lines = "\n".join(f"{name} = {value!r}" for name, value in stored.items())
    path.write_text(json.dumps(stored) if ending == "json" else lines)
    settings = settings_of("--config", str(path), "--tokens", "200")
    assert (settings.algorithm.name, settings.algorithm.fields["clip"]) == ("grpo", 0.1)
    assert (settings.answers.group_size, settings.training.tokens) == (4, 200)
    assert settings.training.kl_coef == 1.0 and isinstance(settings.training.kl_coef, float)


@pytest.mark.parametrize("text", [["--ptx-text", "a"], ["--ptx-text=a"], ["--ptx_text", "a"]])
def test_a_text_to_keep_reading_chooses_its_algorithm(tmp_path, text):
    assert settings_of(*text, "--ptx-coef", "2").algorithm.fields["ptx_coef"] == 2.0
    path = tmp_path / "run.json"
    path.write_text('{"ptx_text": "a"}')
    assert settings_of("--config", str(path)).algorithm.name == "ppo-ptx"
    assert settings_of("--config", str(path), "--algorithm", "a2c").algorithm.name == "a2c"


def test_settings_of_version_0_1_are_read(tmp_path):
    stored = {"ptx_text": None, "ptx_coef": 1.0, "tokens": 7, "lora": 0, "policy": None}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(stored))
    settings = settings_of("--config", str(path))
    assert (settings.algorithm.name, settings.training.tokens) == ("ppo", 7)
    assert from_flat(TrainSettings, complete(stored), "here") == settings


def test_settings_survive_being_written_and_read():
    settings = settings_of("--algorithm", "dpo", "--beta", "0.3", "--run-folder", "some/where")
    flat = json.loads(json.dumps(to_flat(settings), default=str))
    assert flat["algorithm"] == "dpo" and flat["beta"] == 0.3
    assert from_flat(TrainSettings, flat, "here") == settings


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--token", "5"], 2, "--tokens"),
        (["train", "--tokens", "many"], 2, "many"),
        (["train", "--tokens", "0"], 2, "--tokens is 0; it must be at least 1"),
        (["train", "--algorithm", "grppo"], 2, "did you mean grpo?"),
        (["train", "--algorithm", "mine.py:None"], 1, "mine.py"),
        (["train", "--algorithm", "grpo"], 2, "--group-size 8"),
        (["train", "--algorithm", "grpo", "--group-size", "3"], 2, "not whole groups"),
        (["train", "--algorithm", "ppo-ptx"], 2, "--ptx-text"),
        (["train", "--algorithm", "a2c", "--ptx-text", "x.txt"], 2, "leave --ptx-text out"),
        (["train", "--config", "absent.json"], 2, "absent.json"),
        (["train", "--config", "bad.json"], 2, "did you mean tokens?"),
        (["train", "--config", "worse.json"], 2, "sets tokens to 'x'"),
        (["train", "--device", "nonsense"], 1, "not the name of a device"),
        (["train", "--config", "text.json"], 2, "algorithm is 5; it must be a name"),
        (["sft", "--config", "seed.json"], 2, "--seed is -1; it must be at least 0"),
        (["train", "--kl-coef", "nan"], 2, "--kl-coef is nan; it must be a finite number"),
        (["train", "--n-epochs", "0"], 2, "--n-epochs is 0; it must be at least 1"),
        (["train", "--max-grad-norm", "-1"], 2, "it must be more than 0"),
        (["recipe", "--seed", "1", "--seed", "-1"], 2, "--seed is -1; it must be at least 0"),
        (["train", "--algorithm", "dpo", "--group-size", "2", "--kl-coef", "1"], 2, "of its own"),
        (["train", "--policy", "x", "--n-layer", "2"], 2, "leave out --n-layer"),
        (["train", "--algorithm", "own.py:Clash"], 2, "options already: temperature"),
        (["train", "--algorithm", "own.py:Plain"], 2, "has no fields"),
        (["pretrain", "--text", "x.txt", "--out", "o", "--n-head", "3"], 2, "does not divide"),
        (
            ["eval", "x", "--prompts", "y", "--judge", "afinn", "--json", "no/x.json"],
            2,
            "folder no",
        ),
        (["train", "--run-folder", "own.py"], 2, "is a file, not a folder"),
        (["trian"], 2, "did you mean train?"),
        (["pretrain", "--out", "x"], 2, "--text"),
        (["eval", "--prompts", "x.txt", "--judge", "afinn"], 2, "POLICY"),
    ],
)
def test_mistakes_are_one_message(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("bad.json").write_text('{"token": 5}')
    Path("worse.json").write_text('{"tokens": "x"}')
    Path("text.json").write_text('{"algorithm": 5}')
    Path("seed.json").write_text('{"seed": -1, "policy": "p", "examples": "one.jsonl", "out": "o"}')
    Path("x.txt").write_text("text")
    Path("own.py").write_text(OWN)
    ran = run_command(*arguments)
    assert message in ran.output
    assert ran.exit_code == code
    assert "Traceback" not in ran.output


@pytest.mark.parametrize(
    "command", ["pretrain", "sft", "preferences", "reward-model", "train", "eval", "chat", "recipe"]
)
def test_a_device_that_is_not_there_is_named_before_any_work(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    needed = {
        "pretrain": ["--text", "a", "--out", "b"],
        "sft": ["--policy", "a", "--examples", "b", "--out", "c"],
        "preferences": ["--policy", "a", "--prompts", "b", "--labeller", "vader", "--out", "c"],
        "reward-model": ["--policy", "a", "--preferences", "b", "--out", "c"],
        "eval": ["a", "--prompts", "b", "--judge", "afinn"],
        "chat": ["a"],
    }
    ran = run_command(command, *needed.get(command, []), "--device", "cuda:99")
    assert ran.exit_code == 1
    assert ran.output.startswith("DeviceError: the device 'cuda:99' cannot be used here")
    assert not list(tmp_path.iterdir())


def test_a_list_that_is_given_takes_the_place_of_its_default():
    recipe = COMMANDS["recipe"].settings
    assert parse(recipe, [], "")[0].runs.size == ["medium"]
    arguments = ["--size", "small", "--seed", "1", "--seed", "2"]
    runs = parse(recipe, arguments, "")[0].runs
    assert (runs.size, runs.seed) == (["small"], [1, 2])


def test_the_keyword_arguments_of_a_trainer_are_the_fields_of_its_settings():
    fields = {field.name for field in dataclasses.fields(Optimisation)}
    assert set(OptimisationFields.__annotations__) == fields
    hints = get_type_hints(Optimisation)
    assert hints["temperature"] is float and hints["seed"] is int


def test_a_choice_holds_a_name_and_fields():
    assert Choice("ppo") == Choice("ppo", {})


def test_an_algorithm_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from agents import GRPO\n"
        "@dataclass(frozen=True)\n"
        "class Mine(GRPO):\n"
        '    """A GRPO with a knob.\n\n'
        "    Attributes:\n"
        "        knob: How far to turn it.\n"
        '    """\n\n'
        "    knob: float = 0.5\n"
    )
    assert "How far to turn it." in run_command("train", "--algorithm", "mine.py:Mine", "-h").output
    settings = settings_of("--algorithm", "mine.py:Mine", "--knob", "2")
    assert settings.algorithm.fields["knob"] == 2.0


def test_the_page_of_the_command_line_is_up_to_date():
    spec = importlib.util.spec_from_file_location("page", ROOT / "docs" / "make_command_line.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    assert written == module.page(), "run python docs/make_command_line.py"


def test_the_version():
    assert run_command("--version").output == f"textenv {textenv.__version__}\n"


def loaded_after(*arguments: str) -> set[str]:
    code = (
        "import sys\n"
        "from textenv.__main__ import main\n"
        f"sys.argv = ['textenv', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split("MODULES ")[1].split())


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)],
    ids=lambda arguments: arguments[0],
)
def test_help_imports_neither_torch_nor_what_needs_it(arguments):
    loaded = loaded_after(*arguments)
    assert "agents.commands" in loaded
    assert not loaded & {"torch", "transformers", "policies", "numba", "rich"}


def test_the_help_of_every_algorithm():
    code = (
        "import sys\n"
        "from agents.algorithms.names import ALGORITHMS\n"
        "from agents.commands import main\n"
        "for name in ALGORITHMS:\n"
        "    try:\n        main(['train', '--algorithm', name, '--help'])\n"
        "    except SystemExit as error:\n        assert error.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for cls in ALGORITHMS.values():
        for option in options_of(cls):
            assert option.flag in ran.stdout
    assert ran.stdout.count("usage: textenv train") == len(ALGORITHMS)
    # It fits a terminal of 80 columns.
    assert max(map(len, ran.stdout.splitlines())) <= 80
