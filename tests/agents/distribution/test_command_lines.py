"""Commands of several processes, whose network is whole or divided, save what one process does."""

import command_lines
import pytest
import torch
from processes import in_processes

from agents.commands import main


@pytest.mark.slow
def test_commands_of_two_processes_save_what_one_does(tmp_path):
    command_lines.prepare(tmp_path)
    (one,) = in_processes(1, command_lines.all_weights, str(tmp_path), False)
    for sharded in (False, True):
        for rank in in_processes(2, command_lines.all_weights, str(tmp_path), sharded):
            for name, expected in one.items():
                assert rank[name].keys() == expected.keys() and expected
                for key, weight in expected.items():
                    torch.testing.assert_close(
                        rank[name][key], weight, atol=1e-4, rtol=1e-4, msg=f"{name}: {key}"
                    )


def test_shard_without_other_processes_is_refused(tmp_path, monkeypatch, capsys):
    command_lines.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main("dpo --preferences ranked.jsonl --policy policy --out out --shard".split())
    assert "--shard divides a network among processes" in " ".join(capsys.readouterr().err.split())
