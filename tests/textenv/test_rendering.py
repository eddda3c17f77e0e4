"""What `render` returns and what is printed."""

import pytest
from environments import number_of_a, single, vector

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
BYTES = list("é你👩".encode())  # 2, 3 and 4 bytes


def test_no_mode_renders_nothing(capsys):
    env = single()
    env.reset(seed=0)
    env.step(65)
    assert env.render() is None and vector().render() is None
    assert capsys.readouterr().out == ""


def test_ansi_is_the_text_so_far(capsys):
    env = single(render_mode="ansi", max_new_tokens=3, stop_tokens=[46])
    env.reset(seed=0)
    assert env.render() == f"{DIM}x>{PLAIN}"
    env.step(65)
    env.step(66)
    assert env.render() == f"{DIM}x>{PLAIN}AB"
    env.step(46)
    assert env.render() == f"{DIM}x>{PLAIN}AB"  # without the stop token
    env.reset()
    assert env.render() == f"{DIM}x>{PLAIN}"
    assert capsys.readouterr().out == ""


def test_ansi_of_the_vector_is_a_text_for_each_row():
    envs = vector(render_mode="ansi", max_new_tokens=2, stop_tokens=[46])
    envs.reset(options={"prompt": ["a", "b"]})
    envs.step([65, 46])
    assert envs.render() == (f"{DIM}a{PLAIN}A", f"{DIM}x>{PLAIN}")  # the second began anew


def test_ansi_of_a_prompt_given_as_ids():
    env = single(render_mode="ansi")
    env.reset(options={"tokens": [104, 105, 65], "prompt_length": 2})
    assert env.render() == f"{DIM}hi{PLAIN}A"


def test_human_prints_every_token_as_it_comes(capsys):
    env = single(render_mode="human", reward=number_of_a, max_new_tokens=3)
    env.reset(seed=0)
    assert capsys.readouterr().out == f"{DIM}x>{PLAIN}"
    env.step(97)
    assert capsys.readouterr().out == "a"
    assert env.render() is None  # nothing twice
    env.step(98)
    assert capsys.readouterr().out == "b"
    env.step(97)
    assert capsys.readouterr().out == "a  [length, reward 2.000]\n"
    env.reset()
    env.step(256)
    assert capsys.readouterr().out == f"{DIM}x>{PLAIN}  [stop, reward 0.000]\n"


def test_human_waits_for_whole_characters(capsys):
    env = single(render_mode="human", max_new_tokens=20)
    env.reset(seed=0)
    printed = []
    capsys.readouterr()
    for byte in BYTES:
        env.step(byte)
        printed.append(capsys.readouterr().out)
    assert printed == ["", "é", "", "", "你", "", "", "", "👩"]


def test_human_prints_what_never_becomes_a_character(capsys):
    """Bytes that are no UTF-8 are shown once the text goes on, or at the end of the episode."""
    env = single(render_mode="human", max_new_tokens=4)
    env.reset(seed=0)
    capsys.readouterr()
    for token, expected in (
        (0xFF, ""),
        (65, "\ufffdA"),
        (0xE4, ""),
        (0xBD, "\ufffd  [length, reward 0.000]\n"),
    ):
        env.step(token)
        assert capsys.readouterr().out == expected


@pytest.mark.parametrize("seed", range(5))
def test_human_prints_exactly_the_text(capsys, seed):
    """All pieces together are what `ansi` shows at the end, whatever the bytes."""
    arguments = {"max_new_tokens": 30, "stop_tokens": []}
    human, ansi = single(render_mode="human", **arguments), single(render_mode="ansi", **arguments)
    for env in (human, ansi):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        for _ in range(30):
            env.step(env.action_space.sample())
    printed = capsys.readouterr().out
    assert printed == ansi.render() + "  [length, reward 0.000]\n"


def test_human_begins_anew_after_a_state_was_loaded(capsys):
    env = single(render_mode="human")
    env.reset(seed=0)
    env.step(65)
    state = env.state_dict()
    env.step(66)
    capsys.readouterr()
    env.load_state_dict(state)
    env.step(67)
    assert capsys.readouterr().out == f"{DIM}x>{PLAIN}AC"


def test_human_with_a_vocabulary_that_rewrites_its_text(capsys):
    """The text is shown anew on a line of its own where it does not go on from what was shown."""

    class Reverses:
        name, vocab_size, stop_token, fingerprint = "reverses", 128, None, "0"

        def encode(self, text):
            return list(text.encode())

        def decode(self, ids):
            return bytes(ids).decode()[::-1]

    env = single(render_mode="human", tokenizer=Reverses())
    env.reset(seed=0)
    env.step(65)
    env.step(66)
    assert capsys.readouterr().out == f"{DIM}x>{PLAIN}A\n{DIM}x>{PLAIN}BA"
