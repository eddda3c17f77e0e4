"""The loss of Stable-Baselines3."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from agents.testing.batches import Loss, LossBatch
from textenv.imports import optional


def sb3_ppo(**settings: Any) -> Loss:
    """The policy's part of Stable-Baselines3's `PPO.train`, on all chosen tokens as one minibatch.

    The method is called as it is, for one epoch, and takes no step: an optimiser and a policy stand
    in that only hand over the batch. Values are constants.
    """
    with optional("stable-baselines3", extra="sb3", purpose="a check of its PPO"):
        from stable_baselines3 import PPO
    given = {"normalize_advantage": True, "ent_coef": 0.0, "clip_range": 0.2} | settings

    def loss(batch: LossBatch) -> Tensor:
        leaf = batch.logits.detach().requires_grad_()
        own = replace(batch, logits=leaf)
        assert batch.advantages is not None
        spread = batch.advantages
        spread = (spread if spread.dim() == 2 else spread[:, None]).expand(batch.mask.shape)
        optimizer = SimpleNamespace(zero_grad=lambda: None, step=lambda: None, param_groups=[])
        policy = SimpleNamespace(
            set_training_mode=lambda _: None,
            evaluate_actions=lambda *_: (
                batch.values[batch.mask],
                own.logprobs[batch.mask],
                own.entropies[batch.mask],
            ),
            parameters=lambda: [],
            optimizer=optimizer,
        )
        told = SimpleNamespace(
            actions=batch.tokens[batch.mask],
            observations=None,
            advantages=spread[batch.mask],
            old_log_prob=batch.old_logprobs[batch.mask],
            old_values=batch.values[batch.mask],
            returns=batch.values[batch.mask],
        )
        model: Any = SimpleNamespace(
            **given
            | {
                "policy": policy,
                "rollout_buffer": SimpleNamespace(
                    get=lambda _: iter([told]),
                    values=batch.values[batch.mask].numpy(),
                    returns=batch.values[batch.mask].numpy(),
                ),
                "_update_learning_rate": lambda _: None,
                "clip_range": lambda _: given["clip_range"],
                "clip_range_vf": None,
                "_current_progress_remaining": 1.0,
                "n_epochs": 1,
                "_n_updates": 0,
                "batch_size": None,
                "action_space": None,
                "ep_info_buffer": None,
                "vf_coef": 0.0,
                "max_grad_norm": 0.5,
                "target_kl": None,
                "verbose": 0,
                "logger": SimpleNamespace(record=lambda *_, **__: None),
            }
        )
        PPO.train(model)
        assert leaf.grad is not None
        return (leaf.grad * batch.logits).sum()  # a loss with this gradient

    return loss
