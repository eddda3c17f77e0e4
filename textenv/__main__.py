"""The command `textenv`, also `python -m textenv`.

The command line itself is in `agents`, which needs the extra `train`. It is imported by name and
only here, so that the environment never needs it.
"""

import importlib
import importlib.util
import sys

from textenv.errors import MissingExtraError
from textenv.imports import installed, missing_extra

NEEDED = ("torch", "safetensors", "tokenizers", "rich", "tyro", "lazy_loader")


def main() -> None:
    """Run the command line, or say what is missing."""
    try:
        check_installation()
    except MissingExtraError as error:
        sys.exit(f"textenv: {error}")
    try:
        commands = importlib.import_module("agents.commands")
    except KeyboardInterrupt:
        sys.exit(130)
    commands.main()


def check_installation() -> None:
    """Make sure that the command line can be imported.

    Raises:
        MissingExtraError: A package of the extra `train` is missing, or the package `agents` that
            Python finds is another project's: `openai-agents` installs one of that name.
    """
    missing = [name for name in NEEDED if not installed(name)]
    if missing:
        raise missing_extra(", ".join(missing), extra="train", purpose="the command line")
    spec = importlib.util.find_spec("agents")
    # Read, not imported: importing a stranger's package may do anything.
    get_source = getattr(spec and spec.loader, "get_source", lambda name: None)
    if "agents.losses" not in (get_source("agents") or ""):
        raise MissingExtraError(
            f"the package `agents` that Python finds is not textenv's: {spec}. The PyPI package "
            "openai-agents installs one of that name: install textenv in a virtual environment of "
            "its own, and do not run it from a folder that holds an agents.py or agents/"
        )


if __name__ == "__main__":
    main()
