"""Healthy losses have no fault, the twelve broken ones have; TRL's and SB3's own code is called."""

from dataclasses import replace

import pytest
import torch
from broken_losses import FIRST_SIX, SECOND_SIX

from agents import algorithms, losses, returns
from agents.testing import Law, check_loss, leave_one_out, of_algorithm
from agents.testing.batches import Oracle, probe
from agents.testing.libraries import (
    TRL_GRPO_ADVANTAGES,
    answers_of,
    dpo_formula,
    module_of_checkout,
    of_law,
    sb3_ppo,
    trl_dpo,
    trl_grpo,
    trl_rloo,
)
from textenv.errors import MissingFileError

torch.set_num_threads(1)
OURS = {
    "RLOO": (algorithms.RLOO(), True),
    "REINFORCE": (algorithms.REINFORCE(), True),
    "OffPolicyGradient": (algorithms.OffPolicyGradient(), True),
    "DrGRPO": (algorithms.DrGRPO(), True),
    "GRPO": (algorithms.GRPO(), False),
    "DAPO": (algorithms.DAPO(), False),
    "A2C": (algorithms.A2C(entropy_coef=0.01), False),
    "PPO": (algorithms.PPO(gae_lambda=1.0), False),
    "PPOPenalty": (algorithms.PPOPenalty(gae_lambda=1.0), False),
    "PPO by answer": (algorithms.PPO(gae_lambda=1.0, entropy_coef=0.01), False),
    "REINFORCE++": (algorithms.REINFORCEPlusPlus(), False),
    "BestOfN": (algorithms.BestOfN(), False),
}


@pytest.mark.parametrize("name", OURS)
def test_our_algorithms_are_healthy(name):
    algorithm, unbiased = OURS[name]
    report = check_loss(*of_algorithm(algorithm), name=name)
    assert report.healthy, str(report)
    assert report.unbiased == unbiased
    assert report.law_error < 1e-3


@pytest.mark.parametrize("name", ["RLOO", "REINFORCE", "DrGRPO", "GRPO", "REINFORCE++"])
def test_with_the_kl_in_the_rewards_too(name):
    algorithm, unbiased = OURS[name]
    report = check_loss(*of_algorithm(algorithm), kl_coef=0.1)
    assert report.healthy, str(report)
    assert report.unbiased == unbiased
    assert report.law.kl == "in the scores"


def by_answer(batch):
    return TRL_GRPO_ADVANTAGES(batch).sum(1) / batch.lengths


MEANS = {
    "grpo": "tokens of each answer",
    "sapo": "tokens of each answer",
    "dapo": "tokens of the batch",
    "bnpo": "tokens of the batch",
    "cispo": "tokens of the batch",
    "vespo": "tokens of the batch",
    "luspo": "answers",
    "dr_grpo": "answers",
}


@pytest.mark.parametrize("kind", MEANS)
def test_losses_of_trl(kind):
    settings = {"epsilon_high": 5.0} if kind == "cispo" else {}
    report = check_loss(trl_grpo(loss_type=kind, **settings), by_answer, accumulates=True)
    assert report.healthy, str(report)
    assert report.law.mean == MEANS[kind]
    split = [bias for bias in report.biases if bias.startswith("accumulation")]
    assert bool(split) == (kind == "bnpo")  # a mean over the tokens of each part


def test_the_sequence_level_of_trl():
    loss = trl_grpo(loss_type="grpo", importance_sampling_level="sequence")
    report = check_loss(loss, by_answer)
    assert report.healthy and report.ratio == "the answer's geometric mean"


@pytest.mark.parametrize("corrected", [True, False])
def test_the_kl_term_of_trl(corrected):
    loss = trl_grpo(use_bias_correction_kl=corrected)
    report = check_loss(loss, by_answer, kl_coef=0.1)
    assert report.healthy, str(report)
    assert report.law.kl.startswith("k2" if corrected else "k3")
    assert report.kl_weight == pytest.approx(1, abs=1e-3)


def test_trl_rloo_is_unbiased():
    report = check_loss(trl_rloo(), accumulates=True)
    assert report.healthy and report.unbiased, str(report)
    assert report.multiple == pytest.approx(1)


def test_trl_dpo_is_the_formula_of_the_paper():
    assert check_loss(trl_dpo(), formula=dpo_formula(0.1)).healthy
    wrong = check_loss(trl_dpo(beta=0.2), formula=dpo_formula(0.1))
    assert not wrong.healthy


def test_the_ppo_of_stable_baselines3():
    report = check_loss(sb3_ppo(), of_law(Law("values")))
    assert report.healthy, str(report)
    assert report.law.baseline == "values, then the tokens' mean"
    assert report.law.spread == "the advantages' spread over tokens (n - 1)"
    plain = check_loss(sb3_ppo(normalize_advantage=False), of_law(Law("values")))
    assert plain.law == Law("values", "none", "tokens of the batch")


def test_cleanrl_by_its_formula():
    """`ppo.py`, lines around "Policy loss": its scripts are no package."""

    def loss(batch):
        mask = batch.mask
        ratio = (batch.logprobs - batch.old_logprobs)[mask].exp()
        advantages = batch.advantages[mask]
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        pg_loss1 = -advantages * ratio
        pg_loss2 = -advantages * torch.clamp(ratio, 1 - 0.2, 1 + 0.2)
        return torch.max(pg_loss1, pg_loss2).mean() - 0.01 * batch.entropies[mask].mean()

    report = check_loss(loss, of_law(Law("values")))
    assert report.healthy, str(report)
    assert report.law.mean == "tokens of the batch"
    assert report.aside > 0


@pytest.mark.parametrize("name", FIRST_SIX | SECOND_SIX)
def test_silent_faults_are_found(name):
    """All are; what two of them are called is not what they are."""
    make, words = (FIRST_SIX | SECOND_SIX)[name]
    loss, advantages, arguments = make()
    report = check_loss(loss, advantages, **arguments)
    assert not report.healthy
    if name not in ("group ids", "normalised twice"):
        assert words in "; ".join(report.faults)


SMALL = {
    "sign": (lambda b: losses.sequence_sum(b.logprobs * b.advantages[:, None], b.mask), "sign"),
    "late": (
        lambda b: (
            -losses.sequence_sum(b.logprobs.roll(-1, 1) * b.advantages[:, None], b.mask.roll(0, 1))
        ),
        "mask",
    ),
    "early": (
        lambda b: -losses.sequence_sum(b.logprobs * b.advantages[:, None], b.mask.roll(-1, 1)),
        "off by one",
    ),
    "length": (
        lambda b: -losses.sequence_mean(b.logprobs * (b.advantages / b.lengths)[:, None], b.mask),
        "scale by length",
    ),
    "constant": (lambda b: (b.advantages * 0.0).sum(), "no gradient"),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_mistakes_are_named(name):
    loss, words = SMALL[name]
    report = check_loss(loss)
    assert words in "; ".join(report.faults), str(report)
    assert report.name in str(report)


def test_a_wrong_group_is_named():
    def strided(batch):
        wrong = torch.arange(len(batch)) % len(batch.groups.unique())
        return returns.group_centred(batch.scores, wrong)

    report = check_loss(
        lambda b: -losses.sequence_sum(b.logprobs * b.advantages[:, None], b.mask), strided
    )
    assert any("wrong group" in fault for fault in report.faults)


def test_the_exact_gradient_by_finite_differences():
    oracle = Oracle(kl_coef=0.3)

    def objective(table):
        logprobs = oracle._sums(table)
        penalty = 0.3 * (logprobs - oracle._sums(oracle.reference))
        return float((logprobs.exp() * (oracle.scores - penalty)).sum() / 2)

    exact = oracle.exact_gradient()
    for row, token in [(0, 0), (3, 1), (5, 0)]:
        moved = torch.zeros_like(oracle.table)
        moved[row, token] = 1e-5
        slope = (objective(oracle.table + moved) - objective(oracle.table - moved)) / 2e-5
        assert slope == pytest.approx(float(exact[row, token]), rel=1e-5)
    assert float(oracle.probabilities.sum()) == pytest.approx(2)
    assert sum(found.probability for found in oracle.batches()) == pytest.approx(1)


def test_answers_alone_are_the_chosen_tokens():
    batch = replace(probe(), advantages=leave_one_out(probe()))
    found = answers_of(batch)
    assert found.tokens[found.mask].tolist() == batch.tokens[batch.mask].tolist()
    assert torch.equal(found.logprobs[found.mask], batch.logprobs[batch.mask])


def test_a_module_of_a_checkout(tmp_path):
    """Of a package whose `__init__` asks for an engine that is not there."""
    folder = tmp_path / "their_trainer" / "models"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").write_text("import an_engine_that_is_not_installed")
    (folder / "loss.py").write_text("import an_engine\ndef loss(batch): return 7")
    module = module_of_checkout(tmp_path, "their_trainer.models.loss", without=["an_engine"])
    assert module.loss(None) == 7
    with pytest.raises(MissingFileError, match="holds absent_trainer/"):
        module_of_checkout(tmp_path, "absent_trainer.models.loss")


@pytest.mark.parametrize(
    ("algorithm", "mean", "ratio"),
    [
        (algorithms.GSPO(clip=0.2, clip_high=0.2), "tokens of each answer", "the answer's"),
        (algorithms.CISPO(), "tokens of the batch", "each token's"),
    ],
    ids=repr,
)
def test_other_ratios(algorithm, mean, ratio):
    """Side by side with TRL's losses of these names, which are given the same advantages."""
    loss, advantages = of_algorithm(algorithm)
    report = check_loss(loss, advantages)
    assert report.healthy, str(report)
    assert report.law.mean == mean and report.ratio.startswith(ratio)
    kind = {"loss_type": "cispo", "epsilon_high": 5.0}
    if isinstance(algorithm, algorithms.GSPO):
        kind = {"loss_type": "grpo", "importance_sampling_level": "sequence"}
    batch = probe(0.5)
    batch = replace(batch, advantages=advantages(batch))
    ours, theirs = (
        torch.autograd.grad(f(batch), batch.logits, retain_graph=True)[0]
        for f in (loss, trl_grpo(**kind))
    )
    torch.testing.assert_close(ours, theirs)
    assert ours.norm() > 0.01


def test_cispo_with_a_mean_of_its_own():
    class ByAnswer(algorithms.CISPO):
        def mean(self, surrogate, mask):
            return losses.sequence_mean(surrogate, mask)

    assert check_loss(*of_algorithm(ByAnswer())).law.mean == "tokens of each answer"
