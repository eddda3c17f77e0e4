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
from textenv.errors import MissingFileError, OptionError, UnmetNeedError

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
    "PPO, lambda 0.95": (algorithms.PPO(), False),
    "A2C, lambda 0.9": (algorithms.A2C(gae_lambda=0.9), False),
    "GSPO": (algorithms.GSPO(), False),
    "CISPO": (algorithms.CISPO(), False),
    "TRPO": (algorithms.TRPO(), False),  # its surrogate; the natural step is in no loss
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


def spread(per_answer, batch):
    return per_answer[:, None].expand(batch.mask.shape)


def of_margins(push):
    """The formula of a loss that is a mean over all pairs of a group, from its slope."""

    def weights(batch):
        moved = torch.where(batch.mask, batch.logprobs.detach() - batch.ref_logprobs, 0.0).sum(1)
        margins = moved[:, None] - moved
        better = batch.scores[:, None] > batch.scores
        pairs = (batch.groups[:, None] == batch.groups) & better
        slopes = torch.where(pairs, push(margins), 0.0) / pairs.sum()
        return spread(slopes.sum(1) - slopes.sum(0), batch)

    return weights


def kto_formula(batch):
    """With a reference point of 0, which `KTO.step` replaces."""
    moved = torch.where(batch.mask, batch.logprobs.detach() - batch.ref_logprobs, 0.0).sum(1)
    v = torch.sigmoid(0.1 * moved)
    sign = torch.where(batch.scores > 0, 1.0, -1.0)
    return spread(0.1 * sign * v * (1 - v) / len(batch), batch)


def soft_q_formula(batch):
    """beta (target - Q) / tokens, the target one sum of one-step errors weighed by lambda^k."""
    old = 0.1 * (batch.old_logprobs - batch.ref_logprobs)
    found = torch.zeros_like(old)
    for row, chosen in enumerate(batch.mask):
        places = chosen.nonzero().flatten().tolist()
        values = [*batch.values[row, places].tolist(), 0.0]
        paid = [-float(old[row, place]) for place in places]
        paid[-1] += float(batch.scores[row])
        steps = [r + after - v for r, after, v in zip(paid, values[1:], values, strict=False)]
        for t, place in enumerate(places):
            found[row, place] = sum(0.95**k * step for k, step in enumerate(steps[t:]))
    q_moved = 0.1 * (batch.logprobs.detach() - batch.old_logprobs)
    return 0.1 * (found - q_moved) / batch.mask.sum()


OWN_FORMULAS = {
    "DPO": (algorithms.DPO(), of_margins(lambda m: 0.1 * torch.sigmoid(-0.1 * m))),
    "IPO": (algorithms.IPO(), of_margins(lambda m: -2 * (m - 1 / (2 * 0.1)))),
    "KTO": (algorithms.KTO(), kto_formula),
    "SoftQLearning": (algorithms.SoftQLearning(), soft_q_formula),
    "RewardWeightedRegression": (
        algorithms.RewardWeightedRegression(beta=20.0),
        lambda batch: spread((batch.scores / 20).exp() / (batch.scores / 20).exp().sum(), batch),
    ),
}


@pytest.mark.parametrize("name", OWN_FORMULAS)
def test_algorithms_with_a_formula_of_their_own_are_healthy(name):
    """They are no mean of advantages, so no law is theirs: the formula is written out here."""
    algorithm, formula = OWN_FORMULAS[name]
    report = check_loss(*of_algorithm(algorithm), formula=formula)
    assert report.healthy, str(report)
    assert report.law_error < 1e-6 and report.scale == pytest.approx(1)
    wrong = check_loss(*of_algorithm(algorithm), formula=lambda batch: 2 * formula(batch))
    assert any("scale: 0.5" in fault for fault in wrong.faults)


def test_the_loss_of_vine_ppo():
    """Its advantages need continuations, which no batch has: here they are those of values."""
    report = check_loss(of_algorithm(algorithms.VinePPO())[0], of_law(Law("values")))
    assert report.healthy, str(report)
    assert report.law.baseline == "values, then the tokens' mean"


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 0.995])
def test_generalised_advantages_are_told(lam):
    report = check_loss(*of_algorithm(algorithms.A2C(gae_lambda=lam)))
    assert report.law.baseline == f"values, lambda {lam:g}", str(report)
    assert any("read off the values" in bias for bias in report.biases)


SCALED = {
    "tokens of the batch": lambda x, b: 3.0 * losses.masked_mean(x, b.mask),
    "answers": lambda x, b: 3.0 * losses.sequence_sum(x, b.mask),
    "tokens of each answer": lambda x, b: 3.0 * losses.sequence_mean(x, b.mask),
}


@pytest.mark.parametrize("mean", SCALED)
@pytest.mark.parametrize("spread_by", ["none", "the scores' spread in the batch"])
def test_a_factor_does_not_hide_what_varies_with_the_batch(mean, spread_by):
    """On one batch its tokens, and the spread of its scores, are numbers like any other."""

    def advantages(batch):
        found = leave_one_out(batch)
        return found if spread_by == "none" else found / batch.scores.std(correction=0)

    def loss(batch):
        return -SCALED[mean](batch.logprobs * batch.advantages[:, None], batch)

    report = check_loss(loss, advantages)
    assert report.healthy and report.law == Law("others", spread_by, mean), str(report)
    assert report.scale == pytest.approx(3)
    asked = check_loss(loss, advantages, formula=report.law)
    assert asked.faults == ("scale: 3 times the formula",)


def reinforce_with_baseline(batch):
    """REINFORCE++ with baseline: less the group's mean, then standardised over tokens."""
    centred = spread(returns.group_centred(batch.scores, batch.groups), batch)
    return returns.standardise(centred, batch.mask)


def with_the_best_baseline(batch):
    """OPO: the group's mean, each answer weighed by its length."""
    found = batch.scores.clone()
    for group in batch.groups.unique():
        rows = batch.groups == group
        lengths = batch.lengths[rows].double()
        found[rows] -= (lengths * batch.scores[rows]).sum() / lengths.sum()
    return found


@pytest.mark.parametrize(
    ("advantages", "baseline"),
    [
        (reinforce_with_baseline, "group, then the tokens' mean"),
        (with_the_best_baseline, "group, weighed by length"),
    ],
)
def test_baselines_of_other_papers_are_healthy(advantages, baseline):
    loss, _ = of_algorithm(algorithms.DAPO())
    report = check_loss(loss, advantages)
    assert report.healthy and report.law.baseline == baseline, str(report)


KL_LOSSES = {
    "k2": (losses.kl_k2, 1.0, ""),
    "k3": (losses.kl_k3, 1.0, ""),
    "k1": (losses.kl_k1, 1.0, "another gradient"),
    "k2, halved": (losses.kl_k2, 0.5, "scale: the KL term has 0.5 times"),
    "k2, against": (losses.kl_k2, -1.0, "sign: the KL term"),
    "left out": (losses.kl_k2, 0.0, "kl_coef has no effect"),
}


@pytest.mark.parametrize("kl_coef", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("name", KL_LOSSES)
def test_a_kl_term_is_told_however_small_it_is(name, kl_coef):
    """Scores of 20 leave it a share of 1e-5 at the least."""
    estimate, factor, words = KL_LOSSES[name]

    def loss(batch):
        kl = estimate(batch.logprobs, batch.ref_logprobs, batch.mask)
        gain = batch.logprobs * batch.advantages[:, None] - factor * batch.kl_coef * kl
        return -losses.sequence_sum(gain, batch.mask)

    report = check_loss(loss, kl_coef=kl_coef)
    assert report.healthy if not words else words in "; ".join(report.faults), str(report)
    if factor:
        assert report.law.kl.startswith(name[:2])


def test_a_large_entropy_bonus_is_no_wrong_sign():
    def loss(batch):
        gain = batch.logprobs * batch.advantages[:, None]
        return -losses.sequence_sum(gain + 10 * batch.entropies, batch.mask)

    report = check_loss(loss)
    assert report.multiple < 0 and report.healthy, str(report)


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
    """All are, and called by what they are."""
    make, words = (FIRST_SIX | SECOND_SIX)[name]
    loss, advantages, arguments = make()
    report = check_loss(loss, advantages, **arguments)
    assert not report.healthy
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
    "entropy alone": (
        lambda b: -losses.masked_mean(b.entropies, b.mask),
        "no gradient in the log-probabilities of what was chosen",
    ),
    "0 / 0": (
        lambda b: (
            -losses.sequence_sum(b.logprobs * (b.advantages / (b.lengths - 1))[:, None], b.mask)
        ),
        "NaN or infinite on 176 batches, in all of which an answer has one token",
    ),
    "ratio": (
        lambda b: (
            -losses.sequence_sum(
                _ratio(b).detach().reciprocal() * b.logprobs * b.advantages[:, None], b.mask
            )
        ),
        "upside down, old over new",
    ),
    "clip": (
        lambda b: (
            -losses.sequence_sum(
                torch.maximum(
                    _ratio(b) * b.advantages[:, None],
                    _ratio(b).clamp(0.8, 1.2) * b.advantages[:, None],
                ),
                b.mask,
            )
        ),
        "clip upside down",
    ),
}


def _ratio(batch):
    return torch.where(batch.mask, batch.logprobs - batch.old_logprobs, 0.0).exp()


@pytest.mark.parametrize("name", SMALL)
def test_small_mistakes_are_named(name):
    loss, words = SMALL[name]
    report = check_loss(loss)
    assert words in "; ".join(report.faults), str(report)
    assert report.name in str(report)


WRONG_GROUPS = {
    "every n-th answer": lambda b: torch.arange(len(b)) % len(b.groups.unique()),
    "half of a group": lambda b: torch.arange(len(b)) // 2,
    "every other": lambda b: 2 * b.groups + torch.arange(len(b)) % 2,
}


@pytest.mark.parametrize("name", WRONG_GROUPS)
@pytest.mark.parametrize("compare", [returns.group_centred, returns.group_standardised])
def test_a_wrong_group_is_named(name, compare):
    report = check_loss(
        lambda b: -losses.sequence_sum(b.logprobs * b.advantages[:, None], b.mask),
        lambda b: compare(b.scores, WRONG_GROUPS[name](b)),
    )
    assert any("wrong group" in fault and name in fault for fault in report.faults), str(report)


def test_what_is_no_loss_is_refused():
    with pytest.raises(ValueError, match=r"the loss is shape \(4,\)"):
        check_loss(lambda b: (b.logprobs * b.advantages[:, None]).sum(1))
    with pytest.raises(OptionError, match="baseline is 'grup'; it must be one of others, group"):
        check_loss(lambda b: b.logprobs.sum(), formula=Law("grup"))
    with pytest.raises(OptionError, match="mean is 'token'"):
        of_law(Law("values, lambda 0.9", mean="token"))
    with pytest.raises(ValueError, match="one entry for each answer"):
        check_loss(lambda b: b.logprobs.sum(), lambda b: b.scores[:, None])


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


def test_modules_of_two_checkouts(tmp_path):
    """Two versions of a library are compared in one process."""
    found = []
    for version in (1, 2):
        folder = tmp_path / str(version) / "some_library" / "core"
        folder.mkdir(parents=True)
        (folder / "shared.py").write_text(f"version = {version}")
        (folder / "loss.py").write_text("from some_library.core.shared import version")
        found.append(module_of_checkout(tmp_path / str(version), "some_library.core.loss"))
    assert [module.version for module in found] == [1, 2]
    again = module_of_checkout(tmp_path / "2", "some_library.core.loss")
    assert again is found[1]
    (tmp_path / "gymnasium").mkdir()
    with pytest.raises(UnmetNeedError, match="gymnasium has been imported from"):
        module_of_checkout(tmp_path, "gymnasium.core")


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


def test_a_narrow_clip_does_not_hide_the_ratio():
    """GSPO leaves out answers whose ratio went along with their advantage by more than 4e-4."""
    report = check_loss(*of_algorithm(algorithms.GSPO()))
    assert report.ratio == "the answer's geometric mean" and report.clipped > 0.5, str(report)


def test_where_only_the_kl_is_left_nothing_is_said_of_a_ratio():
    make, _ = SECOND_SIX["only KL"]
    loss, advantages, arguments = make()
    report = check_loss(loss, advantages, **arguments)
    assert report.faults == ("only the KL term has a gradient",) and report.ratio == "unknown"


def test_cispo_with_a_mean_of_its_own():
    class ByAnswer(algorithms.CISPO):
        def mean(self, surrogate, mask):
            return losses.sequence_mean(surrogate, mask)

    assert check_loss(*of_algorithm(ByAnswer())).law.mean == "tokens of each answer"
