"""Loggers of W&B, MLflow and Trackio in the modes that need no network."""

import json
import sys
import time

import numpy as np
import pytest

from agents.runs.loggers import (
    LOGGERS,
    HistogramLogger,
    MLflowLogger,
    SampleLogger,
    TrackioLogger,
    WandbLogger,
    close_logger,
    log_update,
    loggers_of_run,
)
from agents.runs.samples import Sample
from agents.runs.update import Update
from textenv.errors import MissingExtraError

SAMPLES = [Sample("the ", "cat", 0.5), Sample("a ", "dog", 0.25)]
SCORES = np.float32([0.0, 0.5, 0.5, 1.0])


def log_a_run(logger):
    """Two updates, the first with samples and a histogram."""
    logger.log(64, {"score": 0.5, "kl": 0.25, "component.length": 3.0})
    assert isinstance(logger, SampleLogger)
    logger.log_samples(64, SAMPLES)
    if isinstance(logger, HistogramLogger):
        logger.log_histogram(64, "score/histogram", SCORES)
    logger.log(128, {"score": 0.75, "entropy": float("nan")})
    logger.close()


def leveldb_records(content, block=32768):
    """The records of a file in LevelDB's log format, behind W&B's header of 7 bytes."""
    place, parts = 7, []
    while place + 7 <= len(content):
        if block - place % block < 7:  # no room for another header: the rest of the block is empty
            place += block - place % block
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts.append(content[place + 7 : place + 7 + size])
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def test_wandb_offline(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    folder = tmp_path / "20260101-000000"
    log_a_run(WandbLogger(folder, config={"seed": 7}, mode="offline"))
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + 30
    records: list = []
    # W&B's own process may write for a moment after the run was ended.
    while not any(record.HasField("exit") for record in records) and time.monotonic() < until:
        time.sleep(0.05)
        records = [Record.FromString(data) for data in leveldb_records(path.read_bytes())]
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]
    (run, *_) = [record.run for record in records if record.HasField("run")]
    history = [
        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert run.display_name == folder.name and run.project == "textenv"
    assert config["seed"] == 7
    assert run.run_id == (folder / "wandb-run-id").read_text().strip()
    first, table, histogram, second = history
    assert (first["tokens"], first["score/mean"], first["policy/kl"]) == (64, 0.5, 0.25)
    assert first["component/length"] == 3.0
    assert (second["tokens"], second["score/mean"]) == (128, 0.75)
    assert table["tokens"] == histogram["tokens"] == 64
    assert sum(histogram["score/histogram/values"]) == len(SCORES)
    (file,) = folder.glob("wandb/offline-run-*/files/media/table/*.json")
    kept = json.loads(file.read_text())
    assert kept["data"] == [["the ", "cat", 0.5], ["a ", "dog", 0.25]]


@pytest.mark.parametrize(("error", "code"), [(ValueError("lost"), 1), (KeyboardInterrupt(), 130)])
def test_a_run_that_failed_has_another_exit_code_in_wandb(tmp_path, error, code):
    pytest.importorskip("wandb", reason="wandb is not installed")
    logger = WandbLogger(tmp_path, mode="disabled")
    codes = []
    logger._run.finish = lambda exit_code=0: codes.append(exit_code)
    close_logger(logger, error)
    close_logger(logger)
    assert codes == [code, 0]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow's own
def test_mlflow_in_a_database(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    monkeypatch.chdir(tmp_path)  # artifacts go to ./mlruns
    address, folder = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "20260101-000000"
    log_a_run(MLflowLogger(folder, config={"seed": 7, "odd (name)": 1}, tracking_uri=address))
    client = mlflow.MlflowClient(address)

    def only_run():
        (run,) = client.search_runs([client.get_experiment_by_name("textenv").experiment_id])
        return run

    run = only_run()
    assert run.info.run_name == folder.name and run.info.status == "FINISHED"
    assert run.data.params == {"seed": "7", "odd _name_": "1"}
    points = client.get_metric_history(run.info.run_id, "score/mean")
    assert [(point.step, point.value) for point in points] == [(64, 0.5), (128, 0.75)]
    assert run.data.metrics["component/length"] == 3.0
    (artifact,) = client.list_artifacts(run.info.run_id, "samples")
    assert artifact.path == "samples/000000000064.md"
    page = next(tmp_path.rglob("000000000064.md")).read_text()
    assert "**score 0.500**" in page and "    cat\n" in page

    again = MLflowLogger(folder, tracking_uri=address)  # a resumed run is the same run
    again.log(192, {"score": 1.0})
    assert only_run().info.status == "RUNNING"
    close_logger(again, ValueError("lost"))
    assert only_run().info.status == "FAILED"
    close_logger(MLflowLogger(folder, tracking_uri=address), KeyboardInterrupt())
    assert only_run().info.status == "KILLED"
    MLflowLogger(folder, tracking_uri=address).close()
    assert only_run().info.status == "FINISHED"
    assert len(client.get_metric_history(only_run().info.run_id, "score/mean")) == 3


def test_trackio_locally(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="trackio is not installed")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    if utils.TRACKIO_DIR != tmp_path / "trackio":
        pytest.skip("trackio was imported before, with another folder")
    folder = tmp_path / "20260101-000000"
    log_a_run(TrackioLogger(folder, config={"seed": 7}))
    again = TrackioLogger(folder)  # a resumed run is the same run
    again.log(192, {"score": 1.0})
    again.close()
    other = TrackioLogger(tmp_path / "elsewhere" / folder.name)  # begun in the same second
    other.log(64, {"score": 9.0})
    other.close()
    name = (folder / "trackio-run-name").read_text().strip()
    assert name.startswith(f"{folder.name}-")
    rows = SQLiteStorage.get_logs("textenv", name)
    scores = [(row["step"], row["score/mean"]) for row in rows if "score/mean" in row]
    assert scores == [(64, 0.5), (128, 0.75), (192, 1.0)]
    assert {row["step"] for row in rows} == {64, 128, 192}  # of texts and histograms too
    (samples,) = [row["samples"] for row in rows if "samples" in row]
    assert samples["_value"][0] == {"prompt": "the ", "text": "cat", "score": 0.5}
    ((step, histogram),) = [
        (row["step"], row["score/histogram"]) for row in rows if "score/histogram" in row
    ]
    assert step == 64 and sum(histogram["values"]) == len(SCORES)


@pytest.mark.parametrize(
    ("package", "logger"),
    [("wandb", WandbLogger), ("mlflow", MLflowLogger), ("trackio", TrackioLogger)],
)
def test_without_the_package_the_extra_is_named(package, logger, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"textenv\[{package}\]"):
        logger(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_loggers_of_a_run_are_closed_whatever_happens(tmp_path):
    with pytest.raises(RuntimeError, match="lost"), loggers_of_run(tmp_path) as loggers:
        for logger in loggers:
            logger.log(64, {"score": 0.5})
        raise RuntimeError("lost")
    assert (tmp_path / "metrics.csv").read_text() == "step,score\n64,0.5\n"
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


class Service:
    """Writes down what it is asked; does not answer in the calls of these names."""

    def __init__(self, silent=()):
        self.silent, self.calls = silent, []

    def _call(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name in self.silent:
            raise ConnectionError("no answer")

    def log(self, step, numbers):
        self._call("log", step)

    def log_samples(self, step, samples):
        self._call("log_samples", step)

    def close(self):
        self._call("close")


class FailingService(Service):
    """Shows how a run ended, too."""

    def close_failed(self, error):
        self._call("close_failed", error)


@pytest.fixture
def services(monkeypatch):
    """Three services by the names a, b and c; the second does not answer."""
    made = {"a": Service(), "b": FailingService({"log", "close", "close_failed"})}
    made["c"] = FailingService()
    for name, service in made.items():
        monkeypatch.setitem(LOGGERS, name, lambda folder, config, service=service: service)
    return made


def test_services_are_closed_even_if_one_does_not_answer(tmp_path, services):
    with pytest.warns(RuntimeWarning, match="FailingService could not be closed: ConnectionError"):
        with loggers_of_run(tmp_path, list(services)):
            pass
    assert [service.calls for service in services.values()] == [[("close",)]] * 3


@pytest.mark.parametrize("error", [ValueError("lost"), KeyboardInterrupt()])
def test_services_are_told_of_an_error_and_it_goes_on(tmp_path, services, error):
    with (
        pytest.warns(RuntimeWarning, match="could not be closed: ConnectionError: no answer"),
        pytest.raises(type(error)) as caught,
        loggers_of_run(tmp_path, list(services)),
    ):
        raise error
    assert caught.value is error
    failed = [("close_failed", error)]
    assert [service.calls for service in services.values()] == [[("close",)], failed, failed]


def test_a_service_that_does_not_answer_does_not_end_a_run(services):
    update = Update(1, 64, 2, 0.5, 0.0, 1.0, 100.0, {})
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="FailingService could not log an update: Conn"):
            log_update(list(services.values()), update, SAMPLES)
    both = [("log", 64), ("log_samples", 64)]
    assert services["a"].calls == services["c"].calls == both * 2
    assert services["b"].calls == [("log", 64)] * 2  # and it is asked again


def test_only_errors_are_taken_for_a_service_that_does_not_answer():
    class Stopped(Service):
        def log(self, step, numbers):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_update([Stopped()], Update(1, 64, 2, 0.5, 0.0, 1.0, 100.0, {}))


def test_a_logger_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="no logger 'neptune'; there are tensorboard, wandb"):
        with loggers_of_run(tmp_path, ["neptune"]):
            pass
