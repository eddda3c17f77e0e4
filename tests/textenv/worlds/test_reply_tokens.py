"""Worlds that speak in ids, and are told what holds for a turn."""

import numpy as np
import pytest

from agents.runs.state_files import read_state, write_state
from textenv import BatchedWorld, Prompt, Reply, TextVectorEnv
from textenv.errors import PromptError, SourceError
from textenv.frames import ChatTemplate
from textenv.testing import check_text_env
from textenv.tokenizers import BytesTokenizer


class Ids(BatchedWorld):
    """Says ids, in the opening and in every reply."""

    opening = Prompt("seen", {"seat": 1, "name": "new"}, [3, 256, 4])

    def __init__(self, tokens=(1, 256, 2), text="not what the ids say"):
        self.tokens, self.text, self.joined = tokens, text, []

    def join(self, rules):
        self.joined.append(rules)

    def begin(self, rows, records, rngs):
        if isinstance(self.opening, Exception):
            raise self.opening
        return [self.opening] * len(rows)

    def reply(self, rows, turns, rngs):
        return [
            Reply(self.text, tokens=self.tokens) if turn.text == "a" else Reply("b")
            for turn in turns
        ]

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def made(world, num_envs=2, **options):
    defaults = {"prompts": [{"prompt": "p", "name": "old"}], "max_prompt_tokens": 8}
    limits = {"max_turn_tokens": 1, "max_new_tokens": 16}
    return TextVectorEnv(num_envs, world=world, **defaults | limits | options)


def ids_of(envs, observation):
    return observation[observation != envs.pad_token].tolist()


def test_ids_are_appended_as_they_are():
    envs = made(Ids())
    observations, infos = envs.reset(seed=0)
    assert ids_of(envs, observations[0]) == [3, 256, 4] and infos["prompt"][0] == "seen"
    observations, *_, infos = envs.step([97, 98])
    assert ids_of(envs, observations[0]) == [3, 256, 4, 97, 1, 256, 2]
    assert ids_of(envs, observations[1]) == [3, 256, 4, 98, 98]  # b, and the reply b
    assert infos["reply"].tolist() == ["not what the ids say", "b"]
    assert infos["reply_tokens"][0].tolist() == [1, 256, 2]


def test_columns_of_an_opening_are_added_to_the_record():
    told = []

    def reward(episodes):
        told.extend(episode.columns for episode in episodes)
        return [0.0] * len(episodes)

    envs = made(Ids(), 1, reward=reward, max_turns=1)
    envs.reset(seed=0)
    envs.step([97])
    assert told == [{"name": "new", "seat": 1}]


@pytest.mark.parametrize("tokens", [[], (5,), np.array([5, 6], dtype=np.int32)])
def test_any_integers_will_do(tokens):
    envs = made(Ids(tokens), 1)
    envs.reset(seed=0)
    observations, *_ = envs.step([97])
    assert ids_of(envs, observations[0]) == [3, 256, 4, 97, *tokens]


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ([1, 257], "tokens are 0 to 256"),
        ([-1], "tokens are 0 to 256"),
        ([1.0], "integers of shape"),
        ([[1], [2]], "integers of shape"),
    ],
)
def test_ids_of_no_token_end_their_row_alone(tokens, says):
    envs = made(Ids(tokens))
    envs.reset(seed=0)
    observations, _, terminated, truncated, infos = envs.step([97, 98])
    assert truncated.tolist() == [True, False] and not terminated.any()
    error = infos["final_info"]["world_error"][0]
    assert says in error and "Ids.reply returned" in error
    assert ids_of(envs, observations[1]) == [3, 256, 4, 98, 98]


def test_ids_have_no_frame():
    envs = made(Ids(), 1, frame=ChatTemplate(), max_prompt_tokens=32)
    envs.reset(seed=0)
    observations, *_ = envs.step([97])
    assert ids_of(envs, observations[0]) == [3, 256, 4, 97, 1, 256, 2]


def test_ids_are_saved_with_what_was_said(tmp_path):
    envs = made(Ids())
    envs.reset(seed=0)
    envs.step([97, 98])
    write_state(tmp_path, "env", envs.state_dict())
    again = made(Ids())
    again.load_state_dict(read_state(tmp_path, "env"))
    for one in (envs, again):
        said = one._conversations.histories[0][1]
        assert list(said.tokens) == [1, 256, 2] and said.text == "not what the ids say"
        assert one._conversations.histories[1][1].tokens is None
    np.testing.assert_array_equal(envs.step([97, 97])[0], again.step([97, 97])[0])


def test_a_world_is_told_the_rules_once():
    world = Ids()
    envs = made(world, 3, min_new_tokens=1, forbidden_tokens=[5], stop_strings=["x"])
    envs.reset(seed=0)
    (rules,) = world.joined
    assert (rules.min_tokens, rules.max_tokens, rules.budget) == (1, 1, 16)
    assert (rules.rows, rules.length, rules.frame) == (3, 24, None)
    assert rules.stop_strings.strings == ("x",) and rules.is_stop.nonzero()[0].tolist() == [256]
    assert (~rules.allowed).sum(1).tolist() == [2, 1] and not rules.allowed[:, 5].any()
    assert rules.tokenizer.fingerprint == BytesTokenizer().fingerprint


def test_openings_that_cannot_be():
    for opening, error, says in (
        (Prompt("", tokens=[257]), PromptError, "the prompt has the token 257"),
        (Prompt("", tokens=[1] * 9), PromptError, "has 9 tokens, max_prompt_tokens is 8"),
        (SourceError("named already"), SourceError, "^named already"),
    ):
        world = Ids()
        world.opening = opening
        with pytest.raises(error, match=says):
            made(world).reset(seed=0)


def test_the_check_of_environments():
    def make(**options):
        return made(Ids(), **options)

    assert "text_is_the_answer" in check_text_env(make)
