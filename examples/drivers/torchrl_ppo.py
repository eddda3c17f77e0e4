"""TorchRL's PPO: its collector, GAE and clipped loss around a `TransformerPolicy`.

TorchRL prefers a vector whose finished rows wait to be reset, so the environment is made that way.
(If rows restart by themselves, it reads the infos and fails on those that are not always there,
such as `prompt`.) It stores every observation of a rollout. In the rollout the policy's cache
encodes one token at each step. In the update, observations that begin alike are encoded once.

Run: python examples/drivers/torchrl_ppo.py [total_tokens] [world]
"""

import torch
from gymnasium.vector import AutoresetMode
from task import NETWORK, TASK, arguments, make_envs
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from policies import TransformerPolicy

num_envs, num_steps = 32, 32
num_minibatches, update_epochs = 4, 4
learning_rate = 3e-3


class ReadText(nn.Module):
    """Observations (..., L) to the hidden states and the logits of their last tokens."""

    def __init__(self, policy: TransformerPolicy, num_envs: int):
        super().__init__()
        self.policy = policy
        self.cache = policy.new_cache(num_envs)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; one step of all rows is read through the cache, all else in one pass."""
        if observation.shape == self.cache.shape and not torch.is_grad_enabled():
            hidden = self.policy.last_hidden(observation, self.cache).clone()
        else:
            hidden = self.policy.read(observation.flatten(0, -2)).unflatten(
                0, observation.shape[:-1]
            )
        return hidden, self.policy.choices(hidden)


def train(total_tokens: int, seed: int = 0, task: dict = TASK) -> float:
    """Train a small transformer; returns the mean return of the last update's episodes."""
    torch.manual_seed(seed)
    envs = make_envs(num_envs, task, autoreset_mode=AutoresetMode.DISABLED)
    env = GymWrapper(envs, categorical_action_encoding=True)
    check_env_specs(env)
    env.set_seed(seed)

    policy = TransformerPolicy.for_env(envs, seed=seed, **NETWORK)
    reader = TensorDictModule(ReadText(policy, num_envs), ["observation"], ["hidden", "logits"])
    value_head = TensorDictModule(policy.value_head, ["hidden"], ["state_value"])
    actor = ProbabilisticActor(
        reader, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True
    )
    # The actor has read the text already: the loss needs the head of the critic only.
    loss_module = ClipPPOLoss(
        actor,
        value_head,
        clip_epsilon=0.2,
        entropy_coeff=0.01,
        critic_coeff=0.5,
        loss_critic_type="l2",
        normalize_advantage=True,
    )
    # The policy looks at the texts with numpy to find what they share; vmap forbids that.
    gae = GAE(
        gamma=1.0,
        lmbda=0.95,
        value_network=TensorDictSequential(reader, value_head),
        deactivate_vmap=True,
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate, eps=1e-5)

    batch_size = num_envs * num_steps
    num_updates = total_tokens // batch_size
    collector = Collector(
        env,
        actor,
        frames_per_batch=batch_size,
        total_frames=num_updates * batch_size,
        auto_register_policy_transforms=False,  # those are for recurrent policies
    )
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(batch_size),
        sampler=SamplerWithoutReplacement(),
        batch_size=batch_size // num_minibatches,
    )
    mean_return = float("nan")
    for update, data in enumerate(collector, start=1):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - (update - 1) / num_updates)
        with torch.no_grad():
            gae(data)
        buffer.extend(data.flatten())
        for _ in range(update_epochs):
            for minibatch in buffer:
                losses = loss_module(minibatch)
                loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                optimizer.step()
        mean_return = float(data["next", "reward"].sum() / data["next", "done"].sum())
        print(f"{update * batch_size:7d} tokens  return {mean_return:.3f}")
    collector.shutdown()
    return mean_return


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(**arguments())
