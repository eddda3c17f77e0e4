"""Code runs in a process of its own, and each limit holds; harmless programs, small limits."""

import asyncio
import os
import time

import pytest

from textenv.errors import ToolError
from textenv.tools import PythonRunner, run_python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the limits are those of POSIX")
RUNNER = PythonRunner(seconds=5, megabytes=200, max_output_chars=50)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print(6 * 7)", "42"),
        ("x = 1", "nothing was printed"),
        ("print('a')\n1 / 0", "a\nZeroDivisionError: division by zero"),
        ("print(", "SyntaxError: '(' was never closed"),
        ("import sys; print('a'); sys.exit('no')", "a\nno"),
        ("import sys; print(sys.argv, __name__)", "['-c'] __main__"),
        ("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))", "[]"),
        ("print('ä' * 60)", "ä" * 50),
        ("import sys; print('heard', file=sys.stderr)", "nothing was printed"),
    ],
)
def test_what_a_program_prints(code, told):
    assert RUNNER.run(code) == told


def test_a_program_has_a_folder_of_its_own_that_is_deleted():
    folder = PythonRunner().run(
        "import os\nopen('note', 'w').write('x')\nprint(os.getcwd(), os.listdir())"
    )
    path, _, files = folder.partition(" ")
    assert files == "['note']" and "textenv-" in path and not os.path.exists(path)


def test_time_on_the_clock_is_limited():
    begun = time.perf_counter()
    told = PythonRunner(seconds=0.5).run("print('a', flush=True)\nimport time\ntime.sleep(30)")
    assert told == "a\nthe program took longer than 0.5 seconds"
    assert time.perf_counter() - begun < 5


def test_time_of_the_processor_is_limited():
    code = "import resource\nprint(resource.getrlimit(resource.RLIMIT_CPU))"
    assert PythonRunner(seconds=2.5).run(code) == "(3, 3)"


def test_memory_is_limited():
    code = "x = bytearray({} << 20)\nprint(len(x) >> 20)"
    assert RUNNER.run(code.format(50)) == "50"
    assert RUNNER.run(code.format(250)) == "MemoryError"


def test_what_it_writes_is_limited():
    told = RUNNER.run("with open('big', 'w') as file:\n    file.write('x' * 5000)")
    assert told == "OSError: [Errno 27] File too large"
    assert RUNNER.run("print('x' * 5000)").startswith("x" * 50 + "\nOSError")


def test_what_it_has_started_ends_with_it():
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\n"
        "print(p.pid)"
    )
    pid = int(RUNNER.run(code))
    for _ in range(100):  # it may be dead and not yet reaped by whoever has adopted it
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    break
        except FileNotFoundError:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("it still runs")


def test_the_tool_runs_programs_at_the_same_time():
    async def several():
        return await asyncio.gather(*(run_python(f"print({i})") for i in range(4)))

    assert asyncio.run(several()) == ["0", "1", "2", "3"]


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(ToolError, match="limits of POSIX"):
        PythonRunner()
