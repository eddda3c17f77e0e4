import pytest
from command_line import run_command

from policies import TransformerConfig, TransformerPolicy
from textenv import load_tokenizer

TOKENIZER = load_tokenizer("bytes")


@pytest.fixture(scope="module")
def policy() -> TransformerPolicy:
    config = TransformerConfig(TOKENIZER.vocab_size, 48, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(config, tokenizer=TOKENIZER, seed=1)


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory) -> str:
    return str(policy.save(tmp_path_factory.mktemp("chat") / "policy"))


def run(*arguments: str, typed: str):
    return run_command("chat", *arguments, typed=typed)


def test_plain_text_is_continued_and_exit_ends(folder, policy):
    expected = policy.generate(["abc"], 4, temperature=0)[0]
    result = run(
        folder, "--plain", "--temperature", "0", "--max-new-tokens", "4", typed="abc\n/exit\nabc\n"
    )
    assert result.exit_code == 0, result.output
    assert f"> {expected}\n> " in result.output
    assert result.output.count(expected) == 1


def test_a_chat_remembers_until_reset(folder, policy):
    flags = ["--temperature", "0", "--max-new-tokens", "4", "--system", "x"]
    first = policy.generate(["x\nUser: a\nAssistant:"], 4, temperature=0)[0]
    result = run(folder, *flags, typed="a\n/reset\na\n")
    assert result.exit_code == 0, result.output  # the input ends: as Ctrl-D
    assert result.output.count(f"> {first}\n") == 2


def test_what_does_not_fit_is_said_and_the_chat_goes_on(folder):
    result = run(folder, "--max-new-tokens", "8", typed="y" * 50 + "\n\nhi\n")
    assert result.exit_code == 0, result.output
    assert "say less" in result.output
    assert result.output.count("> ") == 4  # an empty line is not asked


def test_control_characters_do_not_reach_the_terminal(folder):
    result = run(folder, "--plain", "--temperature", "5", "--seed", "0", typed="a\nb\nc\nd\n")
    shown = result.output.replace("\n", "").replace("\t", "")
    assert shown.isprintable() and "\\x" in shown


def test_the_seed_decides(folder):
    one, same, other = (
        run(folder, "--plain", "--seed", seed, typed="a\n").output for seed in ("0", "0", "1")
    )
    assert one == same != other


def test_toxic_questions_are_refused(folder):
    result = run(folder, "--plain", "--refuse-above", "0.5", typed="you stupid idiot\n")
    assert result.exit_code == 0, result.output
    assert "I would rather not say that." in result.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-new-tokens", "60"], "leave no room"),
        (["--plain", "--system", "x"], "leave --system out"),
        (["--temperature", "-1"], "temperature"),
    ],
)
def test_flags_that_cannot_be_used(folder, flags, message):
    result = run(folder, *flags, typed="a\n")
    assert result.exit_code != 0
    assert message in result.output


def test_a_folder_without_a_policy(tmp_path):
    result = run(str(tmp_path), typed="")
    assert result.exit_code == 1
    assert "holds no policy" in " ".join(result.output.split())
