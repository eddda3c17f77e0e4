"""The rules of games for two, and what each seat reads of a play."""

import json

import numpy as np
import pytest
from small_games import Kuhn, Nim, Pennies, rules_of

from textenv.errors import TokenizerError, WorldError
from textenv.worlds import Outcome, Play, TwoPlayerGame
from textenv.worlds.states import restored

RNG = np.random.default_rng(0)


DIGITS = rules_of("0123456789", budget=10)
STOP = 10


def texts(play):
    return [play.rules.tokenizer.decode(view) for view in play.views]


def test_both_seats_read_the_same_ids():
    play = Play.opened(Nim, DIGITS, {"prompt": "7"}, RNG)
    for tokens, ids, seat in (([2], [7, 2, 5], 1), ([1, STOP], [7, 2, 5, 1, STOP, 4], 0)):
        play.said(tokens, RNG)
        assert play.views == (ids, ids) and (play.to_move, play.over) == (seat, False)
    assert play.room(0) == 10 - 5  # the opening is not counted
    play.said([9], RNG)
    assert play.over and play.rewards == (-1.0, 1.0)


def test_seats_move_at_once():
    rules = rules_of("ht=#")
    play = Play.opened(Pennies, rules, {"prompt": ""}, RNG)
    assert texts(play) == ["=", "#"]
    play.said([0], RNG)
    assert texts(play) == ["=h", "#"]  # seat 1 does not know what seat 0 has shown
    play.said([1], RNG)
    assert texts(play) == ["=htht", "#tht"]
    assert play.over and play.rewards == (-0.5, 0.5)


class Often(TwoPlayerGame):
    """Seat 0 moves twice, and is paid each time."""

    def move(self, seat, text, rng):
        self.count = getattr(self, "count", 0) + 1
        return Outcome(("a", "b"), (0.25, 0.0), to_move=0 if self.count == 1 else 1)


def test_a_seat_may_move_twice_and_be_paid_on_the_way():
    play = Play.opened(Often, rules_of("ab?"), {"prompt": "?"}, RNG)
    play.said([0], RNG)
    assert play.to_move == 0 and texts(play) == ["?aa", "?ab"]
    play.said([0], RNG)
    assert play.to_move == 1 and play.rewards == (0.5, 0.0) and not play.over


def test_a_play_is_saved():
    play = Play.opened(Kuhn, rules_of("123pb"), {"cards": "31"}, RNG)
    play.said([3], RNG)
    state = play.state_dict()
    state = json.loads(json.dumps(state))
    again = restored(Play(Kuhn(), play.rules), state)
    for one in (play, again):
        one.said([4], RNG)
        one.said([4], RNG)
    assert again.views == play.views and again.rewards == play.rewards == (2.0, -2.0)


@pytest.mark.parametrize("board", [np.zeros(2), (1, 2), {1: "one"}, [{"a": (1,)}]])
def test_a_game_that_json_would_change_is_refused_by_name(board):
    class Board(TwoPlayerGame):
        def begin(self, record, rng):
            self.board = board

        def move(self, seat, text, rng):
            return Outcome()

    play = Play.opened(Board, DIGITS, {"prompt": "7"}, RNG)
    with pytest.raises(WorldError, match="Board has attributes that JSON cannot hold"):
        play.state_dict()


def answers(outcome, opening="?"):
    class Answers(TwoPlayerGame):
        def begin(self, record, rng):
            return opening

        def move(self, seat, text, rng):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    return Answers


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (None, "Answers.move returned None, not an Outcome"),
        (Outcome(3), "Answers.move gave the text 3: it must be a str that both seats read"),
        (Outcome(("a", "b", "a")), "gave the text .* or a tuple of two"),
        (Outcome(rewards=(1.0,)), r"gave the rewards \(1.0,\); they are two finite numbers"),
        (Outcome(rewards=(1.0, float("nan"))), "two finite numbers"),
        (Outcome(to_move=2), "gave to_move 2; seats are 0 and 1"),
        (ZeroDivisionError("lost"), "Answers.move raised ZeroDivisionError: lost"),
    ],
)
def test_rules_that_cannot_be_are_named(outcome, says):
    play = Play.opened(answers(outcome), rules_of("ab?"), {"prompt": ""}, RNG)
    with pytest.raises(WorldError, match=says):
        play.said([0], RNG)


def test_openings_that_cannot_be_are_named():
    rules = rules_of("ab?")
    with pytest.raises(WorldError, match=r"Answers.begin gave the text 3"):
        Play.opened(answers(Outcome(), 3), rules, {"prompt": ""}, RNG)
    with pytest.raises(TokenizerError, match=r"'!' is not among"):
        Play.opened(answers(Outcome(), "!"), rules, {"prompt": ""}, RNG)


def test_turns_end_with_a_stop_token_a_stop_string_or_their_budget():
    rules = rules_of("abc", max_tokens=4, stop_strings=["bc"])
    for said, over, text in (
        ([0, 1], False, "ab"),
        ([0, 3], True, "a"),
        ([0, 1, 2], True, "a"),
        ([0, 0, 0, 0], True, "aaaa"),
    ):
        assert (rules.ends([0, 1], said), rules.text([0, 1], said)) == (over, text)
    assert not rules.ends([0, 1], [2])  # the string must be said in one turn
