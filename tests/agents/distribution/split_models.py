"""Trainings of a tiny Llama whose layers are on several processes, or whole on one."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from published import publish
from trainings import held_out_logprobs, share_of_even_ids, words

from agents import PPO, Learner
from agents.distribution.gathering import full, gathered
from agents.distribution.tensor_parallel import split
from agents.supervised import Example, sft_steps
from policies import HuggingFacePolicy
from textenv import TextVectorEnv
from textenv.errors import UnmetNeedError


def publish_llama(folder: str) -> None:
    """One with as many key heads as there are processes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    publish(folder, "llama", context=32)
    config = LlamaConfig.from_pretrained(folder, num_attention_heads=4, num_key_value_heads=2)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def policy_in(folder: str, divided: bool) -> HuggingFacePolicy:
    policy = HuggingFacePolicy.from_pretrained(folder)
    return split(policy) if divided else policy


def weights_of(policy: HuggingFacePolicy) -> torch.Tensor:
    return torch.cat([full(p).detach().flatten() for p in policy.parameters()])


def fine_tuned(folder: str, divided: bool) -> dict[str, Any]:
    policy = policy_in(folder, divided)
    before = held_out_logprobs(policy)
    told = words(24)
    examples = [
        Example(((f"{a} ", False), (b, True))) for a, b in zip(told[:12], told[12:], strict=True)
    ]
    steps = sft_steps(policy, examples, epochs=4, batch_size=4, learning_rate=1e-3)
    losses = [next(steps).loss]
    first = [p for p in policy.parameters() if p.grad is not None]
    gradient = torch.cat([full(p.grad).flatten() for p in first])
    losses += [step.loss for step in steps]
    return {
        "before": before,
        "gradient": gradient,
        "losses": losses,
        "weights": weights_of(policy),
        "after": held_out_logprobs(policy),
    }


def reinforced(folder: str, divided: bool, saved_in: str = "") -> dict[str, Any]:
    """PPO; with `saved_in` another learner goes on half-way."""

    def learner() -> Learner:
        policy = policy_in(folder, divided)
        envs = TextVectorEnv(
            8,
            prompts=["ab", "c"],
            reward=share_of_even_ids,
            tokenizer=policy.tokenizer,
            max_new_tokens=6,
        )
        reference = HuggingFacePolicy.from_pretrained(folder).requires_grad_(False)
        return Learner(
            policy,
            envs,
            PPO(n_epochs=2, minibatch_tokens=30),
            reference=reference,
            kl_coef=0.05,
            n_steps=6,
            learning_rate=1e-3,
            seed=0,
        )

    learns = learner()
    updates = []
    for number in range(6):
        if saved_in and number == 3:
            learns.save(saved_in)
            learns = learner()
            learns.load(saved_in)
        updates.append(learns.update())
    with gathered(learns.policy) as whole:
        saved = f"{folder}-{divided}"
        if dist.get_rank() == 0:
            whole.save(saved)
        dist.barrier()
        again = held_out_logprobs(HuggingFacePolicy.load(saved))
    return {
        "tokens": [update.rollout.tokens for update in updates],
        "losses": [update.metrics["loss"] for update in updates],
        "held": sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in learns.trained),
        "weights": weights_of(learns.policy),
        "after": again,
    }


def all_of(folder: str, divided: bool) -> dict[str, Any]:
    if divided:
        with pytest.raises(UnmetNeedError, match="1 key heads cannot be divided among 2"):
            split(HuggingFacePolicy.from_pretrained(f"{folder}-narrow"))
    return {
        "sft": fine_tuned(folder, divided),
        "ppo": reinforced(folder, divided),
        "resumed": reinforced(folder, divided, f"{folder}-checkpoint-{divided}"),
    }
