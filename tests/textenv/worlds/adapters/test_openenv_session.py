"""A server of OpenEnv on the loopback, played over its sessions."""

import random
import socket
import threading
import time

import numpy as np
import pytest

from textenv import TextVectorEnv
from textenv.errors import WorldError
from textenv.worlds.adapters import OpenEnvWorld

pytest.importorskip(
    "openenv", reason='needs pip install "textenv[openenv]" in an environment of its own'
)
import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from openenv.core.generic_client import GenericEnvClient

STOP = 256


class Guess(Action):
    number: int


class Hint(Observation):
    hint: str = ""


class GuessEnv(Environment):
    """Guess the number; raises at 7, and sleeps at 8."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, top=6, **more):
        self.secret, self.count = random.Random(seed).randint(1, top), 0
        return Hint(hint=f"1 to {top}? ")

    def step(self, action, timeout_s=None, **more):
        self.count += 1
        if action.number == 7:
            raise ZeroDivisionError("seven")
        if action.number == 8:
            time.sleep(0.5)
        if action.number == self.secret:
            return Hint(hint="yes", reward=1.0, done=True)
        return Hint(hint="more" if action.number < self.secret else "less", reward=-0.25)

    @property
    def state(self):
        return State(step_count=self.count)


class OneAtATime(GuessEnv):
    SUPPORTS_CONCURRENT_SESSIONS = False


def serve(env, **options):
    """A server on a free port; returns its address and what stops it."""
    app = create_fastapi_app(env, Guess, Hint, **options)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def stop():
        server.should_exit = server.force_exit = True
        thread.join(timeout=10)

    return f"http://127.0.0.1:{listening.getsockname()[1]}", stop


@pytest.fixture(scope="module")
def address():
    address, stop = serve(GuessEnv, max_concurrent_envs=8)
    yield address
    stop()


@pytest.fixture
def world(address):
    world = guessing(address)
    yield world
    world.close()


def guessing(server, **options):
    return OpenEnvWorld(
        server,
        describe=lambda observation: observation["hint"],
        read=lambda text: {"number": int(text)} if text.isdigit() else None,
        **options,
    )


def play(world, num_envs=2, **options):
    return TextVectorEnv(num_envs, world=world, max_prompt_tokens=12, max_turn_tokens=3, **options)


def say(envs, *texts):
    for characters in zip(*(f"{text}." for text in texts), strict=True):
        step = envs.step([STOP if c == "." else ord(c) for c in characters])
    return step


def secret_of(world, row, top=6):
    return random.Random(world._played[row].seed).randint(1, top)


def test_a_game_over_a_session(world):
    envs = play(world)
    _, infos = envs.reset(seed=0)
    assert infos["prompt"].tolist() == ["1 to 6? "] * 2
    secrets = [secret_of(world, row) for row in range(2)]
    wrong = [secret % 6 + 1 for secret in secrets]
    _, rewards, terminated, _, infos = say(envs, *map(str, wrong))
    assert rewards.tolist() == [-0.25] * 2 and not terminated.any()
    hints = [
        "more" if guess < secret else "less" for guess, secret in zip(wrong, secrets, strict=True)
    ]
    assert infos["reply"].tolist() == hints
    # One row is right, and its `done` is that of the result; the other's words are no number.
    _, rewards, terminated, _, infos = say(envs, str(secrets[0]), "x")
    assert rewards.tolist() == [1.0, 0.0] and terminated.tolist() == [True, False]
    assert infos["reply"][1] == "?" and infos["reply_info"][1] == {"unreadable": True}
    # Its next episode is on the same session, with another seed.
    _, rewards, terminated, *_ = say(envs, str(secret_of(world, 0)), str(secrets[1]))
    assert rewards.tolist() == [1.0, 1.0] and terminated.all()


def test_a_group_shares_its_seed_and_a_record_has_options(world):
    records = [{"prompt": "p", "reset_options": {"top": 9}}]
    envs = play(world, 4, group_size=2, prompts=records)
    _, infos = envs.reset(seed=0)
    assert infos["prompt"].tolist() == ["1 to 9? "] * 4
    seeds = [world._played[row].seed for row in range(4)]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


def test_a_step_that_raises_or_takes_too_long_ends_its_row_alone(address):
    world = guessing(address, timeout=0.1)
    envs = play(world, 3)
    envs.reset(seed=0)
    _, _, _, truncated, infos = say(envs, "7", "8", "x")
    assert truncated.tolist() == [True, True, False]
    errors = infos["final_info"]["world_error"]
    assert "seven" in errors[0] and "TimeoutError" in errors[1]
    assert set(world._played) == {0, 1, 2}  # new sessions were opened
    say(envs, "1", "1", "1")
    world.close()


def test_rows_are_asked_at_the_same_time(world):
    envs = play(world, 4)
    envs.reset(seed=0)
    begin = time.perf_counter()
    say(envs, *"8888")
    assert time.perf_counter() - begin < 1.5  # each sleeps for half a second


def test_a_saved_episode_goes_on(world, address):
    other_world = guessing(lambda: GenericEnvClient(base_url=address))
    one, other = play(world), play(other_world)
    one.reset(seed=3)
    say(one, "1", "6")
    other.reset(seed=4)
    other.load_state_dict(one.state_dict())
    for guess in "2345":
        mine, theirs = say(one, guess, guess), say(other, guess, guess)
        for a, b in zip(mine[:4], theirs[:4], strict=True):
            assert np.array_equal(a, b)
    other_world.close()


def test_a_server_with_too_few_sessions_says_what_to_do():
    address, stop = serve(OneAtATime)
    world = guessing(address)
    with pytest.raises(WorldError, match=r"1 of 2 episodes could not begin: .*capacity.*max_conc"):
        play(world).reset(seed=0)
    envs = play(world, 1)
    assert envs.reset(seed=0)[1]["prompt"].tolist() == ["1 to 6? "]
    world.close()
    stop()


def test_a_server_that_is_not_there():
    with pytest.raises(WorldError, match="2 of 2 episodes could not begin"):
        play(guessing("http://127.0.0.1:9")).reset(seed=0)
