"""What an algorithm needs is there, or is refused by name: no training that teaches nothing."""

import numpy as np
import pytest
import torch
from toys import letters_env

from agents import DPO, GRPO, KTO, PPO, RLOO, BestOfN, Learner, Rollout, Trainer
from agents.algorithms.names import ALGORITHMS, algorithm_named
from agents.supervised.fitting import Fitting
from policies import SeparateValue, TransformerPolicy
from textenv.errors import (
    FrozenPolicyError,
    OptionError,
    UnmetNeedError,
    UnscoredError,
    VocabularyMismatchError,
)
from textenv.rewards import from_trl, per_text, weighted

SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16}
NEEDS = {name: algorithm_named(name).needs for name in ALGORITHMS}


def which(need):
    return [name for name, needs in NEEDS.items() if getattr(needs, need)]


def make(name, group_size=4, reference=True, **options):
    envs = letters_env(8, 6, group_size=group_size)
    policy = TransformerPolicy.for_env(envs, **SHAPE)
    algorithm = algorithm_named(name)
    fields = {"stream": np.zeros(99, np.int64), "ptx_window": 4} if name == "ppo-ptx" else {}
    return Learner(
        policy,
        envs,
        algorithm(**fields),
        reference=policy.frozen_copy() if reference else None,
        **({"n_episodes": 8} | options),
    )


@pytest.mark.parametrize("name", which("groups"))
def test_groups_of_one_are_refused(name):
    make(name)
    with pytest.raises(UnmetNeedError, match=r"group_size is 1.*make the environment with group_"):
        make(name, group_size=1)


@pytest.mark.parametrize("name", which("whole_episodes"))
def test_cut_episodes_are_refused(name):
    with pytest.raises(UnmetNeedError, match="n_steps cuts them: give the learner n_episodes"):
        make(name, n_episodes=None, n_steps=5)


@pytest.mark.parametrize("name", which("reference"))
def test_a_missing_reference_is_refused(name):
    with pytest.raises(UnmetNeedError, match=r"pass reference=policy.frozen_copy\(\)"):
        make(name, reference=False)


def test_what_is_needed_is_declared():
    """Algorithms that compare, that take scores of whole answers, that read a reference."""
    compare = {"rloo", "grpo", "dr-grpo", "dapo", "gspo", "cispo", "trpo", "off-policy-gradient"}
    compare |= {"dpo", "ipo"}
    assert set(which("groups")) == compare | {"best-of-n"}
    assert not set(which("values")) & set(which("whole_episodes"))


def test_the_policy_is_no_reference_of_itself():
    policy = policy_of_six()
    with pytest.raises(UnmetNeedError, match="would move with it and the KL would always be 0"):
        Learner(policy, letters_env(2, 6), PPO(), reference=policy, kl_coef=0.1, n_steps=4)


def test_a_reference_of_another_vocabulary_is_refused():
    other = TransformerPolicy.for_env(letters_env(2, 4), **SHAPE)
    with pytest.raises(
        VocabularyMismatchError, match="the reference has 5 tokens and the policy 7"
    ):
        Trainer(policy_of_six(), DPO(), reference=other)


def test_a_gradient_is_not_scaled_down_to_nothing():
    with pytest.raises(OptionError, match="max_grad_norm"):
        Trainer(policy_of_six(), RLOO(), max_grad_norm=0.0)


def log(groups):
    tokens = torch.tensor([[0, 1, 2], [0, 2, 1]])
    mask = torch.tensor([[False, True, True]] * 2)
    return Rollout.from_log(tokens, mask, torch.tensor([1.0, 0.0]), torch.tensor(groups))


def policy_of_six(**options):
    return TransformerPolicy.for_env(letters_env(2, 6), **SHAPE, **options)


@pytest.mark.parametrize("algorithm", [DPO(), GRPO(), BestOfN()])
def test_answers_of_a_log_that_cannot_be_compared_are_refused(algorithm):
    policy = policy_of_six()
    trainer = Trainer(policy, algorithm, reference=policy.frozen_copy(), learning_rate=1e-2)
    trainer.learn_from(log([3, 3]))
    with pytest.raises(UnmetNeedError, match="no two of the 2 answers have the same group number"):
        trainer.learn_from(log([3, 4]))


@pytest.mark.parametrize("algorithm", [DPO(), KTO()])
def test_a_log_may_bring_the_references_numbers(algorithm):
    trainer = Trainer(policy_of_six(), algorithm)
    with pytest.raises(UnmetNeedError, match="compares the policy with a reference"):
        trainer.learn_from(log([3, 3]))
    if isinstance(algorithm, DPO):
        from dataclasses import replace

        trainer.learn_from(replace(log([3, 3]), ref_logprobs=torch.full((2, 3), -1.0)))


# ---------------------------------------------------------------- frozen networks


def frozen(parts):
    policy = policy_of_six()
    for name, parameter in policy.named_parameters():
        if parts == "all" or not name.startswith("value_head"):
            parameter.requires_grad_(False)
    return policy


def test_a_policy_without_a_trained_parameter_is_refused_when_the_learner_is_made():
    for make_it in (
        lambda policy: Learner(policy, letters_env(2, 6), PPO(), n_steps=4),
        lambda policy: Trainer(policy, DPO(), reference=policy_of_six()),
        lambda policy: Fitting(policy, steps=1, learning_rate=1e-3),
    ):
        with pytest.raises(FrozenPolicyError, match=r"all parameters of the TransformerPolicy are"):
            make_it(frozen("all"))


@pytest.mark.parametrize("algorithm", [PPO(), RLOO()])
def test_training_the_value_head_alone_is_refused(algorithm):
    envs = letters_env(4, 6, group_size=2)
    learner = Learner(frozen("network"), envs, algorithm, n_episodes=4)
    with pytest.raises(FrozenPolicyError, match=r"requires_grad_\(True\) on what should learn"):
        learner.update()


def test_training_a_critic_alone_is_refused():
    policy = SeparateValue(frozen("all"), policy_of_six())
    learner = Learner(policy, letters_env(4, 6), PPO(), n_steps=4)
    with pytest.raises(FrozenPolicyError, match="no parameter that is trained"):
        learner.update()


def test_a_supervised_loss_on_a_frozen_network_is_refused():
    policy = frozen("network")
    fitting = Fitting(policy, steps=1, learning_rate=1e-3)
    outputs = policy.outputs(log([0, 0]).tokens, log([0, 0]).mask)
    with pytest.raises(FrozenPolicyError):
        fitting.step([-outputs.logprobs.mean()])


def test_a_part_of_the_network_is_enough():
    policy = frozen("network")
    policy.transformer.blocks[0].requires_grad_(True)
    Learner(policy, letters_env(2, 6), PPO(), n_steps=4).update()


# ---------------------------------------------------------------- episodes without a score


def by_first_letter(completions, **kwargs):
    """1 for b, 0 for c, and nothing to say of other answers."""
    return [{"b": 1.0, "c": 0.0}.get(text[:1]) for text in completions]


def sometimes(algorithm, reward=None, **options):
    """A learner whose reward has nothing to say of some answers."""
    reward = reward or from_trl(by_first_letter)
    envs = letters_env(8, 4, prompts=["a"], group_size=4, reward=reward, **options)
    policy = TransformerPolicy.for_env(envs, **SHAPE)
    return Learner(policy, envs, algorithm, n_episodes=8 if options else 32, seed=3)


def test_a_row_without_score_is_left_out_of_its_group():
    """Rewards 1, 0, None, 1 of one group: as if there were three answers."""
    values = iter([1.0, 0.0, None, 1.0, 2.0, 2.0, 0.0, 1.0])
    reward = from_trl(lambda completions, **kwargs: [next(values) for _ in completions])
    update = sometimes(RLOO(), reward, stop=False, max_new_tokens=1).update()
    rollout = update.rollout
    assert rollout.groups.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert rollout.scores.tolist() == [1, 0, 1, 2, 2, 0, 1]
    assert rollout.advantages[:3].tolist() == pytest.approx([0.5, -1.0, 0.5])
    assert update.score == pytest.approx(7 / 7)  # of 1, 0, 1 and 2, 2, 0, 1
    assert update.episodes == 8 and len(update.scores) == 7


def test_a_log_without_scores_teaches_nothing_but_the_others_do():
    learner = sometimes(GRPO())
    for _ in range(3):
        update = learner.update()
        assert torch.isfinite(update.rollout.advantages).all()
        assert torch.isfinite(update.rollout.scores).all()
        assert (torch.bincount(update.rollout.groups) != 1).all()
        assert 0 <= update.score <= 1
    assert all(p.isfinite().all() for p in learner.policy.parameters())


def test_a_critic_and_a_missing_score_are_refused_by_name():
    learner = sometimes(PPO())
    with pytest.raises(UnscoredError, match=r"of \d+ episodes have no score.* PPO fits values"):
        learner.update()


def test_a_reward_that_never_applies_is_an_error(tmp_path):
    learner = sometimes(RLOO(), from_trl(lambda completions, **k: [None] * len(completions)))
    learner.rescue_folder = tmp_path
    with pytest.raises(UnscoredError, match="in 5 rollouts the reward gave None"):
        list(learner.updates(1000))


def test_one_reward_that_applies_makes_a_score_and_what_abstains_is_not_reported():
    reward = weighted(letter=(1.0, from_trl(by_first_letter)), size=(0.5, per_text(len)))
    learner = sometimes(PPO(), reward)
    update = learner.update()
    assert len(update.scores) == update.episodes
    assert 0 < update.components["letter"] < 1  # a mean over those of which it speaks
    only_reported = weighted(letter=(1.0, from_trl(by_first_letter)), size=(0.0, per_text(len)))
    with pytest.raises(UnscoredError):
        sometimes(PPO(), only_reported).update()


# ---------------------------------------------------------------- a penalty keeps its size


def advantages_at(algorithm, kl_coef, scores=lambda text: 1.0):
    envs = letters_env(8, 6, prompts=["a"], group_size=4, reward=per_text(scores))
    policy = TransformerPolicy.for_env(envs, **SHAPE)
    reference = policy.frozen_copy()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    learner = Learner(
        policy, envs, algorithm, reference=reference, kl_coef=kl_coef, n_episodes=16, seed=1
    )
    return learner.update().rollout.advantages


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr-grpo", "rloo", "trpo", "reinforce-plus-plus"])
def test_where_all_scores_are_equal_advantages_are_proportional_to_the_kl_coefficient(name):
    small, large = (advantages_at(algorithm_named(name)(), coef) for coef in (0.001, 0.1))
    assert small.abs().max() > 1e-6
    torch.testing.assert_close(small * 100, large, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["grpo", "dapo", "reinforce-plus-plus"])
def test_scores_that_differ_by_rounding_alone_are_equal(name):
    """0.1 + 0.2 and 0.3 are the same score."""
    algorithm = algorithm_named(name)()
    rounded = advantages_at(algorithm, 0.01, lambda text: 0.3 if "b" in text else 0.1 + 0.2)
    torch.testing.assert_close(rounded, advantages_at(algorithm, 0.01, lambda text: 0.3))
