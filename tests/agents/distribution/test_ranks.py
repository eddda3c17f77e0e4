"""What processes refuse, and what a single one does not notice."""

import pytest
import torch
from trainings import learner_of

from agents.collector import share_of
from agents.distribution import Ranks, launch
from agents.distribution.launch import start_of_torchrun
from agents.distribution.shares import cut_evenly, nothing_of, padded
from agents.jobs import train
from textenv.errors import OptionError, UnmetNeedError


def test_a_script_under_torchrun_without_a_process_group_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UnmetNeedError, match="started 2 processes that do not know"):
        learner_of("ppo")


def test_the_time_to_wait_for_others_is_told_by_the_environment(monkeypatch):
    assert launch.timeout() is None
    monkeypatch.setenv(launch.TIMEOUT, "90")
    assert launch.timeout().total_seconds() == 90
    for wrong in ("soon", "0", "inf", "nan", "1e20"):
        monkeypatch.setenv(launch.TIMEOUT, wrong)
        with pytest.raises(OptionError, match="a number of seconds, above 0"):
            launch.timeout()


def test_shares_are_neighbours_of_about_equal_sums():
    counts = torch.tensor([5, 1, 1, 1, 9, 3]).numpy()
    shares = cut_evenly(counts, 3)
    assert [share.tolist() for share in shares] == [[0, 1, 2], [3, 4], [5]]
    assert [s.tolist() for s in cut_evenly(counts[:1], 2)] == [[], [0]]


def test_all_ranks_pass_equally_often():
    parts = [["a"], [], ["b", "c"]]
    assert [padded(parts, rank, "-") for rank in range(3)] == [
        (["a", "-"], 1),
        (["-", "-"], 0),
        (["b", "c"], 2),
    ]


def test_an_environment_of_another_kind_cannot_be_divided():
    class Other:
        unwrapped = property(lambda self: self)

    with pytest.raises(UnmetNeedError, match="Other cannot be divided among 2 processes"):
        share_of(Other(), 0, 2)


def test_one_process_gets_back_what_it_gives():
    ranks, tensor = Ranks(), torch.ones(3, requires_grad=True)
    assert ranks.gathered(tensor, [3]) is tensor and ranks.summed(tensor) is tensor
    assert ranks.objects("a") == ["a"] and ranks.total(3) == 3
    assert ranks.by_first(lambda: 7) == 7 and ranks.of_first(2) == 2


def test_what_two_processes_refuse(two):
    first, second = (rank["refusals"] for rank in two)
    for told in (first, second):
        assert "seed is [0, 1] in the 2 processes" in told["seeds"]
        assert "computed the same gradient" in told["undivided"]
        assert told["copies"] == 1
        assert told["gradient"] == ([3.0], [1.0, 2.0])
        assert told["unused"] is None
    assert first["first"] == "ZeroDivisionError: division by zero"
    assert "LostProcessError: in the first process: ZeroDivisionError" in second["first"]
    # A rank that cannot write costs a checkpoint; one that raises something else ends all.
    for full, _ in (first["saves"], second["saves"]):
        assert full.startswith("NotSavedError") and "disk full" in full
    assert second["saves"][1] == "RuntimeError: a state of its own"
    assert first["saves"][1] == (
        "LostProcessError: in another process: RuntimeError: a state of its own"
    )


def test_a_pass_for_nobody_has_no_gradient_even_if_it_is_no_number():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    nothing = nothing_of(weight * torch.tensor([float("nan"), 1.0]))
    plain = nothing_of(weight)
    plain.backward()
    assert nothing == 0 and weight.grad.tolist() == [0.0, 0.0]


def test_the_torchrun_that_starts_again_takes_its_own_run_and_no_other(tmp_path, monkeypatch):
    def started(logs, attempt):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        file = tmp_path / logs / f"attempt_{attempt}" / "0" / "error.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))

    for run, logs in (("earlier", "a"), ("later", "b"), ("unlike", "c")):
        (tmp_path / "runs" / run).mkdir(parents=True)
        started(logs, 0)
        (tmp_path / "runs" / run / train.STARTED_BY).write_text(start_of_torchrun())
    started("b", 0)
    assert train._before_a_restart(tmp_path / "runs") is None
    started("b", 2)
    assert train._before_a_restart(tmp_path / "runs").path == tmp_path / "runs" / "later"
    started("died before it had a run", 1)
    assert train._before_a_restart(tmp_path / "runs") is None
