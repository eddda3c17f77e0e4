"""Worlds of hypothesis: cached and uncached policies, rollouts and what a loss reads of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_worlds import environments

from agents import GRPO, PPO, RLOO
from agents.collector import Collector
from policies import PolicyOutputs, TransformerPolicy
from textenv import Reply, TextVectorEnv
from textenv.rewards import weighted

torch.set_num_threads(1)
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
ROWS = 4
few = settings(deadline=None, max_examples=30, derandomize=True)
modes, seeds = st.sampled_from(MODES), st.integers(0, 1_000)


def make(arguments, mode, group_size=1):
    return TextVectorEnv(ROWS, autoreset_mode=mode, group_size=group_size, **arguments)


def policy_for(envs, seed):
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=8, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # far from uniform
        for parameter in policy.transformer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


@few
@given(arguments=environments(), mode=modes, seed=seeds)
def test_a_cached_policy_equals_one_without_a_cache(arguments, mode, seed):
    envs = make(arguments, mode)
    policy, numbers = policy_for(envs, seed), np.random.default_rng(seed)
    observations, infos = envs.reset(seed=seed)
    cache = policy.new_cache(*observations.shape)
    for _ in range(16):
        options = {"action_masks": infos.get("action_mask"), "uniforms": numbers.random(ROWS)}
        cached = policy.act(observations, cache, **options)
        alone = policy.act(observations, None, **options)
        assert np.abs(cached.logprobs - alone.logprobs).max() < 1e-5
        assert np.abs(cached.values - alone.values).max() < 1e-5
        observations, _, terminated, truncated, infos = envs.step(cached.actions)
        over = terminated | truncated
        if mode is AutoresetMode.DISABLED and over.any():
            observations, infos = envs.reset(options={"reset_mask": over})


class Seen:
    """A reward of 0 that keeps the episodes it was shown."""

    def __init__(self):
        self.episodes = []

    def __call__(self, episodes):
        self.episodes += episodes
        return [0.0] * len(episodes)


@few
@given(arguments=environments(), mode=modes, seed=seeds)
def test_a_rollout_holds_the_episodes_as_the_environment_has_them(arguments, mode, seed):
    """Compared with what a reward is shown, which is made of the text and not of the actions."""
    seen, own = Seen(), arguments["reward"]
    reward = seen if own is None else weighted(own=(1.0, own), seen=(1.0, seen))
    envs = make({**arguments, "reward": reward}, mode)
    policy = policy_for(envs, seed)
    rollout = Collector(policy, envs, seed=seed).collect_episodes(6)
    assert (rollout.turns[~rollout.mask] == -1).all()
    assert (rollout.rewards[~rollout.mask] == 0).all()
    assert rollout.rewards.sum(1).tolist() == rollout.scores.tolist()
    for row, episode in enumerate(seen.episodes[:6]):
        ids = rollout.tokens[row][rollout.tokens[row] != envs.pad_token].tolist()
        assert ids == [*episode.prompt_tokens.tolist(), *episode.tokens.tolist()]
        mask = rollout.mask[row]
        turns = episode.turns[::2]
        chosen = [token for turn in turns for token in turn.tokens.tolist()]
        numbers = [turn.number for turn in turns for _ in turn.tokens]
        assert rollout.tokens[row, mask].tolist() == chosen
        assert rollout.turns[row, mask].tolist() == numbers
        # Each turn stands in one piece behind what was there when it began.
        begin, said = len(episode.prompt_tokens), ""
        for turn, reply in zip(turns, [*episode.turns[1::2], Reply()], strict=False):
            places = (rollout.turns[row] == turn.number).nonzero().flatten().tolist()
            assert places == list(range(places[0], places[0] + len(turn.tokens)))
            between = ids[begin : places[0]]
            assert mask[begin : places[0]].sum() == 0
            if arguments["frame"] is None:  # then it is what the world said
                assert envs.tokenizer.decode(between) == said
            begin, said = places[-1] + 1, "".join(reply.texts)
            paid = rollout.rewards[row, places]
            last = reply.reward
            if turn is turns[-1] and own is not None:
                last += len(episode.tokens)
            assert paid.tolist() == [0.0] * (len(places) - 1) + [last]


@few
@given(arguments=environments(), mode=modes, seed=seeds, whole=st.booleans())
def test_rollouts_equal_scoring(arguments, mode, seed, whole):
    envs = make(arguments, mode)
    policy = policy_for(envs, seed)
    collector = Collector(policy, envs, seed=seed)
    for _ in range(2):
        rollout = collector.collect_episodes(4) if whole else collector.collect_steps(9)
        mask, masks = rollout.mask, rollout.action_masks
        outputs = policy.outputs(rollout.tokens, mask, action_masks=masks)
        assert (outputs.logprobs - rollout.logprobs)[mask].abs().max() < 1e-4
        assert (outputs.values - rollout.values)[mask].abs().max() < 1e-4
        assert not rollout.logprobs[~mask].any() and not rollout.values[~mask].any()


def outputs_of(logits, values, rollout):
    """What a policy with these logits (S, L, V) says of every place, chosen or not."""
    every = logits.log_softmax(-1)
    told = rollout.tokens.clamp(max=logits.shape[-1] - 1)  # the padding is no token
    logprobs = every.gather(-1, told[..., None])[..., 0]
    return PolicyOutputs(logprobs, values, -(every.exp() * every).sum(-1))


@pytest.mark.parametrize(
    "algorithm",
    [
        PPO(entropy_coef=0.1),
        PPO(credit="gae_by_turn", entropy_coef=0.1),
        RLOO(),
        GRPO(),
        GRPO(credit="by_turn"),
    ],
)
@settings(few, max_examples=15)
@given(arguments=environments(), mode=modes, seed=seeds)
def test_nothing_of_the_worlds_is_in_a_loss(algorithm, arguments, mode, seed):
    """No gradient reaches the logits at a place that nobody chose, nor a critic's value there."""
    envs = make(arguments, mode, group_size=2)
    policy = policy_for(envs, seed)
    rollout = Collector(policy, envs, seed=seed).collect_episodes(4)
    mask = rollout.mask
    assume(algorithm.needs.values or rollout.scores.view(-1, 2).std(1).max() > 0)
    advantages = algorithm.advantages(rollout)
    targets = algorithm.value_targets(rollout, advantages)
    batch = replace(rollout, advantages=advantages, value_targets=targets)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*mask.shape, policy.vocab_size, generator=generator).requires_grad_()
    values = torch.randn(mask.shape, generator=generator).requires_grad_()
    found = algorithm.loss(batch, outputs_of(logits, values, rollout))
    loss = found[0] if isinstance(found, tuple) else found
    loss.backward()
    assert not logits.grad[~mask].any()
    assert values.grad is None or not values.grad[~mask].any()
    if algorithm.needs.values:
        assert logits.grad[mask].any(-1).all()  # the entropy's
