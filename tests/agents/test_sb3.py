"""Stock algorithms of Stable-Baselines3 and sb3-contrib, from their packages, on text."""

import copy

import numpy as np
import pytest
import torch
from letters import Letters
from sb3_contrib import QRDQN, TRPO, MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from agents.sb3 import (
    SB3TokenPolicy,
    TokenFeaturesExtractor,
    Trajectories,
    TrajectoryBuffer,
    to_vec_env,
)
from agents.sb3.maskable import MaskableTrajectoryBuffer, SB3MaskableTokenPolicy
from policies import TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import VocabularyMismatchError

torch.set_num_threads(1)
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32}
VOCAB = 9  # eight letters and a stop token


def share_of_even_ids(episodes):
    return [float(np.mean(e.tokens % 2 == 0)) for e in episodes]


def vec_env(rows=8, **changes):
    arguments = {
        "prompts": ["a", "bcd", "fe"],
        "reward": share_of_even_ids,
        "tokenizer": Letters(VOCAB - 1, stop=True),
        "max_new_tokens": 6,
    }
    return to_vec_env(TextVectorEnv(rows, **(arguments | changes)))


def token_policy(seed=0, **shape):
    return TransformerPolicy(TransformerConfig(VOCAB, 9, **(SHAPE | shape)), seed=seed)


def lively(policy):
    """Weights large enough that wrong positions or stale caches show."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0 if "embedding" in name else 3.0)
        policy.value_head.weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
        policy.value_head.bias.fill_(0.5)
    return policy


class UncachedTokenPolicy(SB3TokenPolicy):
    """The same network without cache and shared passes: every text by itself, from its start."""

    def alone(self, obs):
        hidden = []
        for text in obs.long():
            ids = text[text != self.policy.pad_token]
            hidden.append(self.policy.hidden_states(ids, torch.tensor([len(ids)]))[-1])
        return torch.stack(hidden)

    def forward(self, obs, deterministic=False, action_masks=None):
        hidden = self.alone(obs)
        logits = self.policy.logits(hidden).log_softmax(-1)
        uniforms = torch.from_numpy(self.policy.generator.random(len(obs)))
        passed = logits.double().exp().cumsum(-1) <= uniforms[:, None]
        actions = passed.sum(-1).clamp(max=VOCAB - 1)
        return actions, self.policy.value_head(hidden), logits.gather(1, actions[:, None])[:, 0]

    def evaluate_actions(self, obs, actions, action_masks=None):
        hidden = self.alone(obs)
        logits = self.policy.logits(hidden).log_softmax(-1)
        entropy = -(logits.exp() * logits).sum(-1)
        return self.policy.value_head(hidden), logits.gather(1, actions[:, None])[:, 0], entropy

    def predict_values(self, obs):
        return self.policy.value_head(self.alone(obs))


class Record(BaseCallback):
    """What the algorithm logged after each rollout's training, and the rollout's own arrays."""

    def _init_callback(self):
        self.logs, self.rollouts = [], []

    def _on_rollout_start(self):
        self._keep()

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer = self.model.rollout_buffer
        names = ("actions", "rewards", "values", "log_probs", "advantages", "returns")
        self.rollouts.append({name: getattr(buffer, name).copy() for name in names})

    def _on_training_end(self):
        self._keep()

    def _keep(self):
        logged = self.logger.name_to_value
        self.logs.append({k: v for k, v in logged.items() if k.startswith("train/")})


def recorded(algorithm, policy_class, buffer_class, *, steps=3, env=None, **options):
    """Train for `steps` rollouts of 5 steps: most episodes are cut once."""
    policy = lively(token_policy())
    env = env or vec_env(budget="truncate")
    model = algorithm(
        policy_class,
        env,
        n_steps=5,
        rollout_buffer_class=buffer_class,
        policy_kwargs={"policy": policy},
        seed=3,
        device="cpu",
        **options,
    )
    record = Record()
    model.learn(steps * 5 * env.num_envs, callback=record)
    return record, policy


WHOLE = {"batch_size": 40, "n_epochs": 3, "learning_rate": 1e-3, "ent_coef": 0.1}


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [(PPO, WHOLE), (PPO, WHOLE | {"clip_range_vf": 0.1, "gamma": 0.9}), (A2C, {})],
)
def test_losses_are_those_of_the_plain_buffer_and_an_uncached_policy(algorithm, options):
    plain, slow = recorded(algorithm, UncachedTokenPolicy, RolloutBuffer, **options)
    for buffer in (TrajectoryBuffer, RolloutBuffer):
        ours, fast = recorded(algorithm, SB3TokenPolicy, buffer, **options)
        for a, b in zip(plain.rollouts, ours.rollouts, strict=True):
            assert np.array_equal(a["actions"], b["actions"])
            for name in a:
                np.testing.assert_allclose(a[name], b[name], atol=1e-4)
        assert len(plain.logs) == 4 and "train/value_loss" in plain.logs[-1]
        for a, b in zip(plain.logs, ours.logs, strict=True):
            assert a == pytest.approx(b, abs=1e-4)
        for a, b in zip(slow.parameters(), fast.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_minibatches_hold_every_choice_once_with_its_own_numbers():
    model = PPO(
        SB3TokenPolicy, vec_env(), n_steps=5, rollout_buffer_class=TrajectoryBuffer, seed=0,
        policy_kwargs={"policy": lively(token_policy())}, batch_size=40,
    )  # fmt: skip
    model.learn(40)
    buffer = model.rollout_buffer
    seen = []
    for batch in buffer.get(12):
        assert len(batch.observations) == len(batch.actions) == len(batch.advantages)
        tokens, mask = batch.observations.tokens, batch.observations.mask
        assert torch.equal(tokens[mask].float(), batch.actions[:, 0].float())
        seen += list(zip(batch.old_values.tolist(), batch.returns.tolist(), strict=True))
    values, returns = buffer.values.flatten(), buffer.returns.flatten()
    assert sorted(seen) == sorted(zip(values.tolist(), returns.tolist(), strict=True))


def test_ends_cuts_and_truncations_are_bootstrapped_as_they_must(monkeypatch):
    """No reward, a value of 5 everywhere, gamma 0.5: what is left is the bootstrap."""

    def rollout(budget):
        policy = token_policy()
        torch.nn.init.constant_(policy.value_head.bias, 5.0)
        env = vec_env(
            rows=1, budget=budget, reward=lambda e: [0.0] * len(e), max_new_tokens=3, stop_tokens=[]
        )
        model = PPO(
            SB3TokenPolicy, env, n_steps=4, rollout_buffer_class=TrajectoryBuffer, gamma=0.5,
            gae_lambda=1.0, policy_kwargs={"policy": policy}, batch_size=4, learning_rate=0.0,
        )  # fmt: skip
        model.learn(4)
        return model.rollout_buffer.returns[:, 0]

    # The episode takes three steps; the fourth begins one that the rollout's end cuts.
    np.testing.assert_allclose(rollout("terminate"), [0, 0, 0, 2.5], atol=1e-6)
    np.testing.assert_allclose(rollout("truncate"), [0.625, 1.25, 2.5, 2.5], atol=1e-6)


def test_reference_kl_is_taken_from_the_rewards():
    reference = lively(token_policy(seed=5)).frozen_copy()

    def rollout(**kwargs):
        return recorded(
            PPO, SB3TokenPolicy, TrajectoryBuffer, steps=1, rollout_buffer_kwargs=kwargs, **WHOLE
        )[0].rollouts[0]

    plain, leashed = rollout(), rollout(reference=reference, kl_coef=0.3)
    assert np.array_equal(plain["actions"], leashed["actions"])
    own = rollout(reference=lively(token_policy()).frozen_copy(), kl_coef=0.3)
    np.testing.assert_allclose(own["rewards"], plain["rewards"], atol=1e-5)  # KL of 0
    # By hand: the environment played again, each text scored by itself.
    env = vec_env(budget="truncate")
    env.seed(3)
    obs = env.reset()
    expected = np.zeros_like(plain["rewards"])
    for step, actions in enumerate(plain["actions"][..., 0]):
        for row, action in enumerate(actions):
            ids = torch.tensor(obs[row][obs[row] != VOCAB])
            hidden = reference.hidden_states(ids, torch.tensor([len(ids)]))[-1:]
            logprob = reference.logits(hidden).log_softmax(-1)[0, action].item()
            expected[step, row] = 0.3 * (plain["log_probs"][step, row] - logprob)
        obs = env.step(actions)[0]
    np.testing.assert_allclose(plain["rewards"] - leashed["rewards"], expected, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_kl_to_itself_is_0_where_tokens_are_masked(temperature):
    policy = lively(token_policy())
    reference = policy.frozen_copy()
    model = MaskablePPO(
        SB3MaskableTokenPolicy,
        vec_env(forbidden_tokens=[0, 2, 4], min_new_tokens=3),
        n_steps=8,
        batch_size=64,
        rollout_buffer_class=MaskableTrajectoryBuffer,
        rollout_buffer_kwargs={
            "reference": reference, "kl_coef": 0.3, "temperature": temperature,
        },
        policy_kwargs={"policy": policy, "temperature": temperature},
        seed=0,
        device="cpu",
    )  # fmt: skip
    kls = []
    for _ in range(2):
        model.learn(64)
        kls.append(model.rollout_buffer.kl)
    assert kls[0] == pytest.approx(0, abs=1e-6)
    assert abs(kls[1]) > 1e-4  # the policy has moved, the reference has not
    paid = model.rollout_buffer.rewards
    assert paid.min() > -0.5  # no penalty for what could not be chosen


def test_a_reference_at_another_temperature_is_refused():
    policy = lively(token_policy())
    model = PPO(
        SB3TokenPolicy, vec_env(), n_steps=8, batch_size=64, rollout_buffer_class=TrajectoryBuffer,
        rollout_buffer_kwargs={"reference": policy.frozen_copy(), "kl_coef": 0.3},
        policy_kwargs={"policy": policy, "temperature": 0.6}, device="cpu",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"samples at temperature 0\.6, .* scores at 1\.0"):
        model.learn(64)


def test_a_coefficient_without_a_reference_is_refused():
    with pytest.raises(ValueError, match="no reference"):
        PPO(
            SB3TokenPolicy, vec_env(), rollout_buffer_class=TrajectoryBuffer,
            rollout_buffer_kwargs={"kl_coef": 0.1}, batch_size=8,
        )  # fmt: skip


def test_texts_that_do_not_grow_by_the_choice_are_refused():
    space, tokens = vec_env().observation_space, vec_env().action_space
    buffer = TrajectoryBuffer(2, space, tokens, n_envs=1)
    obs = np.full((1, 9), VOCAB)
    obs[0, :2] = [1, 2]
    one = torch.zeros(1)
    buffer.add(obs, np.array([4]), np.zeros(1), np.array([True]), one, one)
    obs[0, 2] = 5  # not the 4 that was chosen
    buffer.add(obs, np.array([4]), np.zeros(1), np.array([False]), one, one)
    with pytest.raises(ValueError, match="step 0, row 0: the text does not hold the chosen"):
        buffer.compute_returns_and_advantage(one, np.array([False]))


def test_trajectories_count_and_slice_choices():
    obs = torch.tensor([[1, 2, 9, 9], [3, 9, 9, 9], [1, 2, 3, 4]])
    texts = Trajectories.from_observations(obs, 9, torch.tensor([5, 6, 7]))
    assert texts.tokens.tolist() == [[1, 2, 5, 9, 9], [3, 6, 9, 9, 9], [1, 2, 3, 4, 7]]
    assert texts.lengths.tolist() == [2, 1, 4] and len(texts) == 3
    assert texts.tokens[texts[::2].mask].tolist() == [5, 7]
    assert texts.tokens[texts[torch.tensor([1])].mask].tolist() == [6]


TRUST = {"batch_size": 128, "target_kl": 0.05, "cg_max_steps": 5, "n_critic_updates": 2}
LEARNING = {
    "ppo": (PPO, SB3TokenPolicy, TrajectoryBuffer, {"batch_size": 128, "n_epochs": 4}),
    "ppo, plain buffer": (PPO, SB3TokenPolicy, None, {"batch_size": 128, "n_epochs": 4}),
    "a2c": (A2C, SB3TokenPolicy, TrajectoryBuffer, {}),
    "trpo": (TRPO, SB3TokenPolicy, TrajectoryBuffer, TRUST),
    "trpo, plain buffer": (TRPO, SB3TokenPolicy, None, TRUST),
    "maskable": (
        MaskablePPO, SB3MaskableTokenPolicy, MaskableTrajectoryBuffer,
        {"batch_size": 128, "n_epochs": 4},
    ),
    "maskable, plain buffer": (
        MaskablePPO, SB3MaskableTokenPolicy, None, {"batch_size": 128, "n_epochs": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNING)
def test_stock_on_policy_algorithms_learn(name):
    algorithm, policy_class, buffer_class, options = LEARNING[name]
    env = vec_env(rows=32, forbidden_tokens=[0, 8])
    model = algorithm(
        policy_class, env, n_steps=12, rollout_buffer_class=buffer_class, gamma=1.0,
        learning_rate=3e-3, policy_kwargs=dict(SHAPE), seed=0, device="cpu", **options,
    )  # fmt: skip
    before = evaluate_policy(model, env, n_eval_episodes=100, deterministic=False)[0]
    model.learn(4_000 if algorithm is TRPO else 8_000)
    after = evaluate_policy(model, env, n_eval_episodes=100, deterministic=False)[0]
    assert before == pytest.approx(0.5, abs=0.12)
    assert after > 0.85
    if algorithm is MaskablePPO:
        texts = model.rollout_buffer.actions
        assert not np.isin(texts, [0, 8]).any()


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
def test_value_based_algorithms_learn_through_the_extractor(algorithm):
    env = vec_env(rows=8, max_new_tokens=3, stop_tokens=[], prompts=["a"])
    model = algorithm(
        "MlpPolicy", env, learning_rate=1e-3, learning_starts=400, buffer_size=4_000,
        train_freq=(1, "step"), target_update_interval=200, exploration_fraction=0.5, gamma=1.0,
        policy_kwargs={
            "features_extractor_class": TokenFeaturesExtractor,
            "features_extractor_kwargs": {"n_layer": 1, "n_head": 2, "n_embd": 32},
            "net_arch": [],
            **({"n_quantiles": 20} if algorithm is QRDQN else {}),
        },
        seed=0, device="cpu",
    )  # fmt: skip
    model.learn(4_000)
    assert evaluate_policy(model, env, n_eval_episodes=16)[0] > 0.9
    # The target network has an extractor of its own.
    online, target = ("q_net", "q_net_target") if algorithm is DQN else (
        "quantile_net", "quantile_net_target"
    )  # fmt: skip
    networks = getattr(model, online), getattr(model, target)
    assert networks[0].features_extractor.policy is not networks[1].features_extractor.policy


def test_features_are_the_same_with_and_without_the_cache():
    space = vec_env().observation_space
    given = lively(token_policy())
    extractor = TokenFeaturesExtractor(space, policy=given)
    obs = np.full((2, 9), VOCAB)
    obs[0, :3], obs[1, :5] = [1, 2, 3], [4, 5, 6, 7, 0]
    with_gradient = extractor(torch.from_numpy(obs).float())
    with torch.no_grad():
        cached = extractor(torch.from_numpy(obs).float())
    assert with_gradient.requires_grad and not cached.requires_grad
    torch.testing.assert_close(with_gradient, cached, atol=1e-5, rtol=0)
    assert extractor.policy is not given


def test_save_and_load(tmp_path):
    env = vec_env()
    model = PPO(
        SB3TokenPolicy, env, n_steps=12, rollout_buffer_class=TrajectoryBuffer, batch_size=96,
        policy_kwargs=dict(SHAPE), seed=0,
    )  # fmt: skip
    model.learn(96)
    model.save(tmp_path / "model")
    model.policy.save(str(tmp_path / "policy"))
    loaded = PPO.load(tmp_path / "model", env=env)
    alone = SB3TokenPolicy.load(str(tmp_path / "policy"))
    obs = env.reset()
    expected = model.predict(obs, deterministic=True)[0]
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], expected)
    assert np.array_equal(alone.predict(obs, deterministic=True)[0], expected)
    for a, b in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert loaded.predict(obs[0], deterministic=True)[0] == expected[0]  # one text
    loaded.learn(96)


def test_a_policy_of_ones_own_is_trained_itself_and_saved_with_the_model(tmp_path):
    policy = token_policy()
    before = copy.deepcopy(policy.state_dict())
    model = PPO(
        SB3TokenPolicy, vec_env(), n_steps=12, rollout_buffer_class=TrajectoryBuffer,
        policy_kwargs={"policy": policy, "temperature": 0.7}, batch_size=96, seed=0,
    )  # fmt: skip
    model.learn(96)
    assert any(not torch.equal(before[name], x) for name, x in policy.state_dict().items())
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model")
    assert loaded.policy.temperature == 0.7
    for name, x in loaded.policy.policy.state_dict().items():
        assert torch.equal(x, policy.state_dict()[name])


def test_the_seed_decides_everything():
    def train(seed):
        model = PPO(
            SB3TokenPolicy, vec_env(), n_steps=12, rollout_buffer_class=TrajectoryBuffer,
            policy_kwargs=dict(SHAPE), batch_size=48, n_epochs=2, seed=seed,
        )  # fmt: skip
        model.learn(192)
        return torch.cat([p.flatten() for p in model.policy.parameters()])

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))


def test_callbacks_and_normalised_rewards(tmp_path):
    env = VecNormalize(vec_env(), norm_obs=False)
    model = PPO(
        SB3TokenPolicy, env, n_steps=12, rollout_buffer_class=TrajectoryBuffer,
        policy_kwargs=dict(SHAPE), batch_size=96, seed=0,
    )  # fmt: skip
    evaluation = EvalCallback(
        VecNormalize(vec_env(rows=2), norm_obs=False, norm_reward=False, training=False),
        n_eval_episodes=4, eval_freq=12, log_path=str(tmp_path), verbose=0,
    )  # fmt: skip
    model.learn(192, callback=evaluation)
    assert 0.0 <= evaluation.last_mean_reward <= 1.0
    assert model.ep_info_buffer[-1]["l"] <= 6


def test_temperature_holds_at_sampling_and_at_scoring():
    policy = lively(token_policy())
    env = vec_env()
    sb3 = SB3TokenPolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, policy=policy, temperature=0.6
    )
    obs = torch.from_numpy(env.reset())
    with torch.no_grad():
        actions, values, logprobs = sb3(obs)
    again = sb3.evaluate_actions(obs, actions)
    torch.testing.assert_close(again[1], logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(again[0], values, atol=1e-4, rtol=0)
    exact = sb3.get_distribution(obs)
    torch.testing.assert_close(exact.log_prob(actions), logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(exact.entropy(), again[2], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"use_sde": True}, ValueError, "gSDE"),
        ({"policy": token_policy(), "n_layer": 1}, ValueError, "the policy has its shape"),
        (
            {"policy": TransformerPolicy(TransformerConfig(5, 9, 1, 1, 8))},
            VocabularyMismatchError,
            "the policy has 5 tokens",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, match):
    env = vec_env()
    with pytest.raises(error, match=match):
        SB3TokenPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **arguments)
