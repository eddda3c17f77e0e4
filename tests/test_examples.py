"""The examples run as they are, and so do the snippets of the README and of the concepts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(script, *arguments):
    command = [sys.executable, "-W", "error", str(script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # tiny networks: a second thread waits
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("01_environment.py", (), "ended by length"),
        ("02_reward.py", (), "reward"),
        ("03_ppo.py", ("8000",), "8192 tokens"),
        ("04_algorithm.py", ("5",), "Ranked"),
        ("05_feedback.py", ("4000",), "vowels an answer"),
    ],
)
def test_examples_run(name, arguments, expected):
    done = run(ROOT / "examples" / name, *arguments)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_every_example_is_run_here():
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert {name[:2] for name in names} == {"01", "02", "03", "04", "05"}
    assert len(names) == 5


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/concepts.md",
        "docs/libraries.md",
        "docs/testing.md",
        "docs/algorithms.md",
        "docs/recipe.md",
        "docs/rewards.md",
        "docs/huggingface.md",
    ],
)
def test_snippets_run_one_after_the_other(page, tmp_path):
    """Pasted into one file in their order, as a reader would."""
    text = (ROOT / page).read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)
    assert snippets
    script = tmp_path / "pasted.py"
    script.write_text("\n".join(snippets), encoding="utf-8")
    done = run(script)
    assert done.returncode == 0, done.stderr
