"""Every number that can be set has bounds, in Python and on the command line alike."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from command_line import run_command

from agents import PPO, Trainer
from agents.algorithms.names import ALGORITHMS
from agents.commands import COMMANDS
from agents.commands.options import Option, groups_of, options_of
from agents.optimisation.bounds import fits, metadata_of, words
from agents.optimisation.settings import Optimisation
from policies import TransformerConfig, TransformerPolicy
from textenv.errors import OptionError


def is_number(option: Option) -> bool:
    return bool({int, float} & set(option.kinds))


def numbers_of_algorithms() -> list[Any]:
    return [
        pytest.param(name, option, id=f"{name}-{option.name}")
        for name, cls in ALGORITHMS.items()
        for option in options_of(cls)
        if is_number(option)
    ]


def numbers_of_commands() -> list[Any]:
    return [
        pytest.param(option, id=f"{name}-{option.name}")
        for name, command in COMMANDS.items()
        for group in groups_of(command.settings)
        for option in group.options
        # What takes "2m", too, is refused by the one that reads it.
        if is_number(option) and str not in option.kinds
    ]


def outside(option: Option) -> list[float]:
    """Numbers that the option must refuse."""
    bounds = option.metadata
    beyond = [bounds["minimum"] - 1] if "minimum" in bounds else []
    beyond += [bounds["above"], bounds["above"] - 1] if "above" in bounds else []
    return beyond + ([bounds["maximum"] + 1] if "maximum" in bounds else [])


def make(name: str, **values: Any) -> Any:
    needed = {"stream": np.arange(200)} if name == "ppo-ptx" else {}
    return ALGORITHMS[name](**needed, **values)


@pytest.mark.parametrize(("name", "option"), numbers_of_algorithms())
def test_every_number_of_an_algorithm_has_bounds_or_says_that_it_has_none(name, option):
    assert words(option.metadata), f"{name}: {option.name} has no bounds; see bounds.bounded"
    assert fits(getattr(make(name), option.name) or 1, option.metadata)


@pytest.mark.parametrize("option", numbers_of_commands())
def test_so_has_every_number_of_a_command(option):
    assert words(option.metadata)


@pytest.mark.parametrize(("name", "option"), numbers_of_algorithms())
def test_numbers_out_of_bounds_are_refused_in_python_and_on_the_command_line(name, option):
    for value in outside(option):
        message = f"{option.name} is {value}; it must be {words(option.metadata)}"
        with pytest.raises(OptionError, match=f"^{ALGORITHMS[name].__name__}: {message}$"):
            make(name, **{option.name: value})
        typed = f"{option.flag}={value}"
        text = ["--ptx-text", "x"] if name == "ppo-ptx" else []
        ran = run_command("train", "--algorithm", name, typed, *text)
        assert ran.exit_code == 2
        assert ran.output.startswith(f"OptionError: {option.flag} is ")
        assert ran.output.endswith(f"it must be {words(option.metadata)}\n")


def test_what_was_taken_once():
    with pytest.raises(OptionError, match="PPO: clip is -1; it must be more than 0"):
        PPO(clip=-1)
    with pytest.raises(OptionError, match=r"PPO: clip is -0\.5"):
        PPO(clip=np.float32(-0.5))
    with pytest.raises(OptionError, match="PPO: clip is nan"):
        PPO(clip=math.nan)
    assert PPO(entropy_coef=-0.01, target_kl=None, clip=math.inf).entropy_coef == -0.01


def test_a_subclass_with_another_default_keeps_the_bounds():
    @dataclass(frozen=True)
    class Careful(PPO):
        clip: float = 0.05

    assert metadata_of(Careful, "clip") == {"above": 0}
    with pytest.raises(OptionError, match="Careful: clip is 0"):
        dataclasses.replace(Careful(), clip=0)


@pytest.mark.parametrize(
    "setting", [{"learning_rate": -1e-3}, {"temperature": 0.0}, {"seed": -1}, {"max_grad_norm": -1}]
)
def test_the_settings_of_a_trainer(setting):
    policy = TransformerPolicy(TransformerConfig(5, 8, n_layer=1, n_head=1, n_embd=8))
    (name,) = setting
    with pytest.raises(OptionError, match=f"Optimisation: {name} is "):
        Trainer(policy, PPO(), **setting)
    assert Optimisation(learning_rate=lambda done: 0.1).rate(0.5) == 0.1


@pytest.mark.parametrize(
    ("metadata", "inside", "beyond", "said"),
    [
        ({"minimum": 0}, [0, math.inf], [-1e-9, math.nan], "at least 0"),
        ({"minimum": 0.01, "above": 0}, [0.01], [0.001], "at least 0.01"),
        ({"above": 0, "maximum": 1}, [1e-9, 1], [0, 1.1], "more than 0, at most 1"),
        ({"minimum": 0, "maximum": 1}, [0, 1], [-0.1, 1.1], "from 0 to 1"),
        ({"any_number": True}, [-math.inf, 0], [math.nan], "any number"),
    ],
)
def test_bounds_in_words_and_in_numbers(metadata, inside, beyond, said):
    assert words(metadata) == said
    assert all(fits(value, metadata) for value in inside)
    assert not any(fits(value, metadata) for value in beyond)
