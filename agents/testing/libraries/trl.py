"""The losses of TRL: methods of its trainers, called with what they read of one."""

from __future__ import annotations

import dataclasses
import importlib
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from agents.testing.batches import Loss, LossBatch
from agents.testing.laws import Law
from agents.testing.libraries.answers import Answers, answers_of, of_law, pairs_of
from textenv.imports import optional


def _defaults(config: Any) -> dict[str, Any]:
    """The fields of a dataclass with their defaults; nothing of it is run."""
    values = {}
    for field in dataclasses.fields(config):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    return values


def _trl(module: str) -> Any:
    with optional("trl", extra="trl", purpose="a check of TRL's losses"):
        import trl  # noqa: F401
    return importlib.import_module(f"trl.trainer.{module}")


class _Accelerator:
    """One process."""

    num_processes, device, sync_gradients = 1, torch.device("cpu"), True

    def gather(self, x: Tensor) -> Tensor:
        return x

    gather_for_metrics = gather

    def reduce(self, x: Tensor, reduction: str = "sum") -> Tensor:
        return x


def _trainer(args: dict[str, Any], batch: LossBatch, found: Answers) -> SimpleNamespace:
    """What TRL's losses read of a trainer, in training."""
    return SimpleNamespace(
        **args
        | {
            "args": SimpleNamespace(**args | {"steps_per_generation": batch.parts}),
            "model": SimpleNamespace(training=True),
            "accelerator": _Accelerator(),
            "aux_loss_enabled": False,
            "current_gradient_accumulation_steps": batch.parts,
            "epsilon_low": args["epsilon"],
            "epsilon_high": args["epsilon_high"] or args["epsilon"],
            "_entropy_bonus_enabled": False,
            "_metrics": {"train": defaultdict(list)},
            "_get_per_token_logps_and_entropies": lambda *_, **__: (
                found.logprobs,
                found.entropies,
                None,
            ),
        }
    )


def trl_grpo(**settings: Any) -> Loss:
    """The loss of TRL's `GRPOTrainer`, at its defaults but for `settings` of `GRPOConfig`.

    `GRPOTrainer._compute_loss` is called as it is; the log-probabilities are the batch's, so that
    the model's pass is not checked, nor are the advantages, which another method computes
    (`TRL_GRPO_ADVANTAGES` is its formula).
    """
    module = _trl("grpo_trainer")
    args = _defaults(_trl("grpo_config").GRPOConfig) | settings

    def loss(batch: LossBatch) -> Tensor:
        found = answers_of(batch)
        trainer = _trainer(args | {"beta": batch.kl_coef}, batch, found)
        trainer.get_gamma_weights = module.GRPOTrainer.get_gamma_weights
        assert batch.advantages is not None
        by_answer = batch.advantages.dim() == 1
        inputs = {
            "prompt_ids": batch.tokens[:, :0],
            "prompt_mask": batch.mask[:, :0].long(),
            "completion_ids": found.tokens,
            "completion_mask": found.mask.long(),
            "advantages": batch.advantages if by_answer else found.advantages,
            "old_per_token_logps": found.old_logprobs,
            "ref_per_token_logps": found.ref_logprobs,
            "num_items_in_batch": torch.tensor(batch.step_tokens),
        }
        result: Tensor = module.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
        return result

    return loss


TRL_GRPO_ADVANTAGES = of_law(Law("group", "the group's spread (n - 1)"))
"""What TRL's GRPO makes of scores at its default `scale_rewards="group"`, but for its 1e-4."""


def trl_rloo(**settings: Any) -> Loss:
    """The loss of TRL's `RLOOTrainer`; see `trl_grpo`.

    Its trainer divides by the accumulated steps; this loss does not.
    """
    module = _trl("rloo_trainer")
    args = _defaults(_trl("rloo_config").RLOOConfig) | settings

    def loss(batch: LossBatch) -> Tensor:
        found = answers_of(batch)
        trainer = _trainer(args, batch, found)
        inputs = {
            "prompt_ids": batch.tokens[:, :0],
            "prompt_mask": batch.mask[:, :0].long(),
            "completion_ids": found.tokens,
            "completion_mask": found.mask.long(),
            "advantages": found.advantages[:, 0],
            "old_logps": found.old_logprobs.sum(1),
        }
        result: Tensor = module.RLOOTrainer._compute_loss(trainer, trainer.model, inputs)
        return result / batch.parts

    return loss


def trl_dpo(**settings: Any) -> Loss:
    """The loss of TRL's `DPOTrainer` on `pairs_of` the batch, at its defaults but for `settings`.

    `DPOTrainer._compute_loss` is called as it is, with a model that says the batch's
    log-probabilities where there are labels. Compare it with `dpo_formula`.
    """
    module = _trl("dpo_trainer")
    args = _defaults(_trl("dpo_config").DPOConfig) | settings

    def loss(batch: LossBatch) -> Tensor:
        order = torch.cat(pairs_of(batch))
        pairs = batch.select(order)

        def says(logprobs: Tensor) -> Callable[..., Any]:
            def model(input_ids: Tensor, labels: Tensor, **_: Any) -> Any:
                found = torch.where(labels >= 0, logprobs, 0.0)[:, 1:]
                nothing = torch.zeros_like(found)
                return SimpleNamespace(
                    log_probs=found,
                    entropy=nothing,
                    mean_logits=nothing,
                    is_top1=nothing.bool(),
                )

            return model

        kinds = args["loss_type"]
        trainer = SimpleNamespace(
            **args
            | {
                "args": SimpleNamespace(**args),
                "model": SimpleNamespace(training=True),
                "ref_model": says(pairs.ref_logprobs),
                "accelerator": _Accelerator(),
                "aux_loss_enabled": False,
                "precompute_ref_logps": True,
                "loss_types": kinds,
                "loss_weights": args["loss_weights"] or [1.0] * len(kinds),
                "use_weighting": False,
                "_metrics": {"train": defaultdict(list)},
                "_total_train_tokens": 0,
                "_tp_size": 1,
            }
        )
        reference = torch.where(pairs.mask, pairs.ref_logprobs, 0.0).sum(1)
        inputs = {
            "input_ids": pairs.tokens,
            "attention_mask": torch.ones_like(pairs.tokens),
            "completion_mask": pairs.mask.long(),
            "ref_chosen_logps": reference.chunk(2)[0],
            "ref_rejected_logps": reference.chunk(2)[1],
        }
        compute = module.DPOTrainer._compute_loss
        result: Tensor = compute(trainer, says(pairs.logprobs), inputs, False)
        return result

    return loss
