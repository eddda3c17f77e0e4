"""Files with weights: what is read in which share."""

from collections.abc import Sequence
from pathlib import Path

from textenv.errors import OptionError


def files_and_weights(given: Sequence[Path]) -> tuple[list[Path], list[float] | None]:
    """Files, and their weights if they have any.

    Args:
        given: Paths, all of them or none with ":" and a number behind, such as a.jsonl:0.7.

    Raises:
        OptionError: Some have a weight and others have not, or one is not above 0; or a
            file is named twice.
    """
    parts = [_weighted(path) for path in given]
    paths = [path for path, _ in parts]
    if len({path.resolve() for path in paths}) < len(paths):
        raise OptionError(f"--text names a file twice: {' '.join(map(str, paths))}")
    weights = [weight for _, weight in parts if weight is not None]
    if not weights:
        return paths, None
    if len(weights) < len(parts):
        without = ", ".join(str(path) for path, weight in parts if weight is None)
        raise OptionError(f"--text {without} has no weight and other files have: give all of them")
    return paths, weights


def _weighted(path: Path) -> tuple[Path, float | None]:
    before, colon, after = str(path).rpartition(":")
    try:
        weight = float(after)
    except ValueError:
        return path, None
    if not colon or path.exists():
        return path, None
    if not 0 < weight < float("inf"):
        raise OptionError(f"--text {path}: a weight is a number above 0")
    return Path(before), weight
