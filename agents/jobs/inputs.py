"""What the options of `textenv train` name: algorithm, reward, policies, prompts, environments."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agents.algorithm import Algorithm
from agents.algorithms.names import algorithm_named
from agents.commands.train import TrainSettings
from agents.jobs import speeches
from agents.jobs.begin import begin_with, reference_of, with_lora
from agents.jobs.environments import environment_for, fit_prompts, frame_of, room_for_prompts
from agents.jobs.holding_out import hold_out
from agents.jobs.machine import device_named
from agents.jobs.networks import uneven_heads
from agents.jobs.reward_models import reward_model_of
from agents.runs.learner_checkpoint import POLICY, REFERENCE
from agents.runs.stages import Stages
from agents.supervised.pretraining import PretrainingStep, held_out_loss
from policies import (
    Policy,
    RewardModel,
    RewardModelEnsemble,
    SeparateValue,
    TransformerPolicy,
    load_policy,
    tokenizer_of,
)
from textenv import ListPrompts, Prompt, PromptSource, TextVectorEnv, load_prompts
from textenv.errors import InvalidRewardError, MalformedRecordError, OptionError
from textenv.files import check_there, read_text
from textenv.prompts import NoPrompts
from textenv.tokenizers import encode_prompt

FEWEST_TO_SPLIT = 40
"""From lists of fewer different prompts nothing is held out: the same train and evaluate."""


def algorithm_class(settings: TrainSettings) -> type[Algorithm]:
    """The class of the algorithm, if the other options give it what it needs.

    Raises:
        OptionError: They do not.
        MissingFileError: The text for it is not there.
    """
    name, answers = settings.algorithm.name, settings.answers
    made = algorithm_named(name)
    if made.needs.groups and answers.group_size < 2:
        raise OptionError(
            f"{name} compares answers to the same prompt, and --group-size is "
            f"{answers.group_size}: take 2 or more, such as --group-size 8"
        )
    if answers.rows % answers.group_size:
        raise OptionError(
            f"--rows {answers.rows} are not whole groups of --group-size {answers.group_size}"
        )
    takes_text = any(field.name == "stream" for field in fields(made))
    if takes_text != (settings.task.ptx_text is not None):
        raise OptionError(
            f"{name} does not read a text: leave --ptx-text out, or take --algorithm ppo-ptx"
            if not takes_text
            else f"{name} keeps reading a text: name it with --ptx-text"
        )
    if settings.task.ptx_text is not None:
        check_there([settings.task.ptx_text], "text")
    else:  # made here once, so that a field it refuses is found before the long work
        _made(settings, made, settings.algorithm.fields)
    return made


def make_algorithm(settings: TrainSettings, made: type[Algorithm], policy: Policy) -> Algorithm:
    """The algorithm with its fields, and its text if it reads one.

    Raises:
        OptionError: A field has a value that the algorithm refuses.
    """
    values = dict(settings.algorithm.fields)
    if settings.task.ptx_text is not None:
        assert policy.tokenizer is not None
        text = read_text(settings.task.ptx_text)
        stream = np.array(encode_prompt(policy.tokenizer, text), dtype=np.int64)
        if len(stream) < 2:
            raise MalformedRecordError(
                f"{settings.task.ptx_text} has {len(stream)} tokens: there is none to predict"
            )
        window = min(values["ptx_window"], policy.context, len(stream) - 1)
        values |= {"stream": stream, "ptx_window": window}
    return _made(settings, made, values)


def _made(settings: TrainSettings, made: type[Algorithm], values: Mapping[str, Any]) -> Algorithm:
    try:
        return made(**values)
    except ValueError as error:
        raise OptionError(f"{settings.algorithm.name}: {error}") from error


def reward_of(settings: TrainSettings) -> Any:
    """The reward, a reward model, or how positive an answer sounds; None if the world pays.

    Raises:
        InvalidRewardError: Both a reward and a reward model are named.
    """
    task = settings.task
    if task.reward_model:
        if task.reward is not None:
            raise InvalidRewardError(
                f"both a reward ({task.reward}) and a reward model "
                f"({', '.join(task.reward_model)}) are given: give one of them"
            )
        return reward_model_of(task, settings.device.device)
    if task.reward is not None:
        return task.reward
    return None if settings.conversation.has_turns else speeches.sentiment_reward()


def with_critic(actor: Policy, reward: Any, algorithm: type[Algorithm]) -> Policy:
    """The actor with a critic that begins as the reward model, if that reads the same tokens."""
    if not isinstance(reward, RewardModel | RewardModelEnsemble) or actor.tokenizer is None:
        return actor
    if not algorithm.needs.values:
        return actor
    if reward.tokenizer.fingerprint != actor.tokenizer.fingerprint:
        return actor
    return SeparateValue(actor, reward.as_critic())


def policies_of(
    settings: TrainSettings, stages: Stages, saved: Path | None
) -> tuple[Policy, Policy]:
    """What learns, and what it began as.

    Args:
        settings: The options.
        stages: Shows the training of a new policy.
        saved: A checkpoint of the run to go on from, if there is one.
    """
    device = device_named(settings.device.device)
    if saved:
        policy = load_policy(saved / POLICY).to(device)
        if settings.task.lora:
            return policy, reference_of(policy, settings.task.lora)
        return policy, load_policy(saved / REFERENCE).to(device).frozen_copy()
    task = settings.task
    if task.policy is not None:
        policy = begin_with(task.policy, task.stop, task.no_bos)
    else:
        policy = _demo_policy(settings, stages)
    policy.to(device)
    tokenizer_of(policy, f"the policy in {task.policy}")
    with_lora(policy, task.lora, settings.training.seed, task.policy)
    return policy, reference_of(policy, task.lora)


def _demo_policy(settings: TrainSettings, stages: Stages) -> TransformerPolicy:
    """The GPT of the demo, from the cache if an earlier run has left it there."""
    network = settings.network
    if network.n_embd % network.n_head:
        raise uneven_heads(network)
    shape = speeches.Pretraining(
        total_tokens=network.pretrain_tokens,
        n_layer=network.n_layer,
        n_head=network.n_head,
        n_embd=network.n_embd,
        seed=settings.training.seed,
    )
    folder = speeches.pretrained_folder(shape)
    if folder.exists():
        stages.console.print(f"Pretrained policy of an earlier run: {folder}", soft_wrap=True)
        return TransformerPolicy.load(folder)
    with stages.bar("Vocabulary", shape.vocab_size, "tokens") as advance:
        tokenizer = speeches.learn_vocabulary(shape)
        advance(tokenizer.vocab_size)
    with stages.bar("Pretraining", shape.total_tokens, "tokens") as advance:
        begin = time.perf_counter()

        def show(step: PretrainingStep) -> None:
            speed = step.tokens / (time.perf_counter() - begin)
            advance(step.tokens, f"loss {step.loss:.2f}  {speed:,.0f} tokens/s")

        policy = speeches.pretrain(shape, tokenizer, show, stages.console)
    _, kept = speeches.read()
    loss = held_out_loss(policy, speeches.stream(kept, tokenizer), shape.window)
    stages.console.print(f"Loss on held-out speeches: {loss:.3f} nats a token")
    return policy


def sources_of(settings: TrainSettings) -> list[PromptSource]:
    """Where prompts come from: one source for all, or one to train and one to evaluate on."""
    if settings.task.prompts is not None:
        return [load_prompts(settings.task.prompts)]
    if settings.conversation.world is not None:
        return [NoPrompts()]
    return [ListPrompts(prompts) for prompts in speeches.prompts()]


def prompts_of(
    settings: TrainSettings, sources: Sequence[PromptSource], policy: Policy, console: Console
) -> tuple[PromptSource, list[Prompt], bool]:
    """Where the training prompts come from, those to evaluate on, and whether they are others.

    Args:
        settings: The options.
        sources: What `sources_of` gave.
        policy: Who is to answer.
        console: Is told how many prompts were too long.

    Raises:
        PromptTooLongError: Some are too long for the policy, and nothing is to be done about it.
        FrameError: There are messages and no frame, or the policy has none.
    """
    answers, count = settings.answers, settings.output.eval_answers
    frame = frame_of(settings.conversation, policy)
    room = room_for_prompts(policy, answers.max_new_tokens)
    training, *others = [
        fit_prompts(source, policy, room, answers.long_prompts, console, frame)
        for source in sources
    ]
    if not others:
        return split_prompts(training, count, settings.training.seed)
    assert isinstance(others[0], ListPrompts)
    return training, _spread(others[0].prompts, count), True


def split_prompts(
    source: PromptSource, count: int, seed: int
) -> tuple[PromptSource, list[Prompt], bool]:
    """Hold out a tenth of the prompts of a list, if there are enough that differ.

    Args:
        source: All prompts; one that makes new ones up serves both sides.
        count: Prompts to evaluate on.
        seed: Of what is held out.

    Returns:
        Where the training prompts come from, those to evaluate on, and whether they are others.
    """
    mixed = np.random.default_rng(seed)
    if not isinstance(source, ListPrompts):  # it makes new ones up for ever
        seeds = mixed.integers(2**64, size=count, dtype=np.uint64)
        return source, list(source.draw(seeds)), True
    if len({prompt.content for prompt in source.prompts}) < FEWEST_TO_SPLIT:
        return source, _spread(source.prompts, count), False
    held_out, training = hold_out(
        source.prompts,
        lambda prompt: prompt.content,
        lambda different: max(different // 10, FEWEST_TO_SPLIT // 2),
        mixed,
    )
    return source.with_prompts(training), _spread(held_out, count), True


def _spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """`count` of the prompts at even distances; all of them repeatedly if there are fewer."""
    if len(prompts) < count:
        return [prompts[i % len(prompts)] for i in range(count)]
    return [prompts[i] for i in np.linspace(0, len(prompts) - 1, count).astype(int)]


def environment_of(
    settings: TrainSettings, policy: Policy, prompts: PromptSource, reward: Any
) -> TextVectorEnv:
    """Where `policy` answers."""
    answers = settings.answers
    return environment_for(
        policy,
        prompts,
        reward,
        rows=answers.rows,
        max_new_tokens=answers.max_new_tokens,
        masks=answers,
        talk=settings.conversation,
        group_size=answers.group_size,
    )
