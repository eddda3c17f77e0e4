"""The command line: one file of options a command, put together here.

What a command does is in `agents.jobs`, which is imported when it runs: help never waits for torch.
"""

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import textenv
from agents.commands import train
from agents.commands.agreement import AgreementSettings
from agents.commands.chat import ChatSettings
from agents.commands.classifier import ClassifierSettings
from agents.commands.data import DataSettings
from agents.commands.demonstrate import DemonstrateSettings
from agents.commands.distil import DistilSettings
from agents.commands.dpo import DPOSettings
from agents.commands.errors import errors_as_messages
from agents.commands.evaluate import EvaluateSettings
from agents.commands.harness import HarnessSettings
from agents.commands.instruct import InstructSettings
from agents.commands.live import LiveSettings
from agents.commands.online import OnlineSettings
from agents.commands.options import choices, title_of
from agents.commands.parsing import parse, to_flat
from agents.commands.preferences import PreferencesSettings
from agents.commands.pretrain import PretrainSettings
from agents.commands.recipe import RecipeSettings
from agents.commands.revise import ReviseSettings
from agents.commands.reward_model import RewardModelSettings
from agents.commands.sft import SFTSettings
from agents.runs.signals import handled, raise_stopped
from textenv.errors import ObjectNotFoundError, OptionError


class Command(NamedTuple):
    """A command.

    Attributes:
        settings: The dataclass of its options.
        module: What runs it: the function `run` of this module takes the settings.
        complete: What follows from the names that are set; see `parse`.
        resumes: Whether `run` also takes the names of the options that were given, since a run that
            is resumed keeps the others.
        spreads: Whether several processes, started by `torchrun`, share its work.
    """

    settings: type
    module: str
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict
    resumes: bool = False
    spreads: bool = False


# In the order of the recipe.
COMMANDS = {
    "data": Command(DataSettings, "agents.jobs.data"),
    "pretrain": Command(PretrainSettings, "agents.jobs.pretrain", spreads=True),
    "sft": Command(SFTSettings, "agents.jobs.sft", spreads=True),
    "demonstrate": Command(DemonstrateSettings, "agents.jobs.demonstrate"),
    "instruct": Command(InstructSettings, "agents.jobs.instruct"),
    "revise": Command(ReviseSettings, "agents.jobs.revise"),
    "preferences": Command(PreferencesSettings, "agents.jobs.preferences"),
    "agreement": Command(AgreementSettings, "agents.jobs.agreement"),
    "reward-model": Command(RewardModelSettings, "agents.jobs.reward_model", spreads=True),
    "dpo": Command(DPOSettings, "agents.jobs.dpo", spreads=True),
    "distil": Command(DistilSettings, "agents.jobs.distil"),
    "classifier": Command(ClassifierSettings, "agents.jobs.classifier"),
    "train": Command(train.TrainSettings, "agents.jobs.train", train.complete, True, spreads=True),
    "live": Command(LiveSettings, "agents.jobs.live"),
    "online": Command(OnlineSettings, "agents.jobs.online"),
    "eval": Command(EvaluateSettings, "agents.jobs.evaluate"),
    "harness": Command(HarnessSettings, "agents.jobs.harness"),
    "chat": Command(ChatSettings, "agents.jobs.chat"),
    "recipe": Command(RecipeSettings, "agents.jobs.recipe.run"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: What follows `textenv`; those of the process if None.

    Raises:
        SystemExit: With the exit code.
    """
    line = list(sys.argv[1:] if arguments is None else arguments)
    if not line or line[0] in ("-h", "--help"):
        print(overview())
        return
    if line[0] == "--version":
        print(f"textenv {textenv.__version__}")
        return
    with errors_as_messages("--debug" in line), handled(raise_stopped, signal.SIGTERM):
        name, *rest = line
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            known = choices(COMMANDS)
            raise OptionError(f"there is no command {name!r}: {hint}There are {known}")
        command = COMMANDS[name]
        _check_processes(name)
        settings: Any
        settings, given = parse(command.settings, rest, f"textenv {name}", command.complete)
        run = importlib.import_module(command.module).run
        with _in_processes(), _options_named(settings):
            run(settings, given) if command.resumes else run(settings)


@contextmanager
def _options_named(settings: Any) -> Iterator[None]:
    """Add the option to an error about a function that it names: several may name one."""
    try:
        yield
    except ObjectNotFoundError as error:
        for name, value in to_flat(settings).items():
            if error.spec and error.spec in (value if isinstance(value, list) else [value]):
                error.add_note(f"It is named by --{name.replace('_', '-')}.")
        raise


def _check_processes(name: str) -> None:
    """Refuse to do the same work in each of several processes, as if there were no others.

    Raises:
        OptionError: torchrun started several, and the command does not share its work.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count == "1" or COMMANDS[name].spreads:
        return
    sharing = ", ".join(name for name, command in COMMANDS.items() if command.spreads)
    raise OptionError(
        f"torchrun started {count} processes, and textenv {name} does not share its work among "
        "them: each would do all of it, unaware of the others. Run it without torchrun"
        + (f"; commands that share their work are {sharing}" if sharing else "")
    )


def _in_processes() -> AbstractContextManager[None]:
    """Within it the processes that torchrun started know each other; nothing without them."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext()
    from agents.distribution.launch import joined  # only now: it imports torch

    return joined()


def overview() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{title_of(c.settings)}" for name, c in COMMANDS.items()]
    return "\n".join(
        [
            "usage: textenv COMMAND [OPTIONS]",
            "",
            "Reinforcement learning on text.",
            "",
            *lines,
            "",
            "textenv COMMAND --help says more; textenv --version prints the version.",
        ]
    )
