from dataclasses import dataclass, field, replace
from itertools import islice, product

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from letters import Letters
from toys import letters_env

from agents import (
    DPO,
    GRPO,
    PPO,
    RLOO,
    TRPO,
    AdaptiveKL,
    Algorithm,
    BestOfN,
    DrGRPO,
    Learner,
    OffPolicyGradient,
    REINFORCEPlusPlus,
    RewardWeightedRegression,
    losses,
    returns,
)
from policies import TransformerPolicy
from textenv import TextVectorEnv

torch.set_num_threads(1)
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16}


def share_of_a(episodes):
    return [float((e.tokens == 0).mean()) for e in episodes]


def make_envs(num_envs=8, **options):
    defaults = {"prompts": ["a", "bcd", "dd"], "max_new_tokens": 7, "reward": share_of_a}
    return letters_env(num_envs, 6, **(defaults | options))


def strong_policy(envs, seed=0):
    policy = TransformerPolicy.for_env(envs, **SHAPE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.transformer.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def make_learner(algorithm=None, env_options=None, **options):
    envs = make_envs(**(env_options or {}))
    policy = strong_policy(envs)
    defaults = {"n_steps": 10, "learning_rate": 3e-3}
    algorithm = algorithm or PPO(n_epochs=2, minibatch_tokens=20)
    return Learner(policy, envs, algorithm, **(defaults | options))


def with_reference(seed=1, **options):
    """A learner whose reference differs from its policy."""
    return make_learner(reference=strong_policy(make_envs(), seed).frozen_copy(), **options)


def same_weights(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.policy.parameters(), other.policy.parameters(), strict=True)
    )


# --- the KL penalty -------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("masks", [{}, {"min_new_tokens": 3, "forbidden_tokens": [1]}])
def test_kl_is_0_at_the_start(temperature, masks):
    envs = make_envs(**masks)
    policy = strong_policy(envs)
    reference = policy.frozen_copy()
    learner = Learner(
        policy, envs, PPO(), reference=reference, kl_coef=0.5, n_steps=10, temperature=temperature
    )
    first, *_, last = islice(learner.updates(10_000), 3)
    assert first.kl == 0  # rounding of log-probabilities is no KL
    assert first.rollout.penalties.abs().max() < 1e-4
    assert abs(last.kl) > 1e-5  # the policy moves, the reference does not


def test_the_penalty_of_every_token_is_subtracted_from_its_own_reward():
    learner = with_reference(kl_coef=0.3, learning_rate=0.0)
    rollout = learner.update().rollout
    with torch.no_grad():
        expected = 0.3 * (
            learner.policy.outputs(rollout.tokens, rollout.mask).logprobs
            - learner.reference.outputs(rollout.tokens, rollout.mask).logprobs
        )
    assert expected[rollout.mask].abs().min() > 0 and (expected[~rollout.mask] == 0).all()
    torch.testing.assert_close(rollout.penalties, expected, atol=1e-4, rtol=0)
    # The environment pays at the end of an episode only.
    paid = torch.zeros_like(rollout.rewards)
    for s in rollout.finished.nonzero().flatten():
        last = rollout.mask[s].nonzero().max()
        paid[s, last] = rollout.scores[s]
    torch.testing.assert_close(rollout.rewards, paid - rollout.penalties)
    torch.testing.assert_close(
        rollout.episode_returns, rollout.scores - expected.sum(1), atol=1e-6, rtol=0
    )
    # Scores, and so the return that is reported, are those of the environment.
    assert rollout.scores[rollout.finished].min() >= 0


def test_the_estimate_agrees_with_the_exact_kl_of_an_enumerated_environment():
    """4 letters, 3 steps: every one of the 64 answers has its probability."""
    envs = letters_env(64, 4, stop=False)
    policy, reference = strong_policy(envs), strong_policy(envs, seed=1).frozen_copy()
    answers = list(product(range(4), repeat=3))
    tokens = torch.tensor([[0, *answer] for answer in answers])
    mask = torch.tensor([[False, True, True, True]]).expand_as(tokens)
    with torch.no_grad():
        ours = policy.outputs(tokens, mask).logprobs.sum(1).double()
        theirs = reference.outputs(tokens, mask).logprobs.sum(1).double()
    assert ours.exp().sum().item() == pytest.approx(1, abs=1e-5)
    exact = (ours.exp() * (ours - theirs)).sum().item()
    deviation = (ours.exp() * (ours - theirs - exact).square()).sum().sqrt().item()
    learner = Learner(
        policy,
        envs,
        PPO(n_epochs=1, minibatch_tokens=None),
        reference=reference,
        kl_coef=2.0,
        learning_rate=0.0,
        n_episodes=6400,
    )
    update = learner.update()
    error = deviation / 80  # 6,400 episodes
    assert exact > 20 * error
    assert update.kl * 3 == pytest.approx(exact, abs=4 * error)  # it is reported per token
    k3 = losses.kl_k3(update.rollout.logprobs, update.rollout.ref_logprobs, update.rollout.mask)
    assert k3.sum(1).mean().item() == pytest.approx(exact, abs=4 * error)
    expected_return = 30 - 2.0 * exact  # the environment pays 10 a token
    assert update.rollout.episode_returns.mean().item() == pytest.approx(
        expected_return, abs=8 * error
    )


def test_a_strong_penalty_brings_the_policy_back_to_the_reference():
    learner = with_reference(
        kl_coef=1.0,
        learning_rate=1e-2,
        env_options={"reward": lambda episodes: [0.0] * len(episodes), "num_envs": 32},
        algorithm=PPO(minibatch_tokens=100),
    )
    kls = [update.kl for update in learner.updates(20 * 320)]
    assert np.mean(kls[:2]) > 0.1
    assert abs(np.mean(kls[-5:])) < 0.3 * np.mean(kls[:2])


def test_adaptive_kl_steers_by_what_was_measured():
    controller = AdaptiveKL(initial=0.1, target=1e-3, horizon=1000)
    learner = with_reference(kl_coef=controller)
    coefs = []
    for update in islice(learner.updates(10_000), 3):
        coefs.append(update.metrics["kl_coef"])
        assert update.kl > 2e-3  # far above the target: the coefficient rises
        controller = controller.update(update.kl, int(update.rollout.finished.sum()))
        assert learner.kl_controller == controller
        penalties = update.rollout.penalties[update.rollout.mask]
        ratios = (update.rollout.logprobs - update.rollout.ref_logprobs)[update.rollout.mask]
        torch.testing.assert_close(penalties, coefs[-1] * ratios)
    assert coefs[0] == 0.1 < coefs[1] < coefs[2]


def test_reference_numbers_can_be_used_in_a_loss():
    @dataclass(frozen=True)
    class KLInLoss(PPO):
        def loss(self, batch, outputs):
            weights = outputs.logprobs * batch.ref_logprobs  # saved for the backward pass
            return losses.masked_mean(weights, batch.mask)

    learner = with_reference(algorithm=KLInLoss(minibatch_tokens=None))
    assert np.isfinite(learner.update().metrics["loss"])


# --- scores near 1e8 ------------------------------------------------------------------------------


def length_above(offset):
    return lambda episodes: [offset + len(e.tokens) for e in episodes]


@pytest.mark.parametrize(
    "algorithm",
    [
        RLOO(), GRPO(), DrGRPO(), TRPO(), BestOfN(), OffPolicyGradient(), REINFORCEPlusPlus(),
        RewardWeightedRegression(), DPO(),
        PPO(value_coef=0.0, gae_lambda=1.0, n_epochs=1, minibatch_tokens=None),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)  # fmt: skip
def test_a_common_part_of_all_scores_changes_nothing(algorithm):
    """Float32 holds every eighth number there; these scores differ by 1."""
    runs = []
    for offset in (0.0, 1e8):
        env_options = {"reward": length_above(offset), "group_size": 4}
        learner = make_learner(
            algorithm, env_options, n_steps=None, n_episodes=16,
            reference=strong_policy(make_envs()).frozen_copy(),
        )  # fmt: skip
        update = learner.update()
        weights = torch.cat([p.detach().flatten() for p in learner.policy.parameters()])
        runs.append((update, weights, learner))
    (plain, weights, _), (raised, same, _) = runs
    assert torch.equal(plain.rollout.tokens, raised.rollout.tokens)
    assert plain.score_std == pytest.approx(raised.score_std) and plain.score_std > 0.5
    if isinstance(algorithm, RLOO | GRPO | DrGRPO | TRPO | OffPolicyGradient):
        torch.testing.assert_close(
            raised.rollout.advantages, plain.rollout.advantages, atol=1e-6, rtol=1e-6
        )
        assert plain.rollout.advantages.abs().max() > 0.5
    torch.testing.assert_close(same, weights, atol=1e-4, rtol=0)


# --- epochs and minibatches -----------------------------------------------------------------------


@dataclass(frozen=True)
class Watched(PPO):
    """PPO that writes down its minibatches."""

    batches: list = field(default_factory=list)

    def loss(self, batch, outputs):
        self.batches.append(batch)
        return super().loss(batch, outputs)


@pytest.mark.parametrize("size", [1, 17, 40, 10_000])
def test_every_epoch_sees_every_sequence_once(size):
    algorithm = Watched(n_epochs=3, minibatch_tokens=size)
    rollout = make_learner(algorithm).update().rollout
    longest = rollout.mask.sum(1).max()
    epochs = []
    seen = []
    for batch in algorithm.batches:
        seen += batch.groups.tolist()  # each sequence has a group of its own
        if len(seen) == len(rollout):
            epochs.append(seen)
            seen = []
        if size > longest:
            pieces = max(1, round(rollout.num_tokens / size))
            assert abs(batch.num_tokens - rollout.num_tokens / pieces) <= longest
    assert len(epochs) == 3 and not seen
    for epoch in epochs:
        assert sorted(epoch) == sorted(rollout.groups.tolist())
    if len(algorithm.batches) > 3:  # one minibatch an epoch has no order
        assert epochs[0] != epochs[1] != epochs[2]


def test_a_minibatch_is_a_part_of_the_rollout():
    algorithm = Watched(n_epochs=1, minibatch_tokens=20)
    learner = make_learner(algorithm, {"min_new_tokens": 3})
    rollout = learner.update().rollout
    masks = {}
    for (s, p), allowed in zip(rollout.mask.nonzero().tolist(), rollout.action_masks, strict=True):
        masks[s, p] = allowed
    for batch in algorithm.batches:
        width = batch.tokens.shape[1]
        assert batch.mask[:, -1].any()  # cut to the longest
        wholes = [rollout.groups.tolist().index(group) for group in batch.groups.tolist()]
        for name in ("tokens", "mask", "logprobs", "advantages", "value_targets", "rewards"):
            assert torch.equal(getattr(batch, name), getattr(rollout, name)[wholes, :width]), name
        places = batch.mask.nonzero().tolist()
        for (s, p), allowed in zip(places, batch.action_masks, strict=True):
            assert torch.equal(allowed, masks[wholes[s], p])


def test_without_minibatches_the_whole_rollout_makes_a_step():
    algorithm = Watched(n_epochs=2, minibatch_tokens=None)
    rollout = make_learner(algorithm).update().rollout
    assert [len(batch) for batch in algorithm.batches] == [len(rollout)] * 2


@pytest.mark.parametrize(("target", "epochs"), [(1e-9, 1), (1e9, 6), (None, 6)])
def test_target_kl_ends_the_epochs(target, epochs):
    algorithm = Watched(n_epochs=6, minibatch_tokens=20, target_kl=target)
    rollout = make_learner(algorithm).update().rollout
    assert sum(len(batch) for batch in algorithm.batches) == epochs * len(rollout)


def test_target_kl_ends_before_the_policy_is_far_away():
    free, bound = (
        make_learner(PPO(n_epochs=20, minibatch_tokens=20, target_kl=target), learning_rate=1e-3)
        for target in (None, 0.01)
    )
    for learner in (free, bound):
        rollout = learner.update().rollout
        with torch.no_grad():
            logprobs = learner.policy.outputs(rollout.tokens, rollout.mask).logprobs
        learner.moved = losses.masked_mean(
            losses.kl_k3(rollout.logprobs, logprobs, rollout.mask), rollout.mask
        )
    assert bound.moved < 0.05 < free.moved


# --- the learning rate ----------------------------------------------------------------------------


def test_the_learning_rate_follows_the_share_of_the_training_that_is_done():
    asked = []

    def schedule(done):
        asked.append(done)
        return 1e-3 * (1 - done)

    learner = make_learner(learning_rate=schedule)
    updates = list(learner.updates(400))
    assert [u.tokens for u in updates] == [80, 160, 240, 320, 400]
    assert asked[1:] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])  # the first was for the optimiser
    rates = [u.metrics["learning_rate"] for u in updates]
    assert rates == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(2e-4)


def test_learning_rate_0_changes_nothing():
    learner = make_learner(learning_rate=0.0)
    before = [p.clone() for p in learner.policy.parameters()]
    learner.update()
    for parameter, old in zip(learner.policy.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


def test_another_optimiser_and_the_limit_of_the_gradient():
    learner = make_learner(
        PPO(n_epochs=1, minibatch_tokens=None),
        optimizer=torch.optim.SGD,
        learning_rate=1.0,
        max_grad_norm=0.01,
    )
    before = torch.cat([p.detach().flatten() for p in learner.policy.parameters()])
    update = learner.update()
    after = torch.cat([p.detach().flatten() for p in learner.policy.parameters()])
    assert update.metrics["grad_norm"] > 0.02
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


# --- what an update reports -----------------------------------------------------------------------


def test_counts_and_means():
    learner = make_learner()
    tokens = episodes = 0
    for number, update in enumerate(islice(learner.updates(10_000), 3), 1):
        rollout = update.rollout
        tokens += int(rollout.mask.sum())
        episodes += int(rollout.terminated.sum())
        assert (update.number, update.tokens, update.episodes) == (number, tokens, episodes)
        expected = rollout.scores[rollout.terminated].mean().item()
        assert update.score == pytest.approx(expected)
        assert update.kl is None  # no reference
        assert 0 < update.entropy < np.log(7)
        assert update.tokens_per_second > 0
        assert {"policy_loss", "value_loss", "clip_fraction", "approx_kl", "explained_variance"} < (
            set(update.metrics)
        )


def test_a_rollout_without_an_end_has_no_return():
    update = make_learner(n_steps=1, env_options={"stop_tokens": []}).update()
    assert np.isnan(update.score) and update.episodes == 0


# --- the same seed, another seed ------------------------------------------------------------------


def test_the_seed_makes_the_run():
    runs = [make_learner(seed=seed) for seed in (3, 3, 4)]
    for learner in runs:
        learner.tokens = torch.cat(
            [u.rollout.tokens.flatten() for u in islice(learner.updates(10_000), 2)]
        )
    one, same, other = runs
    assert torch.equal(one.tokens, same.tokens) and same_weights(one, same)
    assert not same_weights(one, other)


@pytest.mark.parametrize("length", [{"n_steps": 10}, {"n_episodes": 12}])
def test_gymnasiums_vector_of_single_environments_gives_the_same_run(length):
    kwargs = {
        "prompts": ["a", "bcd", "dd"],
        "reward": share_of_a,
        "tokenizer": Letters(6, stop=True),
        "max_new_tokens": 7,
        "min_new_tokens": 2,
    }
    sync = gym.make_vec(
        "textenv/Generate-v0",
        num_envs=4,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **kwargs,
    )
    learners = []
    for envs in (sync, gym.make_vec("textenv/Generate-v0", num_envs=4, **kwargs)):
        learners.append(Learner(strong_policy(envs), envs, PPO(n_epochs=1), **length))
    one, other = ([learner.update() for _ in range(3)] for learner in learners)
    for a, b in zip(one, other, strict=True):
        assert a.score == b.score
        assert torch.equal(a.rollout.tokens, b.rollout.tokens)
        assert torch.equal(a.rollout.action_masks, b.rollout.action_masks)
    assert same_weights(*learners)
    sync.close()


def test_a_vector_that_resets_at_the_next_step_is_learned_from_too():
    learner = make_learner(env_options={"autoreset_mode": "NextStep"})
    updates = list(islice(learner.updates(10_000), 4))
    assert updates[-1].tokens < 4 * 80  # steps that only reset do not count
    assert updates[-1].episodes > 20


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [{}, {"n_steps": 4, "n_episodes": 4}])
def test_a_rollout_has_one_length(length):
    envs = make_envs()
    with pytest.raises(ValueError, match="give one of them"):
        Learner(strong_policy(envs), envs, PPO(), **length)


def test_a_penalty_needs_a_reference():
    with pytest.raises(ValueError, match=r"kl_coef is 0\.1 but there is no reference"):
        make_learner(kl_coef=0.1)


# --- user code as it should read ------------------------------------------------------------------


def vowels(episodes):
    return [sum(c in "aeiou" for c in e.text) / max(len(e.text), 1) for e in episodes]


def test_ppo_as_a_user_writes_it():
    envs = gym.make_vec(
        "textenv/Generate-v0",
        num_envs=64,
        prompts=["the ", "a "],
        reward=vowels,
        tokenizer="bytes",
        max_new_tokens=32,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=4, n_head=4, n_embd=128)
    learner = Learner(
        policy,
        envs,
        PPO(n_epochs=4),
        reference=policy.frozen_copy(),
        kl_coef=0.05,
        learning_rate=3e-4,
        n_steps=64,
        seed=0,
    )
    for update in learner.updates(total_tokens=200_000):  # a generator, not callbacks
        print(update.tokens, update.score, update.kl)
        break
    assert update.tokens == 64 * 64


def test_the_plain_loop():
    envs = gym.make_vec(
        "textenv/Generate-v0", num_envs=4, prompts=["the "], reward=vowels, max_new_tokens=8
    )
    policy = TransformerPolicy.for_env(envs, **SHAPE)
    obs, _ = envs.reset(seed=1)
    cache = policy.new_cache(envs.num_envs)
    paid = 0
    for _ in range(20):
        step = policy.act(obs, cache)  # actions, logprobs, values: (num_envs,)
        obs, rewards, terminated, _truncated, _infos = envs.step(step.actions)
        paid += terminated.sum()
        assert (rewards[~terminated] == 0).all()
    assert paid >= 8


@dataclass(frozen=True)
class BestOfGroup(Algorithm):
    """Learn only from the best answer of each group."""

    def advantages(self, rollout):
        return returns.is_group_best(rollout.episode_returns, rollout.groups)

    def loss(self, batch, outputs):
        return losses.policy_gradient(outputs.logprobs, batch.advantages, batch.mask)


@pytest.mark.parametrize("size", [None, 20])
def test_a_new_algorithm(size):
    algorithm = BestOfGroup(minibatch_tokens=size)
    envs = {"group_size": 4, "num_envs": 32}
    learner = make_learner(algorithm, envs, n_steps=None, n_episodes=32, learning_rate=1e-2)
    updates = list(learner.updates(5_000))
    rollout = updates[0].rollout
    assert rollout.advantages.shape == (32,)
    assert rollout.advantages.sum() == 8  # one of each group
    first, last = (np.mean([u.score for u in part]) for part in (updates[:3], updates[-3:]))
    assert last > first + 0.2


def test_metrics_may_be_plain_numbers():
    @dataclass(frozen=True)
    class Reporting(BestOfGroup):
        def loss(self, batch, outputs):
            loss = super().loss(batch, outputs)
            return loss, {"mine": loss.item(), "tensor": loss}

    update = make_learner(Reporting()).update()
    assert update.metrics["mine"] == pytest.approx(update.metrics["tensor"])


class Doubled(Learner):
    """Learns from twice the rewards."""

    def collect(self):
        rollout = super().collect()
        return replace(rollout, rewards=2 * rollout.rewards)


@pytest.mark.parametrize("kl_coef", [None, 0.1])
def test_what_a_subclass_collects_is_learned_from(kl_coef):
    envs, plain_envs = make_envs(), make_envs()
    policy, plain_policy = strong_policy(envs), strong_policy(plain_envs)
    options = {"n_steps": 10}
    if kl_coef is not None:
        options |= {"reference": strong_policy(envs, 1).frozen_copy(), "kl_coef": kl_coef}
    plain = Learner(plain_policy, plain_envs, PPO(n_epochs=1), **options).update()
    update = Doubled(policy, envs, PPO(n_epochs=1), **options).update()
    assert plain.rollout.rewards.any()
    assert torch.equal(update.rollout.rewards, 2 * plain.rollout.rewards)
    assert update.score == plain.score  # what was played is what was paid


def test_time_is_read_when_the_policys_own_device_is_done(monkeypatch):
    waited_for = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited_for.append)
    learner = make_learner()
    assert learner._now() > 0 and not waited_for  # a CPU works at once
    second = torch.device("cuda", 1)
    monkeypatch.setattr(type(learner.policy), "device", second)
    learner._now()
    assert waited_for == [second]


def test_a_rollout_replaced_by_a_users_own_is_learned_from():
    """`learn_from` is the half of an update that needs no environment."""
    learner = make_learner()
    rollout = learner.collect()
    opposite = replace(rollout, rewards=-rollout.rewards)
    _, metrics = learner.learn_from(opposite)
    assert np.isfinite(metrics["loss"])


def test_lower_precision_scores_nearly_alike():
    envs = TextVectorEnv(4, prompts=["ab", "c"], reward=lambda e: [0.0] * len(e), max_new_tokens=4)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    learner = Learner(policy, envs, PPO(), n_steps=4, precision=torch.bfloat16)
    rollout = learner.collect()
    outputs = learner.outputs(rollout)
    assert outputs.logprobs.dtype == torch.float32
    assert 0 < (outputs.logprobs - rollout.logprobs).abs().max() < 0.05
    outputs.logprobs.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())
