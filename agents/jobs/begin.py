"""The policy that a command begins with, and the adapter that is trained instead of its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from agents.commands import dpo, reward_model
from agents.commands.shared import Machine, Trained
from agents.feedback import Ranking, has_messages, read_rankings, split_rankings
from agents.jobs.environments import template_of_records
from agents.jobs.machine import device_named
from agents.jobs.other_commands import meant_for
from agents.jobs.outputs import check_folder
from policies import EncoderDecoderPolicy, Policy, tokenizer_of
from policies.adapters import import_peft
from policies.checkpoint import is_published, open_policy
from policies.huggingface.base import TransformersPolicy
from textenv.errors import AdapterError, MalformedRecordError, OptionError
from textenv.frames import ChatTemplate, ModelTemplate
from textenv.records import read_files

Records = TypeVar("Records")


def begin_training(
    task: Trained, machine: Machine, read: Callable[[], Records]
) -> tuple[Records, Policy]:
    """What a policy is to learn from, and the policy, on its device and with its adapter.

    What is quick to find wrong is looked at first: the device, the folder, then the records, and
    only then is a policy loaded.

    Args:
        task: Names the policy, what is trained of it, and the folder for the result.
        machine: Where to compute, and the seed of an adapter's first weights.
        read: Reads and checks the records.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    device = device_named(machine.device)
    check_folder(task.out, "--out")
    try:
        records = read()
    except MalformedRecordError as error:
        for sentence in meant_for(task):
            error.add_note(sentence)
        raise
    policy = begin_with(task.policy, task.stop, task.no_bos).to(device)
    tokenizer_of(policy, f"the policy in {task.policy}")
    return records, with_lora(policy, task.lora, machine.seed, task.policy)


class Beginning(NamedTuple):
    """What a training on preferences begins with.

    Attributes:
        policy: On its device and with its adapter.
        learned: Rankings to learn from.
        kept: Those that are held out.
        template: What wraps their messages.
    """

    policy: Policy
    learned: list[Ranking]
    kept: list[Ranking]
    template: ChatTemplate | ModelTemplate | None


def begin_with_preferences(task: dpo.Task | reward_model.Task, machine: Machine) -> Beginning:
    """Like `begin_training`, from files of rankings.

    Args:
        task: Names the files, too, and the share that is held out.
        machine: Where to compute, and the seed of what is held out.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    (learned, kept), policy = begin_training(
        task,
        machine,
        lambda: split_rankings(
            read_files(task.preferences, read_rankings), task.held_out, machine.seed
        ),
    )
    template = template_of_records(task.frame, policy, has_messages([*learned, *kept]))
    return Beginning(policy, learned, kept, template)


def begin_with(name: str | Path, stop: str | None = None, no_bos: bool = False) -> Policy:
    """A policy that was saved, or a model of Hugging Face: a folder or owner/name on the hub.

    Args:
        name: Folder or name.
        stop: Text of the token that ends an answer, of a model that has none of its own.
        no_bos: Whether prompts begin without what the model's tokenizer puts before texts.

    Raises:
        OptionError: `stop` or `no_bos` is given for a policy that was saved with its own.
        CheckpointError: The folder holds no policy that can be read.
        ModelError: The model is not there, or cannot be used as a policy.
    """
    if (stop is not None or no_bos) and not is_published(name):
        option = "--no-bos" if no_bos else f"--stop {stop}"
        raise OptionError(
            f"{option}: the policy in {name} was saved with its stop tokens and what its prompts "
            f"begin with; leave {option.split()[0]} out"
        )
    return open_policy(name, stop=stop, bos=not no_bos)


def with_lora(policy: Policy, rank: int, seed: int, name: str | Path | None) -> Policy:
    """`policy` itself, with a LoRA adapter that is trained instead of its weights.

    Args:
        policy: A model of Hugging Face without an adapter.
        rank: Rank of the adapter; with 0 there is none.
        seed: Seed of its first weights.
        name: What the user calls the policy, for messages.

    Raises:
        AdapterError: The policy is no model of Hugging Face, or has an adapter already.
    """
    if not rank:
        return policy
    called = f"the policy in {name}" if name else "the GPT of the speeches"
    if not isinstance(policy, TransformersPolicy):
        raise AdapterError(
            f"--lora {rank} needs a model of Hugging Face, and {called} is not one: leave --lora "
            "out to train all weights"
        )
    if hasattr(policy.model, "peft_config"):
        raise AdapterError(
            f"--lora {rank}: {called} has an adapter already, which is trained on: leave --lora "
            "out (policy.merge() and policy.save(folder) make a model without one)"
        )
    torch.manual_seed(seed)
    policy.add_adapter(
        import_peft().LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    )
    return policy


def reference_of(policy: Policy, rank: int) -> Policy:
    """What `policy` begins as, frozen; with an adapter of `with_lora` the model without it."""
    if not rank:
        return policy.frozen_copy()
    assert isinstance(policy, TransformersPolicy)
    return policy.reference()


def refuse_encoder_decoder(policy: Policy, command: str, name: str | Path | None) -> None:
    """Refuse a model whose text has a source where a command reads text without one.

    Raises:
        OptionError: `policy` is an encoder-decoder.
    """
    if isinstance(policy, EncoderDecoderPolicy):
        raise OptionError(
            f"textenv {command} reads texts without a source, and the model in {name} is an "
            "encoder-decoder: textenv sft teaches it answers to sources, or take a causal model"
        )
