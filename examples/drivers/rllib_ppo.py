"""RLlib's PPO with a `TransformerPolicy` as its RLModule, in one local process.

RLlib makes the environment by its name, through the entry point of the vector environment. Rows
must restart at the step after their end (`NEXT_STEP`): RLlib takes any observation after an end as
the start of an episode and does not look at the autoreset mode. Its runner copies the weights from
the learner after each update; the policy's cache notices that by itself.

Run: python examples/drivers/rllib_ppo.py [total_tokens] [world]
"""

from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from task import NETWORK, TASK, arguments
from torch import Tensor

from policies import TransformerConfig, TransformerPolicy

num_envs, num_steps = 32, 32
learning_rate = 3e-3


class TextModule(TorchRLModule, ValueFunctionAPI):
    """A transformer with the two heads that PPO needs."""

    def setup(self) -> None:
        """Make the policy; RLlib calls this once the spaces are known."""
        config = TransformerConfig(
            vocab_size=int(self.action_space.n),
            context=self.observation_space.shape[0],
            **NETWORK,
        )
        self.policy = TransformerPolicy(config, seed=self.model_config["seed"])
        self.cache = self.policy.new_cache(num_envs)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Rollout: one step of all rows, read through the cache."""
        hidden = self.policy.last_hidden(batch[Columns.OBS], self.cache)
        with torch.no_grad():
            return {Columns.ACTION_DIST_INPUTS: self.policy.choices(hidden)}

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Update and inference: whole texts, common beginnings once."""
        hidden = self.policy.read(batch[Columns.OBS])
        return {
            Columns.ACTION_DIST_INPUTS: self.policy.choices(hidden),
            Columns.EMBEDDINGS: hidden,
        }

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Values of the observations, shape (N,)."""
        hidden = self.policy.read(batch[Columns.OBS]) if embeddings is None else embeddings
        return self.policy.value_head(hidden).squeeze(-1)


def train(total_tokens: int, seed: int = 0, task: dict = TASK) -> float:
    """Train a small transformer; returns the mean return of the last update's episodes."""
    batch_size = num_envs * num_steps
    letters = task.get("max_turns", task["max_new_tokens"])  # that are chosen in an episode
    config = (
        PPOConfig()
        .environment(
            "textenv:textenv/Generate-v0",
            env_config=task | {"autoreset_mode": AutoresetMode.NEXT_STEP},
        )
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=num_steps,
        )
        .learners(num_learners=0)
        .rl_module(rl_module_spec=RLModuleSpec(TextModule, model_config={"seed": seed}))
        .training(
            lr=[[0, learning_rate], [total_tokens, 0.0]],
            gamma=1.0,
            lambda_=0.95,
            train_batch_size_per_learner=batch_size,
            minibatch_size=batch_size // 4,
            num_epochs=4,
            clip_param=0.2,
            vf_loss_coeff=0.5,
            entropy_coeff=0.01,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .debugging(seed=seed)
        .reporting(metrics_num_episodes_for_smoothing=batch_size // letters)
    )
    algorithm = config.build_algo()
    tokens, mean_return = 0, float("nan")
    while tokens < total_tokens:
        metrics = algorithm.train()["env_runners"]
        tokens = int(metrics["num_env_steps_sampled_lifetime"])
        mean_return = float(metrics["episode_return_mean"])
        print(f"{tokens:7d} tokens  return {mean_return:.3f}")
    algorithm.stop()
    return mean_return


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(**arguments())
