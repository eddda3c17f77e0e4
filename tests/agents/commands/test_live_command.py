"""`textenv live`: keys from a terminal, and keys that are piped in."""

import io
import json
import os
import pty
from pathlib import Path

import pytest
import torch
from command_line import run_command

from agents.feedback import HumanReward
from agents.feedback.from_people.keys import KeysInAdvance, TerminalPerson, pressed
from policies import TransformerConfig, TransformerPolicy, load_policy
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "my.txt").write_text("one \ntwo \nthree \n")
    shape = TransformerConfig(257, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(shape, tokenizer=BytesTokenizer()).save(tmp_path / "policy")
    return tmp_path


def live(*arguments, typed=""):
    return run_command(
        *("live", "--policy", "policy", "--prompts", "my.txt", "--out", "made"),
        *("--max-new-tokens", "6", *arguments),
        typed=typed,
    )


def watched():
    return [json.loads(line) for line in Path("made/watched.jsonl").read_text().splitlines()]


def test_keys_reward_tokens_and_a_later_session_goes_on(folder):
    result = live(typed="++.-..\n+.....\n++q")
    assert result.exit_code == 0, result.output
    first, _, third = watched()
    # The third was left in the middle: what was said of it is kept.
    assert third["weights"][0] > 0 and third["text"] and len(third["tokens"]) < 6
    assert first["prompt"] == "one " and len(first["tokens"]) == 6
    # Half a second after a token the key is about it and the one before: from -0.3 to 0.3.
    assert first["rewards"] == pytest.approx([1, 0.5, -0.5, -0.5, 0, 0], abs=0.51)
    assert first["weights"][0] > 0 and first["weights"][-1] == 0
    assert "3 answers were watched" in result.output
    model = HumanReward.load("made/human_reward")
    assert (model.head.weight != 0).any()
    again = live("--choose", "greedy", typed="......" * 2)
    assert again.exit_code == 0, again.output
    assert [one["prompt"] for one in watched()] == ["one ", "two ", "three ", "one ", "two "]


def test_one_key_for_an_answer_and_ppo_behind(folder):
    result = live("--reward", "answer", "--tokens", "300", typed="+-+")
    assert result.exit_code == 0, result.output
    assert [one["rewards"][0] for one in watched()] == [1, -1, 1]
    trained, begun = load_policy("made/policy").state_dict(), load_policy("policy").state_dict()
    assert any((trained[name] != begun[name]).any() for name in begun)


def test_dialogues_are_read_through_the_template_that_the_policy_has_learned(folder):
    policy = load_policy("policy")
    policy.chat_template = {"user": "Q: {content}\nA:", "answer": "{content}"}
    policy.save("policy")
    said = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ]
    Path("talks.jsonl").write_text(json.dumps({"prompt": said}))
    result = live("--prompts", "talks.jsonl", "--tokens", "300", typed="++....")
    assert result.exit_code == 0, result.output
    assert "User: 1\n\nAssistant: 2\n\nUser: 3" in result.output
    (one,) = watched()
    assert one["prompt"] == said and len(one["tokens"]) == 6 and one["weights"][0] > 0
    assert bytes(one["prompt_tokens"][:8]) == b"Q: 1\nA:2"
    assert one["prompt_tokens"][8] == 256  # the stop token of the answer before
    assert bytes(one["prompt_tokens"][9:]) == b"\nQ: 3\nA:"
    assert load_policy("made/policy").chat_template["user"] == "Q: {content}\nA:"
    # Without a template of its own it reads the plain one, which the trained policy keeps.
    policy.chat_template = None
    policy.save("policy")
    Path("talks.jsonl").write_text(json.dumps({"prompt": said[2:]}))
    assert live("--prompts", "talks.jsonl", "--reward", "answer", typed="+").exit_code == 0
    assert bytes(watched()[-1]["prompt_tokens"]) == b"User: 3\nAssistant:"


def test_turns_are_rewarded_in_a_world_and_ppo_goes_on_there(folder):
    Path("mine.py").write_text(
        "import textenv\n\n"
        "class Echo(textenv.World):\n"
        "    def begin(self, record, rng):\n"
        "        return 'Say.'\n\n"
        "    def reply(self, turn, rng):\n"
        "        return textenv.Reply(f'<{len(turn.tokens)}>', terminated=turn.number == 2)\n"
    )
    result = run_command(
        *("live", "--policy", "policy", "--out", "made", "--world", "mine.py:Echo"),
        *("--max-new-tokens", "16", "--max-turn-tokens", "4", "--reward", "answer"),
        *("--tokens", "300"),
        typed="+-.+q",
    )
    assert result.exit_code == 0, result.output
    first, second = watched()
    assert first["prompt"] == "Say." and bytes(first["prompt_tokens"]) == b"Say."
    told = next(i for i, weight in enumerate(first["weights"]) if not weight)
    reply = f"<{told}>".encode()
    assert bytes(first["tokens"][told : told + 3]) == reply and reply.decode() in first["text"]
    rest = len(first["tokens"]) - told - 3
    assert first["rewards"] == [1] * told + [0] * 3 + [-1] * rest and rest > 0
    assert set(second["rewards"]) == {0, 1}  # silence about its first turn
    assert load_policy("made/policy").context == 32


def test_mistakes_give_one_message(folder):
    result = live("--prompts", "none.txt")
    assert result.exit_code == 1 and "none.txt" in result.output
    for given, expected in (
        (("--lora", "2"), "--tokens"),
        (("--max-turns", "2"), "--world"),
        (("--frame", "chat"), "learned from no dialogue"),
        (("--lora", "2", "--tokens", "9"), "not one"),
    ):
        result = live(*given)
        assert result.exit_code != 0 and expected in result.output
    result = run_command("live", "--policy", "policy", "--out", "made")
    assert result.exit_code != 0 and "give --prompts, or a --world" in result.output
    Path("made").mkdir()
    Path("made/watched.jsonl").write_text("{}\n")
    result = live()
    assert result.exit_code == 1 and "not of an answer that a person" in result.output


def test_keys_in_advance_have_their_own_time():
    person = KeysInAdvance(["+-\n", "."], io.StringIO())
    assert person.watch("prompt", 0.0) == [] and person.clock() == 0
    assert person.watch("a", 0.4) == []  # a half second after it was shown
    assert [(p.at, p.reward) for p in person.watch("b", 0.4)] == [(0.5, 1.0)]
    assert [(p.at, p.reward) for p in person.watch("", 0.8)] == [(0.9, -1.0)]
    assert person.watch("c", 0.4) == []
    with pytest.raises(KeyboardInterrupt):
        person.watch("d", 0.4)


def test_keys():
    assert [p.reward for key in "+=k-_jx " for p in pressed(key, 0.0)] == [1, 1, 1, -1, -1, -1]
    with pytest.raises(KeyboardInterrupt):
        pressed("Q", 0.0)


def test_keys_at_a_terminal(monkeypatch):
    master, slave = pty.openpty()
    with os.fdopen(slave) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        shown = io.StringIO()
        with TerminalPerson(shown) as person:
            begin = person.clock()
            os.write(master, b"+x-")
            presses = person.watch("text", 0.05)
            assert [press.reward for press in presses] == [1, -1]
            assert all(begin <= press.at <= person.clock() for press in presses)
            assert person.clock() - begin >= 0.05 and shown.getvalue() == "text"
            assert person.watch("", 0.01) == []
            os.write(master, b"x+")
            assert [press.reward for press in person.watch("", None)] == [1]
            os.write(master, b"q")
            with pytest.raises(KeyboardInterrupt):
                person.watch("", 1.0)
    os.close(master)


def test_a_terminal_that_is_closed_ends_the_session(monkeypatch):
    reader, writer = os.pipe()
    os.close(writer)
    with os.fdopen(reader) as closed:
        monkeypatch.setattr("sys.stdin", closed)
        monkeypatch.setattr("termios.tcgetattr", lambda terminal: [])
        monkeypatch.setattr("termios.tcsetattr", lambda terminal, when, mode: None)
        monkeypatch.setattr("tty.setcbreak", lambda terminal: None)
        with TerminalPerson(io.StringIO()) as person, pytest.raises(KeyboardInterrupt):
            person.watch("an answer", None)
