import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agents.evaluation import perplexity
from agents.supervised.distillation import (
    distillation_loss,
    distillation_steps,
    kl_of_logits,
    what_is_lost,
)
from policies import TransformerConfig, TransformerPolicy
from textenv import load_tokenizer
from textenv.errors import VocabularyMismatchError

torch.set_num_threads(1)
VOCAB, CONTEXT = 8, 12


def policy(seed, n_embd=16, vocab_size=VOCAB, tokenizer=None):
    shape = TransformerConfig(vocab_size, CONTEXT, n_layer=1, n_head=2, n_embd=n_embd)
    made = TransformerPolicy(shape, seed=seed, tokenizer=tokenizer)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.fixture(scope="module")
def teacher():
    return policy(1, n_embd=32)


STREAM = np.random.default_rng(0).integers(0, VOCAB, 400)
WINDOWS = torch.from_numpy(STREAM[: 2 * (CONTEXT + 1)].reshape(2, -1))


def test_the_loss_is_the_kl_between_two_distributions(teacher):
    student = policy(2)
    with torch.no_grad():
        read = WINDOWS[:, :-1]
        lengths = torch.full((2,), CONTEXT)
        logits = [p.logits(p.hidden_states(read.flatten(), lengths)) for p in (teacher, student)]
    p, q = ((x / 3.0).log_softmax(-1) for x in logits)
    kl = F.kl_div(q, p, log_target=True, reduction="batchmean")
    assert distillation_loss(teacher, student, WINDOWS, 3.0).item() == pytest.approx(9 * kl.item())
    text = F.cross_entropy(logits[1], WINDOWS[:, 1:].flatten())
    both = distillation_loss(teacher, student, WINDOWS, 3.0, text_weight=0.5)
    assert both.item() == pytest.approx((9 * kl + 0.5 * text).item())


def test_ids_that_are_no_tokens_add_nothing():
    targets = torch.tensor([[1.0, 2.0, -torch.inf]])
    said = torch.tensor([[0.0, 0.5, -torch.inf]], requires_grad=True)
    kl = kl_of_logits(targets, said).sum()
    plain = kl_of_logits(targets[:, :2], said[:, :2]).sum()
    kl.backward()
    assert kl.item() == pytest.approx(plain.item()) and torch.isfinite(said.grad).all()


def test_a_teacher_teaches_itself_nothing(teacher):
    assert distillation_loss(teacher, teacher, WINDOWS, 2.0).item() == pytest.approx(0, abs=1e-6)
    lost = what_is_lost(teacher, teacher, STREAM)
    assert lost.kl == pytest.approx(0, abs=1e-6) and lost.agreement == lost.size == 1
    assert lost.teacher_perplexity == lost.student_perplexity


def test_a_student_comes_close_to_its_teacher(teacher):
    student, held_out = policy(3), np.random.default_rng(1).integers(0, VOCAB, 240)
    before = what_is_lost(teacher, student, held_out)
    teachers = [weight.clone() for weight in teacher.parameters()]
    steps = list(
        distillation_steps(
            teacher, student, STREAM, steps=120, batch_size=8, learning_rate=1e-2, seed=1
        )
    )
    after = what_is_lost(teacher, student, held_out)
    assert steps[-1].loss < 0.3 * steps[0].loss
    assert after.kl < 0.3 * before.kl and after.agreement > before.agreement
    assert after.size == before.size < 0.5
    assert all(torch.equal(a, b) for a, b in zip(teachers, teacher.parameters(), strict=True))


def test_what_is_lost_is_measured_as_perplexity_is(teacher):
    student = policy(4)
    whole = STREAM[: 3 * CONTEXT + 1]
    lost = what_is_lost(teacher, student, whole)
    assert lost.teacher_perplexity == pytest.approx(perplexity(teacher, whole), rel=1e-5)
    assert lost.student_perplexity == pytest.approx(perplexity(student, whole), rel=1e-5)


def test_what_cannot_be_distilled_is_named(teacher):
    with pytest.raises(VocabularyMismatchError, match=r"tokenizer=teacher\.tokenizer"):
        what_is_lost(teacher, policy(0, vocab_size=9), STREAM)
    spoken = [policy(0, vocab_size=257, tokenizer=load_tokenizer("bytes")) for _ in range(2)]
    what_is_lost(*spoken, STREAM)
    with pytest.raises(ValueError, match="window is 13"):
        next(distillation_steps(teacher, policy(0), STREAM, steps=1, window=13))
    with pytest.raises(ValueError, match="the text has 5 tokens"):
        what_is_lost(teacher, policy(0), STREAM[:5], window=10)
