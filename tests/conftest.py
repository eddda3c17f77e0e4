"""Fixtures that several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from vocabularies import missing

# The same examples on every machine, and no limit of time that a busy one would break.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what takes many minutes to `.ci/full`, which sets TEXTENV_FULL."""
    if os.environ.get("TEXTENV_FULL"):
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="takes many minutes: .ci/full runs it"))


@pytest.fixture(scope="session")
def tiktoken_files() -> Iterator[Path]:
    """A folder with the vocabularies of GPT-2, GPT-4 and GPT-4o, from which tiktoken reads."""
    default = Path(__file__).parents[1] / ".vocabularies"
    folder = Path(os.environ.get("TIKTOKEN_CACHE_DIR", default))
    if names := missing(folder):
        pytest.skip(f"{folder} lacks {names}: run python tests/vocabularies.py {folder}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield folder
