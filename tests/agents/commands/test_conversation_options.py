"""Worlds, tools, frames and stop strings from the command line."""

import json
from collections import Counter
from dataclasses import asdict

import pytest
import torch
from command_line import run_command
from safetensors.torch import load_file

from agents.commands.shared import Conversation
from agents.runs.streaming import visible
from policies import TransformerConfig, TransformerPolicy, load_policy
from textenv import load_tokenizer
from textenv.frames import ChatTemplate
from textenv.loading import load_object
from textenv.tokenizers import CharacterTokenizer
from textenv.tools import Tools

torch.set_num_threads(1)
MINE = '''
from pathlib import Path

from agents.partners import TwoPlayers
from textenv import Reply, World
from textenv.frames import ChatTemplate
from textenv.rewards import dense
from textenv.tools import ToolWorld
from textenv.worlds import Outcome, TwoPlayerGame

DRAWN = []
template = ChatTemplate(user="Q:{content} A:", between=";")


class Guess(World):
    def begin(self, record, rng):
        DRAWN.append(int(rng.integers(2**62)))
        self.secret = DRAWN[-1] % 7 + 1
        return record.get("prompt") or "?"

    def reply(self, turn, rng):
        if turn.text == str(self.secret):
            return Reply(reward=1.0, terminated=True)
        return Reply("+", reward=-0.25)


class Broken(Guess):
    def reply(self, turn, rng):
        raise KeyError("no reply")


class Fragile(Guess):
    def reply(self, turn, rng):
        return Reply(terminated=True) if self.secret < 5 else None


class Talks(Guess):
    def begin(self, record, rng):
        super().begin(record, rng)
        return [{"role": "user", "content": "guess"}]


class Moody(Guess):
    def begin(self, record, rng):
        super().begin(record, rng)
        return "?" if len(DRAWN) <= 6 else "-"


class Nim(TwoPlayerGame):
    def begin(self, record, rng):
        self.left = 5
        return "5"

    def move(self, seat, text, rng):
        self.left -= int(text or 1)
        if self.left <= 0:
            return Outcome(rewards=(1.0, -1.0) if seat == 0 else (-1.0, 1.0), over=True)
        return Outcome(str(self.left))


nim = TwoPlayers(Nim)


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: Other.
    """
    return a + b


def double(a: int) -> int:
    """Double a number.

    Args:
        a: It.
    """
    return 2 * a


def turns(episodes):
    return [float(len(e.turns)) for e in episodes]


def read(episodes):
    """1 for the text that the template makes."""
    told = [e.tokenizer.decode(e.prompt_tokens.tolist()) for e in episodes]
    return [float(text in ("be kind\\nUser: hi\\nAssistant:", "Q:hi A:")) for text in told]


def told_of_tools(episodes):
    told = [e.tokenizer.decode(e.prompt_tokens.tolist()) for e in episodes]
    return [
        float(isinstance(e.world, ToolWorld) and '"add"' in t and '"double"' in t)
        for e, t in zip(episodes, told, strict=True)
    ]


def interrupted(episodes):
    calls = Path(__file__).with_name("calls")
    count = int(calls.read_text()) + 1 if calls.exists() else 1
    calls.write_text(str(count))
    if count == 20:
        raise KeyboardInterrupt
    return turns(episodes)


def at_every_step(batch):
    return [0.0] * len(batch.ended)


every_step = dense(at_every_step)


def without_full_stop(episodes):
    return [float("." not in e.text and e.finish_reason == "stop") for e in episodes]


def judge(prompt, answer):
    return len(answer)
'''
GUESS = CharacterTokenizer("1234567?+-")
BYTES = load_tokenizer("bytes")
SMALL = ["--rows", "4", "--max-new-tokens", "8", "--temperature", "1"]
LEARN = [*SMALL, "--tokens", "64", "--eval-answers", "6", "--samples-every", "0"]
GAME = ["--world", "my.py:Guess", "--max-turn-tokens", "1", "--max-turns", "3"]


def made(tokenizer, context, **taught) -> TransformerPolicy:
    config = TransformerConfig(tokenizer.vocab_size, context, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=tokenizer, seed=1)
    policy.chat_template = taught or None
    return policy


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder of a user with a world, prompts and policies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    (tmp_path / "my.py").write_text(MINE)
    asked = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"prompt": asked}) + "\n")
    (tmp_path / "hi.txt").write_text("hi\n")
    made(GUESS, 16).save("player")
    made(BYTES, 48).save("plain")
    made(BYTES, 48, **asdict(ChatTemplate())).save("taught")
    return tmp_path


def train(*arguments: object):
    return run_command("train", *arguments)


def runs(folder):
    return sorted((folder / "runs").iterdir())


def samples_of(made):
    return [json.loads(line) for line in (made / "samples.jsonl").read_text().splitlines()]


def words(result) -> str:
    return " ".join(result.output.split())


# -------------------------------------------------------------------- worlds


def test_a_world_begins_replies_and_pays_and_the_run_goes_on_from_anywhere(folder, monkeypatch):
    result = train("--policy", "player", *GAME, *LEARN)
    assert result.exit_code == 0, result.output
    (run,) = runs(folder)
    config = json.loads((run / "config.json").read_text())
    assert config["world"] == f"{folder / 'my.py'}:Guess" and config["max_turns"] == 3
    samples = samples_of(run)
    assert len(samples) == 12 and {sample["prompt"] for sample in samples} == {"?"}
    several = [sample for sample in samples if "turns" in sample]
    for sample in several:
        who, said = zip(*sample["turns"], strict=True)
        assert who == ("agent", "world", "agent", "world", "agent")[: len(who)]
        assert set(said[1::2]) == {"+"}
    # Three wrong guesses, or a right one behind the wrong ones.
    costs = [sample["turns"][::2] for sample in several]
    for sample, guesses in zip(several, costs, strict=True):
        lost = sample["score"] < 0
        assert sample["score"] == (-0.75 if lost else 1 - 0.25 * (len(guesses) - 1))
    assert several and "agent: " in result.output and "world: +" in result.output
    assert "world: +" in (run / "report.html").read_text()

    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    again = train("--resume", run, "--tokens", "96")
    assert again.exit_code == 0, again.output
    assert json.loads((run / "config.json").read_text())["tokens"] == 96


def test_an_interrupted_conversation_goes_on_bit_for_bit(folder):
    given = ["--policy", "player", *GAME, *LEARN, "--tokens", "120"]
    assert train(*given, "--reward", "my.py:turns").exit_code == 0
    stopped = train(*given, "--reward", "my.py:interrupted")
    assert stopped.exit_code == 130, stopped.output
    whole, part = runs(folder)
    assert not (part / "result.json").exists()
    assert train("--resume", part).exit_code == 0
    assert samples_of(whole) == samples_of(part)
    weights, same = (
        load_file(made / "checkpoint" / "policy" / "policy.safetensors") for made in (whole, part)
    )
    assert all(weights[name].equal(same[name]) for name in weights)


def test_a_group_shares_its_world(folder):
    given = [*GAME, *LEARN, "--algorithm", "grpo", "--group-size", "4"]
    result = train("--policy", "player", *given)
    assert result.exit_code == 0, result.output
    drawn = Counter(Counter(load_object(f"{folder / 'my.py'}:DRAWN")).values())
    assert set(drawn) <= {1, 2, 3, 4} and drawn[4] >= 3  # those of evaluations: before and after
    assert drawn[1] + drawn[3] <= 1


def test_evaluations_on_the_way_change_nothing(folder):
    given = ["--policy", "player", *GAME, *LEARN, "--max-new-tokens", "5"]  # cuts conversations
    assert train(*given).exit_code == 0
    assert train(*given, "--eval-every", "1").exit_code == 0
    weights, same = (
        load_file(made / "checkpoint" / "policy" / "policy.safetensors") for made in runs(folder)
    )
    assert all(weights[name].equal(same[name]) for name in weights)
    assert len((runs(folder)[1] / "evaluations.csv").read_text().splitlines()) > 2


def test_a_world_that_begins_otherwise_after_training_is_shown_with_both_openings(folder):
    result = train("--policy", "player", *GAME, *LEARN, "--world", "my.py:Moody")
    assert result.exit_code == 0, result.output
    assert {sample["prompt"] for sample in samples_of(runs(folder)[0])} == {"? / -"}


def test_a_game_for_two_is_played_by_the_policy_alone(folder):
    given = ["--world", "my.py:nim", "--max-turn-tokens", "1", *LEARN]
    given += ["--allowed-tokens", "0", "--allowed-tokens", "1"]
    made(CharacterTokenizer("12345"), 16).save("taker")
    result = train("--policy", "taker", *given)
    assert result.exit_code == 0, result.output
    (run,) = runs(folder)
    assert {sample["score"] for sample in samples_of(run)} == {-1.0, 1.0}
    assert train("--resume", run, "--tokens", "96").exit_code == 0
    assert load_object(f"{folder / 'my.py'}:nim").partner is None
    result = run_command("eval", "taker", *given[:8], *given[-4:], "--answers", "6")
    assert result.exit_code == 0, result.output


def test_a_world_that_always_fails_stops_the_run_with_the_reason(folder):
    for command in (["train", "--policy", "player"], ["eval", "player"]):
        result = run_command(*command, "--world", "my.py:Broken", *SMALL)
        assert result.exit_code == 1
        assert "in all" in result.output
        assert "Broken.reply raised KeyError: 'no reply'" in words(result)


@pytest.mark.filterwarnings("ignore::textenv.errors.FailedWorldWarning")
def test_a_world_that_fails_at_times_is_counted(folder):
    result = run_command(
        *("eval", "player", "--world", "my.py:Fragile", *SMALL, "--answers", "40"),
        *("--json", "out.json"),
    )
    assert result.exit_code == 0, result.output
    (row,) = json.loads((folder / "out.json").read_text())
    assert 0 < row["failed_worlds"] < 40 and "failed worlds" in result.output
    result = train("--policy", "player", "--world", "my.py:Fragile", *LEARN, "--eval-answers", 40)
    assert result.exit_code == 0, result.output
    assert "The world failed in " in result.output
    (run,) = runs(folder)
    numbers = json.loads((run / "result.json").read_text())
    assert numbers["before"]["failed_worlds"] == row["failed_worlds"]


def test_policies_are_compared_in_one_world(folder):
    made(GUESS, 16).save("same")
    given = ["player", "same", *GAME, *SMALL, "--answers", "6", "--judge", "my.py:judge"]
    result = run_command("eval", *given, "--json", "out.json", "--report", "report.html")
    assert result.exit_code == 0, result.output
    one, two = json.loads((folder / "out.json").read_text())
    assert one["reward"] == two["reward"] and -0.75 <= one["reward"]["mean"] < 1  # of the world
    assert one["judge"]["mean"] == 1  # the last turn has one digit
    drawn = Counter(load_object(f"{folder / 'my.py'}:DRAWN")).values()
    assert sorted(drawn) == [2, 4, 4, 4, 4, 4]  # both policies; the report repeats five of them
    page = (folder / "report.html").read_text()
    assert ">+</span>" in page  # what the world said stands between the tokens


# -------------------------------------------------------------------- tools and frames


def test_tools_are_told_by_a_frame_and_answer(folder):
    tools = ["--tools", "my.py:add", "--tools", "my.py:double"]
    made(BYTES, 700).save("wide")
    given = ["--prompts", "hi.txt", "--reward", "my.py:told_of_tools", *tools]
    result = train("--policy", "wide", *given, "--frame", "my.py:template", *LEARN)
    assert result.exit_code == 0, result.output
    (run,) = runs(folder)
    assert {sample["score"] for sample in samples_of(run)} == {1.0}
    assert json.loads((run / "config.json").read_text())["tools"] == [
        f"{folder / 'my.py'}:add",
        f"{folder / 'my.py'}:double",
    ]
    result = run_command("eval", "wide", *given, "--frame", "my.py:template", *SMALL)
    assert result.exit_code == 0, result.output
    assert train("--config", run / "config.json").exit_code == 0
    first, second = ((made / "samples.jsonl").read_text() for made in runs(folder))
    assert first == second


def test_chats_are_read_in_the_form_that_the_policy_has_learned(folder):
    (folder / "chat").mkdir()  # a folder of the name of the template is not meant
    given = ["--prompts", "chats.jsonl", "--reward", "my.py:read", "--frame", "chat", *LEARN]
    result = train("--policy", "taught", *given)
    assert result.exit_code == 0, result.output
    (run,) = runs(folder)
    assert {sample["score"] for sample in samples_of(run)} == {1.0}
    assert json.loads((run / "config.json").read_text())["frame"] == "chat"
    assert train("--resume", run, "--tokens", "96").exit_code == 0
    evaluated = run_command("eval", "taught", *given[:6], *SMALL, "--json", "out.json")
    assert evaluated.exit_code == 0, evaluated.output
    assert json.loads((folder / "out.json").read_text())[0]["reward"]["mean"] == 1


@pytest.mark.parametrize(
    "given", [["--prompts", "chats.jsonl"], ["--world", "my.py:Talks", "--max-turn-tokens", "2"]]
)
def test_messages_without_a_frame_name_the_option(folder, given):
    reward = ["--reward", "my.py:turns"]
    for command in (["train", "--policy", "taught", *LEARN], ["eval", "taught", *SMALL]):
        result = run_command(*command, *given, *reward)
        assert result.exit_code == 1
        assert "--frame chat" in result.output and "frame='chat'" not in result.output
        assert "chats.jsonl:1" in result.output or "Talks" in given[1]


def test_a_policy_that_was_trained_with_a_template_of_ones_own_keeps_it(folder):
    given = ["--prompts", "hi.txt", "--reward", "my.py:read", "--frame", "my.py:template"]
    result = train("--policy", "plain", *given, *LEARN)
    assert result.exit_code == 0, result.output
    (run,) = runs(folder)
    assert {sample["score"] for sample in samples_of(run)} == {1.0}
    policy = load_policy(run / "checkpoint" / "policy")
    assert policy.chat_template == asdict(ChatTemplate(user="Q:{content} A:", between=";"))
    flags = ["--temperature", "0", "--max-new-tokens", "4"]
    expected = policy.generate(["Q:a A:"], 4, temperature=0)[0]
    for more in ([], ["--frame", "chat"], ["--frame", "my.py:template"]):
        said = run_command("chat", run / "checkpoint" / "policy", *flags, *more, typed="a\n")
        assert f"> {visible(expected)}\n" in said.output, said.output


def test_the_frame_counts_when_prompts_are_too_long(folder):
    (folder / "long.txt").write_text("x" * 36 + "\nshort\n")  # with its frame of 16 bytes
    given = ["--policy", "taught", "--prompts", "long.txt", "--reward", "my.py:turns", *LEARN]
    assert train(*given).exit_code == 0
    refused = train(*given, "--frame", "chat")
    assert refused.exit_code == 1 and "long.txt:1" in refused.output
    cut = train(*given, "--frame", "chat", "--long-prompts", "cut")
    assert cut.exit_code == 0, cut.output
    assert "1 of 2 prompts have more than 40 tokens and are cut" in words(cut)
    kept = {sample["prompt"] for sample in samples_of(runs(folder)[-1])}
    assert kept == {"x" * 23, "short"}


def test_a_chat_with_tools_tells_them(folder):
    made(BYTES, 700, **asdict(ChatTemplate())).save("wide")
    policy = load_policy("wide")
    frame = ChatTemplate().frame(BYTES, Tools(["my.py:add"]).tools)
    asked = BYTES.decode(frame.opening([{"role": "user", "content": "a"}]))
    expected = policy.generate([asked], 4, temperature=0)[0]
    flags = ["--temperature", "0", "--max-new-tokens", "4", "--tools", "my.py:add"]
    result = run_command("chat", "wide", *flags, typed="a\n")
    assert result.exit_code == 0 and f"> {visible(expected)}\n" in result.output, result.output


# -------------------------------------------------------------------- stop strings


def test_stop_strings_end_answers_in_every_command(folder):
    made(CharacterTokenizer("a."), 48).save("dots")
    (folder / "a.txt").write_text("a\n")
    given = ["--stop-strings", ".a", "--stop-strings", "..", "--forbidden-tokens", "2"]
    asked = ["--prompts", "a.txt", "--reward", "my.py:without_full_stop"]
    sizes = ["--max-new-tokens", "24", "--rows", "4", "--temperature", "1"]
    many = [*asked, *sizes, *given]
    result = train("--policy", "dots", *many, "--tokens", "64", "--eval-answers", "6")
    assert result.exit_code == 0, result.output
    (run,) = runs(folder)
    assert {sample["score"] for sample in samples_of(run)} == {1.0}
    assert train("--resume", run, "--tokens", "96").exit_code == 0
    assert {sample["score"] for sample in samples_of(run)} == {1.0}
    result = run_command("eval", "dots", *many, "--json", "out.json")
    assert json.loads((folder / "out.json").read_text())[0]["reward"]["mean"] == 1
    flags = ["--plain", *given, "--temperature", "1", "--max-new-tokens", "24", "--seed", "1"]
    said = run_command("chat", "dots", *flags, typed="a\n" * 5)
    assert said.exit_code == 0 and "." not in said.output.partition("\n")[2], said.output


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--max-turns", "3"], "--max-turns is about turns"),
        (["--max-turn-tokens", "3"], "--max-turn-tokens is about turns"),
        (["--reply-timeout", "3"], "--reply-timeout is about turns"),
        (["--world-wait", "async"], "--world-wait is about turns"),
        (["--world", "my.py:Guess", "--tools", "my.py:add"], "leave --world out"),
        (["--tools", "my.py:add"], "--tools begin no conversation: give --prompts"),
        (["--tools", "my.py:add", "--prompts", "hi.txt"], "--tools pay nothing: give --reward"),
        (
            ["--tools", "my.py:turns", "--prompts", "hi.txt", "--reward", "my.py:turns"],
            "no docstring",
        ),
        (["--world", "my.py:Guesses"], "did you mean Guess?"),
        (["--world", "my.py:Guess", "--reward", "my.py:turn"], "did you mean turns?"),
        (["--world", "my.py:Guess", "--frame", "my.py:form"], "my.py has no 'form'"),
        (["--world", "my.py:Guess", "--frame", "chatty"], "did you mean chat?"),
        (["--world", "my.py:Guess", "--frame", "chat"], "--frame chat: the policy has learned"),
        (["--world", "my.py:template"], "pass a class derived from textenv.World"),
        (["--world", "my.py:Guess", "--max-turns", "0"], "must be"),
        (
            ["--world", "my.py:Guess", "--max-turn-tokens", "2", "--min-new-tokens", "3"],
            "--min-new-tokens 3 is more than an answer may have, 2",
        ),
        (
            ["--world", "my.py:Guess", "--world-wait", "async", "--reward", "my.py:every_step"],
            "--world-wait async: the reward is dense",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(folder, given, message):
    for command in (["train", "--policy", "player", *LEARN], ["eval", "player", *SMALL]):
        result = run_command(*command, *given)
        assert result.exit_code in (1, 2) and "Traceback" not in result.output
        if command[0] == "eval" and not {"--world", "--tools"} & {*given}:
            message = "nothing to measure"
        assert message in words(result), result.output
    assert not (folder / "runs").exists()


def test_refused_in_one_command_alone(folder):
    result = train("--frame", "chat", *LEARN)
    assert result.exit_code == 2 and "name that with --policy" in result.output
    result = run_command("eval", "player", "--reward", "my.py:turns")
    assert result.exit_code == 2 and "--prompts must be given" in result.output
    result = run_command("eval", "player", *GAME, "--template", "my.py:judge")
    assert result.exit_code == 2 and "name them with --prompts" in result.output
    result = run_command("chat", "taught", "--plain", "--frame", "chat")
    assert result.exit_code == 2 and "--plain and --frame exclude each other" in result.output
    for name in ("plain", "taught"):
        given = ["--tools", "my.py:add", *(["--plain"] if name == "taught" else [])]
        result = run_command("chat", name, *given)
        assert result.exit_code == 2 and "--tools are told and answered by" in result.output
    result = run_command("chat", "plain", "--frame", "chat")
    assert result.exit_code == 1 and "--frame chat: the policy has learned" in result.output
    result = run_command("chat", "plain", "--frame", "my.py:turns")
    assert result.exit_code == 1 and "not a textenv.frames.ChatTemplate" in words(result)


def test_the_longest_turn():
    assert Conversation().longest_turn(8) == 8
    assert Conversation(max_turn_tokens=3).longest_turn(8) == 3
    assert Conversation(max_turn_tokens=30).longest_turn(8) == 8
