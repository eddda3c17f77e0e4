"""Saving at the end of the work, and a signal that comes behind the last update."""

import os
import signal

import pytest
from rich.console import Console

from agents.runs.checkpoints import Checkpoints
from agents.runs.saving import Saving, Schedule
from agents.runs.signals import Stopped


def test_a_signal_behind_the_last_update_is_not_forgotten(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")

    def write(folder):
        (folder / "number").write_text(str(number))

    number = 0
    with pytest.raises(Stopped) as caught:
        with Saving(checkpoints, write, Schedule(0), Console(quiet=True), "Again.") as saving:
            number = 1
            saving.after(number)
            os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.__notes__ == ["Saved after update 1. Again."]
    assert (checkpoints.newest() / "number").read_text() == "1"
