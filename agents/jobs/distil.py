"""The job of `textenv distil`: a small student from a large teacher, on text and on its answers."""

import json
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from agents import GKD, Learner
from agents.commands.distil import DistilSettings, Student
from agents.commands.pretrain import PretrainedNetwork
from agents.commands.shared import Conversation, Masked
from agents.jobs.begin import begin_with, refuse_encoder_decoder
from agents.jobs.environments import (
    environment_for,
    fit_prompts,
    room_for_prompts,
    template_of_records,
)
from agents.jobs.fit import fit_arguments
from agents.jobs.going_on import CHECKPOINT, GoingOn, unfinished
from agents.jobs.machine import device_named
from agents.jobs.networks import FORMS, check_sizes
from agents.jobs.outputs import check_folder
from agents.jobs.preferences import chosen_prompts
from agents.jobs.pretrain import documents_of
from agents.jobs.teacher_and_student import numbers_of, speeds_of, table_of
from agents.optimisation.settings import falling
from agents.runs.checkpoints import write_whole
from agents.runs.learner_checkpoint import read_learner, write_learner
from agents.runs.stages import Stages
from agents.supervised import Fitting, open_stream, write_stream
from agents.supervised.distillation import (
    check_vocabularies,
    distillation_steps,
    what_is_lost,
)
from agents.supervised.pretraining import steps_of_tokens
from policies import Policy, TransformerPolicy, load_policy, tokenizer_of
from policies.templates import keep_template
from textenv import ListPrompts, PromptSource
from textenv.errors import OptionError, PromptError
from textenv.files import check_there
from textenv.frames import CHAT, load_frame

RESULT, STREAM = "distillation.json", "text.tokens"


def run(settings: DistilSettings) -> None:
    """Make the student, or resume, and compare it with its teacher.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, machine = settings.task, settings.machine
    if not task.text and task.prompts is None:
        raise OptionError("there is nothing to learn from: give --text, --prompts or both")
    device = device_named(machine.device)
    check_there(task.text, "text")
    check_folder(task.out, "--out")
    if settings.student.student is None:
        check_sizes(_shape(settings.student))
    work = unfinished(task.out / CHECKPOINT, settings, settings.saving, console)
    teacher = begin_with(task.teacher, task.stop, task.no_bos).to(device).requires_grad_(False)
    refuse_encoder_decoder(teacher, "distil", task.teacher)
    tokenizer_of(teacher, f"the teacher in {task.teacher}")
    student = _student(settings, teacher).to(device)
    check_vocabularies(teacher, student)
    prompts, frame = _prompts(settings, teacher, student, console)
    learned, kept = _text(settings, teacher, student)
    stages = Stages(console)
    if learned is not None and not work.numbers.get("on_answers"):
        _on_text(settings, teacher, student, learned, work, stages)
    divergence: list[float] = []
    if prompts is not None:
        divergence = _on_answers(settings, teacher, student, prompts, frame, work, stages)
    student.save(task.out)
    work.finished()
    lost = None if kept is None else what_is_lost(teacher, student, kept, settings.on_text.window)
    asked = prompts.prompts if isinstance(prompts, ListPrompts) else []
    speeds = speeds_of(
        teacher, student, [p.text for p in asked], settings.on_answers.max_new_tokens
    )
    numbers = numbers_of(teacher, student, speeds, lost, divergence)
    write_whole(task.out / RESULT, json.dumps(numbers, indent=2))
    console.print(table_of(numbers))
    console.print(f"Student: {task.out}", soft_wrap=True)


def _shape(student: Student) -> PretrainedNetwork:
    """The new network's sizes, as the command that pretrains has them."""
    return PretrainedNetwork(
        n_layer=student.n_layer, n_head=student.n_head, n_embd=student.n_embd, form=student.form
    )


def _student(settings: DistilSettings, teacher: Policy) -> Policy:
    """The student as it begins."""
    wanted = settings.student
    if wanted.student is not None:
        return load_policy(wanted.student)
    config = FORMS[wanted.form](
        teacher.vocab_size,
        teacher.context,
        n_layer=wanted.n_layer,
        n_head=wanted.n_head,
        n_embd=wanted.n_embd,
    )
    return TransformerPolicy(config, tokenizer=teacher.tokenizer, seed=settings.machine.seed)


# -------------------------------------------------------------------- what is learned from


def _prompts(
    settings: DistilSettings, teacher: Policy, student: Policy, console: Console
) -> tuple[PromptSource | None, str | None]:
    """What the student answers, and the frame around it; the student keeps the teacher's."""
    task, wanted = settings.task, settings.on_answers
    if task.prompts is None:
        return None, None
    chosen = ListPrompts(chosen_prompts(task.prompts, task.limit, settings.machine.seed))
    template = template_of_records(
        task.frame, teacher, any(prompt.messages is not None for prompt in chosen.prompts)
    )
    keep_template(student, template)
    wraps = load_frame(template, tokenizer_of(teacher))
    frame = task.frame if template is None else task.frame or CHAT
    room = min(room_for_prompts(policy, wanted.max_new_tokens) for policy in (teacher, student))
    return fit_prompts(chosen, student, room, wanted.long_prompts, console, wraps), frame


def _text(
    settings: DistilSettings, teacher: Policy, student: Policy
) -> tuple[NDArray[np.integer] | None, NDArray[np.integer] | None]:
    """The text's ids to learn from, and those that are held out.

    Raises:
        PromptError: The text is too short.
    """
    task = settings.task
    if not task.text:
        return None, None
    path, tokenizer = task.out / STREAM, tokenizer_of(teacher)
    write_stream(path, documents_of(task.text), tokenizer)
    stream = open_stream(path, tokenizer)
    cut, window = int(len(stream) * (1 - task.held_out)), _window(settings, teacher, student)
    if min(cut, len(stream) - cut if task.held_out else cut) <= window:
        raise PromptError(
            f"{' and '.join(map(str, task.text))} gives {cut} tokens to learn from and "
            f"{len(stream) - cut} held out, and a window of {window} needs {window + 1} of each: "
            "give more text, or make --window smaller, or take --held-out 0"
        )
    return stream[:cut], stream[cut:] if task.held_out else None


WINDOW = 256
"""Tokens read in a row where nothing is said: logits of long contexts fill the memory."""


def _window(settings: DistilSettings, teacher: Policy, student: Policy) -> int:
    """Tokens that both read in a row.

    Raises:
        OptionError: A context is shorter.
    """
    most = min(teacher.context, student.context)
    window = settings.on_text.window or min(most, WINDOW)
    if window > most:
        raise OptionError(f"--window {window} is more than a context, {most}: take that or less")
    return window


# -------------------------------------------------------------------- how it is learned


def _on_text(
    settings: DistilSettings,
    teacher: Policy,
    student: Policy,
    stream: NDArray[np.integer],
    work: GoingOn,
    stages: Stages,
) -> None:
    """The teacher's distributions on the text."""
    wanted, machine = settings.on_text, settings.machine
    window = _window(settings, teacher, student)
    total = steps_of_tokens(wanted.tokens, window, wanted.batch_size)
    fitting = Fitting(
        student,
        steps=total,
        precision=getattr(torch, machine.precision),
        seed=machine.seed,
        **fit_arguments(wanted),
    )
    with (
        stages.bar("On text", total, "steps") as advance,
        work.saving(fitting) as saving,
    ):
        for step in distillation_steps(
            teacher,
            student,
            stream,
            steps=total,
            window=window,
            batch_size=wanted.batch_size,
            temperature=wanted.softness,
            text_weight=wanted.text_weight,
            seed=machine.seed,
            fitting=fitting,
        ):
            advance(step.number, f"loss {step.loss:.3f}")
            saving.after(step.number)
        saving.finish()


def _on_answers(
    settings: DistilSettings,
    teacher: Policy,
    student: Policy,
    prompts: PromptSource,
    frame: str | None,
    work: GoingOn,
    stages: Stages,
) -> list[float]:
    """What the teacher would do in the student's own answers.

    Returns:
        The divergence at each update, in nats a token.
    """
    wanted, machine = settings.on_answers, settings.machine
    learner = Learner(
        student,
        environment_for(
            student,
            prompts,
            _nothing,
            rows=wanted.rows,
            max_new_tokens=wanted.max_new_tokens,
            masks=Masked(),
            talk=Conversation(frame=frame),
        ),
        GKD(beta=wanted.beta, n_epochs=wanted.epochs, minibatch_tokens=wanted.minibatch_tokens),
        reference=teacher,
        n_steps=wanted.max_new_tokens,
        learning_rate=partial(falling, wanted.own_learning_rate),
        temperature=wanted.temperature,
        precision=machine.precision,
        seed=machine.seed,
    )
    saved: Any = _WithoutTeacher(learner)
    divergence: list[float] = []
    if work.saved is not None and work.numbers.get("on_answers"):
        read_learner(saved, work.saved)
        divergence = work.numbers["divergence"]
        work.console.print(f"Going on after update {learner.updates_done} on its own answers.")
    with (
        stages.bar("On its own answers", wanted.own_tokens, "tokens") as advance,
        work.saving_by(
            partial(write_learner, saved),
            learner.updates_done,
            lambda: {"on_answers": True, "divergence": divergence},
            rescue=_half_done,
        ) as saving,
    ):
        while learner.tokens_done < wanted.own_tokens:
            update = learner.update(learner.tokens_done / wanted.own_tokens)
            divergence.append(update.metrics["divergence"])
            advance(update.tokens, f"divergence {divergence[-1]:.3f}")
            saving.after(update.number)
        saving.finish()
    return divergence


def _nothing(episodes: Any) -> list[float]:
    """The reward of the environment: what is learned comes from the teacher alone."""
    return [0.0] * len(episodes)


def _half_done(error: BaseException) -> None:
    """An error within an update is no reason to save: the weights may be those of half of it."""


class _WithoutTeacher:
    """A learner whose reference is not saved: the teacher has a folder of its own."""

    reference = None

    def __init__(self, learner: Learner):
        self._learner = learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)
