"""Games of TextArena as worlds: Nim, tic-tac-toe, and a game that draws as it goes."""

import random
import re

import numpy as np
import pytest

from textenv import TextVectorEnv
from textenv.errors import WorldError
from textenv.worlds.adapters import TextArenaWorld, one_by_one
from textenv.worlds.adapters.step_numbers import global_numbers_kept, seed_global_numbers

textarena = pytest.importorskip("textarena", reason='needs pip install "textenv[textarena]"')
STOP = 256


def piles(text):
    return [int(n) for n in re.findall(r"pile \d: (\d+)", text)[-3:]]


def takes_one(text, rng):
    """Takes one object of a pile that it draws."""
    left = [pile for pile, height in enumerate(piles(text)) if height]
    return f"{rng.choice(left)} 1"


def takes_a_whole_pile(text, rng):
    pile = int(np.flatnonzero(piles(text))[0])
    return f"{pile} {piles(text)[pile]}"


def play(world, num_envs=1, **options):
    defaults = {"max_prompt_tokens": 600, "max_new_tokens": 4000, "max_turn_tokens": 8}
    return TextVectorEnv(num_envs, world=world, **defaults | options)


def say(envs, *texts):
    """One turn of each row, padded by its own spaces, and the stop token."""
    longest = max(map(len, texts))
    for characters in zip(*(f"{text:{longest}}." for text in texts), strict=True):
        step = envs.step([STOP if c == "." else ord(c) for c in characters])
    return step


# ---------------------------------------------------------------- against a partner


def test_a_game_against_a_partner_by_hand():
    envs = play(TextArenaWorld("Nim-v0", partner=one_by_one(takes_a_whole_pile)))
    _, infos = envs.reset(seed=0)
    assert infos["prompt"][0].startswith("Welcome to Nim, Player 0!")
    assert infos["prompt"][0].endswith("pile 0: 3\n  pile 1: 4\n  pile 2: 5\n")
    expected = [  # the agent's move, the piles after the partner's, reward
        ("0 3", [0, 0, 5], 0.0),  # the partner takes the second pile
        ("2 4", None, -1.0),  # and the last object of the third
    ]
    for move, left, reward in expected:
        _, rewards, terminated, _, infos = say(envs, move)
        assert rewards[0] == reward and terminated[0] == (left is None)
        if left is not None:
            reply = infos["reply"][0]
            assert piles(reply) == left and f"[{move}]" not in reply  # no echo of one's own move
            assert "Player 1 removes 4 from pile 1." in reply
            assert infos["reply_info"][0] == {"seat": 0}
    (played,) = envs._conversations.world._played.values()
    assert played.moves == []  # the next game


def test_winning_and_breaking_the_rules():
    envs = play(TextArenaWorld("Nim-v0", partner=one_by_one(takes_a_whole_pile)), 2)
    envs.reset(seed=0)
    _, _, _, _, infos = say(envs, "0 3", "9 9")
    assert "attempted an invalid move" in infos["reply"][1]  # told once
    _, rewards, terminated, _, infos = say(envs, "2 5", "9 9")
    assert rewards.tolist() == [1.0, -1.0] and terminated.all()
    first, second = infos["final_info"]["world_info"]
    assert first["rewards"] == {"0": 1.0, "1": -1.0} and not first["invalid_move"]
    assert second["rewards"] == {"0": -1.0, "1": 1.0} and second["invalid_move"]
    assert second["reason"] == "Pile index 9 is out of range." and second["seat"] == 0


def test_a_partner_that_breaks_the_rules_loses():
    envs = play(TextArenaWorld("Nim-v0", partner=one_by_one(lambda text, rng: "no")))
    envs.reset(seed=0)
    _, rewards, terminated, _, infos = say(envs, "0 1")
    assert (
        rewards[0] == 1.0 and terminated[0] and infos["final_info"]["world_info"][0]["invalid_move"]
    )


def test_the_seat_is_drawn_for_the_group_and_the_partner_may_begin():
    world = TextArenaWorld("Nim-v0", partner=one_by_one(takes_one), seat=None)
    envs = play(world, 16, group_size=4)
    _, infos = envs.reset(seed=0)
    prompts = infos["prompt"].reshape(4, 4)
    assert (prompts == prompts[:, :1]).all()  # one seat and one first move of the partner a group
    seats = {int(re.search(r"Nim, Player (\d)", prompt)[1]) for prompt in prompts[:, 0]}
    assert seats == {0, 1}
    for row in range(16):
        game = world._played[row].env
        assert (sum(piles(infos["prompt"][row])) == 11) == (game.agent == 1)


def test_the_partner_gets_whole_conversations_of_all_rows_at_once():
    calls = []

    def partner(talks, rngs):
        calls.append([[message["role"] for message in talk] for talk in talks])
        return [takes_one(talk[-1]["content"], rng) for talk, rng in zip(talks, rngs, strict=True)]

    envs = play(TextArenaWorld("Nim-v0", partner=partner), 3)
    envs.reset(seed=0)
    say(envs, *["0 1"] * 3)
    say(envs, *["1 1"] * 3)
    assert calls == [[["user"]] * 3, [["user", "assistant", "user"]] * 3]
    talk = envs._conversations.world._played[0].env.talks[1]
    assert talk[0]["content"].startswith("Welcome to Nim, Player 1!")
    assert re.fullmatch(r"\d 1", talk[1]["content"])


def test_a_partner_that_fails_says_what_it_returned():
    envs = play(TextArenaWorld("Nim-v0", partner=lambda talks, rngs: [None]))
    envs.reset(seed=0)
    *_, truncated, infos = say(envs, "0 1")
    assert truncated[0]
    assert "returned [None]; it must return a text" in infos["final_info"]["world_error"][0]


def test_a_partner_that_raises_fails_the_rows_in_which_it_was_asked():
    def partner(talks, rngs):
        raise OSError("gone")

    envs = play(TextArenaWorld("Nim-v0", partner=partner), 2)
    envs.reset(seed=0)
    *_, truncated, infos = say(envs, "0 1", "9 9")  # after an illegal move the agent moves again
    assert truncated.tolist() == [True, False]
    assert "OSError: gone" in infos["final_info"]["world_error"][0]
    assert "attempted an invalid move" in infos["reply"][1]


def test_a_partner_that_cannot_make_the_first_move_holds_up_the_beginning():
    def partner(talks, rngs):
        if fails:
            raise OSError("gone")
        return ["0 1"] * len(talks)

    fails = True
    envs = play(TextArenaWorld("Nim-v0", partner=partner, seat=1))
    with pytest.raises(WorldError, match="begin raised OSError: gone"):
        envs.reset(seed=0)
    fails = False
    assert "Player 1" in envs.reset(seed=0)[1]["prompt"][0]


# ---------------------------------------------------------------- against itself


def test_a_game_against_itself_pays_the_seat_that_moved_last():
    envs = play(TextArenaWorld("Nim-v0"))
    envs.reset(seed=0)
    for number, move in enumerate(["0 3", "1 4", "2 4"]):
        _, rewards, terminated, _, infos = say(envs, move)
        assert rewards[0] == 0 and not terminated[0]
        seat = (number + 1) % 2
        assert infos["reply_info"][0]["seat"] == seat
        if number == 0:
            assert infos["reply"][0].startswith("Welcome to Nim, Player 1!")
    _, rewards, terminated, _, infos = say(envs, "2 1")
    assert rewards[0] == 1.0 and terminated[0]
    assert infos["final_info"]["world_info"][0]["seat"] == 1
    assert infos["final_info"]["world_info"][0]["rewards"] == {"1": 1.0, "0": -1.0}


def test_a_draw_pays_nothing():
    envs = play(TextArenaWorld("TicTacToe-v0"))
    envs.reset(seed=0)
    for cell in "012435768":
        _, rewards, terminated, _, infos = say(envs, cell)
    assert rewards[0] == 0 and terminated[0]
    assert infos["final_info"]["world_info"][0]["reason"] == "The game is a draw!"


# ---------------------------------------------------------------- random numbers


def test_rows_do_not_disturb_one_another_nor_the_rest_of_the_process():
    """PigDice rolls during the game, from the generator of the process."""
    random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()

    def replies(rows):
        envs = play(TextArenaWorld("PigDice-v0-short"), rows)
        envs.reset(seed=0)
        return [say(envs, *["roll"] * rows)[4]["reply"][0] for _ in range(5)]

    assert replies(1) == replies(3)
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]


def test_the_process_keeps_its_numbers_after_an_exception():
    before = random.getstate()
    with pytest.raises(KeyError), global_numbers_kept():
        seed_global_numbers(1)
        raise KeyError
    assert random.getstate() == before


@pytest.mark.parametrize("partner", [one_by_one(takes_one), None])
def test_a_saved_game_goes_on(partner):
    one, other = (play(TextArenaWorld("Nim-v0", partner=partner, seat=None), 3) for _ in range(2))
    one.reset(seed=0)
    moves = np.random.default_rng(1).integers(0, 3, (12, 3))
    for step in moves[:5]:
        say(one, *(f"{pile} 1" for pile in step))
    state = one.state_dict()
    other.reset(seed=7)
    other.load_state_dict(state)
    for step in moves[5:]:
        texts = [f"{pile} 1" for pile in step]
        mine, theirs = say(one, *texts), say(other, *texts)
        for a, b in zip(mine[:4], theirs[:4], strict=True):
            assert (a == b).all()


def test_what_cannot_be_played():
    with pytest.raises(ValueError, match="NoSuchGame"):
        TextArenaWorld("NoSuchGame-v0")
    with pytest.raises(WorldError, match="seat is 2; the game has the seats 0 to 1"):
        TextArenaWorld("Nim-v0", partner=one_by_one(takes_one), seat=2)


def test_a_game_made_by_a_function_keeps_its_wrappers():
    world = TextArenaWorld(lambda: textarena.make("TicTacToe-v0-train"))
    envs = play(world)
    _, infos = envs.reset(seed=0)
    assert "Tic Tac Toe" in infos["prompt"][0]
