"""Running a command of `textenv` within the test's process."""

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from agents.commands import main


@dataclass
class Ran:
    """What a command did: its exit code, what it printed, and the exception that ended it."""

    exit_code: int
    output: str
    exception: BaseException | None = None


def run_command(*arguments: object, typed: str = "") -> Ran:
    """`textenv ARGUMENTS`, with `typed` on its input."""
    printed = io.StringIO()
    ran = Ran(0, "")
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        mock.patch.object(sys, "stdin", io.StringIO(typed)),
    ):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            ran.exit_code, ran.exception = int(error.code or 0), error
        except BaseException as error:
            ran.exit_code, ran.exception = 1, error
    ran.output = printed.getvalue()
    return ran
