"""`textenv distil`: from a teacher to a student, stopped and resumed, and its mistakes."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from command_line import run_command

from agents.supervised import Fitting
from agents.trainer import Trainer
from policies import TransformerConfig, TransformerPolicy, load_policy
from textenv.tokenizers import BytesTokenizer

SMALL = "--n-layer 1 --n-head 2 --n-embd 8 --rows 8 --max-new-tokens 8 --minibatch-tokens 64"
LENGTH = "--tokens 640 --batch-size 4 --window 16 --own-tokens 240"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A teacher that says mostly vowels, a text and prompts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    teacher = TransformerPolicy(TransformerConfig(257, 32, 1, 2, 32), tokenizer=BytesTokenizer())
    with torch.no_grad():
        teacher.transformer.token_embedding.weight.mul_(4)
    teacher.save("teacher")
    Path("text.txt").write_text("the cat sat on the mat. " * 40)
    Path("prompts.txt").write_text("the cat\nthe dog\na mat\n")
    return tmp_path


def distil(*more, text=True, prompts=True, length=LENGTH):
    words = ["--teacher", "teacher", *SMALL.split(), *length.split()]
    words += ["--text", "text.txt"] * text + ["--prompts", "prompts.txt"] * prompts
    return run_command("distil", *words, *more)


def test_a_student_learns_and_both_are_compared(folder):
    longer = "--tokens 2000 --batch-size 4 --window 16 --own-tokens 2000 --learning-rate 1e-2"
    made = distil("--out", "student", length=longer)
    assert made.exit_code == 0, made.output
    numbers = json.loads(Path("student/distillation.json").read_text())
    student, teacher = load_policy("student"), load_policy("teacher")
    counts = {"teacher": teacher, "student": student}
    counts = {name: sum(p.numel() for p in policy.parameters()) for name, policy in counts.items()}
    assert numbers["parameters"] == counts
    assert numbers["bytes"] == {name: 4 * count for name, count in counts.items()}
    assert numbers["divergence"]["last"] < numbers["divergence"]["first"]
    assert all(rate > 0 for of in numbers["tokens_per_second"].values() for rate in of.values())
    assert "student to teacher" in made.output and f"{counts['student']:,}" in made.output
    assert student.tokenizer.fingerprint == teacher.tokenizer.fingerprint
    assert not Path("student/checkpoint").exists()
    # A student may be taught further.
    again = distil("--out", "more", "--student", "student", text=False)
    assert again.exit_code == 0, again.output
    assert json.loads(Path("more/distillation.json").read_text())["perplexity"] is None


@pytest.mark.parametrize("number", [3, 12])
def test_a_signal_saves_and_the_same_command_goes_on(folder, monkeypatch, number):
    """In the text, which has ten steps, and in the answers."""
    assert distil("--out", "whole").exit_code == 0
    count = [0]

    def counted(real):
        def step(*arguments, **options):
            count[0] += 1
            if count[0] == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "step", counted(Fitting.step))
        patch.setattr(Trainer, "learn_from", counted(Trainer.learn_from))
        stopped = distil("--out", "part")
    assert stopped.exit_code == 128 + signal.SIGTERM, stopped.output
    assert "The same command goes on" in stopped.output
    assert not list(Path("part").rglob("reference"))  # the teacher is not copied
    other = distil("--out", "part", "--beta", "0.1")
    assert other.exit_code == 1 and "--beta 0.5" in other.output
    again = distil("--out", "part")
    assert again.exit_code == 0, again.output
    where = "step 3 of 10" if number == 3 else "update 2 on its own answers"
    assert f"Going on after {where}" in again.output
    first, second = (load_policy(name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_mistakes_are_named(folder):
    nothing = distil("--out", "x", text=False, prompts=False)
    assert nothing.exit_code == 2 and "give --text, --prompts or both" in nothing.output
    short = distil("--out", "x", "--held-out", "0.01")
    assert short.exit_code == 1 and "make --window smaller, or take --held-out 0" in short.output
    wide = distil("--out", "x", "--window", "33")
    assert wide.exit_code == 2 and "--window 33 is more than a context, 32" in wide.output
    uneven = distil("--out", "x", "--n-head", "3")
    assert uneven.exit_code == 2 and "does not divide" in uneven.output
    shape = TransformerConfig(5, 32, 1, 2, 8)
    TransformerPolicy(shape).save("other")
    other = distil("--out", "x", "--student", "other")
    assert other.exit_code == 1 and "different vocabularies" in other.output
