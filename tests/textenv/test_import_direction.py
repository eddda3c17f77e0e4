"""textenv <- policies <- agents <- examples: who may import whom, read from the source itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for part in ("textenv", "policies", "agents") for path in (ROOT / part).rglob("*.py")]
HEAVY = {"torch", "transformers", "tokenizers", "stable_baselines3", "policies", "agents"}

# What no file of a package may import, at the top or anywhere within.
FORBIDDEN = {
    "textenv": {"torch", "policies", "agents", "stable_baselines3", "examples", "benchmarks"},
    "policies": {"agents", "stable_baselines3", "examples", "benchmarks"},
    "agents": {"stable_baselines3", "sb3_contrib", "examples", "benchmarks"},
}
EXCEPTIONS = {
    # The way in to the whole project: the command line belongs to agents, its name to textenv.
    "textenv/__main__.py": {"agents"},
    # Losses of other libraries, which a check calls as they are.
    "agents/testing/libraries/sb3.py": {"stable_baselines3"},
}


def imported(source: str) -> set[str]:
    """Top-level names of all modules that a file imports, in functions and type checks too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that this test can read them"
            names.add((node.module or "").split(".")[0])
    return names


def test_the_reader_finds_imports_wherever_they_are():
    source = "import a.b, c\nfrom d.e import f\ndef g():\n    from h import i\n"
    assert imported(source) == {"a", "c", "d", "h"}


def test_there_are_files_to_read():
    assert {"vector.py", "policy.py", "learner.py"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_what_it_must_not(path):
    name = path.relative_to(ROOT).as_posix()
    forbidden = FORBIDDEN[name.split("/")[0]] - EXCEPTIONS.get(name, set())
    if name.startswith("agents/sb3/"):
        forbidden -= {"stable_baselines3", "sb3_contrib"}
    assert not imported(path.read_text(encoding="utf-8")) & forbidden


def modules_after(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has loaded after `code`."""
    code = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_importing_textenv_imports_nothing_heavy():
    loaded = modules_after("import textenv, textenv.tokenizers, textenv.rewards")
    assert "textenv" in loaded and "gymnasium" in loaded
    assert not loaded & HEAVY


def test_running_an_environment_imports_nothing_heavy():
    code = """
import gymnasium, textenv
envs = gymnasium.make_vec(
    "textenv/Generate-v0", num_envs=2, prompts=["x"], reward=lambda episodes: [0.0] * len(episodes),
    max_new_tokens=2,
)
envs.reset(seed=0)
for _ in range(3):
    envs.step(envs.action_space.sample())
"""
    assert not modules_after(code) & HEAVY
