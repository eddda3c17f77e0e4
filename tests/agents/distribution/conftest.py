"""What one process measured, for all files of this folder."""

import pytest
import trainings
from processes import in_processes


@pytest.fixture(scope="session")
def one(tmp_path_factory):
    return in_processes(1, trainings.run_all, str(tmp_path_factory.mktemp("one")))[0]
