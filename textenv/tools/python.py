"""Runs Python that a model has written, in a process of its own with limits.

This is NOT a sandbox. The process may read and write whatever the user who runs the training may,
open connections and start further processes. The limits keep a mistake from taking the machine's
time or memory; they do not keep a model from doing harm. Run it in a container or a virtual machine
where that matters.

The limits are those of POSIX; on other systems it refuses to run.
"""

import asyncio
import math
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import IO

from textenv.errors import ToolError

# The child sets its own limits before it reads the code, since code that runs between fork and exec
# is not safe in a process with threads.
_CHILD = """
import resource, sys
seconds, size, written = map(int, sys.argv[1:4])
for what, limit in (
    (resource.RLIMIT_CPU, seconds),
    (resource.RLIMIT_AS, size),
    (resource.RLIMIT_FSIZE, written),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(what, (limit, limit))
code = sys.stdin.read()
sys.argv[1:] = []
exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
"""


class PythonRunner:
    """Runs a program and returns what it prints; its method `run_python` is the tool.

    The process has Python's isolated mode, no environment variables, a folder of its own that is
    deleted, and the limits below. As many programs run at once as the machine has processors, and a
    few more.

    Args:
        seconds: Time that a program may take, of the clock and of the processor.
        megabytes: Memory that it may ask for; Python itself takes 20 to 30.
        max_output_chars: Characters of what it prints that are read.

    Raises:
        ToolError: This system has no such limits.
    """

    def __init__(
        self, *, seconds: float = 5.0, megabytes: int = 512, max_output_chars: int = 10_000
    ):
        if os.name != "posix":
            raise ToolError("Python code is run with limits of POSIX, which this system lacks")
        self.seconds, self.megabytes, self.max_output_chars = seconds, megabytes, max_output_chars

    async def run_python(self, code: str) -> str:
        """Run a Python program and read what it prints.

        Args:
            code: The program. Only what it prints is returned.

        Returns:
            What it printed, and the error that ended it, if one did.
        """
        return await asyncio.to_thread(self.run, code)

    def run(self, code: str) -> str:
        """The same for callers that wait."""
        # Files and no pipes, so that the limit on files bounds what is printed too.
        with (
            tempfile.TemporaryDirectory(prefix="textenv-") as folder,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            ended = self._run(code, folder, output, errors)
            printed = _beginning(output, self.max_output_chars)
        return "\n".join(filter(None, (printed, ended))) or "nothing was printed"

    def _run(self, code: str, folder: str, output: IO[bytes], errors: IO[bytes]) -> str:
        """Run it; says what ended it, unless it came to its end."""
        written = 4 * self.max_output_chars + 4096
        limits = (math.ceil(self.seconds), self.megabytes << 20, written)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", "-c", _CHILD, *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            process.communicate(code.encode(errors="replace"), timeout=self.seconds)
        except subprocess.TimeoutExpired:
            return f"the program took longer than {self.seconds:g} seconds"
        finally:
            with suppress(ProcessLookupError):  # the program, and whatever it has started
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        if process.returncode < 0:
            return f"the program was ended by {signal.Signals(-process.returncode).name}"
        traceback = _beginning(errors, written) if process.returncode else ""
        return traceback.rpartition("\n")[2]


def _beginning(file: IO[bytes], characters: int) -> str:
    file.seek(0)
    return file.read(4 * characters).decode(errors="replace")[:characters].strip()


async def run_python(code: str) -> str:
    """Run a Python program and read what it prints.

    Args:
        code: The program. Only what it prints is returned.

    Returns:
        What it printed, and the error that ended it, if one did.
    """
    return await PythonRunner().run_python(code)
