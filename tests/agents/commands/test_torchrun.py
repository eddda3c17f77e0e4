"""What commands do when torchrun has started several processes."""

import pytest
from command_line import run_command

from agents.commands import COMMANDS

ALONE = [name for name, command in COMMANDS.items() if not command.spreads]


@pytest.mark.parametrize("name", ALONE)
def test_a_command_that_does_not_share_its_work_is_refused(name, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = run_command(name)
    assert ran.exit_code == 2
    assert f"torchrun started 2 processes, and textenv {name} does not share" in ran.output
    assert "without torchrun" in ran.output
