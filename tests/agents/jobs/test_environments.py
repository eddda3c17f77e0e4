"""What the options of a conversation name, without a command around it."""

import io
from dataclasses import asdict

import pytest
from rich.console import Console

from agents.commands.shared import Conversation, Masked
from agents.jobs.environments import (
    environment_for,
    fit_prompts,
    frame_by_option,
    frame_of,
    named_template,
    world_of,
)
from agents.partners import TwoPlayers
from policies import TransformerConfig, TransformerPolicy
from textenv import ListPrompts
from textenv.errors import FrameError, PromptTooLongError
from textenv.frames import ChatTemplate
from textenv.loading import load_object
from textenv.tokenizers import BytesTokenizer

MINE = """
from agents.partners import TwoPlayers
from textenv import Reply, World
from textenv.frames import ChatTemplate
from textenv.worlds import Outcome, TwoPlayerGame

template = ChatTemplate(user="Q{content}A")

class Counts(World):
    tools = [{"type": "function", "function": {"name": "count"}}]

    def reply(self, turn, rng):
        return Reply("+", reward=turn.number)

class Game(TwoPlayerGame):
    def begin(self, record, rng):
        return "?"

    def move(self, seat, text, rng):
        return Outcome(rewards=(0.0, 0.0), over=True)

game = TwoPlayers(Game)
"""
CHAT = [{"prompt": [{"role": "user", "content": "hello"}]}]


@pytest.fixture
def mine(tmp_path) -> str:
    """What names the objects of a file, up to the colon."""
    (tmp_path / "my.py").write_text(MINE)
    return f"{tmp_path / 'my.py'}:"


@pytest.fixture
def policy() -> TransformerPolicy:
    config = TransformerConfig(257, 120, n_layer=1, n_head=1, n_embd=8)
    return TransformerPolicy(config, tokenizer=BytesTokenizer())


def test_chat_is_the_template_of_the_policys_dialogues(policy, mine):
    assert named_template(None, policy) is None
    assert named_template(f"{mine}template", policy) == ChatTemplate(user="Q{content}A")
    with pytest.raises(FrameError, match=r"--frame file\.py:template"):
        named_template("chat", policy)
    policy.chat_template = asdict(ChatTemplate(user="{content}>"))
    assert named_template("chat", policy) == ChatTemplate(user="{content}>")


def test_prompts_are_measured_in_their_frame_with_the_tools_that_it_tells(policy, mine):
    talk = Conversation(world=f"{mine}Counts", frame=f"{mine}template")
    frame, console = frame_of(talk, policy), Console(file=io.StringIO())
    length = len(frame.opening(CHAT[0]["prompt"]))
    assert length > len('Qhello A{"type": "function"')
    prompts = ListPrompts(CHAT)
    assert fit_prompts(prompts, policy, length, "error", console, frame) is prompts
    with pytest.raises(PromptTooLongError, match=f"has {length} tokens"):
        fit_prompts(prompts, policy, length - 1, "error", console, frame)
    cut = fit_prompts(prompts, policy, length - 2, "cut", console, frame)
    assert [prompt.last_text for prompt in cut.prompts] == ["llo"]


def test_messages_without_a_frame_are_refused_by_the_option(policy):
    console = Console(file=io.StringIO())
    for how in ("error", "cut", "drop"):
        with pytest.raises(FrameError, match="give --frame chat"), frame_by_option():
            fit_prompts(ListPrompts(CHAT), policy, 100, how, console)


def test_an_environment_of_a_conversation(policy, mine):
    talk = Conversation(world=f"{mine}Counts", max_turns=2, max_turn_tokens=1)
    options = {"rows": 4, "max_new_tokens": 20, "masks": Masked(), "group_size": 2}
    envs = environment_for(policy, ["?"], None, talk=talk, **options)
    assert envs.max_prompt_tokens == 100 and envs.group_size == 2
    envs.reset(seed=0)
    *_, infos = envs.step([65] * 4)
    assert infos["reply"].tolist() == ["+"] * 4
    _, rewards, terminated, _, _ = envs.step([65] * 4)
    assert rewards.tolist() == [2.0] * 4 and terminated.all()


def test_the_empty_seat_is_taken_in_a_copy_of_the_game(policy, mine):
    named = load_object(f"{mine}game")
    players = world_of(Conversation(world=f"{mine}game"), policy)
    assert isinstance(players, TwoPlayers) and players.partner is policy
    assert named.partner is None and players is not named
    named.partner = policy.frozen_copy()
    assert world_of(Conversation(world=f"{mine}game"), policy) is named
