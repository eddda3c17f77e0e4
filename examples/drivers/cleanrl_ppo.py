"""PPO in one file that reads from top to bottom, after CleanRL's `ppo.py`.

One thing differs: the agent is a `TransformerPolicy`. In the rollout its cache encodes one token
at each step. In the update, observations that begin alike, such as all of one episode, are encoded
once. Everything else is CleanRL's code for any environment, the array of observations included.
Left out: clipping of the value loss, evaluation, logging to files.

Run: python examples/drivers/cleanrl_ppo.py [total_tokens] [world]
"""

import numpy as np
import torch
from task import NETWORK, TASK, arguments, make_envs
from torch import nn

from policies import TransformerPolicy

num_envs = 32
num_steps = 32  # steps of each environment in a rollout
num_minibatches = 4
update_epochs = 4
learning_rate = 3e-3
gamma = 1.0
gae_lambda = 0.95
clip_coef = 0.2
ent_coef = 0.01
vf_coef = 0.5
max_grad_norm = 0.5


def train(total_tokens: int, seed: int = 0, task: dict = TASK) -> float:
    """Train a small transformer; returns the mean return of the last update's episodes."""
    rng = np.random.default_rng(seed)
    envs = make_envs(num_envs, task)
    agent = TransformerPolicy.for_env(envs, seed=seed, **NETWORK)
    optimizer = torch.optim.Adam(agent.parameters(), lr=learning_rate, eps=1e-5)

    # Storage
    obs = np.zeros((num_steps, num_envs, *envs.single_observation_space.shape), dtype=np.int64)
    actions = np.zeros((num_steps, num_envs), dtype=np.int64)
    logprobs = np.zeros((num_steps, num_envs), dtype=np.float32)
    rewards = np.zeros((num_steps, num_envs), dtype=np.float32)
    dones = np.zeros((num_steps, num_envs), dtype=np.float32)
    values = np.zeros((num_steps, num_envs), dtype=np.float32)

    cache = agent.new_cache(num_envs)
    next_obs, _ = envs.reset(seed=seed)
    next_done = np.zeros(num_envs)
    running_returns = np.zeros(num_envs)
    mean_return = float("nan")

    batch_size = num_envs * num_steps
    num_updates = total_tokens // batch_size
    for update in range(1, num_updates + 1):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - (update - 1) / num_updates)
        episode_returns = []
        for step in range(num_steps):
            obs[step] = next_obs
            dones[step] = next_done
            actions[step], logprobs[step], values[step] = agent.act(next_obs, cache)
            # A row that ends is restarted in the same step: `next_obs` is then the next episode's
            # first observation, and `next_done` keeps GAE from looking across. Its last one, in
            # infos["final_obs"], matters only to who bootstraps from truncated episodes; here
            # all are terminated.
            next_obs, rewards[step], terminations, truncations, _ = envs.step(actions[step])
            next_done = terminations | truncations
            running_returns += rewards[step]
            episode_returns += running_returns[next_done].tolist()
            running_returns[next_done] = 0.0

        # Bootstrap the value of what has not ended
        next_value = agent.value(next_obs, cache).numpy()
        advantages = np.zeros_like(rewards)
        lastgaelam = np.zeros(num_envs, dtype=np.float32)
        for t in reversed(range(num_steps)):
            last = t == num_steps - 1
            nextnonterminal = 1.0 - (next_done if last else dones[t + 1])
            nextvalues = next_value if last else values[t + 1]
            delta = rewards[t] + gamma * nextvalues * nextnonterminal - values[t]
            lastgaelam = delta + gamma * gae_lambda * nextnonterminal * lastgaelam
            advantages[t] = lastgaelam
        returns = advantages + values

        # Flatten the batch
        b_obs = torch.from_numpy(obs.reshape(batch_size, -1))
        b_actions, b_logprobs, b_advantages, b_returns = (
            torch.from_numpy(x.reshape(batch_size))
            for x in (actions, logprobs, advantages, returns)
        )

        # Every action is written behind its observation, where the policy computes its outputs
        lengths = (b_obs != agent.pad_token).sum(1)
        b_mask = torch.zeros_like(b_obs, dtype=torch.bool)
        b_mask[torch.arange(batch_size), lengths] = True
        b_tokens = b_obs.masked_scatter(b_mask, b_actions)

        for _ in range(update_epochs):
            for mb_inds in np.split(rng.permutation(batch_size), num_minibatches):
                mb_mask = b_mask[mb_inds]
                newlogprob, newvalue, entropy = (
                    x[mb_mask] for x in agent.outputs(b_tokens[mb_inds], mb_mask)
                )
                ratio = (newlogprob - b_logprobs[mb_inds]).exp()

                mb_advantages = b_advantages[mb_inds]
                mb_advantages = (mb_advantages - mb_advantages.mean()) / (
                    mb_advantages.std() + 1e-8
                )
                pg_loss1 = -mb_advantages * ratio
                pg_loss2 = -mb_advantages * ratio.clamp(1 - clip_coef, 1 + clip_coef)
                pg_loss = torch.max(pg_loss1, pg_loss2).mean()
                v_loss = 0.5 * ((newvalue - b_returns[mb_inds]) ** 2).mean()
                loss = pg_loss - ent_coef * entropy.mean() + vf_coef * v_loss

                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), max_grad_norm)
                optimizer.step()

        mean_return = float(np.mean(episode_returns))
        print(f"{update * batch_size:7d} tokens  return {mean_return:.3f}")
    envs.close()
    return mean_return


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(**arguments())
