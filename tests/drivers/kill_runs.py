"""Kills `textenv train` or `textenv recipe` again and again, and compares what comes of it.

    python kill_runs.py HOW KILLS FOLDER

HOW is `kill` (SIGKILL at random moments of `textenv train`), `term` (SIGTERM), `recipe` (SIGKILL at
random moments of `textenv recipe`) or `aimed` (SIGKILL before and after each system call of a save,
KILLS times each, in forks of one run; each state that they leave goes on once). A run that was
killed at random goes on and is killed again, until it gets to its end. Weights and numbers must be
those of a run that nobody has stopped, bit for bit. Random moments are drawn from a seed. Runs are
forks of this process, which has imported everything. Prints JSON.
"""

import builtins
import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils import tensorboard  # noqa: F401  # this and the next two: so that forks need not

from agents.commands import main as textenv
from agents.jobs import train  # noqa: F401
from agents.jobs.recipe import run as recipe_job  # noqa: F401
from agents.runs.checkpoints import Checkpoints
from policies import TransformerConfig, TransformerPolicy, policy_files
from textenv import load_tokenizer

TRAIN = (
    "train --prompts my.jsonl --reward my.py:vowels --policy policy --tokens 512 --rows 4 "
    "--max-new-tokens 8 --eval-answers 8 --eval-every 4 --minibatch-tokens 16 --save-every 2"
)
RECIPE = "recipe --size small --budget 0.1 --save-every 8 --out"
CALLS = ("open", "write", "fsync", "chmod", "rename", "replace", "unlink", "rmdir", "mkdir")
SAVE = 4
"""The save of a run that is aimed at: others stand beside it, and one of them is removed."""
TIMED = ("seconds", "tokens_per_second")
"""Parts of the names of numbers that no two runs share."""


def prepare(where: Path) -> None:
    """Make what `TRAIN` names, in the working folder."""
    where.mkdir(parents=True, exist_ok=True)
    os.chdir(where)
    Path("my.py").write_text(
        "def vowels(episodes):\n    return [sum(c in 'aeiou' for c in e.text) for e in episodes]\n"
    )
    prompts = (json.dumps({"prompt": f"prompt {n}"}) for n in range(50))
    Path("my.jsonl").write_text("\n".join(prompts))
    tokenizer = load_tokenizer("bytes")
    config = TransformerConfig(tokenizer.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(config, tokenizer=tokenizer).save("policy")


def forked(line: list[str], before: Callable[[], object] = lambda: None) -> int:
    """A process that runs `textenv` with this line; its output goes to the file `output`."""
    child = os.fork()
    if child:
        return child
    out = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 0
    try:
        before()
        textenv(line)
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    os._exit(code)


def ended(child: int) -> int:
    """The exit code; of a process that a signal killed minus its number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(child: int, seconds: float, number: int) -> None:
    """Send a signal once the process has computed for so long: waiting for others does not count.

    A process that ends before is let go.
    """
    while True:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z":  # ended, and not waited for yet
            return
        if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") >= seconds:
            os.kill(child, number)
            return
        time.sleep(0.002)


def runs_in(root: Path) -> list[Path]:
    """The folders of runs that have begun."""
    return sorted(path.parent for path in root.glob("*/config.json"))


def next_line(how: str, root: Path) -> list[str]:
    """What a person types next."""
    if how == "recipe":
        return [*RECIPE.split(), str(root)]
    begun = runs_in(root)
    if begun:
        return ["train", "--resume", str(begun[0])]
    return [*TRAIN.split(), "--run-folder", str(root)]


class Written:
    """A file whose writes are counted, and are in the file when they return."""

    def __init__(self, file: Any, counted: Callable[..., Any]):
        self._file = file
        self._write, self._close = counted(self._written, "write"), counted(file.close, "close")

    def _written(self, content: Any) -> int:
        written = self._file.write(content)
        self._file.flush()
        return written

    def __getattr__(self, name: str) -> Any:
        return {"write": self._write, "close": self._close}.get(name) or getattr(self._file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


def kill_at_call(number: int, after: bool) -> None:
    """From now on this process is killed at the `number`-th system call of a save that has so many.

    What kills it is noted in the file `aimed`; with 0 nothing does, and the names of the calls of
    the longest save are left in `calls.json`. safetensors writes its files outside of Python: its
    `save_file` is three calls here, before it, with half of the file, and after it.
    """
    calls: list[str] = []
    longest: list[str] = []
    saving = False
    real_begin, real_commit, real_open = Checkpoints.begin, Checkpoints.commit, io.open
    real_kill = os.kill

    def begin(self: Checkpoints) -> Path:
        nonlocal saving
        saving = True
        calls.clear()
        return real_begin(self)

    def commit(self: Checkpoints) -> Path:
        nonlocal saving, longest
        made = real_commit(self)
        saving = False
        if len(calls) > len(longest):
            longest = list(calls)
            with real_open("calls.json", "w") as file:
                json.dump(longest, file)
        return made

    def die(name: str) -> None:
        nonlocal saving
        saving = False
        with real_open("aimed", "a") as file:
            file.write(f"{'after' if after else 'before'} {name}\n")
        real_kill(os.getpid(), signal.SIGKILL)

    def counted(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if not saving:
                return real(*arguments, **options)
            calls.append(name)
            fatal = len(calls) == number
            if fatal and not after:
                die(name)
            try:
                return real(*arguments, **options)
            finally:
                if fatal and after:
                    die(name)

        return call

    def opened(*arguments: Any, **options: Any) -> Any:
        file = real_open(*arguments, **options)
        return Written(file, counted) if saving and file.writable() else file

    Checkpoints.begin, Checkpoints.commit = begin, commit  # type: ignore[method-assign]
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name), name))
    io.open = builtins.open = counted(opened, "open")
    real_save = policy_files.save_file

    def save_file(tensors: Any, path: Path) -> None:
        counted(real_save, "save_file")(tensors, path)
        counted(lambda: os.truncate(path, path.stat().st_size // 2), "half a file")()
        real_save(tensors, path)

    policy_files.save_file = save_file


def digest(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, without what depends on the clock."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not any(t in k for t in TIMED)} for row in rows]


def untimed(value: Any) -> Any:
    """A value of JSON without what depends on the clock."""
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if not any(t in k for t in TIMED)}
    return [untimed(v) for v in value] if isinstance(value, list) else value


def outcome(how: str, root: Path) -> dict[str, Any]:
    """All that a finished run has made, to be compared."""
    if how == "recipe":
        made = {str(p.relative_to(root)): digest(p) for p in root.glob("*/*/*.safetensors")}
        assert made and not list(root.rglob("*.part")) and not list(root.rglob("unfinished"))
        return made | {"results": untimed(json.loads((root / "results.json").read_text()))}
    (run,) = runs_in(root)
    assert not list(run.rglob("*.part")), list(run.rglob("*.part"))
    newest = Checkpoints(run / "checkpoint").newest()
    assert newest == run / "checkpoint"
    made = {str(p.relative_to(newest)): digest(p) for p in newest.rglob("*.safetensors")}
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return made | {
        "learner.json": digest(newest / "learner.json"),
        "metrics": rows_of(run / "metrics.csv"),
        "evaluations": rows_of(run / "evaluations.csv"),
        "samples": (run / "samples.jsonl").read_text(),
        "result": untimed(json.loads((run / "result.json").read_text())),
        "tensorboard": [(e.step, e.value) for e in events.Scalars("policy/entropy")],
        "tensorboard, evaluations": [(e.step, e.value) for e in events.Scalars("score/evaluation")],
    }


def main(how: str, kills: int, where: Path) -> None:
    """Kill as often, and let the last run get to its end."""
    prepare(where)
    if how == "recipe":
        from agents.jobs.recipe.languages import english

        english()
    whole = Path("whole").resolve()
    expected, duration = None, 0.0
    for _ in range(2):  # the first one also fills caches
        shutil.rmtree(whole, ignore_errors=True)
        _, status, used = os.wait4(forked(next_line(how, whole)), 0)
        assert status == 0, Path("output").read_text()[-3000:]
        duration = used.ru_utime + used.ru_stime
        made = outcome(how, whole)
        assert expected in (None, made)
        expected = made
    told: dict[str, Any] = {"how": how, "kills": 0, "runs": 0, "seconds": round(duration, 2)}
    codes: Counter[str] = Counter()
    if how == "aimed":
        print(json.dumps(told | aimed(kills, expected or {})))
        return
    blow = at_random(how, duration)
    while told["kills"] < kills:
        root = Path("run").resolve()
        shutil.rmtree(root, ignore_errors=True)
        for _ in range(1000):
            line = next_line(how, root)
            code = blow(line) if told["kills"] < kills else ended(forked(line))
            codes[str(code)] += 1
            if code == 0:
                break
            assert code in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM), Path(
                "output"
            ).read_text()[-3000:]
            told["kills"] += 1
        else:
            raise AssertionError("the run never gets to its end")
        assert outcome(how, root) == expected, f"run {told}"
        told["runs"] += 1
        print(json.dumps(told | {"codes": codes}), file=sys.stderr, flush=True)
    print(json.dumps(told | {"codes": codes}))


Blow = Callable[[list[str]], int]
"""Runs `textenv` with a line and kills it, unless it ends before; gives its exit code."""


def at_random(how: str, duration: float) -> Blow:
    """Kills at moments of a seed, which all its calls share."""
    chance = random.Random(0)

    def blow(line: list[str]) -> int:
        child = forked(line)
        number = signal.SIGTERM if how == "term" else signal.SIGKILL
        kill_at(child, chance.random() * duration, number)
        return ended(child)

    return blow


def tree(folder: Path) -> str:
    """A digest of all files in a folder, their names and contents."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"{path.relative_to(folder)} {path.is_dir()}".encode())
        if path.is_file():
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def put(source: Path, place: Path) -> None:
    """A copy of a folder in place of another one."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place)


def end_with_save() -> None:
    """From now on this process ends when a save is whole."""
    real = Checkpoints.commit

    def commit(self: Checkpoints) -> Path:
        real(self)
        os._exit(0)

    Checkpoints.commit = commit  # type: ignore[method-assign]


def kill_in_forks(times: int, root: Path) -> None:
    """At one save of this process, have a fork of it killed at each of the save's calls.

    Every fork finds the folder as it is now. What each leaves goes to `left`, once if it is what
    another one has left; then this process ends.
    """
    count, real_begin = 0, Checkpoints.begin
    now, left = Path("now").resolve(), Path("left").resolve()

    def begin(self: Checkpoints) -> Path:
        nonlocal count
        count += 1
        if count < SAVE:
            return real_begin(self)
        Checkpoints.begin = real_begin  # type: ignore[method-assign]
        put(root, now)
        aims = [(0, False)]
        while aims:
            number, after = aims.pop(0)
            put(now, root)
            if (child := os.fork()) == 0:
                kill_at_call(number, after)
                end_with_save()
                return Checkpoints.begin(self)
            code = ended(child)
            if number == 0:
                assert code == 0
                calls = range(1, len(json.loads(Path("calls.json").read_text())) + 1)
                aims = [(n, after) for n in calls for after in (False, True)] * times
                continue
            assert code == -signal.SIGKILL, code
            if not (place := left / tree(root)).exists():
                shutil.copytree(root, place)
        os._exit(0)

    Checkpoints.begin = begin  # type: ignore[method-assign]


def aimed(times: int, expected: dict[str, Any]) -> dict[str, Any]:
    """Kill before and after each call of a save, so many times, and go on with all that is left."""
    root = Path("run").resolve()
    assert ended(forked(next_line("aimed", root), partial(kill_in_forks, times, root))) == 0
    kinds = sorted(Path("left").iterdir())
    for number, kind in enumerate(kinds, start=1):
        put(kind, root)
        assert ended(forked(next_line("aimed", root))) == 0, Path("output").read_text()[-3000:]
        assert outcome("aimed", root) == expected, kind
        print(f"{number} of {len(kinds)}", file=sys.stderr, flush=True)
    calls = Counter(Path("aimed").read_text().splitlines())
    return {"kills": calls.total(), "runs": len(kinds), "calls": calls}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
