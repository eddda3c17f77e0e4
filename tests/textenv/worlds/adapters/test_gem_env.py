"""Environments of GEM as worlds."""

import random

import pytest

from textenv import TextVectorEnv
from textenv.worlds.adapters import GemWorld

gem = pytest.importorskip(
    "gem", reason='needs pip install "textenv[gem]" in an environment of its own'
)
STOP = 256


def boxed(text):
    return rf"\boxed{{{text}}}"


def play(world, num_envs=1, **options):
    defaults = {"max_prompt_tokens": 1200, "max_new_tokens": 3000, "max_turn_tokens": 8}
    return TextVectorEnv(num_envs, world=world, **defaults | options)


def say(envs, text):
    for character in f"{text}.":
        token = STOP if character == "." else ord(character)
        step = envs.step([token] * envs.num_envs)
    return step


def guessing():
    return GemWorld("game:GuessTheNumber-v0-easy", read=boxed)


def test_a_row_is_the_environment_itself():
    envs, env = play(guessing()), gem.make("game:GuessTheNumber-v0-easy")
    _, infos = envs.reset(seed=0)
    observation, info = env.reset(seed=envs._conversations.world._played[0].seed)
    start = infos["prompt"][0]
    # The instructions hold an example that is drawn; what is behind it is the environment's.
    assert start.startswith(observation.split("example")[0])
    assert start.endswith(f"\n{info['suffix']}\n")
    secret = env.game_number
    guesses = [number for number in (5, 2, 9) if number != secret] + [secret]
    for guess in guesses:
        observation, reward, terminated, _, info = env.step(boxed(guess))
        _, rewards, ended, truncated, infos = say(envs, guess)
        assert rewards[0] == reward and ended[0] == terminated and not truncated.any()
        if not terminated:
            assert infos["reply"][0] == f"{observation}\n{info['suffix']}\n"
    assert reward == 1.0


def test_a_group_shares_its_secret_and_no_row_disturbs_another():
    envs = play(guessing(), 6, group_size=3)
    envs.reset(seed=0)
    secrets = [played.env.game_number for played in envs._conversations.world._played.values()]
    assert len(set(secrets[:3])) == len(set(secrets[3:])) == 1

    def board(rows):  # this game draws a tile after every move
        random.seed(3)
        envs = play(GemWorld("game:Game2048-v0-easy", read=boxed), rows)
        envs.reset(seed=0)
        replies = [say(envs, move)[4]["reply"][0] for move in ("up", "left", "down", "right")]
        return replies, random.random()

    assert board(1) == board(4)


def test_a_saved_episode_goes_on():
    one, other = (play(GemWorld("game:Game2048-v0-easy", read=boxed), 2) for _ in range(2))
    one.reset(seed=0)
    for move in ("up", "left"):
        say(one, move)
    other.reset(seed=5)
    other.load_state_dict(one.state_dict())
    for move in ("down", "right", "up"):
        assert (say(one, move)[0] == say(other, move)[0]).all()


def test_a_tool_of_gem_inside():
    from gem.tools.python_code_tool import PythonCodeTool
    from gem.tools.tool_env_wrapper import ToolEnvWrapper

    def make():
        return ToolEnvWrapper(gem.make("game:GuessTheNumber-v0-easy"), tools=[PythonCodeTool()])

    envs = play(GemWorld(make), max_turn_tokens=64)
    _, infos = envs.reset(seed=0)
    assert "python" in infos["prompt"][0].lower()
    *_, terminated, _, infos = say(envs, "<python>print(40+2)</python>")
    assert not terminated[0] and "42" in infos["reply"][0]


def test_an_environment_that_is_not_there():
    with pytest.raises(ValueError, match="nothing:here not found"):
        GemWorld("nothing:here")
