"""What an environment with a frame reads, token by token."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from textenv import Reply, TextVectorEnv, World
from textenv.errors import FrameError, PromptError
from textenv.frames import ChatTemplate
from textenv.testing import check_text_env

STOP = 256
SHORT = ChatTemplate(
    system="[{content}]", user="<{content}>", answer="{content}", between="-", tool="({content})"
)


class Asks(World):
    def begin(self, record, rng):
        return [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]

    def reply(self, turn, rng):
        roles = ["user", "tool", "system"]
        texts = ["1", "2"] if turn.number == 2 else turn.text
        return Reply(texts, role=roles[turn.number - 1], reward=0.5)


def make(num_envs=1, **options):
    defaults = {"frame": SHORT, "max_prompt_tokens": 12, "max_new_tokens": 40}
    return TextVectorEnv(num_envs, **defaults | options)


def shown(envs, row):
    ids = row[row != envs.pad_token].tolist()
    return "".join("." if i == STOP else chr(i) for i in ids)


def say(envs, text):
    for character in text:
        step = envs.step([STOP if character == "." else ord(character)] * envs.num_envs)
    return step


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_conversation_by_hand_in_every_role(mode):
    envs = make(world=Asks, max_turn_tokens=3, autoreset_mode=mode)
    observations, infos = envs.reset(seed=0)
    assert shown(envs, observations[0]) == "[s]<q>" and infos["prompt"][0] == "s\nq"
    after = "[s]<q>"
    for said, behind in (
        ("a.", "-<a>"),
        ("b.", "-(1\n2)"),  # one message: the texts have no form of their own here
        ("xyz", ".-[xyz]>"),  # the cut turn gets its end
    ):
        observations, rewards, *_ = say(envs, said)
        after += said + behind
        assert shown(envs, observations[0]) == after and rewards[0] == 0.5


def test_prompts_are_wrapped_without_a_world_too():
    seen = []

    def score(episodes):
        seen.extend((episode.prompt, episode.text) for episode in episodes)
        return [1.0] * len(episodes)

    envs = make(prompts=["q"], reward=score, max_prompt_tokens=None)
    observations, infos = envs.reset(seed=0)
    assert shown(envs, observations[0]) == "<q>" and infos["prompt"][0] == "q"
    assert envs.max_prompt_tokens == 3
    say(envs, "ab.")
    assert seen == [("q", "ab")]


def test_prompts_may_be_messages():
    chat = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "r"},
    ]
    envs = make(prompts=[{"prompt": chat, "answer": "7"}], reward=lambda e: [1.0] * len(e))
    observations, _ = envs.reset(seed=0)
    assert shown(envs, observations[0]) == "<q>a.-<r>"
    state = envs.state_dict()
    again = make(prompts=["z"], reward=lambda e: [1.0] * len(e))
    assert np.array_equal(again.load_state_dict(state), observations)
    assert [dict(message) for message in again._texts.prompts[0].messages] == chat


def test_messages_without_a_frame_are_refused_with_a_way_out():
    chat = [{"role": "user", "content": "q"}]
    with pytest.raises(FrameError, match=r"prompts\[0\].*give frame='chat'"):
        make(prompts=[{"prompt": chat}], reward=len, frame=None)
    envs = make(world=Asks, frame=None)
    with pytest.raises(FrameError, match="row 0"):
        envs.reset(seed=0)


class Wrong(World):
    opening = None

    def begin(self, record, rng):
        return self.opening

    def reply(self, turn, rng):
        return Reply("x")


@pytest.mark.parametrize("opening", [["q"], [{"role": "user"}], [], [{"role": 1, "content": "q"}]])
def test_an_opening_that_is_no_list_of_messages_is_named(opening):
    world = type("Wrong", (Wrong,), {"opening": opening})
    with pytest.raises(PromptError, match="messages of a chat"):
        make(world=world).reset(seed=0)


def test_roles_that_do_not_take_turns_are_named():
    world = type("Wrong", (Wrong,), {"opening": [{"role": "assistant", "content": "q"}]})
    with pytest.raises(FrameError, match="follows nothing"):
        make(world=world).reset(seed=0)


def test_the_checks_know_frames():
    check_text_env(make(2, world=Asks, max_turns=4, max_turn_tokens=3))
