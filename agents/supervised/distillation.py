"""Teacher to student: a small network learns what a large one says of the next token.

    loss = T^2 mean over tokens of KL(teacher / T || student / T) + weight * cross-entropy

The teacher's whole distribution tells more than the one token that came (Hinton et al., "Distilling
the Knowledge in a Neural Network", 2015; Sanh et al., "DistilBERT", 2019). T^2 keeps the gradient's
size as the temperature rises. Both read the same vocabulary. Left out: hidden states and attention
as targets. On answers that the student writes itself, `agents.algorithms.distillation` trains.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from agents.supervised.fitting import FitOptions, FitStep, Fitting
from agents.supervised.token_stream import random_windows
from policies import Policy
from textenv.errors import VocabularyMismatchError


def distillation_steps(
    teacher: Policy,
    student: Policy,
    stream: NDArray[np.integer],
    *,
    steps: int,
    window: int | None = None,
    batch_size: int = 16,
    temperature: float = 2.0,
    text_weight: float = 0.0,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
    fitting: Fitting | None = None,
    **options: Unpack[FitOptions],
) -> Iterator[FitStep]:
    """Train `student` to predict as `teacher` does, on random windows of a text.

    Args:
        teacher: The policy to learn from; it takes no gradient.
        student: The policy to train.
        stream: Ids of the text, shape (N,), any integer type.
        steps: Optimiser steps.
        window: Tokens read at a time; the shorter context of the two if None.
        batch_size: Windows of a step.
        temperature: T, by which both sides' logits are divided.
        text_weight: Weight of the cross-entropy of the text itself.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, applied to matrices and embeddings only.
        seed: Seed of the windows, and of what is dropped; a step's windows depend on the seed and
            the step's number alone.
        fitting: A `Fitting` of your own, to save its state or to continue with a loaded one; it
            takes the place of `learning_rate`, `weight_decay` and `options`.
        **options: Optimiser, schedule, warm-up, clipping, number type, dropout; see `Fitting`.

    Raises:
        VocabularyMismatchError: The two have different vocabularies.
        ValueError: The window is longer than a context or the text.
    """
    check_vocabularies(teacher, student)
    width = window or min(teacher.context, student.context, len(stream) - 1)
    if not 1 <= width <= min(teacher.context, student.context, len(stream) - 1):
        raise ValueError(
            f"window is {width}; the contexts are {teacher.context} and {student.context}, the "
            f"text has {len(stream)} tokens"
        )
    fitting = fitting or Fitting(
        student,
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        **options,
    )
    while fitting.done < steps:
        # A generator for each step: a run that is resumed draws the same windows.
        generator = np.random.default_rng([seed, fitting.done])
        windows = torch.from_numpy(random_windows(stream, generator, batch_size, width))
        yield fitting.step(
            distillation_loss(teacher, student, some, temperature, text_weight)
            for some in [windows]
        )


def distillation_loss(
    teacher: Policy, student: Policy, windows: Tensor, temperature: float, text_weight: float = 0.0
) -> Tensor:
    """The loss on windows (B, W + 1), int64; with gradient for the student alone."""
    with torch.no_grad():
        targets = _logits(teacher, windows)
    said = _logits(student, windows)
    kl = kl_of_logits(targets / temperature, said / temperature)
    loss = temperature**2 * kl.mean()
    if text_weight:
        following = windows[:, 1:].flatten().to(said.device)
        loss = loss + text_weight * F.cross_entropy(said, following)
    return loss


def kl_of_logits(targets: Tensor, said: Tensor) -> Tensor:
    """KL(targets || said) of distributions given by logits (N, V), shape (N,)."""
    log_p, log_q = targets.log_softmax(-1), said.log_softmax(-1)
    # 0 log 0 = 0 at ids that stand for no token.
    gap = torch.where(log_p == -torch.inf, 0.0, log_p - log_q)
    return (log_p.exp() * gap).sum(-1)


def generalised_jsd(said: Tensor, targets: Tensor, beta: float) -> Tensor:
    """The generalised Jensen-Shannon divergence of distributions given by logits (N, V), in nats.

        D = beta KL(p || m) + (1 - beta) KL(q || m),    m = beta p + (1 - beta) q

    with p of `targets` and q of `said`; KL(p || q) at beta 0 and KL(q || p) at beta 1, which are
    the limits of D / beta and of D / (1 - beta). Agarwal et al., "On-Policy Distillation of
    Language Models" (2023), arXiv:2306.13649, equation 1.

    Args:
        said: Logits of the student, (N, V), finite: ids that cannot be chosen have -1e9.
        targets: Logits of the teacher, the same.
        beta: From 0 to 1.

    Returns:
        (N,), at least 0, at most the entropy of a coin of bias beta where beta is within 0 and 1.
    """
    log_q, log_p = said.log_softmax(-1), targets.log_softmax(-1)
    if beta == 0:
        return _kl(log_p, log_q)
    if beta == 1:
        return _kl(log_q, log_p)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


class Lost(NamedTuple):
    """What a student lost against its teacher, on text that neither was trained on.

    Attributes:
        teacher_perplexity: Perplexity of the text under the teacher.
        student_perplexity: The same under the student.
        kl: KL(teacher || student) of the next token, in nats.
        agreement: Share of the places where both find the same token likeliest.
        size: Weights of the student, as a share of the teacher's.
    """

    teacher_perplexity: float
    student_perplexity: float
    kl: float
    agreement: float
    size: float


@torch.no_grad()
def what_is_lost(
    teacher: Policy, student: Policy, stream: NDArray[np.integer], window: int | None = None
) -> Lost:
    """Compare a student with its teacher on held-out text, in windows laid end to end.

    Raises:
        VocabularyMismatchError: The two have different vocabularies.
        ValueError: The text is shorter than a window.
    """
    check_vocabularies(teacher, student)
    width = window or min(teacher.context, student.context, len(stream) - 1)
    count = (len(stream) - 1) // width
    if count < 1:
        raise ValueError(
            f"the text has {len(stream)} tokens; a window and one more are {width + 1}"
        )
    sums, places = torch.zeros(4, dtype=torch.float64), 0
    for begin in range(count):
        piece = np.asarray(stream[begin * width : (begin + 1) * width + 1], dtype=np.int64)
        windows = torch.from_numpy(piece)[None]
        one, two = _logits(teacher, windows), _logits(student, windows)
        following = windows[0, 1:].to(one.device)
        sums += torch.stack(
            [
                F.cross_entropy(one, following, reduction="sum"),
                F.cross_entropy(two, following, reduction="sum"),
                kl_of_logits(one, two).sum(),
                (one.argmax(-1) == two.argmax(-1)).sum(),
            ]
        ).cpu()
        places += width
    first, second, kl, same = (sums / places).tolist()
    size = _weights(student) / _weights(teacher)
    return Lost(float(np.exp(first)), float(np.exp(second)), kl, same, size)


def _logits(policy: Policy, windows: Tensor) -> Tensor:
    """Logits behind all tokens but each window's last, shape (B * W, V)."""
    read = windows[:, :-1].to(policy.device)
    lengths = torch.full((len(read),), read.shape[1], device=policy.device)
    return policy.choices(policy.hidden_states(read.flatten(), lengths))


def check_vocabularies(teacher: Policy, student: Policy) -> None:
    """Refuse two policies whose distributions cannot be compared.

    Raises:
        VocabularyMismatchError: They have different vocabularies.
    """
    prints = [getattr(policy.tokenizer, "fingerprint", None) for policy in (teacher, student)]
    if teacher.vocab_size != student.vocab_size or (None not in prints and prints[0] != prints[1]):
        raise VocabularyMismatchError(
            "teacher and student have different vocabularies: there is no KL between them; make "
            "the student with tokenizer=teacher.tokenizer"
        )


def _weights(policy: Policy) -> int:
    return sum(weight.numel() for weight in policy.parameters())
