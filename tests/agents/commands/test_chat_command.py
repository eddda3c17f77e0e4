import json
from dataclasses import asdict

import pytest
import torch
from command_line import run_command

from agents.supervised import ChatTemplate, Example, sft_steps
from policies import TransformerConfig, TransformerPolicy, load_policy
from policies.templates import template_of
from textenv import load_tokenizer
from textenv.frames import ModelTemplate

TOKENIZER = load_tokenizer("bytes")
DIALOGUE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.fixture(scope="module")
def policy() -> TransformerPolicy:
    config = TransformerConfig(TOKENIZER.vocab_size, 48, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(config, tokenizer=TOKENIZER, seed=1)


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory) -> str:
    return str(policy.save(tmp_path_factory.mktemp("chat") / "policy"))


@pytest.fixture(scope="module")
def taught(policy, tmp_path_factory) -> str:
    """The same policy, had it learned from dialogues."""
    other = policy.frozen_copy()
    other.chat_template = asdict(ChatTemplate())
    return str(other.save(tmp_path_factory.mktemp("chat") / "taught"))


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


def test_a_chat_remembers_until_reset(taught, policy):
    flags = ["--temperature", "0", "--max-new-tokens", "4", "--system", "x"]
    first = policy.generate(["x\nUser: a\nAssistant:"], 4, temperature=0)[0]
    result = run(taught, *flags, typed="a\n/reset\na\n")
    assert result.exit_code == 0, result.output  # the input ends: as Ctrl-D
    assert result.output.count(f"> {first}\n") == 2


def test_what_does_not_fit_is_said_and_the_chat_goes_on(taught):
    result = run(taught, "--max-new-tokens", "8", typed="y" * 50 + "\n\nhi\n")
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
        (["--system", "x"], "has learned from no dialogue"),
        (["--plain", "--dialogue"], "exclude each other"),
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


def test_help_lists_the_commands_and_a_slip_is_no_question(folder):
    result = run(folder, "--temperature", "0", typed="/help\n/hepl\n/usr\n")
    assert result.exit_code == 0, result.output
    assert all(name in result.output.split("> ")[1] for name in ("/help", "/reset", "/exit"))
    assert "There is no /hepl; did you mean /help?" in result.output
    assert "/usr" not in result.output  # any other text is asked


def test_a_policy_that_never_saw_a_chat_is_given_no_template(folder, policy):
    flags = ["--temperature", "0", "--max-new-tokens", "4"]
    result = run(folder, *flags, typed="abc\n")
    assert result.exit_code == 0, result.output
    assert f"> {policy.generate(['abc'], 4, temperature=0)[0]}\n" in result.output
    assert "learned from no dialogue" in result.output
    asked = run(folder, *flags, "--dialogue", typed="abc\n")
    expected = policy.generate(["User: abc\nAssistant:"], 4, temperature=0)[0]
    assert f"> {expected}\n" in asked.output and "no dialogue" not in asked.output


@pytest.mark.parametrize(
    ("record", "learns"),
    [
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            1,
        ),
        ({"instruction": "a", "output": "b"}, 1),
        ({"prompt": "a", "response": "b"}, 0),
    ],
)
def test_a_policy_knows_whether_it_has_learned_from_dialogues(policy, tmp_path, record, learns):
    (tmp_path / "examples.jsonl").write_text(2 * (json.dumps(record) + "\n"))
    policy.save(tmp_path / "policy")
    parts = ("--policy", tmp_path / "policy", "--examples", tmp_path / "examples.jsonl")
    result = run_command("sft", *parts, "--out", tmp_path / "out", "--epochs", "1")
    assert result.exit_code == 0, result.output
    made = TransformerPolicy.load(tmp_path / "out")
    assert template_of(made) == (ChatTemplate() if learns else None)
    assert template_of(made.frozen_copy()) == template_of(made)


def test_the_template_that_was_learned_is_the_one_that_is_asked_with(tmp_path):
    config = TransformerConfig(TOKENIZER.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=TOKENIZER)
    short = ChatTemplate(user="Q {content} A")
    example = Example.from_record({"instruction": "a", "output": "b"}, short)
    list(sft_steps(policy, [example]))
    policy.save(tmp_path / "policy")
    assert template_of(TransformerPolicy.load(tmp_path / "policy")) == short


def test_a_model_of_hugging_face_is_asked_with_its_own_template(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from policies import HuggingFacePolicy

    words = {word: number for number, word in enumerate(["<unk>", "<end>", "Q", "A", "hi", "be"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")
    config = transformers.GPT2Config(vocab_size=6, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    model = transformers.GPT2LMHeadModel(config)
    assert template_of(HuggingFacePolicy(model, own)) is None
    own.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}Q {{ m.content }} {% endfor %}{% if add_generation_prompt %}A{% endif %}"
    )
    HuggingFacePolicy(model, own).save(tmp_path / "policy")
    policy = load_policy(tmp_path / "policy")
    template = template_of(policy)
    assert isinstance(template, ModelTemplate)
    question = {"role": "user", "content": "hi"}
    assert template.prompt_tokens([question], policy.tokenizer) == [2, 4, 3]
    result = run(str(tmp_path / "policy"), "--max-new-tokens", "2", "--system", "be", typed="hi\n")
    assert result.exit_code == 0, result.output
    assert "refuses messages of the roles system, user: no system" in result.output


def test_answers_keep_to_the_masks(folder):
    options = ["--plain", "--temperature", "3", "--max-new-tokens", "6", "--min-new-tokens", "3"]
    result = run(folder, *options, "--allowed-tokens", "122", typed="abc\nabc\nabc\n")
    assert result.exit_code == 0, result.output
    said = [line.removeprefix("> ") for line in result.output.splitlines() if "z" in line]
    assert len(said) == 3
    assert all(set(line) == {"z"} and 3 <= len(line) <= 6 for line in said), said
    refused = run(folder, "--forbidden-tokens", "257", typed="")
    assert refused.exit_code == 2 and "forbidden_tokens holds 257" in refused.output


def test_two_policies_side_by_side_and_what_is_said_of_them(taught, policy, tmp_path):
    other = policy.frozen_copy()
    with torch.no_grad():
        other.transformer.ln_f.weight.mul_(3)
    other.chat_template = asdict(ChatTemplate())
    beside, log = other.save(tmp_path / "other"), tmp_path / "log"
    flags = ["--beside", str(beside), "--max-new-tokens", "4", "--seed", "0", "--log", str(log)]
    result = run(taught, *flags, typed="/1\na\n/2\n/help\n/good\n")
    assert result.exit_code == 0, result.output
    assert "[taught] " in result.output and "[other] " in result.output
    assert "There are no two answers" in result.output and "/=" in result.output
    (ranking,) = map(json.loads, (log / "rankings.jsonl").read_text().splitlines())
    assert ranking["ranks"] == [2, 1] and ranking["sources"] == ["taught", "other"]
    (liked,) = map(json.loads, (log / "examples.jsonl").read_text().splitlines())
    assert liked["messages"][-1]["content"] == ranking["answers"][1]


def test_the_same_policy_twice_or_only_one_that_chats_is_refused(taught, folder):
    for beside, problem in ((taught, "same policy"), (folder, "--plain")):
        result = run(taught, "--beside", beside, typed="a\n")
        assert result.exit_code != 0 and problem in result.output
