"""The job of `textenv classifier`: a classifier, or a regression, from labelled texts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from agents.commands.classifier import ClassifierSettings, Task
from agents.evaluation.intervals import bootstrap_interval
from agents.jobs.begin import begin_training
from agents.jobs.fit import fit_arguments
from agents.jobs.going_on import CHECKPOINT, unfinished
from agents.jobs.holding_out import hold_out
from agents.runs.stages import Stages
from agents.supervised import (
    Fitting,
    LabelledText,
    accuracy,
    classification_steps,
    correlation,
    labels_of,
    read_labelled,
)
from agents.supervised.sft import steps_of
from policies import TextClassifier
from textenv.errors import MalformedRecordError
from textenv.records import read_files


def run(settings: ClassifierSettings) -> None:
    """Train, examine and save the classifier.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, training, machine = settings.task, settings.training, settings.machine
    work = unfinished(task.out / CHECKPOINT, settings, settings.saving, console)
    (learned, kept, labels), policy = begin_training(
        task, machine, lambda: _split(task, machine.seed)
    )
    model = TextClassifier(policy, labels, machine.seed)
    total = steps_of(len(learned), training.epochs, training.batch_size)
    fitting = Fitting(
        model,
        steps=total,
        precision=getattr(torch, machine.precision),
        seed=machine.seed,
        **fit_arguments(training),
    )
    with (
        Stages(console).bar("Classifier", total, "steps") as advance,
        work.saving(fitting) as saving,
    ):
        for step in classification_steps(
            model,
            learned,
            lm_weight=training.lm_weight,
            epochs=training.epochs,
            batch_size=training.batch_size,
            seed=machine.seed,
            fitting=fitting,
        ):
            advance(step.number, f"label loss {step.label_loss:.3f}")
            saving.after(step.number)
        saving.finish()
    model.save(task.out)
    work.finished()
    if labels:
        usual = Counter(e.label for e in learned).most_common(1)[0][0]
        share = np.mean([e.label == usual for e in kept])
        console.print(f"Accuracy on {len(kept)} held-out texts: {accuracy(model, kept)}")
        console.print(f"Always saying {usual!r}: {share:.3f}", markup=False)
        console.print(label_table(model, kept))
    elif len(kept) > 1:
        found = correlation(model, kept)
        console.print(f"Correlation on {len(kept)} held-out texts: {found:.3f}")
    console.print(f"Classifier: {task.out}", soft_wrap=True)


def _split(task: Task, seed: int) -> tuple[list[LabelledText], list[LabelledText], tuple[str, ...]]:
    """Texts to learn from, held-out ones, and the labels; none of a regression.

    Raises:
        MalformedRecordError: A file cannot be read, or a label has no text to learn from.
    """
    kept, learned = hold_out(
        read_files(task.texts, read_labelled),
        lambda example: example.text,
        lambda different: max(round(task.held_out * different), 1),
        np.random.default_rng(seed),
    )
    labels = labels_of(learned)
    if unknown := {e.label for e in kept if labels} - set(labels):
        raise MalformedRecordError(
            f"all texts with the label {min(map(str, unknown))!r} were held out: give more of "
            "them, or leave them out"
        )
    return learned, kept, labels


def label_table(model: TextClassifier, examples: Sequence[LabelledText]) -> Table:
    """For each label the share of its texts that are found, and of those named so that have it."""
    said = model.predict([example.text for example in examples])
    table = Table(title="By label, on held-out texts", title_justify="left")
    table.add_column("label")
    for name in ("texts", "recall", "precision"):
        table.add_column(name, justify="right")
    for label in model.labels:
        found = [
            float(one == label) for one, e in zip(said, examples, strict=True) if e.label == label
        ]
        right = [
            float(e.label == label) for one, e in zip(said, examples, strict=True) if one == label
        ]
        shares = [str(bootstrap_interval(x)) if x else "" for x in (found, right)]
        table.add_row(label, str(len(found)), *shares)
    return table
