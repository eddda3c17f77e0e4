import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import textenv
from agents import PPO
from agents.runs.run_folder import RunFolder


def test_a_folder_is_named_by_the_time_and_opens_again(tmp_path):
    run = RunFolder.create(tmp_path / "runs", "film reviews")
    assert run.path.parent == tmp_path / "runs"
    stamp = re.fullmatch(r"(\d{8}-\d{6})-film reviews", run.path.name).group(1)
    assert abs(time.mktime(time.strptime(stamp, "%Y%m%d-%H%M%S")) - time.time()) < 60
    assert RunFolder(run.path) == run
    assert {run.config, run.metrics, run.samples, run.checkpoint} == {
        run.path / name for name in ("config.json", "metrics.csv", "samples.jsonl", "checkpoint")
    }


def test_runs_that_start_together_never_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-000000")
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: RunFolder.create(tmp_path), range(8)))
    names = sorted(run.path.name for run in runs)
    assert names == ["20260101-000000", *(f"20260101-000000-{n}" for n in range(2, 9))]


@pytest.mark.parametrize("name", ["a/b", "..\\b", "/tmp"])
def test_a_name_that_leaves_the_root_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        RunFolder.create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_versions_are_those_that_run(tmp_path):
    torch.set_num_threads(1)
    found = json.loads((RunFolder.create(tmp_path).path / "versions.json").read_text())
    assert found["threads"] == 1
    assert found["torch"] == torch.__version__
    assert found["textenv"] == textenv.__version__
    assert set(found) >= {"python", "numpy", "gymnasium", "platform"}


def test_config_is_json_whatever_the_arguments(tmp_path):
    run = RunFolder.create(tmp_path)
    run.write_config(
        {
            "seed": np.int64(3),
            "prompts": Path("prompts.txt"),
            "algorithm": PPO(clip=0.1),
            "layers": [1, 2],
            "reference": None,
            "name": "影评",
        }
    )
    text = run.config.read_text(encoding="utf-8")
    assert "影评" in text  # readable, not escaped
    config = json.loads(text)
    assert "clip=0.1" in config.pop("algorithm")
    assert config == {
        "seed": 3,
        "prompts": "prompts.txt",
        "layers": [1, 2],
        "reference": None,
        "name": "影评",
    }
