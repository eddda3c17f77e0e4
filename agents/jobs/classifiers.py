"""The classifiers that the options of a command name."""

from pathlib import Path

from agents.commands.shared import OwnClassifier
from agents.evaluation.safety import ToxicityClassifier
from agents.jobs.machine import device_named
from policies import LabelScore, TextClassifier
from textenv.errors import InvalidRewardError, OptionError


def label_score(folder: str | Path, label: str | None, device: str = "cpu") -> LabelScore:
    """What the classifier in a folder says of a label.

    Raises:
        CheckpointError: The folder holds no classifier.
        OptionError: It has no such label.
    """
    classifier = TextClassifier.load(folder).to(device_named(device))
    try:
        return LabelScore(classifier, label)
    except InvalidRewardError as error:
        raise OptionError(f"the classifier in {folder}: {error}") from error


def own_classifier(options: OwnClassifier, device: str = "cpu") -> ToxicityClassifier | None:
    """What `--classifier` says of texts; None if it was not given.

    Raises:
        CheckpointError: The folder holds no classifier.
        OptionError: It has no label `--toxic-label`.
    """
    if options.classifier is None:
        return None
    return label_score(options.classifier, options.toxic_label, device).of_texts
