"""A process that dies ends all with the reason, and torchrun's restart goes on."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.distribution import launch
from policies import TransformerConfig, TransformerPolicy
from textenv.tokenizers import BytesTokenizer

REWARD = """
import os
from pathlib import Path
import numpy as np

calls = 0

def reward(episodes):
    global calls
    calls += 1
    once = Path("died")
    if os.environ.get("DIE") and os.environ["RANK"] == "1" and calls == 25 and not once.exists():
        once.touch()
        os._exit(9)
    return [float(np.mean(e.tokens % 2 == 0)) for e in episodes]
"""


PATIENT = "join_timeout=900,read_timeout=900,keep_alive_interval=30,keep_alive_max_attempt=20"
"""Of the launcher: on a machine that has other work to do, it may take minutes to be heard."""


def torchrun(folder, *arguments, **environment):
    """With restarts to spare: a connection that fails for want of time is no fault of ours."""
    options = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "3")
    options += ("--rdzv-conf", PATIENT)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, "-m", "textenv", *arguments],
        cwd=folder,
        # Loops that are compiled round otherwise than those that come from Numba's cache.
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "NUMBA_DISABLE_JIT": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            launch.TIMEOUT: "900",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=3600,
    )


@pytest.fixture
def folder(tmp_path):
    tokenizer = BytesTokenizer()
    config = TransformerConfig(tokenizer.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(config, tokenizer=tokenizer).save(tmp_path / "policy")
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "prompts.txt").write_text("".join(f"the {i} \n" for i in range(12)))
    return tmp_path


LINE = [
    *("train", "--policy", "policy", "--reward", "mine.py:reward", "--prompts", "prompts.txt"),
    *("--algorithm", "grpo", "--group-size", "2", "--rows", "8", "--max-new-tokens", "8"),
    *("--tokens", "1000", "--save-every", "2"),
]


def losses(folder):
    (path,) = Path(folder).glob("*/metrics.csv")
    with path.open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.mark.full
def test_a_process_that_dies_ends_all_and_the_restart_goes_on(folder):
    whole = torchrun(folder, *LINE, "--run-folder", "whole")
    assert whole.returncode == 0, whole.stderr
    died = torchrun(folder, *LINE, "--run-folder", "died_once", DIE="1")
    assert (folder / "died").exists()
    assert "exitcode: 9" in died.stderr  # the reason, of the one that was first
    assert died.returncode == 0, died.stderr
    assert losses(folder / "died_once") == losses(folder / "whole")
