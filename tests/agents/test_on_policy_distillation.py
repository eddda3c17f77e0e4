"""Students of a teacher whose law is known: gradients over all answers, TRL's formula, the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exact_gradients import ANSWERS, MASK, OPTIONS, POLICY, REFERENCE, TOKENS, flat_gradient
from toys import letters_env

from agents import GKD, Collector, Learner, OnPolicyDistillation, Rollout, Trainer
from agents.optimisation.distilling import divergences
from agents.supervised.distillation import generalised_jsd, kl_of_logits
from policies import TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import OptionError, UnmetNeedError, VocabularyMismatchError

torch.set_num_threads(1)
BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)


# ---------------------------------------------------------------- the divergence


@pytest.mark.parametrize("beta", BETAS)
def test_the_divergence_is_trls(beta):
    gkd = pytest.importorskip("trl.experimental.gkd")
    generator = torch.Generator().manual_seed(0)
    said, targets = (3 * torch.randn(2, 5, 7, generator=generator) for _ in range(2))
    theirs = gkd.GKDTrainer.generalized_jsd_loss(said, targets, beta=beta, reduction="none")
    ours = generalised_jsd(said, targets, beta)
    torch.testing.assert_close(ours, theirs.sum(-1))


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1 - 1e-3), st.integers(0, 10_000))
def test_the_divergence_is_one(beta, seed):
    """0 between equals, positive between others, symmetric in (p, beta) and (q, 1 - beta)."""
    generator = torch.Generator().manual_seed(seed)
    p, q = (2 * torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    assert generalised_jsd(p, p + 3.0, beta).abs().max() < 1e-12
    found = generalised_jsd(q, p, beta)
    assert found.min() > 0
    torch.testing.assert_close(found, generalised_jsd(p, q, 1 - beta), atol=1e-12, rtol=1e-5)
    coin = -sum(x * np.log(x) for x in (beta, 1 - beta))
    assert found.max() <= coin + 1e-9


def test_its_limits_are_the_two_kls():
    generator = torch.Generator().manual_seed(1)
    p, q = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    small = 1e-6
    near = generalised_jsd(q, p, small) / small
    torch.testing.assert_close(near, kl_of_logits(p, q), atol=1e-4, rtol=1e-4)
    assert torch.equal(generalised_jsd(q, p, 0.0), kl_of_logits(p, q))
    torch.testing.assert_close(generalised_jsd(q, p, 1.0), kl_of_logits(q, p))


def test_what_cannot_be_chosen_has_no_part():
    p, q = torch.tensor([[0.5, 1.0, -1e9]]), torch.tensor([[2.0, -1.0, -1e9]]).requires_grad_()
    for beta in BETAS:
        found = generalised_jsd(q, p, beta)
        torch.testing.assert_close(found, generalised_jsd(q[:, :2], p[:, :2], beta))
        (gradient,) = torch.autograd.grad(found.sum(), q)
        assert gradient.isfinite().all() and gradient[0, 2] == 0


# ---------------------------------------------------------------- gradients over all answers


def every_answer():
    """All answers once, with the student's log-probabilities and the teacher's."""
    trainer = Trainer(POLICY, OnPolicyDistillation(), reference=REFERENCE)
    log = Rollout.from_log(
        TOKENS, MASK, torch.as_tensor(ANSWERS.rewards), torch.arange(len(ANSWERS))
    )
    return trainer.with_reference(replace(log, logprobs=trainer.fixed_outputs(log).logprobs))


def test_gkd_is_the_divergence_of_each_choice_and_no_gradient_goes_through_sampling():
    """By the distributions at each text, listed, in float64."""
    rollout = every_answer()
    trainer = Trainer(POLICY, GKD(), reference=REFERENCE)
    _, found = divergences(trainer, rollout, 0.3)
    places = MASK.nonzero()
    for row, place in places.tolist():
        laws = []
        for policy in (POLICY, REFERENCE):
            lengths = torch.tensor([place])
            hidden = policy.hidden_states(TOKENS[row, :place], lengths)[-1:]
            laws.append(policy.choices(hidden).detach().double().softmax(-1))
        q, p = laws
        m = 0.3 * p + 0.7 * q
        by_hand = 0.3 * (p * (p / m).log()).sum() + 0.7 * (q * (q / m).log()).sum()
        assert abs(float(by_hand) - found[row, place].item()) < 1e-6
    assert not found[~MASK].any()
    assert flat_gradient(found.sum()).norm() > 0.05


def test_parts_of_a_minibatch_are_the_whole():
    rollout = every_answer()
    whole, parts = (
        Trainer(POLICY, GKD(), reference=REFERENCE, micro_batch_tokens=n) for n in (None, 5)
    )
    gradients, outputs = [], []
    for trainer in (whole, parts):
        said, found = divergences(trainer, rollout, 0.5)
        gradients.append(flat_gradient(found.sum()))
        outputs.append(torch.stack([*said, found]).detach())
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(*outputs)
    expected = POLICY.outputs(TOKENS, MASK)
    for ours, theirs in zip(said, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_log_ratios_by_token_are_the_gradient_of_reverse_gkd():
    """In the mean over answers: the exact sum over the vocabulary is what sampling estimates."""
    rollout = every_answer()
    sure = rollout.logprobs.where(MASK, 0.0).sum(1).double().exp()[:, None]
    trainer = Trainer(POLICY, GKD(), reference=REFERENCE)
    _, found = divergences(trainer, rollout, 1.0)
    exactly = flat_gradient((sure * found).sum())
    own = OnPolicyDistillation().advantages(rollout)
    sampled = flat_gradient(-(sure * own * POLICY.outputs(TOKENS, MASK).logprobs).sum())
    torch.testing.assert_close(sampled, exactly, atol=2e-6, rtol=1e-4)
    assert exactly.norm() > 0.05


# ---------------------------------------------------------------- where it ends


def law(policy):
    with torch.no_grad():
        found = policy.outputs(TOKENS, MASK).logprobs.double().sum(1).exp()
    return found / found.sum()


def student_of(algorithm, seed, updates=70):
    policy = TransformerPolicy(TransformerConfig(3, 3, n_layer=1, n_head=2, n_embd=16), seed=seed)
    learner = Learner(
        policy,
        TextVectorEnv(128, **OPTIONS),
        algorithm,
        reference=REFERENCE,
        n_episodes=128,
        learning_rate=lambda done: 1e-2 * (1 - done),
        seed=seed,
    )
    begin = float((law(policy) - law(REFERENCE)).abs().sum() / 2)
    for number in range(updates):
        update = learner.update(number / updates)
    return begin, float((law(policy) - law(REFERENCE)).abs().sum() / 2), update


@pytest.mark.parametrize(
    ("algorithm", "seed"),
    [
        (OnPolicyDistillation(), 0),
        (OnPolicyDistillation(), 1),
        (OnPolicyDistillation(gamma=1.0), 0),
        (GKD(beta=0.0), 0),
        (GKD(beta=0.5), 0),
        (GKD(beta=0.5), 1),
        (GKD(beta=1.0), 0),
    ],
)
def test_the_student_becomes_the_teacher(algorithm, seed):
    begin, end, update = student_of(algorithm, seed)
    assert begin > 0.15 and end < 0.05
    if isinstance(algorithm, GKD):
        assert 0 < update.metrics["divergence"] < 0.01


def test_data_of_the_teacher_and_of_others_is_learned_from_too():
    envs = TextVectorEnv(64, **OPTIONS)
    theirs = Collector(REFERENCE, envs, seed=3).collect_episodes(64)
    people = Rollout.from_log(
        TOKENS, MASK, torch.as_tensor(ANSWERS.rewards), torch.arange(len(ANSWERS))
    )
    theirs = Rollout.from_log(theirs.tokens, theirs.mask, theirs.scores, theirs.groups)
    both = Rollout.cat([theirs, people])
    _, end, update = student_of(GKD(beta=0.5, student_fraction=0.5, data=both), 0)
    assert end < 0.05
    assert 0 < update.metrics["data_divergence"] < 0.01
    mean = (update.metrics["divergence"] + update.metrics["data_divergence"]) / 2
    assert update.metrics["loss"] == pytest.approx(mean, rel=1e-5)


# ---------------------------------------------------------------- mistakes


def test_mistakes_are_named():
    with pytest.raises(UnmetNeedError, match=r"student_fraction is 0.5 and there is no data"):
        GKD(student_fraction=0.5)
    with pytest.raises(UnmetNeedError, match="data, which would not be read"):
        GKD(data=every_answer())
    with pytest.raises(OptionError, match="beta is 2"):
        GKD(beta=2)
    with pytest.raises(UnmetNeedError, match="which call its step"):
        GKD().loss(every_answer(), None)
    envs = letters_env(4, 6)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    with pytest.raises(UnmetNeedError, match="compares the policy with a reference"):
        Learner(policy, envs, GKD(), n_episodes=4)
    other = TransformerPolicy.for_env(letters_env(4, 5), n_layer=1, n_head=2, n_embd=16)
    with pytest.raises(VocabularyMismatchError):
        Learner(policy, envs, GKD(), reference=other, n_episodes=4)
