"""A learner on disk."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch.optim import Optimizer

from agents.distribution import Ranks
from agents.distribution.checkpoints import of_ranks
from agents.distribution.gathering import gathered, load_weights
from agents.distribution.optimizers import restore, written_state
from agents.distribution.rows import joined
from agents.runs.checkpoints import Checkpoints
from agents.runs.state_files import read_state, write_state
from policies import Policy
from textenv.errors import CheckpointError, VocabularyMismatchError

LEARNER, POLICY, REFERENCE = "learner", "policy", "reference"


class SavedLearner(Protocol):
    """The part of a `Learner` that is saved."""

    policy: Policy
    reference: Policy | None
    optimizer: Optimizer
    ranks: Ranks
    readers: Ranks

    def runtime_state(self) -> dict[str, Any]:
        """Everything but weights and optimiser, as arrays and plain types."""
        ...

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `runtime_state` returned."""
        ...


def save_learner(
    learner: SavedLearner,
    folder: str | Path | Checkpoints,
    runtime: dict[str, Any] | None = None,
) -> Path:
    """Write weights, optimiser, counters, generators and running episodes; whole or not at all.

    Args:
        learner: The learner to save.
        folder: Where to save, a folder of its own or the checkpoints of a run. A learner that is
            there is replaced once the new one is whole.
        runtime: An earlier `learner.runtime_state()` to save instead of the present one.

    Raises:
        NotSavedError: It cannot be written; what was there is as it was.
    """
    checkpoints = of_ranks(folder if isinstance(folder, Checkpoints) else Checkpoints(folder))
    checkpoints.save(lambda part: write_learner(learner, part, runtime))
    return checkpoints.folder


def write_learner(
    learner: SavedLearner, folder: Path, runtime: dict[str, Any] | None = None
) -> None:
    """Write the files of `save_learner` into `folder`, for a `Checkpoints.save`.

    Of several processes all call it; the first one writes, with the running episodes of all.
    """
    runtime = dict(runtime or learner.runtime_state())
    runtime["collector"] = joined(learner.readers.objects(runtime["collector"]))
    for name, network in ((POLICY, learner.policy), (REFERENCE, learner.reference)):
        if network is not None:
            with gathered(network) as plain:
                learner.ranks.by_first(partial(plain.save, folder / name))
    state = {
        "optimizer_kind": type(learner.optimizer).__name__,
        "optimizer": written_state(folder, learner.policy, learner.optimizer),
        "runtime": runtime,
    }
    learner.ranks.by_first(partial(write_state, folder, LEARNER, state))


def load_learner(learner: SavedLearner, folder: str | Path) -> None:
    """Restore a learner that was made with the same arguments as the saved one.

    If the newest checkpoint is damaged, the one before it is used.

    Raises:
        CheckpointError: Files are missing, damaged or of another learner.
        VocabularyMismatchError: It was saved with another vocabulary.

    Warns:
        DamagedCheckpointWarning: An older one was used; the message says why.
    """
    read_learner(learner, Checkpoints(folder).newest() or Path(folder))


def read_learner(learner: SavedLearner, folder: Path) -> None:
    """Restore a learner from a checkpoint that was found whole; see `load_learner`."""
    state = read_state(folder, LEARNER)
    saved = state.get("optimizer_kind")
    if saved != type(learner.optimizer).__name__:
        raise CheckpointError(
            f"the learner in {folder} was made with other arguments: its optimiser is {saved}, "
            f"this one's {type(learner.optimizer).__name__}"
        )
    load_weights(learner.policy, folder / POLICY)
    if learner.reference is not None:
        load_weights(learner.reference, folder / REFERENCE)
    try:
        restore(folder, learner.policy, learner.optimizer, state["optimizer"])
        learner.load_runtime_state(state["runtime"])
    except VocabularyMismatchError:
        raise
    except KeyError as error:
        raise CheckpointError(
            f"the learner in {folder} was made with other arguments or by another version: its "
            f"state lacks {error}"
        ) from error
    except (ValueError, TypeError, CheckpointError) as error:
        raise CheckpointError(
            f"the learner in {folder} was made with other arguments: {error}"
        ) from error
