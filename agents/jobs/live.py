"""The job of `textenv live`: a person rewards a policy by keys while it writes."""

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from rich.console import Console

from agents.algorithms.ppo import PPO
from agents.commands.live import LiveSettings
from agents.commands.shared import Conversation, Masked
from agents.feedback.from_people.keys import HELP, KeysInAdvance, TerminalPerson
from agents.feedback.from_people.live import (
    Biased,
    Greedy,
    HumanReward,
    Person,
    append_watched,
    live_session,
    read_watched,
)
from agents.jobs.begin import begin_with
from agents.jobs.environments import environment_for, fit_prompts, room_for_prompts
from agents.jobs.machine import device_named
from agents.jobs.outputs import check_folder
from agents.jobs.preferences import asked_of, chosen_prompts
from agents.learner import Learner
from agents.optimisation.settings import falling
from agents.runs.stages import Stages
from policies import Policy, tokenizer_of
from textenv import ListPrompts
from textenv.errors import OptionError


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
    check_folder(task.out, "--out")
    log = task.out / "watched.jsonl"
    earlier = read_watched(log)
    policy = begin_with(task.policy, task.stop, task.no_bos).to(device)
    tokenizer_of(policy, f"the policy in {task.policy}")
    room = room_for_prompts(policy, watching.max_new_tokens)
    chosen = ListPrompts(chosen_prompts(task.prompts, task.limit, machine.seed))
    if any(prompt.messages is not None for prompt in chosen.prompts):
        raise OptionError(
            f"--prompts {task.prompts} holds conversations, and answers to texts are watched: give "
            "texts, such as each conversation in the form that the policy reads"
        )
    fitting = fit_prompts(chosen, policy, room, watching.long_prompts, console)
    prompts = [str(prompt) for prompt in asked_of(fitting, policy, None)]
    model = HumanReward(policy)
    task.out.mkdir(parents=True, exist_ok=True)
    console.print(HELP, style="dim", highlight=False)
    choose = (
        Greedy(watching.among)
        if watching.choose == "greedy"
        else Biased(watching.strength, watching.temperature)
    )
    begin = len(earlier) % len(prompts)
    sessions = live_session(
        model,
        policy,
        prompts[begin:] + prompts[:begin],
        person := _person(),
        seconds_per_token=watching.seconds if watching.reward == "token" else None,
        max_new_tokens=watching.max_new_tokens,
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
        _train(settings, policy, model, prompts, console)


def _person() -> Person:
    """Whoever sits at the terminal, or the keys that are piped in."""
    return TerminalPerson() if sys.stdin.isatty() else KeysInAdvance(sys.stdin)


def _train(
    settings: LiveSettings,
    policy: Policy,
    model: HumanReward,
    prompts: list[str],
    console: Console,
) -> None:
    """PPO against what was learned, and the policy on disk."""
    training, watching = settings.training, settings.watching
    envs = environment_for(
        policy,
        ListPrompts(prompts),
        model.as_reward(),
        rows=64,
        max_new_tokens=watching.max_new_tokens,
        masks=Masked(),
        talk=Conversation(),
    )
    learner = Learner(
        policy,
        envs,
        PPO(n_epochs=2),
        reference=policy.frozen_copy(),
        kl_coef=training.kl_coef,
        n_steps=watching.max_new_tokens,
        learning_rate=partial(falling, training.learning_rate),
        temperature=watching.temperature,
        precision=settings.machine.precision,
        seed=settings.machine.seed,
    )
    learner.rescue_folder = settings.task.out / "interrupted"
    with Stages(console).bar("PPO", training.tokens, "tokens") as advance:
        for update in learner.updates(training.tokens):
            advance(update.tokens, f"score {update.score:.3f}")
    policy.save(settings.task.out / "policy")
    console.print(f"Policy: {settings.task.out / 'policy'}", soft_wrap=True)
