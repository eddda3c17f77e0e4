import csv
import io
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agents.runs.loggers import ConsoleLogger, CSVLogger, TensorBoardLogger
from agents.runs.samples import Sample
from textenv.errors import MissingExtraError

# ---------------------------------------------------------------- CSV


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_file_by_hand(tmp_path):
    path = tmp_path / "new" / "metrics.csv"
    logger = CSVLogger(path)
    assert not path.exists()  # nothing was measured yet
    logger.log(64, {"kl": 0.5, "loss": 1.0})
    logger.log(128, {"loss": 2.0, "kl": 0.25})  # another order
    logger.log(192, {"loss": 3.0, "clip": 0.1})  # one is new, one is missing
    logger.close()
    CSVLogger(path).log(256, {"kl": math.nan, "loss": 4.0})  # a resumed run
    assert path.read_bytes().decode() == (
        "step,kl,loss,clip\n64,0.5,1.0,\n128,0.25,2.0,\n192,,3.0,0.1\n256,nan,4.0,\n"
    )
    assert os.listdir(path.parent) == ["metrics.csv"]


rows = st.lists(
    st.tuples(
        st.booleans(),  # is the run resumed before this row?
        st.dictionaries(st.sampled_from("abcd"), st.floats()),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(rows)
def test_csv_loses_no_digit_and_no_row(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.csv"
        logger = CSVLogger(path)
        for step, (resumed, numbers) in enumerate(rows):
            logger = CSVLogger(path) if resumed else logger
            logger.log(step, numbers)
        found = read(path)
    assert [int(row.pop("step")) for row in found] == list(range(len(rows)))
    for row, (_, numbers) in zip(found, rows, strict=True):
        kept = {name: float(text) for name, text in row.items() if text != ""}
        assert kept == pytest.approx(numbers, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ("step,kl\n64,0.5\n128,0.2", "step,kl\n64,0.5\n192,1.0\n"),
        ("step,kl\n", "step,kl\n192,1.0\n"),
        ("step,k", "step,kl\n192,1.0\n"),
        ("", "step,kl\n192,1.0\n"),
    ],
)
def test_csv_goes_on_after_half_a_row(tmp_path, left, expected):
    path = tmp_path / "metrics.csv"
    path.write_text(left, newline="")
    CSVLogger(path).log(192, {"kl": 1.0})
    assert path.read_bytes().decode() == expected


# ---------------------------------------------------------------- TensorBoard


def points(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_file_read_back(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log(64, {"kl": 0.5, "entropy": 2.0})
    logger.log(128, {"kl": 0.25})
    logger.close()
    assert points(tmp_path) == {
        "policy/kl": [(64, 0.5), (128, 0.25)],
        "policy/entropy": [(64, 2.0)],
    }


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if not installed
    with pytest.raises(MissingExtraError, match=r"textenv\[train\]"):
        TensorBoardLogger(tmp_path)


def test_a_killed_process_keeps_what_it_logged(tmp_path):
    script = """
import os, sys
from agents.runs.loggers import CSVLogger, TensorBoardLogger
loggers = [CSVLogger(sys.argv[1] + "/metrics.csv"), TensorBoardLogger(sys.argv[1])]
for logger in loggers:
    for step in range(3):
        logger.log(step, {"kl": step / 2})
os._exit(9)  # no buffer is written, nothing is closed
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root)
    assert done.returncode == 9
    assert [row["kl"] for row in read(tmp_path / "metrics.csv")] == ["0.0", "0.5", "1.0"]
    assert points(tmp_path) == {"policy/kl": [(0, 0.0), (1, 0.5), (2, 1.0)]}


def test_tensorboard_keeps_samples_and_histograms(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    logger.log_samples(64, [Sample("the ", "<b>cat</b>\n", 0.5)])
    logger.log_histogram(64, "score/histogram", np.float32([0, 0, 1]))
    logger.log_histogram(128, "score/histogram", np.float32([1, 1, 1]))  # all equal
    logger.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()  # all
    assert events.Tags()["histograms"] == ["score/histogram"]
    found = [(h.step, h.histogram_value) for h in events.Histograms("score/histogram")]
    assert [(step, h.num, h.sum) for step, h in found] == [(64, 3.0, 1.0), (128, 3.0, 3.0)]
    (text,) = events.Tensors("samples/text_summary")
    page = text.tensor_proto.string_val[0].decode()
    assert text.step == 64
    assert page == "**score 0.500**\n\n    the \n    <b>cat</b>\\n\n"


# ---------------------------------------------------------------- terminal


def console_lines(names, calls, width=80):
    console = Console(file=io.StringIO(), width=width)
    logger = ConsoleLogger(names, console)
    for step, numbers in calls:
        logger.log(step, numbers)
    logger.close()
    return console.file.getvalue().splitlines()


def test_console_columns_are_aligned_and_missing_numbers_blank():
    lines = console_lines(
        ("score", "kl"),
        [
            (64, {"score": -0.5, "kl": 0.0123456789, "loss": 7.0}),
            (1_048_576, {"kl": 12345.678}),
        ],
    )
    assert lines == [
        "        step       score          kl",
        "          64        -0.5    0.012346",
        "   1,048,576                  12,346",
    ]


def test_console_header_comes_back_and_lines_are_not_folded():
    lines = console_lines(("kl", "entropy"), [(n, {"kl": 1.0}) for n in range(41)], width=10)
    headers = [n for n, line in enumerate(lines) if "step" in line]
    assert headers == [0, 21, 42]
    assert len(lines) == 41 + 3
