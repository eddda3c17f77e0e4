"""The examples run as they are, and so do the snippets of the README and of the concepts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(script, *arguments, cwd=ROOT):
    command = [sys.executable, "-W", "error", str(script), *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # Tiny networks: a second thread waits.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("01_environment.py", (), "ended by length"),
        ("02_reward.py", (), "reward"),
        ("03_ppo.py", ("8000",), "8192 tokens"),
        ("08_world.py", ("3000",), "games: "),
        ("09_tool.py", ("2000", "200"), "with the calculator, "),
        ("10_self_play.py", ("3000",), "after\ntakes "),
        ("04_algorithm.py", ("5",), "Ranked"),
        ("05_feedback.py", ("4000",), "vowels an answer"),
    ],
)
def test_examples_run(name, arguments, expected):
    done = run(ROOT / "examples" / name, *arguments)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    """A folder with a model of random weights that reads bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny"
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>"]
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")
    tokenizer.chat_template = "{{ messages[0]['content'] }}\n"
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    ends = {"bos_token_id": None, "eos_token_id": len(alphabet) - 1}
    config = LlamaConfig(vocab_size=len(alphabet), **shape, **heads, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def openings(tmp_path):
    file = tmp_path / "openings.txt"
    file.write_text("".join(f"Film {i} is\n" for i in range(20)), encoding="utf-8")
    return file


def test_a_real_model_and_a_lexicon(tiny_llama, openings):
    done = run(ROOT / "examples" / "06_real_model.py", tiny_llama, openings, "600")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("s of processor") == 2  # updates of 48 answers of 12 tokens
    assert "judge: VADER" in done.stdout
    assert "Film 0 is" in done.stdout  # a held-out opening, the first of every ten


def test_a_real_model_and_a_verifier(tiny_llama):
    done = run(ROOT / "examples" / "07_verifier.py", tiny_llama, "500")
    assert done.returncode == 0, done.stderr
    assert "share of right answers" in done.stdout
    assert "What is 4 times 7?" in done.stdout  # the first of the held-out questions


def test_every_example_is_run_here():
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert sorted(name[:2] for name in names) == [f"{number:02}" for number in range(1, 11)]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/concepts.md",
        "docs/conversations.md",
        "docs/libraries.md",
        "docs/checking.md",
        "docs/compression.md",
        "docs/testing.md",
        "docs/algorithms.md",
        "docs/recipe.md",
        "docs/reward_models.md",
        "docs/rewards.md",
        "docs/grammars.md",
        "docs/huggingface.md",
        "docs/networks.md",
        "docs/data.md",
        "docs/more_than_one_process.md",
        "docs/search_and_trees.md",
    ],
)
def test_snippets_run_one_after_the_other(page, tmp_path):
    """Pasted into one file in their order, as a reader would."""
    snippets = snippets_of(page)
    assert snippets
    shown = output_of(snippets, tmp_path)
    if any(LOOP in snippet and "print(" in snippet for snippet in snippets):
        assert_doubles(shown)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_ppo_of_the_readme_learns_on_every_seed(seed, tmp_path):
    snippets = snippets_of("README.md")
    number = next(i for i, snippet in enumerate(snippets) if LOOP in snippet)
    assert snippets[number].count("seed=0") == 1
    ppo = snippets[number].replace("seed=0", f"seed={seed}")
    assert_doubles(output_of([*snippets[:number], ppo], tmp_path))


LOOP = ".updates("


def snippets_of(page):
    """The pieces of Python that run as they are."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)


def output_of(snippets, folder):
    """What they print when they are pasted into one file."""
    script = folder / "pasted.py"
    script.write_text("\n".join(snippets), encoding="utf-8")
    done = run(script, cwd=folder)  # some of them write files
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_doubles(shown):
    """What learns in a page learns within the budget that it shows.

    Every loop over updates prints tokens and score first; the score at the end is the mean of the
    last three.
    """
    scores = [float(score) for score in re.findall(r"^\d+ (\d\.\d+) ", shown, flags=re.M)]
    assert len(scores) > 3, shown
    assert sum(scores[-3:]) / 3 > 2 * scores[0], scores


def test_the_plain_loop_of_the_readme_keeps_to_the_masks():
    from policies import TransformerPolicy
    from textenv import TextVectorEnv

    episodes = []

    def reward(ended):
        episodes.extend(ended)
        return [0.0] * len(ended)

    envs = TextVectorEnv(
        2,
        prompts=["a"],
        reward=reward,
        forbidden_tokens=range(250),
        min_new_tokens=2,
        max_new_tokens=5,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (loop,) = re.findall(r"^```python\n([^`]*policy\.act\([^`]*)^```$", text, flags=re.M)
    exec(loop, {"envs": envs, "policy": policy})
    assert len(episodes) > 100
    assert {token for e in episodes for token in e.tokens.tolist()} == set(range(250, 257))
    assert min(len(e.tokens) for e in episodes) == 3
