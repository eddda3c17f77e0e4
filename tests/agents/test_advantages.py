"""Mixtures of advantages: their values by hand, their gradients over all answers."""

import pickle
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import Letters
from toys import letters_env

from agents import (
    A2C,
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    PPO,
    REINFORCE,
    RLOO,
    TRPO,
    DrGRPO,
    Learner,
    OffPolicyGradient,
    REINFORCEPlusPlus,
    Rollout,
    VinePPO,
    returns,
)
from agents.algorithms.advantages import (
    AdvantagesOf,
    Extra,
    Following,
    LogRatio,
    Mixture,
    Own,
    Piecewise,
    linear,
)
from agents.testing import check_loss, of_algorithm
from policies import TransformerConfig, TransformerPolicy
from textenv import TextEnv
from textenv.errors import AnnotationError, ObjectNotFoundError, OptionError, UnmetNeedError
from textenv.testing import exact

torch.set_num_threads(1)


def two():
    """Two answers to a prompt of one token, of two and of one token."""
    tokens = torch.tensor([[0, 1, 2], [0, 2, 0]])
    mask = torch.tensor([[False, True, True], [False, True, False]])
    log = Rollout.from_log(tokens, mask, torch.tensor([3.0, 1.0]), torch.tensor([0, 0]))
    teacher = torch.tensor([[float("nan"), 10.0, 20.0], [7.0, 30.0, float("nan")]])
    return log.with_extra({"teacher": teacher, "answer": torch.tensor([5.0, 6.0])})


def mixed(rollout):
    """A function of one's own; its algorithm's advantages are in the rollout."""
    return rollout.advantages[:, None] + torch.where(rollout.mask, rollout.extra["teacher"], 0.0)


MIXTURE = Own() + 0.5 * Extra("teacher")


def mix(algorithm, rollout):
    return algorithm.mix(replace(rollout, advantages=algorithm.advantages(rollout)))


def test_by_hand():
    own = torch.tensor([2.0, -2.0])  # 3 - 1 and 1 - 3
    assert torch.equal(mix(RLOO(), two()), own)
    assert torch.equal(mix(RLOO(advantage=0.5 * Own()), two()), own / 2)
    assert mix(RLOO(advantage=Own() + Extra("answer")), two()).tolist() == [7, 4]
    expected = [[0, 2 + 5, 2 + 10], [0, -2 + 15, 0]]
    assert mix(RLOO(advantage=MIXTURE), two()).tolist() == expected
    expected = [[0, 12, 22], [0, 28, 0]]
    for whole in (mixed, Own() + Extra("teacher"), f"{__file__}:mixed"):
        assert mix(RLOO(advantage=whole), two()).tolist() == expected
    following = mix(RLOO(advantage=Following(Extra("teacher"), gamma=0.5)), two())
    assert following.tolist() == [[0, 20, 20], [0, 30, 0]]
    # By the formulas of the algorithms, whoever takes them.
    for other in (GRPO(), DrGRPO(), REINFORCEPlusPlus(), RLOO(credit="by_answer")):
        assert torch.equal(mix(RLOO(advantage=AdvantagesOf(other)), two()), other.advantages(two()))
    gae = AdvantagesOf(A2C(gamma=0.5, gae_lambda=0.5))
    assert torch.equal(
        mix(PPO(advantage=gae), two()), PPO(gamma=0.5, gae_lambda=0.5).advantages(two())
    )
    # One number for a sequence becomes one for each chosen token where the loss wants these.
    whole = mix(PPO(advantage=Extra("answer")), two())
    assert whole.tolist() == [[0, 5, 5], [0, 6, 0]]


def test_functions_and_values_add_in_any_order():
    plain = mix(RLOO(advantage=Own() + mixed), two())
    assert torch.equal(mix(RLOO(advantage=mixed + Own()), two()), plain)
    assert (Own() + MIXTURE).parts == ((1.0, Own()), (1.0, Own()), (0.5, Extra("teacher")))
    nested = mix(RLOO(advantage=2.0 * MIXTURE), two())
    assert torch.equal(nested, 2 * mix(RLOO(advantage=MIXTURE), two()))


def test_schedules():
    falling = linear(1.0, 0.0)
    assert [falling(done) for done in (0.0, 0.25, 1.0, 2.0)] == [1, 0.75, 0, 0]
    steps = Piecewise(((0.2, 4.0), (0.6, 0.0), (1.0, 1.0)))
    assert [round(steps(done), 6) for done in (0.0, 0.2, 0.3, 0.6, 0.8, 1.0)] == [
        4,
        4,
        3,
        0,
        0.5,
        1,
    ]
    later = replace(two(), progress=0.25)
    algorithm = RLOO(advantage=Own() + falling * Extra("answer") + (lambda done: done) * Own())
    assert mix(algorithm, later).tolist() == [2 + 3.75 + 0.5, -2 + 4.5 - 0.5]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(-5, 5)), min_size=1, max_size=5), st.floats(0, 1)
)
def test_a_schedule_stays_between_its_points(points, done):
    points = tuple(sorted({share: (share, weight) for share, weight in points}.values()))
    weights = [weight for _, weight in points]
    assert min(weights) - 1e-9 <= Piecewise(points)(done) <= max(weights) + 1e-9


def test_values_are_settings():
    assert MIXTURE == Own() + 0.5 * Extra("teacher")
    assert GRPO(advantage=MIXTURE) == pickle.loads(pickle.dumps(GRPO(advantage=MIXTURE)))
    named = GRPO(advantage=f"{__file__}:MIXTURE")  # what a run's configuration holds
    assert torch.equal(mix(named, two()), mix(GRPO(advantage=MIXTURE), two()))


# ---------------------------------------------------------------- mistakes


def test_what_is_missing_is_named():
    with pytest.raises(
        AnnotationError, match=r"extra\['process'\], and there is 'teacher', 'answer'"
    ):
        mix(RLOO(advantage=Own() + Extra("process")), two())
    with pytest.raises(AnnotationError, match="there is nothing in it: give the learner annotate="):
        Extra("teacher")(replace(two(), extra=None))
    with pytest.raises(UnmetNeedError, match="pass reference=teacher"):
        LogRatio()(two())
    with pytest.raises(UnmetNeedError, match="pass the mixture as advantage="):
        Own()(two())


def test_what_is_no_advantage_is_refused():
    with pytest.raises(OptionError, match="advantage is 3; it must be a function"):
        GRPO(advantage=3)
    with pytest.raises(ObjectNotFoundError):
        GRPO(advantage=f"{__file__}:nothing")
    with pytest.raises(OptionError, match=r"the weight of .* is nan; it must be a finite number"):
        float("nan") * Own()
    with pytest.raises(OptionError, match="is no function of a rollout"):
        Own() + 3
    with pytest.raises(OptionError, match="has no parts"):
        Mixture(())
    with pytest.raises(OptionError, match="shares that rise"):
        Piecewise(((0.5, 1.0), (0.2, 0.0)))
    with pytest.raises(OptionError, match="no algorithm"):
        AdvantagesOf(GRPO)
    with pytest.raises(OptionError, match=r"make it the algorithm, VinePPO\(advantage=Own"):
        AdvantagesOf(VinePPO())
    with pytest.raises(OptionError, match="gamma is 2; it must be from 0 to 1"):
        Following(Own(), gamma=2)


def test_an_algorithm_needs_what_its_advantages_need():
    with pytest.raises(OptionError, match="reads values, and GRPO trains none"):
        GRPO(advantage=Own() + AdvantagesOf(PPO()))
    assert PPO(advantage=Own() + AdvantagesOf(RLOO())).needs == (True, True, False, True)
    assert PPO(advantage=Following(LogRatio())).needs == (False, False, True, True)
    assert PPO().needs == PPO.needs == (False, False, False, True)
    envs = letters_env(8, 6)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    with pytest.raises(UnmetNeedError, match="group_size=8"):
        Learner(policy, envs, PPO(advantage=Own() + AdvantagesOf(RLOO())), n_episodes=8)
    with pytest.raises(UnmetNeedError, match="compares the policy with a reference"):
        Learner(policy, envs, PPO(advantage=LogRatio()), n_episodes=8)


# ---------------------------------------------------------------- gradients over all answers

REWARDS = {"": 0.3, "a": -0.5, "b": 1.0, "aa": 0.7, "ab": -1.2, "ba": 0.1, "bb": 0.4}
ANSWERS = exact.enumerate_answers(
    TextEnv(
        prompts=["a"],
        reward=lambda episodes: [REWARDS[episode.text] for episode in episodes],
        tokenizer=Letters(2, stop=True),
        max_new_tokens=2,
    ),
    "a",
)
TOKENS, MASK = torch.from_numpy(ANSWERS.tokens), torch.from_numpy(ANSWERS.mask)


def make_policy(seed):
    """Far from uniform."""
    policy = TransformerPolicy(TransformerConfig(3, 3, n_layer=1, n_head=2, n_embd=8), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


POLICY, REFERENCE = make_policy(1), make_policy(2)
with torch.no_grad():
    OWN, REF = (p.outputs(TOKENS, MASK) for p in (POLICY, REFERENCE))
SURE = OWN.logprobs.double().sum(1).numpy()
TEACHER = torch.randn(MASK.shape, generator=torch.Generator().manual_seed(3))


def gradient_of(weights):
    """The gradient of -sum of weights times the tokens' log-probabilities, both (n, L)."""
    logprobs = POLICY.outputs(TOKENS, MASK).logprobs
    return flat((-torch.as_tensor(weights).float() * logprobs).sum())


def flat(loss):
    parts = [p for name, p in POLICY.named_parameters() if "value_head" not in name]
    found = torch.autograd.grad(loss, parts, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for g, p in zip(found, parts, strict=True)
        ]
    ).double()


def expected_gradient(algorithm):
    """Over all groups of two, each with its probability: no sampling, no error."""
    total, p = 0.0, torch.as_tensor(SURE).exp()
    for i, j in product(range(len(ANSWERS)), repeat=2):
        rows = torch.tensor([i, j])
        log = Rollout.from_log(
            TOKENS[rows], MASK[rows], torch.as_tensor(ANSWERS.rewards)[rows], torch.tensor([0, 0])
        )
        last = log.mask & (log.mask.flip(1).cumsum(1).flip(1) == 1)
        log = replace(
            log,
            logprobs=OWN.logprobs[rows],
            ref_logprobs=REF.logprobs[rows],
            values=OWN.values[rows],
            rewards=torch.where(last, log.scores[:, None], 0.0),
            progress=0.25,
        ).with_extra({"teacher": TEACHER[rows]})
        own = algorithm.advantages(log)
        log = replace(log, advantages=own, value_targets=algorithm.value_targets(log, own))
        log = replace(log, advantages=algorithm.mix(log))
        loss = algorithm.loss(log, POLICY.outputs(log.tokens, log.mask))
        loss = loss[0] if isinstance(loss, tuple) else loss
        total = total + p[i] * p[j] * flat(loss)
    return total


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)
    assert expected.norm() > 0.02


@pytest.mark.parametrize("made", [RLOO, GRPO, DrGRPO, DAPO, GSPO, TRPO, OffPolicyGradient])
def test_the_gradient_of_a_mixture_is_the_mixture_of_the_gradients(made):
    mixture = 0.8 * Own() + linear(0.8, 0.0) * Extra("teacher")
    apart = 0.8 * expected_gradient(made()) + 0.6 * expected_gradient(
        made(advantage=Extra("teacher"))
    )
    assert_close(expected_gradient(made(advantage=mixture)), apart)


def test_an_algorithm_with_anothers_advantages_has_its_gradient():
    """Exactly that of the objective, by whichever unbiased advantages."""
    whole = exact.gradient_weights(SURE, ANSWERS.rewards)
    wanted = gradient_of(torch.as_tensor(whole)[:, None].expand(MASK.shape))
    assert_close(expected_gradient(REINFORCE(value_coef=0.0)), wanted)
    for algorithm in (
        RLOO(advantage=AdvantagesOf(RLOO())),
        REINFORCE(value_coef=0.0, advantage=AdvantagesOf(RLOO())),
        RLOO(advantage=0.5 * Own() + AdvantagesOf(DrGRPO())),  # half of it, and (n - 1) / n
    ):
        assert_close(expected_gradient(algorithm), wanted)


def test_log_ratios_to_go_are_the_gradient_of_the_kl():
    """Minus KL(policy || reference) of whole answers."""
    weights = exact.gradient_weights(
        SURE, 0 * ANSWERS.rewards, REF.logprobs.double().sum(1).numpy(), 1.0
    )
    wanted = gradient_of(torch.as_tensor(weights)[:, None].expand(MASK.shape))
    assert_close(expected_gradient(RLOO(advantage=Following(LogRatio()))), wanted)


@pytest.mark.parametrize(
    "advantage",
    [Own(), 0.5 * Own() + 0.5 * AdvantagesOf(RLOO()), AdvantagesOf(REINFORCEPlusPlus())],
)
def test_check_loss_sees_the_mixture(advantage):
    report = check_loss(*of_algorithm(RLOO(advantage=advantage)))
    assert report.healthy
    assert report.unbiased == (advantage != AdvantagesOf(REINFORCEPlusPlus()))


# ---------------------------------------------------------------- in training


def annotate(rollout):
    vowels = torch.where(rollout.mask, (rollout.tokens == 0).double(), 0.0)
    return {"vowels": vowels}


@pytest.mark.parametrize(
    "made", [A2C, CISPO, DAPO, GRPO, GSPO, PPO, REINFORCE, REINFORCEPlusPlus, RLOO, TRPO]
)
def test_every_policy_gradient_trains_on_a_mixture(made):
    envs = letters_env(8, 6, group_size=4)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    seen = []

    def also(rollout):
        seen.append(rollout.progress)
        return torch.zeros(len(rollout))

    algorithm = made(advantage=Own() + linear(1.0, 0.0) * Extra("vowels") + also)
    learner = Learner(policy, envs, algorithm, n_episodes=8, annotate=annotate)
    update = learner.update(0.5)
    rollout = update.rollout
    own = made().advantages(rollout)
    expected = (own if own.dim() == 2 else own[:, None]) + 0.5 * rollout.extra["vowels"]
    torch.testing.assert_close(rollout.advantages, expected.where(rollout.mask, 0.0))
    assert seen == [0.5]
    if made.needs.values:  # fitted to the returns, not to the mixture
        torch.testing.assert_close(
            rollout.value_targets, (rollout.values + own).where(rollout.mask, 0.0)
        )


def test_a_teachers_part_is_learned_from():
    """Nothing but the token-level part pays, and its letter becomes likely."""
    envs = letters_env(32, 4, group_size=4)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    learner = Learner(
        policy,
        envs,
        GRPO(advantage=Extra("vowels")),
        n_episodes=32,
        annotate=annotate,
        learning_rate=1e-2,
    )
    shares = []
    for _ in range(12):
        rollout = learner.update().rollout
        shares.append(float((rollout.tokens[rollout.mask] == 0).double().mean()))
    assert shares[0] < 0.4 < 0.8 < shares[-1]


def test_progress_survives_what_is_done_to_a_rollout():
    rollout = replace(two(), progress=0.25)
    assert rollout.select(torch.tensor([1])).progress == rollout.to("cpu").progress == 0.25
    assert Rollout.from_state_dict(rollout.state_dict()).progress == 0.0  # set when learned from
    assert returns.group_sizes(rollout.groups).tolist() == [2, 2]
