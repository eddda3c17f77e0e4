"""The pages of the environments are what docs/make_environments.py writes."""

import importlib.util
import inspect
import re
from pathlib import Path

import gymnasium as gym
import pytest

from textenv import TextVectorEnv

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location(
        "make_environments", DOCS / "make_environments.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(generator):
    pages = generator.pages()
    assert len(pages) == sum(name.startswith("textenv/") for name in gym.registry) > 0
    assert set(pages) == set((DOCS / "environments").glob("*.md"))
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/make_environments.py"


def test_the_page_has_the_sections_of_gymnasium():
    page = (DOCS / "environments" / "generate.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", page, flags=re.M) == [
        "Description",
        "Action space",
        "Observation space",
        "Rewards",
        "Starting state",
        "Episode end",
        "Info",
        "Arguments",
        "Errors",
        "Version history",
    ]
    assert "| Action space | `Discrete(257)` |" in page  # 256 bytes and the stop token
    assert "| Observation space | `Box(0, 257, (68,), int64)` |" in page  # "the " and 64
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .+ \|$", page, flags=re.M)
    assert [name for name, _ in rows] == list(inspect.signature(TextVectorEnv).parameters)
    assert dict(rows)["prompts"] == "required" and dict(rows)["max_new_tokens"] == "`64`"


def test_an_argument_without_a_description_is_noticed(generator):
    class Undescribed:
        """Something.

        Args:
            one: The first,
                in two lines.
        """

        def __init__(self, one, two=2):
            pass

    arguments = generator.read(Undescribed)[2]["Args"]
    assert arguments == {"one": "The first, in two lines."}
    with pytest.raises(KeyError, match="two"):
        generator.table(Undescribed, arguments)
