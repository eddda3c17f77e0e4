"""Playing on from anywhere: the middle of an answer, a turn border, the middle of a turn."""

import asyncio
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from environments import text
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv import BatchedWorld, Prompt, Reply, Start, TextEnv, TextVectorEnv, World
from textenv.errors import EpisodeOverError, ReplayError, ResetOptionsError, WorldError
from textenv.frames import ChatTemplate

STOP = 256
MODES = list(AutoresetMode)


class Scripted(World):
    """Says what was said to it, its number and what it drew; keeps count of the calls."""

    begun, told = 0, 0

    def begin(self, record, rng):
        type(self).begun += 1
        self.said = []
        return f"{record['prompt']}{rng.integers(10)}>"

    def reply(self, turn, rng):
        type(self).told += 1
        self.said.append(turn.text)
        drawn = rng.integers(10)
        return Reply(f"<{'|'.join(self.said)} {drawn}>", reward=0.25 + drawn)


class Opaque(Scripted):
    """The same, with something that JSON cannot hold."""

    def begin(self, record, rng):
        self.lock = object()
        return super().begin(record, rng)


class Chance(World):
    """Says, pays and ends as its generators say; now and then it says nothing."""

    def begin(self, record, rng):
        self.mood = int(rng.integers(5))
        return "".join(rng.choice(list("xyz"), 2))

    def reply(self, turn, rng):
        self.mood += len(turn.text)
        said = "".join(rng.choice(list("uvw"), rng.integers(0, 4)))
        return Reply(said, float(rng.random()) + self.mood, terminated=bool(rng.random() < 0.2))


def talk(num_envs=1, world=Scripted, **options):
    defaults = {"prompts": [{"prompt": "q", "answer": "7"}], "max_prompt_tokens": 4}
    return TextVectorEnv(num_envs, world=world, **defaults | {"max_new_tokens": 64} | options)


def say(envs, characters):
    """Say the same in every row; "." is the stop token."""
    for character in characters:
        step = envs.step([STOP if character == "." else ord(character)] * envs.num_envs)
    return step


def through_json(start):
    return Start.from_json(json.loads(json.dumps(start.to_json())))


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("world", [Scripted, Opaque])
def test_two_turns_by_hand(world):
    envs = talk(world=world)
    observations, infos = envs.reset(seed=0)
    opening = text(envs, observations[0])
    seed = int(infos["episode_seed"][0])
    observations, rewards, *_ = say(envs, "a.")
    first = text(envs, observations[0])  # ids above 255, such as the stop token, are no text
    start = envs.start_of(0)
    assert start.prompt.columns == {"answer": "7"} and start.opening.text == opening
    reply = len(first) - len(opening) - 1
    assert [tuple(turn) for turn in start.turns] == [(2, 2 + reply, seed)]
    assert start.answer[:2].tolist() == [ord("a"), STOP]
    assert (start.world is None) == (world is Opaque)
    observations, rewards, *_ = say(envs, "bc.")
    within = replace(start, answer=np.array([*start.answer, *b"bc"]))
    for begin, rest in ((start, "bc."), (within, "."), (through_json(within), ".")):
        other = talk(world=world)
        placed, infos = other.reset(options={"start": replace(begin, episode_seed=seed)})
        assert (placed[0][: len(first)] == observations[0][: len(first)]).all()
        assert infos["prompt"][0] == opening and infos["turn"].tolist() == [1]
        assert infos["episode_seed"].tolist() == [seed]
        again, paid, *_, infos = say(other, rest)
        assert (again == observations).all() and paid == rewards
        assert infos["turn"].tolist() == [2]
        assert other._conversations.rewards == envs._conversations.rewards


def test_a_world_that_was_saved_is_not_asked_again():
    envs = talk()
    envs.reset(seed=0)
    say(envs, "a.b.c")
    saved, other = envs.start_of(0), talk(3)
    for save_world, begun, told in ((True, 0, 0), (False, 3, 6)):
        start = envs.start_of(0, save_world)
        before = Scripted.begun, Scripted.told
        other.reset(options={"start": start})
        assert (Scripted.begun - before[0], Scripted.told - before[1]) == (begun, told)
    other.reset(options={"start": saved})
    say(other, ".")
    said = [other._conversations.world.worlds[row].said for row in range(3)]
    assert said == [["a", "b", "c"]] * 3  # and not one list that all of them share


def test_what_follows_differs_and_can_be_repeated():
    envs = talk(4)
    envs.reset(seed=0)
    say(envs, "a.")
    start, other = envs.start_of(0), talk(4)
    _, infos = other.reset(seed=5, options={"start": start})
    observations, *_ = say(other, "b.")
    assert len({tuple(row) for row in observations.tolist()}) > 1
    # The draw's numbers are the same, and those of the turns that have ended.
    assert len({tuple(row[:8]) for row in observations.tolist()}) == 1
    seed = int(infos["episode_seed"][2])
    other.reset(options={"start": replace(start, episode_seed=seed)})
    again, *_ = say(other, "b.")
    assert (again == observations[2]).all()


# ---------------------------------------------------------------- any prefix of any conversation


def played(envs, choices):
    """What the choices gave, up to the end of the first row's episode."""
    steps = []
    for choice in choices:
        observations, rewards, terminated, truncated, infos = envs.step([choice] * envs.num_envs)
        over = bool(terminated[0] or truncated[0])
        if over and envs.autoreset_mode is AutoresetMode.SAME_STEP:
            observations, ends = infos["final_obs"], infos["final_info"]
        else:
            ends = infos
        end = (ends["finish_reason"][0], ends["text"][0], ends["turns"][0]) if over else None
        paid = ends["reward_components"]["world"][0] if over else None
        steps.append((observations[0].tolist(), rewards[0], terminated[0], truncated[0], end, paid))
        if over:
            break
    return steps


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    choices=st.lists(st.sampled_from([97, 98, 98, STOP]), min_size=4, max_size=30),
    strings=st.sampled_from([(), ("ab",)]),
    save_world=st.booleans(),
)
def test_any_prefix_of_a_conversation_goes_on_as_it_did(mode, seed, choices, strings, save_world):
    options = {
        "prompts": None,
        "max_new_tokens": 30,
        "max_turns": 5,
        "max_turn_tokens": 4,
        "stop_strings": strings,
    }
    envs = talk(world=Chance, autoreset_mode=mode, **options)
    _, infos = envs.reset(seed=seed)
    own, starts, steps = int(infos["episode_seed"][0]), [], []
    for number in range(len(choices)):
        starts.append(replace(envs.start_of(0, save_world), episode_seed=own))
        steps += played(envs, choices[number : number + 1])
        if steps[-1][4] is not None:
            break
    other = talk(2, Chance, autoreset_mode=mode, **options)
    for number, start in enumerate(starts):
        observations, _ = other.reset(options={"start": through_json(start)})
        before = starts[number].opening.tokens.tolist()
        before += [] if start.answer is None else start.answer.tolist()
        assert observations[0][: len(before)].tolist() == before
        assert played(other, choices[number : len(steps)]) == steps[number:]


def test_an_answer_without_a_world_goes_on():
    seen = []

    def reward(episodes):
        seen.extend((e.prompt, e.text, dict(e.columns)) for e in episodes)
        return [float(len(e.tokens)) for e in episodes]

    prompts = [{"prompt": "héllo ", "answer": 3}]
    envs = TextVectorEnv(2, prompts=prompts, reward=reward, max_new_tokens=5)
    envs.reset(seed=0)
    observations, *_ = say(envs, "ab")
    start = through_json(envs.start_of(1))
    other = TextVectorEnv(2, prompts=["unused text"], reward=reward, max_new_tokens=5)
    again, infos = other.reset(options={"start": start})
    width = observations.shape[1]
    assert (again[:, :width] == observations).all() and infos["prompt"].tolist() == ["héllo "] * 2
    say(other, "cde")
    assert seen == [("héllo ", "abcde", {"answer": 3})] * 2


# ---------------------------------------------------------------- rows, groups, single


@pytest.mark.parametrize("mode", MODES)
def test_some_rows_play_on_and_the_others_stay(mode):
    envs = talk(4, group_size=2, autoreset_mode=mode)
    envs.reset(seed=0)
    before, *_ = say(envs, "a.b")
    starts = [envs.start_of(3), Start(Prompt("r"))]
    mask = np.array([False, True, True, False])
    after, infos = envs.reset(options={"reset_mask": mask, "start": starts})
    assert (after[[0, 3]] == before[[0, 3]]).all() and (after[1] == before[3]).all()
    assert text(envs, after[2]).startswith("r") and infos["turn"].tolist()[1] == 1
    assert infos["_turn"].tolist() == [False, True, False, False]
    assert envs._streams.groups[[1, 2]].tolist() == [-1, -1]
    say(envs, "c.")


def test_the_single_environment_plays_on_alike():
    options = {"world": Chance, "max_prompt_tokens": 2, "max_turn_tokens": 3}
    env, envs = TextEnv(**options), TextVectorEnv(1, **options)
    observation, info = env.reset(seed=2)
    for action in (97, 98, STOP, 97):
        env.step(action)
    start = replace(env.start_of(), episode_seed=info["episode_seed"])
    observation, info = env.reset(options={"start": start})
    observations, _ = envs.reset(options={"start": start})
    assert (observation == observations[0]).all()
    assert (env.step(STOP)[0] == envs.step([STOP])[0][0]).all()


class Together(BatchedWorld):
    """Answers in batches, by a memory that cannot be saved."""

    def __init__(self):
        self.said, self.lock = {}, object()

    def begin(self, rows, records, rngs):
        self.said |= {row: "" for row in rows}
        return ["o"] * len(rows)

    def reply(self, rows, turns, rngs):
        for row, turn in zip(rows, turns, strict=True):
            self.said[row] += turn.text
        return [Reply(f"[{self.said[row]}]") for row in rows]


def test_playing_deals_out_starts_and_then_rows_wait():
    world = Together()
    envs = talk(2, world)
    envs.reset(seed=0)
    say(envs, "a.b")
    starts = [replace(envs.start_of(0), episode_seed=seed) for seed in range(3)]
    other = envs.playing(starts)
    assert other.num_envs == 2 and other.action_space.shape == (2,)
    observations, infos = other.reset()
    assert [text(envs, row) for row in observations] == ["oa[a]b"] * 2
    assert not any(infos.get("waiting", []))
    other._conversations.max_turns = 2  # each start has one turn left
    *_, terminated, _, infos = other.step([STOP, ord("c")])
    assert terminated.tolist() == [True, False] and infos["final_info"]["group"][0] == 0
    assert infos["_turn"].tolist() == [True, False] and infos["waiting"].tolist() == [False] * 2
    *_, terminated, _, infos = other.step([ord("d"), STOP])  # row 0 is in the third start
    assert terminated.tolist() == [False, True] and infos["final_info"]["group"][1] == 1
    assert infos["waiting"].tolist() == [False, True]
    waiting = other._texts.tokens[1].copy()
    observations, rewards, terminated, _, infos = other.step([STOP, 0])
    assert (observations[1] == waiting).all() and rewards[1] == 0
    assert terminated.tolist() == [True, False] and infos["waiting"].all()
    # The rows of both environments are different ones of the world.
    assert set(world.said) == {0, 1, 2, 3} and world.said[2] == "abd" and world.said[3] == "abc"
    observations, *_ = say(envs, ".")
    assert text(envs, observations[0]).endswith("[ab]")


def test_environments_of_one_world_have_rows_of_their_own():
    world = Together()
    envs = talk(2, world)
    envs.reset(seed=0)
    start = Start(Prompt("o"), episode_seed=1)
    one, two = envs.playing([start]), envs.playing([start] * 2)
    third = two.playing([start])
    for other, letters in ((one, "a"), (two, "bc"), (third, "d")):
        other.reset()
        for _ in range(2):
            other.step([ord(letter) for letter in letters])
    for other in (third, two, one):
        other.step([STOP] * other.num_envs)
    assert world.said == {0: "", 1: "", 2: "aa", 3: "bb", 4: "cc", 5: "dd"}
    del one, two, third, other
    last = envs.playing([start] * 2)  # the rows of environments that are gone are free
    last.reset()
    assert set(world.said) == {0, 1, 2, 3, 4, 5} and world.said[2] == world.said[3] == ""


# ---------------------------------------------------------------- saving an environment


@pytest.mark.parametrize("make", [lambda: Opaque, Together])
@pytest.mark.parametrize("mode", MODES)
def test_worlds_that_cannot_be_saved_are_replayed(make, mode):
    one, other = (talk(3, make(), max_turns=3, autoreset_mode=mode) for _ in range(2))
    one.reset(seed=0)
    other.reset(seed=9)
    say(one, "a.bb.c")
    if mode is not AutoresetMode.DISABLED:
        say(one, ".d.e")  # rows have ended and begun anew, or are over
    else:
        say(one, ".")
    state = one.state_dict()
    assert (other.load_state_dict(state) == one._texts.tokens).all()
    if mode is AutoresetMode.DISABLED:
        one.reset()
        other.reset()
    for action in (102, STOP, 103, 104, STOP):
        steps = [envs.step([action] * 3)[:4] for envs in (one, other)]
        assert all((a == b).all() for a, b in zip(*steps, strict=True))
        talks = [envs._conversations for envs in (one, other)]
        assert talks[0].borders == talks[1].borders
        assert (talks[0].rewards == talks[1].rewards).all()


class Late(Opaque):
    """Keeps a turn with a z waiting until the gate is open."""

    gate = threading.Event()

    async def reply(self, turn, rng):
        reply = super().reply(turn, rng)
        while "z" in turn.text and not self.gate.is_set():
            await asyncio.sleep(0.001)
        return reply


def answered(envs, row, actions):
    """Step until the reply of a row has come, and at least once."""
    while True:
        observations, rewards, *_, infos = envs.step(actions)
        if not envs._conversations.waiting[row]:
            return text(envs, observations[row]), rewards[row], infos["reply"][row]
        time.sleep(0.02)  # or other rows would spend their budgets meanwhile


def test_a_reply_that_had_not_come_is_asked_for_again():
    one, other = (talk(2, Late, world_wait="async") for _ in range(2))
    one.reset(seed=0)
    answered(one, 1, [ord("z"), STOP])
    start = one.start_of(1)
    Late.gate.clear()
    assert one.step([STOP, ord("b")])[4]["waiting"].tolist() == [True, False]
    with pytest.raises(EpisodeOverError, match="until the world's reply has come"):
        one.start_of(0)
    # The other row starts anew meanwhile: a replay waits for its own replies alone.
    observations, _ = one.reset(options={"start": start, "reset_mask": np.array([False, True])})
    begun = [*start.opening.tokens, *start.answer]
    assert observations[1][: len(begun)].tolist() == begun and one._conversations.waiting[0]
    Late.gate.set()  # saving waits for the reply
    state = one.state_dict()
    other.load_state_dict(state)
    assert other._conversations.waiting.tolist() == [True, False]
    assert answered(one, 0, [98, 98]) == answered(other, 0, [98, 98])


# ---------------------------------------------------------------- what goes wrong


class Liar(Opaque):
    """Answers by what it was asked in all episodes."""

    times = 0

    def reply(self, turn, rng):
        type(self).times += 1
        return self.lie(Reply("k", reward=1.0), self.times)


def failing(reply, times):
    if times > 1:
        raise KeyError("gone")
    return reply


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (lambda r, n: replace(r, text=f"{n}"), "its text has other tokens.*Now: Reply.text='.'"),
        (lambda r, n: replace(r, reward=float(n)), r"it was Reply.text='k', reward=1.0"),
        (lambda r, n: replace(r, terminated=n > 1), r"the episode, which went on, ended .world."),
        (failing, "ended .error.*KeyError: 'gone'"),
    ],
)
def test_a_world_that_lies_is_refused_by_name(lie, message):
    class Fibber(Liar):
        times = 0

    Fibber.lie = staticmethod(lie)
    envs = talk(2, Fibber)
    envs.reset(seed=0)
    envs.step([97, 97])
    envs.step([STOP, 97])
    start, state = envs.start_of(0), envs.state_dict()
    for play_on in (
        lambda: envs.reset(options={"start": start}),
        lambda: talk(2, Fibber).load_state_dict(state),
    ):
        with pytest.raises(ReplayError, match=f"Fibber replied differently to turn 1 .*{message}"):
            play_on()
    assert issubclass(ReplayError, WorldError)
    with pytest.raises(EpisodeOverError):
        envs.step([97, 97])
    envs.reset(seed=0)
    envs.step([97, 97])


def test_a_world_that_begins_differently_is_refused():
    class Moody(Opaque):
        times = 0

        def begin(self, record, rng):
            super().begin(record, rng)
            type(self).times += 1
            return str(self.times)

    envs = talk(world=Moody)
    envs.reset(seed=0)
    before = say(envs, "a.b")[0]
    with pytest.raises(ReplayError, match="the world began with '2', the start with '1'"):
        envs.reset(options={"start": envs.start_of(0)})
    assert (envs._texts.tokens == before).all()


def test_a_world_that_may_not_be_replayed_says_so():
    class Server(Opaque):
        replayable = False

    envs = talk(world=Server)
    envs.reset(seed=0)
    envs.reset(options={"start": envs.start_of(0)})  # nothing was said yet
    say(envs, "a.")
    with pytest.raises(WorldError, match="attributes that JSON cannot hold"):
        envs.start_of(0)
    with pytest.raises(ReplayError, match=r"Server may not be told turns again .replayable is"):
        envs.reset(options={"start": envs.start_of(0, save_world=False)})


def test_starts_that_leave_nothing_to_choose():
    envs = talk(max_turn_tokens=3)
    envs.reset(seed=0)
    say(envs, "ab.c")
    start = envs.start_of(0)
    full = replace(start, answer=np.array([*start.answer, 97, 97]))
    stopped = replace(start, answer=np.array([*start.answer, STOP]))
    for given_start, arguments, message in (
        (full, {}, "the turn begun already has 3 tokens, max_turn_tokens is 3"),
        (stopped, {}, "already has the stop token 256"),
        (start, {"max_turns": 1}, "the start has 1 turns, max_turns is 1"),
        (start, {"max_new_tokens": 8}, "max_new_tokens is 8: nothing is left"),
    ):
        with pytest.raises(ResetOptionsError, match=f"row 0: .*{message}"):
            talk(**{"max_turn_tokens": 3} | arguments).reset(options={"start": given_start})
    plain = TextVectorEnv(1, prompts=["long enough"], reward=lambda e: [0.0])
    with pytest.raises(ResetOptionsError, match="1 turns of a conversation, and this environment"):
        plain.reset(options={"start": start})


def test_options_that_are_no_starts():
    envs = talk(2)
    envs.reset(seed=0)
    for options, message in (
        ({"start": ["q", "r"]}, "row 0: 'q' is no textenv.Start"),
        ({"start": [envs.start_of(0)]}, "holds 1 values; 2 rows are to be reset"),
        ({"start": envs.start_of(0), "prompt": "q"}, "or 'start'; 'reset_mask' may come"),
        ({"start": envs.start_of(0), "columns": {}}, "'columns' belong to 'tokens'"),
    ):
        with pytest.raises(ResetOptionsError, match=message):
            envs.reset(options=options)
    with pytest.raises(ResetOptionsError, match="no start to play on from"):
        envs.playing([])
    with pytest.raises(EpisodeOverError, match="row 1 has no running turn"):
        talk(2).start_of(1)


class Seated(World):
    """Adds what it has drawn to the record."""

    def begin(self, record, rng):
        assert "seat" not in record
        self.seat = int(rng.integers(100))
        return Prompt("o", {"seat": self.seat})

    def reply(self, turn, rng):
        return Reply("k", terminated=turn.number == 2)


@pytest.mark.parametrize("save_world", [True, False])
def test_what_a_world_adds_to_its_record_is_still_there(save_world):
    seen = []

    def reward(episodes):
        seen.extend(dict(e.columns) for e in episodes)
        return [0.0] * len(episodes)

    envs = talk(world=Seated, reward=reward)
    _, infos = envs.reset(seed=0)
    say(envs, "a.")
    start = envs.start_of(0, save_world)
    say(envs, "b.")
    _, again = envs.reset(options={"start": through_json(start)})
    say(envs, "b.")
    assert seen[0] == seen[1] and "seat" in seen[0]
    assert dict(infos["record"][0]) == dict(again["record"][0])


# ---------------------------------------------------------------- frames


class Asks(World):
    """Begins with messages, and replies in several of them."""

    def begin(self, record, rng):
        self.lock = object()
        return [{"role": "system", "content": "s"}, *record["prompt"]]

    def reply(self, turn, rng):
        return Reply(["1", turn.text], role=["tool", "user"][turn.number % 2], reward=0.5)


@pytest.mark.parametrize("world", [Asks, None])
def test_what_a_frame_wraps_goes_on_by_its_ids(world):
    frame = ChatTemplate(
        system="[{content}]",
        user="<{content}>",
        answer="{content}",
        between="-",
        tool="({content})",
    )
    chat = [{"role": "user", "content": "q"}]
    options = {"max_prompt_tokens": 12, "max_new_tokens": 40, "frame": frame, "max_turn_tokens": 3}
    options |= {"world": world, "prompts": [{"prompt": chat}]}
    if world is None:
        options |= {"reward": lambda episodes: [1.0] * len(episodes), "max_turn_tokens": None}
    envs, other = TextVectorEnv(1, **options), TextVectorEnv(2, **options)
    envs.reset(seed=0)
    observations, *_ = say(envs, "a.bcde" if world else "abcde")  # the second turn is cut
    start = through_json(envs.start_of(0))
    again, infos = other.reset(options={"start": start})
    assert (again == observations).all() and (world is None or infos["turn"].tolist() == [2, 2])
    assert (say(other, "x")[0] == say(envs, "x")[0]).all()
