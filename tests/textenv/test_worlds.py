"""Conversations: the agent chooses tokens, the world answers when a turn ends."""

import asyncio
import time
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from environments import text
from gymnasium.vector import AutoresetMode

from textenv import BatchedWorld, Reply, TextEnv, TextVectorEnv, World
from textenv.errors import (
    EpisodeOverError,
    InvalidRewardError,
    PromptError,
    PromptTooLongError,
    ResetOptionsError,
    WorldError,
)
from textenv.rewards import dense
from textenv.testing import check_text_env
from textenv.tokenizers import CharacterTokenizer

STOP = 256


class Scripted(World):
    """Says what was said to it, and its number; ends after the third turn."""

    def begin(self, record, rng):
        self.said = []
        return f"{record['prompt']}>"

    def reply(self, turn, rng):
        self.said.append(turn.text)
        if turn.number == 3:
            return Reply("bye", reward=1.0, terminated=True)
        return Reply(f"<{turn.text}{turn.number}>", reward=0.25)


def talk(num_envs=1, world=Scripted, **options):
    defaults = {"prompts": ["q"], "max_prompt_tokens": 4, "max_new_tokens": 16}
    return TextVectorEnv(num_envs, world=world, **defaults | options)


def say(envs, *texts):
    """Step through the characters of each row's text; "." is the stop token."""
    steps = []
    for characters in zip(*texts, strict=True):
        actions = [STOP if c == "." else ord(c) for c in characters]
        steps.append(envs.step(actions))
    return steps


# ---------------------------------------------------------------- by hand


def test_two_turns_by_hand():
    envs = talk(max_turn_tokens=3)
    observations, infos = envs.reset(seed=0)
    assert text(envs, observations[0]) == "q>" and infos["prompt"].tolist() == ["q>"]
    expected = [
        # said, text after the step, reward, over
        ("a", "q>a", 0.0, False),
        (".", "q>a.<a1>", 0.25, False),
        ("b", "q>a.<a1>b", 0.0, False),
        ("c", "q>a.<a1>bc", 0.0, False),
        ("d", "q>a.<a1>bcd<bcd2>", 0.25, False),  # the turn's budget is spent
    ]
    for said, after, reward, over in expected:
        ((observations, rewards, terminated, truncated, infos),) = say(envs, said)
        ids = observations[0][observations[0] != envs.pad_token].tolist()
        shown = "".join("." if i == STOP else chr(i) for i in ids)
        assert (shown, rewards[0], terminated[0], truncated[0]) == (after, reward, over, False)
        if reward:
            assert infos["turn"].tolist() == [1 if said == "." else 2]
            assert infos["reply"][0] == ("<a1>" if said == "." else "<bcd2>")
        else:
            assert "reply" not in infos


def test_the_world_ends_the_episode():
    envs = talk(max_new_tokens=64)
    envs.reset(seed=0)
    *_, (_, rewards, terminated, truncated, infos) = say(envs, "a.b.c.")
    assert rewards.tolist() == [1.0] and terminated.tolist() == [True] and not truncated.any()
    end = infos["final_info"]
    assert end["finish_reason"].tolist() == ["world"] and end["turns"].tolist() == [3]
    assert end["reward_components"]["world"].tolist() == [1.5]
    assert end["text"].tolist() == ["c"]
    assert text(envs, envs._texts.tokens[0]) == "q>"  # the next episode has begun


def test_the_info_of_the_last_reply_is_told_at_the_end():
    class Telling(World):
        def reply(self, turn, rng):
            return Reply("more", terminated=turn.number == 2, info={"number": turn.number})

    for mode in modes():
        envs = talk(2, Telling, max_turns=3, max_new_tokens=64, autoreset_mode=mode)
        envs.reset(seed=0)
        *_, (_, _, terminated, _, infos) = say(envs, "a.b.", "cdc.")
        ends = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
        assert terminated.tolist() == [True, False]
        assert ends["world_info"].tolist() == [{"number": 2}, None]
        assert infos["reply_info"].tolist() == [None, {"number": 1}]  # the other row goes on


def modes():
    return [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]


@pytest.mark.parametrize("mode", modes())
def test_rows_end_apart_in_every_autoreset_mode(mode):
    envs = talk(2, max_turns=2, autoreset_mode=mode)
    envs.reset(seed=0)
    # The first row has two short turns; meanwhile the second is still in its first.
    steps = say(envs, "a.b.", "cdef")
    _, rewards, terminated, _, infos = steps[-1]
    assert terminated.tolist() == [True, False] and rewards.tolist() == [0.25, 0.0]
    ends = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
    assert ends["finish_reason"].tolist() == ["turns", None]
    final = infos["final_obs"][0] if mode is AutoresetMode.SAME_STEP else envs._texts.tokens[0]
    assert text(envs, final).startswith("q>a") and text(envs, final).endswith("<a1>b")
    if mode is AutoresetMode.DISABLED:
        with pytest.raises(EpisodeOverError):
            envs.step([0, 0])
        envs.reset(options={"reset_mask": np.array([True, False])})
    observations, *_ = envs.step([ord("x"), STOP])
    first = "q>" if mode is AutoresetMode.NEXT_STEP else "q>x"
    assert text(envs, observations[0]) == first
    assert text(envs, observations[1]).endswith("<cdef1>")


def test_the_text_budget_ends_it_and_the_last_reply_is_paid_but_not_appended():
    for budget, flags in (("terminate", (True, False)), ("truncate", (False, True))):
        envs = talk(max_new_tokens=4, budget=budget)
        envs.reset(seed=0)
        *_, (_, rewards, terminated, truncated, infos) = say(envs, "abcd")
        assert (terminated[0], truncated[0]) == flags and rewards[0] == 0.25
        assert infos["final_info"]["finish_reason"][0] == "length"
        assert text(envs, infos["final_obs"][0]) == "q>abcd"


def test_a_reply_that_leaves_no_room_ends_the_episode():
    envs = talk(max_new_tokens=6)  # "a", the stop token and "<a1>" fill it
    envs.reset(seed=0)
    *_, (_, rewards, terminated, _, infos) = say(envs, "a.")
    assert terminated[0] and rewards[0] == 0.25
    assert infos["final_info"]["finish_reason"][0] == "length"


def test_stop_tokens_are_masked_until_a_turn_is_long_enough():
    envs = talk(min_new_tokens=2, max_new_tokens=64)
    _, infos = envs.reset(seed=0)
    allowed = [infos["action_mask"][0, STOP]]
    for step in say(envs, "ab.c"):
        allowed.append(step[4]["action_mask"][0, STOP])
    assert allowed == [False, False, True, False, False]


# ---------------------------------------------------------------- properties


class Random(World):
    """Says and pays what its generators say, and now and then ends."""

    def begin(self, record, rng):
        return "".join(rng.choice(list("xyz"), 2))

    def reply(self, turn, rng):
        said = "".join(rng.choice(list("uvw"), rng.integers(0, 4)))
        return Reply(said, float(rng.random()), terminated=bool(rng.random() < 0.2))


def random_actions(seed, steps, rows):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((steps, rows)) < 0.3, STOP, rng.integers(97, 123, (steps, rows)))


@pytest.mark.parametrize("seed", range(3))
def test_the_vector_and_single_environments_agree(seed):
    options = {"prompts": None, "max_new_tokens": 20, "max_turns": 4, "max_turn_tokens": 5}
    envs = talk(2, Random, autoreset_mode=AutoresetMode.DISABLED, **options)
    singles = [TextEnv(world=Random, max_prompt_tokens=4, **options) for _ in range(2)]
    observations, _ = envs.reset(seed=seed)
    for row, env in enumerate(singles):
        assert (env.reset(seed=seed + row)[0] == observations[row]).all()
    for actions in random_actions(seed, 60, 2):
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        over = terminated | truncated
        for row, env in enumerate(singles):
            after, reward, ended, cut, info = env.step(actions[row])
            assert (after == observations[row]).all()
            assert (reward, ended, cut) == (rewards[row], terminated[row], truncated[row])
            if ended:
                assert info["finish_reason"] == infos["finish_reason"][row]
                env.reset()
        if over.any():
            envs.reset(options={"reset_mask": over})


def test_a_group_shares_its_opening_and_each_answer_has_its_own_replies():
    envs = talk(4, Random, prompts=None, group_size=4, max_new_tokens=64)
    _, infos = envs.reset(seed=1)
    assert len(set(infos["prompt"])) == 1
    (step,) = say(envs, *"....")
    assert len({tuple(row) for row in step[0].tolist()}) > 1


@pytest.mark.parametrize("world", [Scripted, Random])
def test_a_saved_conversation_goes_on(world):
    one, other = (talk(3, world, max_new_tokens=40) for _ in range(2))
    one.reset(seed=0)
    actions = random_actions(7, 60, 3)
    for step in actions[:25]:
        one.step(step)
    state = one.state_dict()
    other.reset(seed=99)
    other.load_state_dict(state)
    for step in actions[25:]:
        for a, b in zip(one.step(step)[:4], other.step(step)[:4], strict=True):
            assert (a == b).all()
        assert one._conversations.histories[0].__len__() == len(other._conversations.histories[0])


class Opaque(World):
    replayable = False

    def begin(self, record, rng):
        self.lock = object()
        return "o"

    def reply(self, turn, rng):
        return Reply("k")


def test_a_world_that_cannot_be_saved_says_so():
    envs = talk(world=Opaque)
    envs.reset(seed=0)
    with pytest.raises(WorldError, match=r"Opaque has attributes .* give it state_dict\(\)"):
        envs.state_dict()


def test_what_was_said_is_in_the_episode():
    seen = []

    def reward(episodes):
        seen.extend(episodes)
        return [0.5] * len(episodes)

    envs = talk(reward=reward, max_new_tokens=64)
    envs.reset(seed=0)
    *_, (_, rewards, *_, infos) = say(envs, "a.bb.c.")
    (episode,) = seen
    assert rewards[0] == 1.5  # the world's 1 and the reward's 0.5
    assert [e.text for e in episode.turns] == ["a", "<a1>", "bb", "<bb2>", "c", "bye"]
    assert [len(e.history) for e in episode.turns[::2]] == [0, 2, 4]
    assert episode.text == "c" and episode.prompt == "q>"
    components = infos["final_info"]["reward_components"]
    assert components["reward"].tolist() == [0.5] and components["world"].tolist() == [1.5]


def test_dense_rewards_see_the_chosen_token_last():
    seen = []

    def record(batch):
        seen.append((batch.tokens[0, batch.lengths[0] - 1], bool(batch.ended[0])))
        return [0.0]

    envs = talk(reward=dense(record), max_turns=2, max_new_tokens=64)
    envs.reset(seed=0)
    say(envs, "a.b.")
    assert seen == [(97, False), (STOP, False), (98, False), (STOP, True)]


# ---------------------------------------------------------------- worlds of other kinds


class Slow(World):
    pause = 0.2

    async def reply(self, turn, rng):
        await asyncio.sleep(self.pause)
        return Reply("ok", reward=1.0)


def test_async_replies_of_a_step_run_together():
    envs = talk(8, Slow)
    envs.reset(seed=0)
    begin = time.perf_counter()
    (step,) = say(envs, *"........")
    assert time.perf_counter() - begin < 8 * Slow.pause and (step[1] == 1).all()


def test_a_reply_that_takes_too_long_ends_its_row_alone():
    class Uneven(Slow):
        async def reply(self, turn, rng):
            await asyncio.sleep(30 if turn.text == "b" else 0)
            return Reply("ok", reward=1.0)

    envs = talk(2, Uneven, reply_timeout=0.2)
    envs.reset(seed=0)
    *_, (_, rewards, terminated, truncated, infos) = say(envs, "a.", "b.")
    assert truncated.tolist() == [False, True] and not terminated.any()
    assert rewards.tolist() == [1.0, 0.0]
    assert "TimeoutError" in infos["final_info"]["world_error"][1]


class Together(BatchedWorld):
    replayable = False

    def __init__(self):
        self.calls = []

    def begin(self, rows, records, rngs):
        return [f"{row}" for row in rows]

    def reply(self, rows, turns, rngs):
        self.calls.append(list(rows))
        return [Reply(turn.text.upper()) for turn in turns]


def test_a_batched_world_is_asked_once_a_step():
    world = Together()
    envs = talk(3, world)
    observations, _ = envs.reset(seed=0)
    assert [text(envs, o) for o in observations] == ["0", "1", "2"]
    observations = say(envs, "a.", "b.", "cc")[-1][0]
    assert world.calls == [[0, 1]]
    assert text(envs, observations[1]).endswith("B")
    with pytest.raises(WorldError, match="Together keeps its state to itself"):
        envs.state_dict()


def test_it_is_registered_and_passes_the_check_of_environments():
    env = gym.make("textenv/Generate-v0", world=Scripted, prompts=["q"], max_prompt_tokens=4)
    assert env.reset(seed=0)[1]["prompt"] == "q>"
    arguments = {"world": Scripted, "prompts": ["q"], "max_prompt_tokens": 4}
    assert gym.make_vec("textenv/Generate-v0", 2, **arguments).reset(seed=0)[0].shape == (2, 68)


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ZeroDivisionError("oh"), "World.reply raised ZeroDivisionError: oh"),
        ("hello", "returned 'hello', not a Reply"),
        (Reply(text=3), "the text 3, not a str"),
        (Reply(reward=float("nan")), "the reward nan; it must be a finite number"),
        (Reply(reward="1"), "the reward '1'; it must be a finite number"),
    ],
)
def test_a_world_that_fails_truncates_its_row_alone(given, message):
    class BadWorld(World):
        def reply(self, turn, rng):
            if turn.text == "b":
                if isinstance(given, Exception):
                    raise given
                return given
            return Reply("fine", reward=2.0)

    envs = talk(2, BadWorld)
    envs.reset(seed=0)
    *_, (observations, rewards, terminated, truncated, infos) = say(envs, "a.", "b.")
    assert truncated.tolist() == [False, True] and not terminated.any()
    assert rewards.tolist() == [2.0, 0.0]
    assert message in infos["final_info"]["world_error"][1]
    assert infos["final_info"]["finish_reason"].tolist() == [None, "error"]
    assert text(envs, observations[0]).endswith("fine")
    say(envs, "c", "c")  # both go on


def test_a_reply_that_the_vocabulary_cannot_write_ends_its_row_alone():
    class Accents(World):
        def reply(self, turn, rng):
            return Reply("é" if turn.text == "b" else "a")

    envs = talk(2, Accents, prompts=["a"], tokenizer=CharacterTokenizer("ab"))
    envs.reset(seed=0)
    envs.step([0, 1])
    *_, truncated, infos = envs.step([2, 2])
    assert truncated.tolist() == [False, True]
    assert "Accents.reply returned 'é'" in infos["final_info"]["world_error"][1]


def test_openings_that_cannot_be_used():
    class Long(World):
        def begin(self, record, rng):
            return "too long"

        def reply(self, turn, rng):
            return Reply()

    class Wrong(Long):
        def begin(self, record, rng):
            return 3

    class Failing(Long):
        def begin(self, record, rng):
            raise KeyError("secret")

    Long.__abstractmethods__ = Wrong.__abstractmethods__ = Failing.__abstractmethods__ = frozenset()
    for world, error, message in (
        (Long, PromptTooLongError, "has 8 tokens"),
        (Wrong, WorldError, "Wrong.begin returned 3"),
        (Failing, WorldError, "Failing.begin raised KeyError"),
    ):
        with pytest.raises(error, match=message):
            talk(world=world).reset(seed=0)


def test_arguments_that_do_not_fit():
    with pytest.raises(PromptError, match="a world= that begins episodes"):
        TextVectorEnv(1, reward=len)
    with pytest.raises(InvalidRewardError, match="a world= that pays"):
        TextVectorEnv(1, prompts=["a"])
    with pytest.raises(ValueError, match="only a conversation with a world= has"):
        TextVectorEnv(1, prompts=["a"], reward=len, max_turns=3)
    with pytest.raises(WorldError, match="each episode has a world of its own"):
        talk(world=Scripted())
    envs = talk()
    with pytest.raises(ResetOptionsError, match="a conversation begins with its world"):
        envs.reset(options={"tokens": [97, 98], "prompt_length": 1})


def test_check_text_env_knows_worlds():
    options = {"prompts": None, "world": Random, "max_prompt_tokens": 4, "max_new_tokens": 16}
    skipped = {"text_is_the_answer", "the_budget_counts_chosen_tokens"}
    assert set(check_text_env(partial(TextEnv, **options))) >= skipped
    assert set(check_text_env(partial(TextVectorEnv, 2, **options))) >= skipped
