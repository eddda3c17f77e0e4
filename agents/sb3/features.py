"""Texts as feature vectors, for every algorithm of Stable-Baselines3."""

import copy

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.sb3.networks import cache_for, new_policy
from policies import Policy, PrefixCache


class TokenFeaturesExtractor(BaseFeaturesExtractor):
    """The hidden state of a text's last token, as features (n, n_embd).

    It serves DQN, QRDQN and others through `policy_kwargs`. Without gradients, only tokens that the
    prefix cache does not hold are encoded.

    Args:
        observation_space: Padded token ids 0 to V, Box of shape (L,); V is the padding.
        policy: A policy whose network each extractor copies; a target network has its own
            extractor. None makes a `TransformerPolicy` of `shape`.
        **shape: `n_layer`, `n_head`, `n_embd` of that `TransformerPolicy`.
    """

    def __init__(self, observation_space: spaces.Box, policy: Policy | None = None, **shape: int):
        if policy is None:
            vocab_size = int(observation_space.high.max())
            policy = new_policy(vocab_size, observation_space.shape[0], shape)
        super().__init__(observation_space, policy.value_head.in_features)
        self.policy = copy.deepcopy(policy)
        self.caches: dict[int, PrefixCache] = {}

    def forward(self, observations: Tensor) -> Tensor:
        """Observations (n, L), floats as SB3 makes them, to features (n, n_embd)."""
        if torch.is_grad_enabled():  # the cache holds no graph to differentiate
            return self.policy.read(observations)
        cache = cache_for(self.caches, self.policy, observations)
        # Cloned: a tensor made in inference mode cannot enter a graph later.
        return self.policy.last_hidden(observations, cache).clone()
