"""Any of our policies behind Stable-Baselines3's interface."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn.attention import SDPBackend, sdpa_kernel

from agents.sb3.networks import cache_for, new_policy, seed_from_torch
from agents.sb3.trajectories import Trajectories
from policies import Policy, PrefixCache
from textenv.errors import VocabularyMismatchError


class TokenActorCritic(BasePolicy):
    """SB3's actor-critic interface over a token policy; mixed into SB3's own policy classes.

    Observations are tensors (n, L) of padded token ids, or `Trajectories` in their place. Without
    gradients, observations go through the prefix cache. There is one cache for each number of rows,
    so a rollout, its terminal observations and an evaluation do not disturb each other. With
    gradients, one causal pass reads all choices of a batch.

    Args:
        observation_space: Padded token ids, Box of shape (L,).
        action_space: Tokens, Discrete(V).
        lr_schedule: SB3's learning rate schedule.
        policy: The policy that is trained, as it is, not a copy. None makes a `TransformerPolicy`
            of `shape`, whose weights depend on SB3's seed.
        temperature: Logits are divided by this, in sampling and in all log-probabilities.
        use_sde: Must be False: tokens have no continuous noise. SB3's algorithms pass False.
        optimizer_class: Class of the optimiser over all parameters that take a gradient.
        optimizer_kwargs: Its arguments; None gives Adam SB3's `eps=1e-5` and the fused kernel.
        **shape: `n_layer`, `n_head`, `n_embd` of the `TransformerPolicy`.

    Raises:
        ValueError: The spaces are not those of texts, `use_sde` is True, or both `policy` and a
            shape are given.
        VocabularyMismatchError: The policy knows other tokens than the environment.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        policy: Policy | None = None,
        temperature: float = 1.0,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **shape: int,
    ):
        _check_spaces(observation_space, action_space)
        assert observation_space.shape is not None
        if use_sde:
            raise ValueError("use_sde is True: gSDE explores continuous actions; tokens have none")
        if policy is not None and shape:
            raise ValueError(f"policy and {sorted(shape)} are given: the policy has its shape")
        vocab_size = int(action_space.n)  # type: ignore[attr-defined]
        if policy is not None and policy.vocab_size != vocab_size:
            raise VocabularyMismatchError(
                f"the policy has {policy.vocab_size} tokens, the environment has {vocab_size}: "
                "make the policy with TransformerPolicy.for_env(envs)"
            )
        if optimizer_kwargs is None and optimizer_class is torch.optim.Adam:
            optimizer_kwargs = {"eps": 1e-5, "fused": True}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self._made_here = policy is None
        self.policy = policy or new_policy(vocab_size, observation_space.shape[0], shape)
        # SB3 seeds torch; what samples here follows from it.
        self.policy.generator = np.random.default_rng(seed_from_torch())
        self.temperature = temperature
        self.shape = shape
        self.caches: dict[int, PrefixCache] = {}
        trained = [p for p in self.parameters() if p.requires_grad]
        make: Any = self.optimizer_class
        self.optimizer = make(trained, lr=lr_schedule(1), **self.optimizer_kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        """SB3 would make networks of its own here; this policy has its network."""

    # ---------------------------------------------------------------- acting

    def forward(
        self, obs: Any, deterministic: bool = False, action_masks: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose tokens, without gradient; only tokens that the cache does not hold are encoded.

        Args:
            obs: Observations, shape (n, L).
            deterministic: Take the likeliest token.
            action_masks: Which tokens may be chosen, shape (n, V).

        Returns:
            Actions (n,) int64, values (n, 1) and log-probabilities (n,) float32.
        """
        step = self.policy.act(
            obs.cpu().numpy(),
            cache_for(self.caches, self.policy, obs),
            temperature=self.temperature,
            action_masks=None if action_masks is None else np.asarray(action_masks, dtype=bool),
            deterministic=deterministic,
        )
        actions, logprobs, values = (torch.from_numpy(x).to(obs.device) for x in step)
        return actions, values[:, None], logprobs

    def _predict(
        self, observation: Any, deterministic: bool = False, action_masks: Any = None
    ) -> Tensor:
        return self(observation, deterministic, action_masks)[0]

    # ---------------------------------------------------------------- scoring

    def evaluate_actions(
        self, obs: Any, actions: Tensor, action_masks: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values (N, 1), log-probabilities (N,) and entropies (N,) of N choices.

        Raises:
            ValueError: A buffer's reference has scored them at another temperature.
        """
        texts = self._trajectories(obs, actions)
        if texts.temperature not in (None, self.temperature):
            raise ValueError(
                f"the policy samples at temperature {self.temperature}, and the buffer's reference "
                f"scores at {texts.temperature}: give rollout_buffer_kwargs and policy_kwargs the "
                "same temperature"
            )
        outputs = self.policy.outputs(
            texts.tokens,
            texts.mask,
            temperature=self.temperature,
            action_masks=_as_bool(action_masks, texts.tokens.device),
        )
        logprobs, values, entropies = (x[texts.mask] for x in outputs)
        return values[:, None], logprobs, entropies

    def get_distribution(self, obs: Any, action_masks: Any = None) -> Any:
        """The distribution over tokens at each observation; twice differentiable, as TRPO needs."""
        logits = self.policy.choices(self._hidden(obs)) / self.temperature
        action_dist: Any = self.action_dist
        distribution = action_dist.proba_distribution(action_logits=logits)
        if action_masks is not None:
            distribution.apply_masking(action_masks)
        return distribution

    def predict_values(self, obs: Any) -> Tensor:
        """Values of the observations, shape (N, 1)."""
        return self.policy.value_head(self._hidden(obs)).float()

    def _hidden(self, obs: Tensor | Trajectories) -> Tensor:
        """Hidden states (N, n_embd) at the ends of N texts."""
        if isinstance(obs, Tensor) and not torch.is_grad_enabled():
            # Cloned: a tensor made in inference mode cannot enter a graph later.
            return self.policy.last_hidden(obs, cache_for(self.caches, self.policy, obs)).clone()
        texts = self._trajectories(obs)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be differentiated twice
            return self.policy.hidden_before(texts.tokens, texts.mask, texts.lengths)

    def _trajectories(
        self, obs: Tensor | Trajectories, actions: Tensor | None = None
    ) -> Trajectories:
        if isinstance(obs, Trajectories):
            return obs
        return Trajectories.from_observations(obs, self.policy.pad_token, actions)

    # ---------------------------------------------------------------- state

    def set_training_mode(self, mode: bool) -> None:
        """See `BasePolicy`; training makes caches stale, so their memory is freed."""
        if mode:
            self.caches.clear()
            # TRPO writes through `parameter.data`, which leaves no trace in a version counter:
            # weights packed before must not be taken for the present ones.
            increment_version(list(self.parameters()))
        super().set_training_mode(mode)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # not needed to load a policy alone
            "policy": None if self._made_here else self.policy,
            "temperature": self.temperature,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            **self.shape,
        }


class SB3TokenPolicy(TokenActorCritic, ActorCriticPolicy):
    """For SB3's PPO and A2C and sb3-contrib's TRPO; see `TokenActorCritic` for its arguments."""


def _as_bool(action_masks: Any, device: torch.device) -> Tensor | None:
    return None if action_masks is None else torch.as_tensor(action_masks, device=device).bool()


def _check_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    shape = observation_space.shape
    if not isinstance(action_space, spaces.Discrete) or shape is None or len(shape) != 1:
        raise ValueError(
            f"the spaces are {observation_space} and {action_space}; a token policy needs padded "
            "token ids, a Box of shape (L,), and Discrete tokens (a stack of frames is not needed: "
            "an observation holds the whole text)"
        )
