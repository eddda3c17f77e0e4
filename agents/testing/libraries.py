"""Losses of libraries as functions that `check_loss` takes; each library's own code is called.

None of them builds a trainer. A trainer's method is called with an object that has the settings
which it reads, and with the batch's own tensors.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from agents.rollout import Rollout
from agents.testing.batches import Advantages, Loss, LossBatch
from agents.testing.laws import Law, advantages_of
from policies import PolicyOutputs
from textenv.errors import MissingFileError
from textenv.imports import optional

if TYPE_CHECKING:
    from agents.algorithm import Algorithm


class Answers(NamedTuple):
    """The answers alone, as most libraries have them: (S, T), from place 0 on, right-padded."""

    tokens: Tensor
    mask: Tensor
    logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    entropies: Tensor


def answers_of(batch: LossBatch) -> Answers:
    """The batch without its prompts; advantages (S,) are spread over the tokens."""
    begins = batch.mask.int().argmax(1, keepdim=True)
    steps = torch.arange(int(batch.lengths.max()))[None]
    places = (begins + steps).clamp(max=batch.tokens.shape[1] - 1)
    mask = steps < batch.lengths[:, None]
    assert batch.advantages is not None
    spread = batch.advantages
    spread = (spread if spread.dim() == 2 else spread[:, None]).expand(batch.mask.shape)

    def moved(values: Tensor) -> Tensor:
        return torch.where(mask, values.gather(1, places), 0)

    return Answers(
        tokens=moved(batch.tokens),
        mask=mask,
        logprobs=moved(batch.logprobs),
        old_logprobs=moved(batch.old_logprobs),
        ref_logprobs=moved(batch.ref_logprobs),
        advantages=moved(spread),
        entropies=moved(batch.entropies),
    )


def of_law(law: Law) -> Advantages:
    """The advantages of a law: for a library that computes them inside a long method.

    The result is the formula's and not the library's; a report on it speaks of the loss alone.
    """
    return lambda batch: advantages_of(law, batch)


def of_algorithm(algorithm: Algorithm) -> tuple[Loss, Advantages]:
    """An algorithm's loss and advantages, with the KL penalty in the rewards as a learner has it.

    A value loss is left out of the gradient: values are constants here.
    """

    def rollout_of(batch: LossBatch) -> Rollout:
        log = Rollout.from_log(batch.tokens, batch.mask, batch.scores, batch.groups)
        order = batch.mask.cumsum(1)
        last = batch.mask & (order == batch.lengths[:, None])
        difference = batch.old_logprobs - batch.ref_logprobs
        penalties = batch.kl_coef * torch.where(batch.mask, difference, 0.0)
        return replace(
            log,
            logprobs=batch.old_logprobs,
            values=batch.values,
            rewards=torch.where(last, batch.scores[:, None], 0.0) - penalties,
            penalties=penalties,
            ref_logprobs=batch.ref_logprobs,
            present_logprobs=batch.old_logprobs,
        )

    def advantages(batch: LossBatch) -> Tensor:
        rollout = rollout_of(batch)
        return algorithm.mix(replace(rollout, advantages=algorithm.advantages(rollout)))

    def loss(batch: LossBatch) -> Tensor:
        assert batch.advantages is not None
        rollout = replace(rollout_of(batch), advantages=batch.advantages)
        targets = algorithm.value_targets(rollout, batch.advantages)
        outputs = PolicyOutputs(batch.logprobs, batch.values, batch.entropies)
        found = algorithm.loss(replace(rollout, value_targets=targets), outputs)
        return found[0] if isinstance(found, tuple) else found

    return loss, advantages


def module_of_checkout(folder: str | Path, name: str, without: Sequence[str] = ()) -> ModuleType:
    """One module of a checkout or an unpacked wheel, such as `openrlhf.models.loss`.

    The packages around it are not imported as a whole, so that their engines (vLLM, DeepSpeed, Ray)
    need not be installed. What the module itself imports has to be.

    Args:
        folder: Where the top package lies.
        name: The module's full name.
        without: Packages that it imports and that its losses do not use, such as `deepspeed`: empty
            modules stand in for those that are not installed.

    Raises:
        MissingFileError: There is no such module in the folder.
    """
    standing_in = [p for p in without if importlib.util.find_spec(p) is None]
    for package in standing_in:
        sys.modules[package] = ModuleType(package)
    above = name.split(".")[:-1]
    for depth in range(1, len(above) + 1):
        package = ".".join(above[:depth])
        path = Path(folder, *above[:depth])
        if not path.is_dir():
            raise MissingFileError(f"there is no folder {path}: `folder` is what holds {above[0]}/")
        if package not in sys.modules:
            module = ModuleType(package)
            module.__path__ = [str(path)]
            sys.modules[package] = module
    try:
        return importlib.import_module(name)
    finally:  # others ask whether such a package is there
        for package in standing_in:
            sys.modules.pop(package, None)


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


def pairs_of(batch: LossBatch) -> tuple[Tensor, Tensor]:
    """Rows of the better and of the worse answer; answers 0 and 1 are a pair, 2 and 3, ..."""
    first = torch.arange(0, len(batch), 2)
    better = torch.where(batch.scores[first] >= batch.scores[first + 1], first, first + 1)
    return better, first + (first + 1) - better


def dpo_formula(beta: float = 0.1) -> Callable[[LossBatch], Tensor]:
    """DPO's weight of each token, shape (S, L).

        beta sigmoid(-h) / pairs for the better answer, minus that for the worse,
        h = beta (log-ratio to the reference of the better answer - that of the worse)

    Rafailov et al. (2023), arXiv:2305.18290, section 4.
    """

    def weights(batch: LossBatch) -> Tensor:
        better, worse = pairs_of(batch)
        own = torch.where(batch.mask, batch.logprobs.detach() - batch.ref_logprobs, 0.0).sum(1)
        push = beta * torch.sigmoid(-beta * (own[better] - own[worse])) / len(better)
        found = torch.zeros_like(own)
        found[better], found[worse] = push, -push
        return found[:, None].expand(batch.mask.shape)

    return weights


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
