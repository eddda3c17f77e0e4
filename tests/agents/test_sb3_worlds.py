"""Conversations under Stable-Baselines3: what the world says is read and is in no mask."""

import numpy as np
import pytest
import torch
from letters import Letters
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO

from agents.sb3 import SB3TokenPolicy, TrajectoryBuffer, to_vec_env
from agents.sb3.maskable import MaskableTrajectoryBuffer, SB3MaskableTokenPolicy
from policies import TransformerConfig, TransformerPolicy
from textenv import Reply, TextVectorEnv, World

torch.set_num_threads(1)
VOCAB = 9  # eight letters and a stop token
WORLDS = [5, 6, 7]  # the world speaks with "f", "g" and "h" alone


class Gossip(World):
    """Says one to four letters of its own, sometimes ends, pays for every turn."""

    def begin(self, record, rng):
        return "".join(rng.choice(list("fgh"), size=rng.integers(1, 4)))

    def reply(self, turn, rng):
        over = rng.random()
        return Reply(
            "".join(rng.choice(list("fgh"), size=rng.integers(1, 5))),
            reward=float(len(turn.text)) - 1.0,
            terminated=over < 0.2,
            truncated=over > 0.9,
        )


def envs(rows=6, **changes):
    arguments = {
        "world": Gossip,
        "tokenizer": Letters(VOCAB - 1, stop=True),
        "max_prompt_tokens": 3,
        "max_new_tokens": 20,
        "max_turns": 3,
        "max_turn_tokens": 3,
    }
    return TextVectorEnv(rows, **(arguments | changes))


def policy():
    """Weights large enough that wrong positions or stale caches show."""
    made = TransformerPolicy(TransformerConfig(VOCAB, 23, n_layer=2, n_head=2, n_embd=32))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def model_of(algorithm, buffer="trajectories", **options):
    masked = algorithm is MaskablePPO
    buffers = {
        "trajectories": MaskableTrajectoryBuffer if masked else TrajectoryBuffer,
        "plain": None,
    }
    defaults = {"learning_rate": 0.0, "n_steps": 24}
    if algorithm is not A2C:
        defaults |= {"n_epochs": 1, "batch_size": 6 * 24}
    return algorithm(
        SB3MaskableTokenPolicy if masked else SB3TokenPolicy,
        to_vec_env(envs(forbidden_tokens=WORLDS if masked else ())),
        rollout_buffer_class=buffers[buffer],
        policy_kwargs={"policy": policy()},
        seed=3,
        device="cpu",
        **(defaults | options),
    )


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_a_rollout_equals_scoring_and_the_first_ratio_is_one(algorithm):
    model = model_of(algorithm)
    model.learn(6 * 24)  # the weights stay
    choices = 0
    for samples in model.rollout_buffer.get(40):
        masks = {"action_masks": samples.action_masks} if algorithm is MaskablePPO else {}
        with torch.no_grad():
            values, logprobs, _ = model.policy.evaluate_actions(
                samples.observations, samples.actions.long().flatten(), **masks
            )
        ratio = (logprobs - samples.old_log_prob).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)
        torch.testing.assert_close(values.flatten(), samples.old_values, atol=1e-4, rtol=0)
        choices += len(ratio)
    assert choices == 6 * 24
    if algorithm is not A2C:
        told = model.logger.name_to_value
        assert abs(told["train/approx_kl"]) < 1e-6 and told["train/clip_fraction"] == 0


def test_nothing_the_world_says_is_in_a_mask():
    """The policy never says "f", "g" or "h", and the world says nothing else."""
    model = model_of(MaskablePPO)
    model.learn(6 * 24)
    appended = 0
    for samples in model.rollout_buffer.get(40):
        texts = samples.observations
        assert not torch.isin(texts.tokens[texts.mask], torch.tensor(WORLDS)).any()
        others = texts.tokens[~texts.mask & (texts.tokens != VOCAB)]
        assert torch.isin(others, torch.tensor(WORLDS)).all()
        appended += len(others)
    assert appended > 100


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
def test_the_mask_holds_the_places_of_the_choices(algorithm):
    """The same actions again, in the environment itself: where did each of them stand?"""
    model = model_of(algorithm)
    model.learn(6 * 24)
    buffer = model.rollout_buffer
    again = envs(forbidden_tokens=WORLDS if algorithm is MaskablePPO else ())
    observations, _ = again.reset(seed=[3 + row for row in range(6)])
    rows, jumps = np.arange(6), 0
    for step, actions in enumerate(buffer.actions.reshape(24, 6).astype(int)):
        lengths = (observations != VOCAB).sum(1)
        assert (buffer.positions[step] == lengths).all()
        texts = buffer.tokens[buffer.sequences[step]]
        before = np.arange(texts.shape[1]) < lengths[:, None]
        padded = np.pad(observations, ((0, 0), (0, 1)), constant_values=VOCAB)
        assert (texts == padded)[before].all()  # all of what was read, replies included
        assert (texts[rows, lengths] == actions).all()
        observations, _, terminated, truncated, _ = again.step(actions)
        grown = (observations != VOCAB).sum(1) - lengths
        jumps += int((grown[~(terminated | truncated)] > 1).sum())
    assert jumps > 20  # replies stood between choices
    assert (buffer.steps >= 0).sum() == 6 * 24


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_an_update_is_that_of_the_plain_buffer(algorithm):
    options = {"learning_rate": 1e-2, "gamma": 0.9}
    updated = []
    for buffer in ("trajectories", "plain"):
        model = model_of(algorithm, buffer, **options)
        model.learn(6 * 24)
        updated.append(torch.cat([p.detach().flatten() for p in model.policy.policy.parameters()]))
    start = torch.cat([p.detach().flatten() for p in policy().parameters()])
    assert (updated[0] - start).abs().max() > 5e-3
    # Adam divides by the size of a gradient, so tiny ones may be a step apart: the mean is not.
    assert (updated[0] - updated[1]).abs().mean() < 1e-5


def test_the_kl_to_itself_is_0_across_replies():
    made = policy()
    model = PPO(
        SB3TokenPolicy,
        to_vec_env(envs()),
        n_steps=24,
        batch_size=144,
        rollout_buffer_class=TrajectoryBuffer,
        rollout_buffer_kwargs={"reference": made.frozen_copy(), "kl_coef": 0.3},
        policy_kwargs={"policy": made},
        seed=0,
        device="cpu",
    )
    model.learn(144)
    assert model.rollout_buffer.kl == pytest.approx(0, abs=1e-6)
