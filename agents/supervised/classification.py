"""Training a classifier on labelled texts, with language modelling as a second goal.

Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018), section 3.2.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, TypeAlias, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from agents.evaluation.intervals import Interval, bootstrap_interval
from agents.supervised.fitting import FitOptions, FitStep, Fitting
from agents.supervised.sft import batches, steps_of
from policies.text_classifier import TextClassifier
from textenv.errors import MalformedRecordError
from textenv.records import Records, read_records, short

Label: TypeAlias = str | float
"""A name, or a number for a regression."""


@dataclass(frozen=True)
class LabelledText:
    """A text and its label.

    Attributes:
        text: The text.
        label: A name, or a number for a regression.
    """

    text: str
    label: Label

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "LabelledText":
        """From a record with a 'text' and a 'label'; whole numbers and truth values are names.

        >>> LabelledText.from_record({"text": "Fine.", "label": 1})
        LabelledText(text='Fine.', label='1')

        Raises:
            ValueError: The record has another form.
        """
        text, label = record.get("text"), record.get("label")
        if not isinstance(text, str):
            raise ValueError(f"'text' is {short(text)}; it must be a text")
        if isinstance(label, float) and not np.isfinite(label):
            raise ValueError(f"'label' is {label}; a number must be finite")
        if not isinstance(label, str | int | float):
            raise ValueError(f"'label' is {short(label)}; it must be a name or a number")
        return cls(text, label if isinstance(label, float) else str(label))


_NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")


def read_labelled(source: Records) -> list[LabelledText]:
    """The labelled texts of a file or of a dataset; see `textenv.records.read_records`.

    A table (.csv, .tsv) has texts alone: where all its labels are numbers and some have a decimal
    point, they are fractions.

    Raises:
        MalformedRecordError: Some records are not labelled texts; the first of these are listed.
    """
    examples = read_records(source, LabelledText.from_record, "labelled texts")
    labels = [example.label for example in examples]
    if all(isinstance(x, str) and _NUMBER.fullmatch(x) for x in labels) and any(
        "." in str(x) for x in labels
    ):
        return [replace(example, label=float(example.label)) for example in examples]
    return examples


def labels_of(examples: Sequence[LabelledText]) -> tuple[str, ...]:
    """The names of the labels in order; none if the labels are numbers.

    Raises:
        MalformedRecordError: There is only one name, or there are names and numbers.
    """
    names = sorted({e.label for e in examples if isinstance(e.label, str)})
    if names and any(isinstance(e.label, float) for e in examples):
        raise MalformedRecordError(
            f"some labels are names, such as {names[0]!r}, and some are fractions: give names for "
            "a classifier or fractions, such as 1.0, for a regression"
        )
    if len(names) == 1 or not examples:
        raise MalformedRecordError(
            f"all {len(examples)} texts have one label {names}: there is nothing to tell apart"
        )
    return tuple(names)


@dataclass(frozen=True)
class ClassifierStep(FitStep):
    """What one optimiser step did; `loss` is that of labels and language together.

    Attributes:
        label_loss: Cross-entropy of the labels in nats, or half the squared error.
        language_loss: Cross-entropy of the texts in nats per token; NaN if it is not learned.
    """

    label_loss: float
    language_loss: float


def classification_steps(
    model: TextClassifier,
    examples: Sequence[LabelledText],
    *,
    lm_weight: float = 0.5,
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 3e-4,
    weight_decay: float = 0.01,
    seed: int = 0,
    fitting: Fitting | None = None,
    **options: Unpack[FitOptions],
) -> Iterator[ClassifierStep]:
    """Train `model` on labelled texts, one optimiser step at a time.

        L3 = L2 + lm_weight * L1                                            (GPT-1, equation 5)

    L2 is the cross-entropy of the labels; of a regression, half the squared error. L1 is that of
    the texts' own tokens, which one pass gives too. GPT-1 takes 0.5, three epochs, batches of 32
    and a dropout of 0.1.

    Args:
        model: The model to train, head and trunk.
        examples: The data; of a classifier each label is one of the model's.
        lm_weight: Weight lambda of language modelling; 0 leaves it out.
        epochs: Passes over all examples, each in another order.
        batch_size: Texts of an optimiser step.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, applied to matrices and embeddings only.
        seed: Seed of the order, and of what is dropped.
        fitting: A `Fitting` of your own, to save its state or to continue with a loaded one; it
            takes the place of the rates and the options.
        **options: Optimiser, schedule, warm-up, clipping, number type, dropout; see `Fitting`.

    Raises:
        MalformedRecordError: There are no examples, or a label is not one of the model's.
    """
    targets = _targets(model, examples)
    rows = model.encode([example.text for example in examples])
    fitting = fitting or Fitting(
        model,
        steps=steps_of(len(examples), epochs, batch_size),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        **options,
    )
    for batch in islice(batches(len(examples), epochs, batch_size, seed), fitting.done, None):
        tokens = model.pad([rows[i] for i in batch])
        with fitting.computing():
            label_loss, language_loss = losses(model, tokens, targets[batch], lm_weight > 0)
            total = label_loss
            if language_loss is not None:
                total = total + lm_weight * language_loss
        step = fitting.step([total])
        spoken = float("nan") if language_loss is None else language_loss.item()
        yield ClassifierStep(**asdict(step), label_loss=label_loss.item(), language_loss=spoken)


def losses(
    model: TextClassifier, tokens: Tensor, targets: Tensor, language: bool
) -> tuple[Tensor, Tensor | None]:
    """L2 and L1 of a batch by one pass, scalars; L1 is None unless `language`.

    Args:
        model: The model.
        tokens: Rows of ids, shape (S, L), int64, right-padded.
        targets: Places of the labels, (S,), int64; or the numbers, (S,), float32.
        language: Whether the texts' own tokens are predicted too.
    """
    trunk = model.trunk
    lengths = (tokens != trunk.pad_token).sum(1)
    # A place more than there are tokens: "before" it lies the state of the whole text.
    wider = F.pad(tokens, (0, 1))
    places = torch.arange(wider.shape[1], device=tokens.device)
    whole = places == lengths[:, None]
    counted = ((places > 0) & (places < lengths[:, None]) & language) | whole
    hidden = trunk.hidden_before(wider, counted, lengths)
    last = whole[counted]
    scores = model.head(hidden[last]).float()
    if model.labels:
        label_loss = F.cross_entropy(scores, targets)
    else:
        label_loss = 0.5 * (scores[:, 0] - targets).square().mean()
    if not language or last.all():
        return label_loss, None
    predicted = trunk.logits(hidden[~last]).float()
    return label_loss, F.cross_entropy(predicted, wider[counted][~last])


def accuracy(model: TextClassifier, examples: Sequence[LabelledText]) -> Interval:
    """Share of the texts whose label is the likeliest one, and its 95% interval.

    Raises:
        MalformedRecordError: There are no examples.
        ValueError: The model is a regression.
    """
    if not examples:
        raise MalformedRecordError("there is no labelled text to measure the accuracy on")
    said = model.predict([example.text for example in examples])
    return bootstrap_interval(
        [float(label == e.label) for label, e in zip(said, examples, strict=True)]
    )


def correlation(model: TextClassifier, examples: Sequence[LabelledText]) -> float:
    """Pearson's correlation of a regression's numbers with the labels.

    Raises:
        ValueError: The model has labels, or there are fewer than two texts.
    """
    if len(examples) < 2:
        raise ValueError(f"a correlation of {len(examples)} numbers: two or more are needed")
    values = model.values([example.text for example in examples])
    return float(np.corrcoef(values, [float(e.label) for e in examples])[0, 1])


def _targets(model: TextClassifier, examples: Sequence[LabelledText]) -> Tensor:
    if not examples:
        raise MalformedRecordError("there is no labelled text to learn from")
    device = model.trunk.device
    if not model.labels:
        if names := [e.label for e in examples if isinstance(e.label, str)]:
            raise MalformedRecordError(
                f"the model is a regression and a label is {names[0]!r}: make it with labels"
            )
        return torch.tensor([float(e.label) for e in examples], device=device)
    place = {label: number for number, label in enumerate(model.labels)}
    if unknown := [e.label for e in examples if e.label not in place]:
        raise MalformedRecordError(
            f"the label {unknown[0]!r} is none of the model's: {', '.join(model.labels)}"
        )
    return torch.tensor([place[str(e.label)] for e in examples], device=device)
