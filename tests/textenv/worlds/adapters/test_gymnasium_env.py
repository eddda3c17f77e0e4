"""Gymnasium's own environments as worlds: FrozenLake, Blackjack and Taxi."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from textenv import TextVectorEnv
from textenv.errors import WorldError
from textenv.seeding import keyed_generator
from textenv.testing import check_text_env
from textenv.worlds.adapters import GymnasiumWorld, read_number

STOP = 256


def square(observation):
    return f"{observation}\n"


def hand(observation):
    return "{} against {}, ace {}\n".format(*observation)


WORLDS = {
    "FrozenLake-v1": partial(GymnasiumWorld, "FrozenLake-v1", describe=square),
    "Blackjack-v1": partial(GymnasiumWorld, "Blackjack-v1", describe=hand),
    "Taxi-v4": partial(GymnasiumWorld, "Taxi-v4", describe=square),
}


def play(world, num_envs=2, **options):
    defaults = {"max_prompt_tokens": 24, "max_new_tokens": 400, "max_turn_tokens": 4}
    return TextVectorEnv(num_envs, world=world, **defaults | options)


def say(envs, *texts):
    """One turn of each row: its text and the stop token."""
    for characters in zip(*(f"{text}." for text in texts), strict=True):
        step = envs.step([STOP if c == "." else ord(c) for c in characters])
    return step


@pytest.mark.parametrize("name", WORLDS)
def test_a_row_is_the_environment_itself(name):
    envs = play(WORLDS[name](), num_envs=1)
    env = gym.make(name)
    describe = hand if name == "Blackjack-v1" else square
    rng = np.random.default_rng(0)
    _, infos = envs.reset(seed=5)
    row = envs._conversations.world._played[0]
    assert infos["prompt"][0] == describe(env.reset(seed=row.seed)[0])
    ends = 0
    for _ in range(40):
        action = int(rng.integers(env.action_space.n))
        played = envs._conversations.world._played[0]
        turn = envs._conversations.numbers[0] + 1
        # What the row's step draws from, found from outside: the turn's generator, then its seed.
        drawn = keyed_generator(int(envs._streams.episode_seeds[0]), int(turn)).integers(2**63)
        env.unwrapped.np_random = keyed_generator(int(drawn) >> 32, 0)
        observation, reward, terminated, truncated, _ = env.step(action)
        _, rewards, ended, cut, infos = say(envs, str(action))
        assert rewards[0] == reward and (ended[0], cut[0]) == (terminated, truncated)
        if terminated or truncated:
            ends += 1
            env.reset(seed=envs._conversations.world._played[0].seed)
        else:
            assert infos["reply"][0] == describe(observation)
            assert played.moves[-1][0] == str(action)
    assert ends or name == "Taxi-v4"


def test_a_group_begins_alike_and_slips_apart():
    envs = play(WORLDS["Blackjack-v1"](), 8, group_size=4)
    _, infos = envs.reset(seed=0)
    prompts = infos["prompt"].tolist()
    assert len(set(prompts[:4])) == len(set(prompts[4:])) == 1 and prompts[0] != prompts[4]
    slips = play(GymnasiumWorld("FrozenLake-v1", describe=square), 8, group_size=8)
    slips.reset(seed=0)
    assert len(set(say(slips, *"11111111")[4]["reply"].tolist())) > 1


def test_an_action_that_cannot_be_read():
    world = GymnasiumWorld("FrozenLake-v1", describe=square, unreadable="a number", penalty=-0.5)
    envs = play(world, 3)
    envs.reset(seed=0)
    _, rewards, *_, infos = say(envs, "x", "9", "1")  # no number, no action, an action
    assert rewards.tolist() == [-0.5, -0.5, 0.0]
    assert infos["reply"].tolist()[:2] == ["a number"] * 2
    assert infos["reply_info"][0] == {"unreadable": True} and "prob" in infos["reply_info"][2]
    assert [len(played.moves) for played in world._played.values()] == [1, 1, 1]


def test_a_named_start_and_options_of_the_reset():
    records = [{"prompt": "p", "seed": 3, "reset_options": {"natural": True}}]
    world = WORLDS["Blackjack-v1"]()
    envs = play(world, prompts=records)
    _, infos = envs.reset(seed=1)
    opening = hand(gym.make("Blackjack-v1").reset(seed=3)[0])
    assert infos["prompt"].tolist() == [opening] * 2
    assert world._played[0].options == {"natural": True}


@pytest.mark.parametrize("name", WORLDS)
def test_a_saved_episode_goes_on(name):
    one, other = (play(WORLDS[name](), 3) for _ in range(2))
    one.reset(seed=0)
    actions = np.random.default_rng(1).integers(0, 2, (24, 3))
    for step in actions[:12]:
        say(one, *map(str, step))
    state = one.state_dict()
    other.reset(seed=7)
    other.load_state_dict(state)
    for step in actions[12:]:
        mine, theirs = say(one, *map(str, step)), say(other, *map(str, step))
        for a, b in zip(mine[:4], theirs[:4], strict=True):
            assert (a == b).all()


class Unseeded(gym.Env):
    """Counts over all its objects, so it cannot be repeated."""

    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        if action:
            raise ZeroDivisionError("one")
        Unseeded.steps += 1
        return Unseeded.steps, 0.0, False, False, {}


def test_an_environment_that_depends_on_more_than_its_seed_cannot_be_saved():
    envs = play(GymnasiumWorld(Unseeded), 1)
    envs.reset(seed=0)
    say(envs, "0")
    with pytest.raises(
        WorldError, match=r"said '2' where it had said '1'. Something in it depends"
    ):
        envs.load_state_dict(envs.state_dict())


def test_an_environment_that_raises_ends_its_row_alone_and_is_made_anew():
    world = GymnasiumWorld(Unseeded)
    envs = play(world)
    envs.reset(seed=0)
    before = [world._played[row].env for row in range(2)]
    _, _, _, truncated, infos = say(envs, "0", "1")
    assert truncated.tolist() == [False, True]
    assert "raised ZeroDivisionError: one" in infos["final_info"]["world_error"][1]
    after = [world._played[row].env for row in range(2)]
    assert after[0] is before[0] and after[1] is not before[1]


def test_what_cannot_be_played():
    with pytest.raises(WorldError, match=r"the actions of 'Pendulum-v1' are Box.* give read="):
        GymnasiumWorld("Pendulum-v1")
    with pytest.raises(gym.error.Error):
        GymnasiumWorld("NoSuchEnvironment-v0")
    assert read_number("from 3 to -4") == -4 and read_number("no") is None


def test_it_passes_the_check_of_environments():
    options = {"max_prompt_tokens": 24, "max_new_tokens": 40, "max_turn_tokens": 4}
    check_text_env(partial(TextVectorEnv, 2, world=WORLDS["Blackjack-v1"](), **options))


def test_a_reset_that_fails_holds_up_its_row_alone_and_no_environment_stays_open():
    class Falling(Unseeded):
        closed, falls = 0, False

        def reset(self, *, seed=None, options=None):
            if type(self).falls:
                type(self).falls = False
                raise OSError("fell")
            return super().reset(seed=seed, options=options)

        def close(self):
            type(self).closed += 1

    envs = play(GymnasiumWorld(Falling), max_turns=1)
    assert Falling.closed == 1  # the one that was asked for its actions
    envs.reset(seed=0)
    Falling.falls = True
    *_, terminated, _, infos = envs.step([256, 256])
    assert terminated.all() and infos["waiting"].tolist() == [True, False]
    assert "begin raised OSError: fell" in infos["begin_error"][0]
    *_, infos = envs.step([97, 97])
    assert infos["_prompt"].tolist() == [True, False]
