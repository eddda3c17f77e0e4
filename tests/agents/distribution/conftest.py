"""What one process and two have measured, for all files of this folder."""

import pairs
import pytest
import trainings
from processes import in_processes


@pytest.fixture(scope="session")
def one(tmp_path_factory):
    return in_processes(1, trainings.run_all, str(tmp_path_factory.mktemp("one")))[0]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where two processes have saved a sharded network."""
    return str(tmp_path_factory.mktemp("sharded"))


@pytest.fixture(scope="session")
def two(tmp_path_factory, folder):
    return in_processes(2, pairs.everything, str(tmp_path_factory.mktemp("two")), folder)


@pytest.fixture(scope="session")
def one_with_32_rows():
    return in_processes(1, trainings.run_wanted, 32)[0]
