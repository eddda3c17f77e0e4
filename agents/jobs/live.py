"""The job of `textenv live`: a person rewards a policy by keys while it writes."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from rich.console import Console

from agents.algorithms.ppo import PPO
from agents.commands.live import LiveSettings
from agents.commands.shared import Masked
from agents.feedback.from_people.action_selection import Biased, Greedy
from agents.feedback.from_people.human_reward import HumanReward
from agents.feedback.from_people.keys import HELP, KeysInAdvance, TerminalPerson
from agents.feedback.from_people.live import Person, live_session
from agents.feedback.from_people.watched import append_watched, read_watched
from agents.jobs.begin import begin_with, reference_of, with_lora
from agents.jobs.environments import (
    check_conversation,
    environment_arguments,
    fit_prompts,
    frame_by_option,
    named_template,
    room_for_prompts,
    schemas_of,
    template_of_records,
)
from agents.jobs.machine import device_named
from agents.jobs.outputs import check_folder
from agents.jobs.preferences import chosen_prompts
from agents.learner import Learner
from agents.optimisation.settings import falling
from agents.runs.stages import Stages
from policies import Policy, tokenizer_of
from policies.templates import keep_template
from textenv import Episode, ListPrompts, Prompt, TextEnv, TextVectorEnv
from textenv.errors import OptionError
from textenv.frames import FrameArgument, load_frame


def run(settings: LiveSettings) -> None:
    """Watch answers, learn what the person likes, and train the policy on it if asked.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, watching, machine = settings.task, settings.watching, settings.machine
    device = device_named(machine.device)
    _check(settings)
    log = task.out / "watched.jsonl"
    earlier = read_watched(log)
    policy = begin_with(task.policy, task.stop, task.no_bos).to(device)
    tokenizer_of(policy, f"the policy in {task.policy}")
    prompts, template = _prompts(settings, policy, console)
    model = HumanReward(policy)
    with_lora(policy, task.lora, machine.seed, task.policy)
    arguments = _environment(settings, policy, prompts, template)
    task.out.mkdir(parents=True, exist_ok=True)
    console.print(HELP, style="dim", highlight=False)
    choose = (
        Greedy(watching.among)
        if watching.choose == "greedy"
        else Biased(watching.strength, watching.temperature)
    )
    begin = len(earlier) % len(prompts) if prompts else 0
    sessions = live_session(
        model,
        policy,
        TextEnv(reward=_nothing, **arguments),
        person := _person(),
        prompts=[*prompts[begin:], *prompts[:begin]] if prompts else None,
        seconds_per_token=watching.seconds if watching.reward == "token" else None,
        choose=choose,
        earlier=earlier,
        seed=machine.seed,
    )
    count = 0
    with person if isinstance(person, AbstractContextManager) else nullcontext():
        try:
            for watched in sessions:
                append_watched(log, watched)
                count += 1
        except KeyboardInterrupt:
            pass  # what was said is in the file
    model.save(task.out / "human_reward")
    console.print(f"\n{count} answers were watched: {log}", soft_wrap=True, highlight=False)
    console.print(f"What was learned: {task.out / 'human_reward'}", soft_wrap=True)
    if settings.training.tokens:
        _train(settings, policy, model, arguments, console)


def _check(settings: LiveSettings) -> None:
    """Find what cannot be used before anything is loaded.

    Raises:
        OptionError: Options do not go together, or the folder cannot be written.
        ObjectNotFoundError: There is no such world, tool or template.
    """
    task, talk = settings.task, settings.conversation
    check_folder(task.out, "--out")
    if task.prompts is None and talk.world is None:
        raise OptionError("there is nothing to answer: give --prompts, or a --world that begins")
    if talk.world_wait != "all":
        raise OptionError("--world-wait async: a person watches one text; leave it out")
    if task.lora and not settings.training.tokens:
        raise OptionError(
            f"--lora {task.lora} is what --tokens trains: give --tokens, or leave --lora out"
        )
    check_conversation(talk, task.prompts, pays=True)


def _prompts(
    settings: LiveSettings, policy: Policy, console: Console
) -> tuple[Sequence[Prompt], FrameArgument]:
    """The prompts, none where a world begins by itself, and what wraps them.

    A template of texts goes with the policy, so that `textenv chat` asks in this form.
    """
    task, talk, watching = settings.task, settings.conversation, settings.watching
    template = named_template(talk.frame, policy)
    prompts: Sequence[Prompt] = ()
    if task.prompts is not None:
        chosen = ListPrompts(chosen_prompts(task.prompts, task.limit, settings.machine.seed))
        if template is None and any(prompt.messages is not None for prompt in chosen.prompts):
            template = template_of_records(None, policy, has_messages=True)
        frame = load_frame(template, tokenizer_of(policy), schemas_of(talk))
        room = room_for_prompts(policy, watching.max_new_tokens)
        with frame_by_option():
            fitting = fit_prompts(chosen, policy, room, watching.long_prompts, console, frame)
        assert isinstance(fitting, ListPrompts)
        prompts = fitting.prompts
    keep_template(policy, template)
    return prompts, template


def _environment(
    settings: LiveSettings, policy: Policy, prompts: Sequence[Prompt], template: FrameArgument
) -> dict[str, Any]:
    """The arguments of the environment in which the policy is watched and trained."""
    arguments = environment_arguments(
        policy,
        ListPrompts(prompts) if prompts else None,
        None,
        max_new_tokens=settings.watching.max_new_tokens,
        masks=Masked(),
        talk=settings.conversation,
    )
    del arguments["reward"]
    return arguments | {"frame": template}


def _nothing(episodes: Sequence[Episode]) -> list[float]:
    """The reward of a watched environment, where the person's keys are the reward."""
    return [0.0] * len(episodes)


def _person() -> Person:
    """Whoever sits at the terminal, or the keys that are piped in."""
    return TerminalPerson() if sys.stdin.isatty() else KeysInAdvance(sys.stdin)


def _train(
    settings: LiveSettings,
    policy: Policy,
    model: HumanReward,
    arguments: dict[str, Any],
    console: Console,
) -> None:
    """PPO against what was learned, and the policy on disk."""
    task, training, watching = settings.task, settings.training, settings.watching
    learner = Learner(
        policy,
        TextVectorEnv(64, reward=model.as_reward(), **arguments),
        PPO(n_epochs=2),
        reference=reference_of(policy, task.lora),
        kl_coef=training.kl_coef,
        n_steps=watching.max_new_tokens,
        learning_rate=partial(falling, training.learning_rate),
        temperature=watching.temperature,
        precision=settings.machine.precision,
        seed=settings.machine.seed,
    )
    learner.rescue_folder = task.out / "interrupted"
    with Stages(console).bar("PPO", training.tokens, "tokens") as advance:
        for update in learner.updates(training.tokens):
            advance(update.tokens, f"score {update.score:.3f}")
    policy.save(task.out / "policy")
    console.print(f"Policy: {task.out / 'policy'}", soft_wrap=True)
