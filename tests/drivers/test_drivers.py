"""Several libraries: each of the drivers in `examples/drivers` learns both tasks."""

import importlib
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import textenv

DRIVERS = Path(__file__).parents[2] / "examples" / "drivers"
TASK = runpy.run_path(str(DRIVERS / "task.py"))

# Name of the script, the package it needs, and whether a warning fails it: torchrl and ray warn of
# deprecations in their own code.
STRICT, LENIENT = ("-W", "error"), ()
LIBRARIES = [
    ("own_ppo", "torch", STRICT),
    ("sb3_ppo", "stable_baselines3", STRICT),
    ("cleanrl_ppo", "torch", STRICT),
    ("torchrl_ppo", "torchrl", LENIENT),
    ("sb3_contrib_ppo", "sb3_contrib", STRICT),
    ("rllib_ppo", "tree", LENIENT),  # which RLlib brings: Ray alone has none of it
]


# Task, updates and gain of each run. MaskablePPO learns the letters as slowly as SB3's PPO does.
LETTERS, WORLD = ("letters", 6, 0.15), ("world", 4, 0.3)
RUNS = [
    (*library, *task)
    for library in LIBRARIES
    for task in (LETTERS, WORLD)
    if (library[0], task) != ("sb3_contrib_ppo", LETTERS)
]


@pytest.mark.parametrize(("name", "package", "warnings", "task", "updates", "above_random"), RUNS)
def test_driver_learns(name, package, warnings, task, updates, above_random):
    """From 0.375, what random letters get: alone, and in a conversation of two turns (seed 0)."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    done = subprocess.run(
        [sys.executable, *warnings, str(DRIVERS / f"{name}.py"), str(1024 * updates), task],
        cwd=DRIVERS.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^ *(\d+) tokens +(?:return|score) (\d\.\d+)$", done.stdout, flags=re.M)
    counts = [1024 * n for n in range(1, updates + 1)]
    assert [int(tokens) for tokens, _ in lines] == counts, done.stdout
    returns = [float(value) for _, value in lines]
    assert returns[0] == pytest.approx(TASK["RANDOM_RETURN"], abs=0.06)
    assert returns[-1] > TASK["RANDOM_RETURN"] + above_random, done.stdout


def test_every_driver_is_run_here():
    scripts = {path.stem for path in DRIVERS.glob("*.py")} - {"task"}
    assert scripts == {name for name, _, _ in LIBRARIES}


@pytest.mark.slow
def test_three_libraries_learn_alike(monkeypatch, capsys):
    """The same settings, five seeds each: the means differ by less than the seeds do."""
    pytest.importorskip("stable_baselines3")
    monkeypatch.syspath_prepend(str(DRIVERS))
    returns = {
        name: [importlib.import_module(name).train(12_288, seed) for seed in range(5)]
        for name in ("own_ppo", "sb3_ppo", "cleanrl_ppo")
    }
    capsys.readouterr()
    means = {name: np.mean(runs) for name, runs in returns.items()}
    spread = max(np.ptp(runs) for runs in returns.values())
    assert min(means.values()) > 0.9
    assert np.ptp(list(means.values())) < min(spread, 0.05), returns


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("b", "abababab", 1.0),
        ("a", "abababab", 7 / 8),  # the first letter is of the kind of the prompt
        ("b", "bcdfghjk", 0.0),
        ("a", "bccc", 1 / 4),
        ("ab", "e", 1.0),  # the prompt's last letter counts
    ],
)
def test_turns_by_hand(prompt, answer, expected):
    tokenizer = TASK["Letters"]()
    ids = [np.array(tokenizer.encode(text)) for text in (prompt, answer)]
    episode = textenv.Episode(prompt, *ids, "length", {}, tokenizer)
    assert TASK["turns"]([episode]) == [expected]


@pytest.mark.parametrize(("task", "letters"), [("TASK", 8), ("WORLD", 2)])
def test_random_letters_get_the_random_return(task, letters):
    envs = TASK["make_envs"](256, TASK[task])
    envs.reset(seed=0)
    envs.action_space.seed(0)
    rewards, ends = 0.0, 0
    for _ in range(letters * 16):
        _, reward, terminated, _, _ = envs.step(envs.action_space.sample())
        rewards += reward.sum()
        ends += terminated.sum()
    assert ends == 256 * 16
    # A standard deviation of 0.17 an episode is one of 0.003 in the mean of 4,096.
    assert rewards / ends == pytest.approx(TASK["RANDOM_RETURN"], abs=0.012)


def test_the_best_play_of_the_world_gets_one():
    """It knows nothing but the letter before: a consonant behind a vowel, a vowel behind others."""
    envs = TASK["make_envs"](64, TASK["WORLD"])
    observations, _ = envs.reset(seed=0)
    total = np.zeros(64)
    for _ in range(2):
        last = observations[np.arange(64), (observations != 16).sum(1) - 1]
        is_vowel = np.isin(last, [TASK["LETTERS"].index(c) for c in TASK["VOWELS"]])
        observations, rewards, terminated, _, _ = envs.step(np.where(is_vowel, 1, 0))
        total += rewards
    assert terminated.all() and (total == 1.0).all()


# importing torchrl's collectors creates classes that torchrl itself has deprecated
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("vector", [False, True], ids=["single", "vector"])
def test_torchrl_accepts_the_environment(vector):
    """Its own check, and a rollout across the ends of episodes."""
    pytest.importorskip("torchrl")
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    env = TASK["make_envs"](3, autoreset_mode="Disabled") if vector else TASK["make_env"]()
    env = GymWrapper(env, categorical_action_encoding=True)
    check_env_specs(env, seed=0)
    rollout = env.rollout(20, break_when_any_done=False)
    done = rollout["next", "done"].reshape(-1, 20)
    assert (done.nonzero()[:, 1] % 8 == 7).all() and done.sum(1).tolist() == [2] * len(done)
    # An episode begins with one letter and ends with nine.
    lengths = (rollout["next", "observation"] != 16).sum(-1).reshape(-1, 20)
    assert (lengths == (np.arange(20) % 8) + 2).all()
