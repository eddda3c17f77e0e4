"""Kills `textenv train` or `textenv recipe` again and again, and compares what comes of it.

    python kill_runs.py HOW KILLS FOLDER

HOW is `kill` (SIGKILL at random moments of `textenv train`), `term` (SIGTERM), `aimed` (SIGKILL
before or after a random system call of a save) or `recipe` (SIGKILL at random moments of `textenv
recipe`). A run that was killed goes on and is killed again, until it gets to its end; then its
weights and numbers must be those of a run that nobody has stopped, bit for bit. The moments are
drawn from a seed. Runs are forks of this process, which has imported everything. Prints JSON.
"""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils import tensorboard  # noqa: F401  # this and the next two: so that forks need not

from agents.commands import main as textenv
from agents.jobs import train  # noqa: F401
from agents.jobs.recipe import run as recipe_job  # noqa: F401
from agents.runs.checkpoints import Checkpoints
from policies import TransformerConfig, TransformerPolicy
from textenv import load_tokenizer

TRAIN = (
    "train --prompts my.jsonl --reward my.py:vowels --policy policy --tokens 512 --rows 4 "
    "--max-new-tokens 8 --eval-answers 8 --eval-every 4 --minibatch-tokens 16 --save-every 2"
)
RECIPE = "recipe --size small --budget 0.1 --save-every 8 --out"
CALLS = ("fsync", "rename", "unlink", "rmdir", "mkdir", "open", "replace")
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


def kill_at_call(number: int, after: bool) -> None:
    """From now on this process is killed at the `number`-th system call of a save."""
    count, saving = 0, 0
    real_begin, real_commit = Checkpoints.begin, Checkpoints.commit

    def begin(self):
        nonlocal saving
        saving += 1
        return real_begin(self)

    def commit(self):
        nonlocal saving
        made = real_commit(self)
        saving -= 1
        return made

    def counted(real):
        def call(*arguments, **options):
            nonlocal count
            count += saving > 0
            fatal = saving > 0 and count == number
            if fatal and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*arguments, **options)
            finally:
                if fatal and after:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    Checkpoints.begin, Checkpoints.commit = begin, commit
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


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
    """Kill until there were as many kills, and the last run is at its end."""
    prepare(where)
    if how == "recipe":
        from agents.jobs.recipe.languages import english

        english()
    chance = random.Random(0)
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
    codes: dict[str, int] = {}
    while told["kills"] < kills:
        root = Path("run").resolve()
        shutil.rmtree(root, ignore_errors=True)
        for _ in range(1000):
            line = next_line(how, root)
            last = told["kills"] >= kills
            if how == "aimed" and not last:
                number, after = chance.randrange(1, 250), chance.random() < 0.5
                code = ended(forked(line, lambda n=number, a=after: kill_at_call(n, a)))
            else:
                child = forked(line)
                if not last:
                    number = signal.SIGTERM if how == "term" else signal.SIGKILL
                    kill_at(child, chance.random() * duration, number)
                code = ended(child)
            codes[str(code)] = codes.get(str(code), 0) + 1
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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
