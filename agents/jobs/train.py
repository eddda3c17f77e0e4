"""The job of `textenv train`: train, compare before and after, leave a run folder."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agents import Learner
from agents.algorithm import Algorithm
from agents.algorithms.names import algorithm_named
from agents.commands.parsing import from_flat, to_flat, to_kept
from agents.commands.train import TrainSettings, complete
from agents.distribution import Ranks
from agents.distribution.checkpoints import of_ranks
from agents.distribution.launch import is_restart, start_of_torchrun
from agents.evaluation import Evaluation, Interval, bootstrap_interval, evaluate
from agents.jobs.environments import check_conversation, frame_by_option, named_template
from agents.jobs.inputs import (
    algorithm_class,
    environment_of,
    make_algorithm,
    policies_of,
    prompts_of,
    reward_of,
    sources_of,
    with_critic,
)
from agents.jobs.machine import device_named, divided, undivided
from agents.jobs.outputs import check_folder
from agents.optimisation.settings import falling
from agents.report.training import MEASURES, write_training_report
from agents.runs.checkpoints import Checkpoints, flush, write_whole
from agents.runs.learner_checkpoint import POLICY, read_learner, write_learner
from agents.runs.loggers import CSVLogger, Logger, check_loggers, log_evaluation, loggers_of_run
from agents.runs.progress import watch
from agents.runs.run_folder import RunFolder
from agents.runs.samples import append_samples, comparison_table
from agents.runs.saving import Saving, Schedule
from agents.runs.stages import Stages
from agents.runs.stopping import BeyondKL, until
from policies import Policy
from policies.checkpoint import saved_tokenizer
from policies.templates import keep_template
from textenv import PromptSource, TextVectorEnv
from textenv.errors import (
    CheckpointError,
    OptionError,
)
from textenv.files import reason
from textenv.frames import CHAT
from textenv.loading import load_object
from textenv.reward_trial import try_reward

SHOWN_SAMPLES = 5
ENDED = "ended.json"
"""In a checkpoint, once all is learned: the tokens that were asked for."""
STARTED_BY = "started_by.txt"
"""In the folder of a run of torchrun: which start of it."""
MAY_CHANGE = {"resume", "tokens", "save_every", "keep", "device", "shard", "debug"}
"""Options that a run may be given when it is resumed."""


@dataclass(frozen=True)
class Result:
    """What a job has shown.

    Attributes:
        run: Where all of it is kept.
        before: Answers before training.
        after: Answers to the same prompts after it.
        held_out: Whether training has not seen these prompts.
        gain: Mean difference of the scores, paired by prompt, and its interval.
        seconds: What each stage took.
    """

    run: RunFolder
    before: Evaluation
    after: Evaluation
    held_out: bool
    gain: Interval
    seconds: dict[str, float]

    def numbers(self) -> dict[str, Any]:
        """What `result.json` holds."""
        return {
            "answers": len(self.before.samples),
            "held_out": self.held_out,
            "gain": self.gain._asdict(),
            "before": self.before.numbers(),
            "after": self.after.numbers(),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }


def run(settings: TrainSettings, given: set[str]) -> None:
    """Train, or resume a run, and show what came of it.

    Args:
        settings: The options.
        given: Names of those that were given: a run that is resumed takes only some.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console, folder = Console(), None
    if settings.output.resume is not None:
        folder = RunFolder(settings.output.resume)
        settings = _settings_to_resume(folder, settings, given)
    else:
        _check_given(settings, given)
        folder = Ranks.found().by_first(lambda: _before_a_restart(settings.output.run_folder))
    with frame_by_option():
        _show(train(settings, settings.output.run_folder, console, folder), console)


def _before_a_restart(root: Path) -> RunFolder | None:
    """The run that this start of torchrun has begun before one of its processes died, if any."""
    if not is_restart():
        return None
    for mark in root.glob(f"*/{STARTED_BY}"):
        if mark.read_text(encoding="utf-8", errors="replace") == start_of_torchrun():
            return RunFolder(mark.parent)
    return None


def train(
    settings: TrainSettings, root: str | Path, console: Console, resume: RunFolder | None = None
) -> Result:
    """Do the whole job, with a progress bar for each stage.

    Args:
        settings: What to do.
        root: Where the folder of the run is made.
        console: Where to show it.
        resume: Continue this run instead of a new one.

    Raises:
        TextEnvError: Something given cannot be used, or a reward failed. If the learner was
            running it is saved first, as it is on KeyboardInterrupt; a note says where.
        Stopped: A signal asked for it; the learner was saved after a whole update.
    """
    device_named(settings.device.device)  # what cannot be used is found before the long work
    if resume is None:
        return _train(settings, root, console)
    checkpoints = of_ranks(resume.checkpoints(settings.output.keep))
    # To the end: another process that resumed it meanwhile would go on from what is read now.
    with checkpoints.owned():
        return _train(settings, root, console, resume, checkpoints)


def _train(
    settings: TrainSettings,
    root: str | Path,
    console: Console,
    resume: RunFolder | None = None,
    checkpoints: Checkpoints | None = None,
) -> Result:
    """The job of `train`; of a run that is resumed, with its checkpoints, which nobody else has."""
    Schedule.of(settings.output.save_every)  # whether it can be read
    saved = checkpoints.newest() if checkpoints else None
    if resume and saved is None:
        console.print(f"Nothing was saved in {resume.path} yet: the run begins again.")
    check_loggers(settings.output.logger)
    made = algorithm_class(settings)
    task, talk = settings.task, settings.conversation
    check_conversation(talk, task.prompts, pays=bool(task.reward or task.reward_model))
    stages = Stages(console)
    sources = sources_of(settings)
    reward = reward_of(settings)
    _try_reward(settings, sources[0], saved)
    actor, reference = policies_of(settings, stages, saved)
    training, asked, held_out = prompts_of(settings, sources, actor, console)
    policy = with_critic(actor, reward, made)
    keep_template(actor, named_template(talk.frame, actor))
    if settings.device.shard and settings.task.lora and policy is not actor:
        raise OptionError(
            "--shard cannot divide an adapter's model together with a critic of its own, which "
            "--reward-model gives it: leave --lora or --shard out"
        )
    divided(policy, settings.device, reference)
    envs = environment_of(settings, actor, training, reward)
    algorithm = make_algorithm(settings, made, actor)
    ranks = Ranks.found()
    run = resume or RunFolder(ranks.by_first(lambda: RunFolder.create(root).path))
    config = {k: v for k, v in to_kept(settings).items() if k != "resume"}

    def begin() -> None:
        run.write_config(config)
        if start := start_of_torchrun():
            write_whole(run.path / STARTED_BY, start)

    ranks.by_first(begin)

    def examine(
        learned: bool, on_answers: Callable[[int], object] = lambda done: None
    ) -> Evaluation:
        with undivided(policy, reference) as (learns, refers):
            return evaluate(
                learns if learned else refers,
                envs,
                asked,
                reference=refers,
                temperature=settings.training.temperature,
                seed=settings.training.seed,
                on_answers=on_answers,
            )

    def answers(name: str, learned: bool) -> Evaluation:
        with stages.bar(name, len(asked), "answers") as advance:
            return examine(learned, advance)

    before = answers("Answers before", False)
    learner = _learner(settings, policy, envs, algorithm, reference)
    if saved:
        read_learner(learner, saved)
    if not (saved and _has_ended(saved, settings.training.tokens)):
        checkpoints = checkpoints or of_ranks(run.checkpoints(settings.output.keep))
        with stages.timed(made.__name__):
            _learn(learner, settings, run, checkpoints, console, lambda: examine(True))
    try:
        after = answers("Answers after", True)
    except KeyboardInterrupt as error:
        error.__notes__ = [f"Saved. {_to_go_on(run)}"]
        raise

    before, after = _of_one_prompt(before, after)
    gain = bootstrap_interval(after.scores - before.scores)
    result = Result(run, before, after, held_out, gain, stages.seconds)

    def write() -> None:
        for updates, evaluation in ((0, before), (learner.updates_done, after)):
            append_samples(run.samples, evaluation.samples, update=updates)
        write_whole(run.path / "result.json", json.dumps(result.numbers(), indent=2))
        write_training_report(run, before, after)

    ranks.by_first(write)
    return result


def _of_one_prompt(before: Evaluation, after: Evaluation) -> tuple[Evaluation, Evaluation]:
    """The evaluations, where a world has begun the same draw in two ways with both of them.

    A world may: in self-play the partner's first move is its present weights'.
    """
    prompts = [
        old.prompt if old.prompt == new.prompt else f"{old.prompt} / {new.prompt}"
        for old, new in zip(before.samples, after.samples, strict=True)
    ]

    def named(evaluation: Evaluation) -> Evaluation:
        pairs = zip(evaluation.samples, prompts, strict=True)
        return replace(evaluation, samples=[replace(s, prompt=prompt) for s, prompt in pairs])

    return named(before), named(after)


# -------------------------------------------------------------------- what the job is made of


def _try_reward(settings: TrainSettings, prompts: PromptSource, saved: Path | None) -> None:
    """Find out that the user's reward cannot work, before anything is loaded or trained."""
    if settings.task.reward is None:
        return
    if settings.conversation.has_turns:  # it may look at turns, which only a world makes
        load_object(settings.task.reward)
        return
    (prompt,) = prompts.draw(np.zeros(1, dtype=np.uint64))
    folder = saved / POLICY if saved else settings.task.policy
    try_reward(settings.task.reward, prompt, (folder and saved_tokenizer(folder)) or "bytes")


def _check_given(settings: TrainSettings, given: set[str]) -> None:
    """Refuse options that would have no effect beside others.

    Raises:
        OptionError: One was given.
    """
    task, name = settings.task, settings.algorithm.name
    if "kl_coef" in given and algorithm_named(name).needs.reference:
        raise OptionError(f"{name} has a leash to the reference of its own: leave --kl-coef out")
    sizes = given & {"n_layer", "n_head", "n_embd", "pretrain_tokens"}
    if task.policy is not None and sizes:
        flags = ", ".join("--" + size.replace("_", "-") for size in sorted(sizes))
        raise OptionError(f"the policy in {task.policy} has a shape already: leave out {flags}")
    if task.policy is None and (task.stop is not None or task.no_bos):
        option = "--no-bos" if task.no_bos else "--stop"
        raise OptionError(f"{option} belongs to a model of Hugging Face: name it with --policy")
    if task.policy is None and settings.conversation.frame == CHAT:
        raise OptionError(f"--frame {CHAT} is the template of a policy: name that with --policy")
    check_folder(settings.output.run_folder, "--run-folder")


def _settings_to_resume(run: RunFolder, given: TrainSettings, names: set[str]) -> TrainSettings:
    """The settings of the run, with those that are given now and may be others.

    Raises:
        CheckpointError: The folder is not that of a run.
        OptionError: Other options were given as well.
    """
    if others := names - MAY_CHANGE:
        flags = ", ".join("--" + name.replace("_", "-") for name in sorted(others))
        raise OptionError(f"a resumed run keeps its settings; leave out {flags}")
    try:
        stored = json.loads(run.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{run.path} is not the folder of a run that had begun: {reason(error)}; give the "
            "command of the run again without --resume, or the folder of another one"
        ) from error
    settings = from_flat(TrainSettings, complete(stored), str(run.config))
    if "tokens" in names:
        longer = replace(settings.training, tokens=given.training.tokens)
        settings = replace(settings, training=longer)
    changed = {name: getattr(given.output, name) for name in names & {"save_every", "keep"}}
    placed = {name: getattr(given.device, name) for name in names & {"device", "shard"}}
    device = replace(settings.device, **placed)
    return replace(settings, output=replace(settings.output, **changed), device=device)


def _learner(
    settings: TrainSettings,
    policy: Policy,
    envs: TextVectorEnv,
    algorithm: Algorithm,
    reference: Policy,
) -> Learner:
    s = settings.training
    whole = algorithm.needs.whole_episodes
    return Learner(
        policy,
        envs,
        algorithm,
        reference=reference,
        # Soft Q-learning and the losses of preferences have a leash of their own.
        kl_coef=0.0 if type(algorithm).needs.reference else s.kl_coef,
        n_steps=None if whole else settings.answers.max_new_tokens,
        n_episodes=settings.answers.rows if whole else None,
        learning_rate=partial(falling, s.learning_rate),
        temperature=s.temperature,
        max_grad_norm=s.max_grad_norm,
        micro_batch_tokens=s.micro_batch_tokens,
        importance_cap=s.importance_cap,
        precision=s.precision,
        seed=s.seed,
    )


def _learn(
    learner: Learner,
    settings: TrainSettings,
    run: RunFolder,
    checkpoints: Checkpoints,
    console: Console,
    examine: Callable[[], Evaluation],
) -> None:
    """Train to the end, and leave a checkpoint in `run` whatever happens."""
    learner.runtime_state()  # what cannot be saved says so now, and not when it is lost
    output, evaluations = settings.output, CSVLogger(run.path / "evaluations.csv")
    ended = False
    learner.rescue_folder = checkpoints
    learner.resume_command = f"go on with textenv train --resume {run.path}"

    def write(folder: Path) -> None:
        for logged in (run.metrics, evaluations.path):
            if logged.exists():
                flush(logged)  # no power cut may take a row that the checkpoint is behind
        write_learner(learner, folder)
        if ended and learner.ranks.first:
            (folder / ENDED).write_text(json.dumps(settings.training.tokens), encoding="utf-8")

    with (
        # Innermost, so that a service that does not answer when it is closed costs nothing.
        _loggers(learner, settings, run) as loggers,
        Saving(
            checkpoints,
            write,
            Schedule.of(output.save_every),
            console,
            _to_go_on(run),
            done=learner.updates_done,
            rescue=learner.rescue,
        ) as saving,
    ):
        # metrics.csv has one row for each update; evaluations have a file of their own.
        services = [logger for logger in loggers if not isinstance(logger, CSVLogger)]
        shown = watch(
            learner,
            settings.training.tokens,
            loggers=loggers,
            samples_every=output.samples_every or None,
            console=console,
        )
        far = settings.training.stop_beyond_kl
        for update in until(shown, *([] if far is None else [BeyondKL(far)])):
            if output.eval_every and update.number % output.eval_every == 0:
                score = float(np.nanmean(examine().scores))  # NaN: an answer without a score
                if learner.ranks.first:
                    log_evaluation([evaluations], update.tokens, score, "score")
                log_evaluation(services, update.tokens, score)
                console.print(f"update {update.number}: score {score:.3f} in an evaluation")
            saving.after(update.number)
        ended = True
        saving.finish()


def _loggers(
    learner: Learner, settings: TrainSettings, run: RunFolder
) -> AbstractContextManager[list[Logger]]:
    """The loggers of a run; of several processes only the first one has any."""
    if not learner.ranks.first:
        return nullcontext([])
    return loggers_of_run(run.path, settings.output.logger, to_flat(settings))


def _has_ended(saved: Path, tokens: int) -> bool:
    """Whether a checkpoint is of the end of a run of this many tokens; a rule may end it early."""
    path = saved / ENDED
    return path.exists() and json.loads(path.read_text(encoding="utf-8")) == tokens


def _to_go_on(run: RunFolder) -> str:
    return f"To go on: textenv train --resume {run.path}"


# -------------------------------------------------------------------- what is shown at the end


def _show(result: Result, console: Console) -> None:
    """Samples side by side, then the numbers."""
    before, after = result.before, result.after
    chosen = np.linspace(0, len(before.samples) - 1, SHOWN_SAMPLES).astype(int)
    console.print(comparison_table(*([e.samples[i] for i in chosen] for e in (before, after))))

    table = Table(title=_title(result), title_justify="left")
    for name in ("", "before", "after"):
        table.add_column(name, justify="right" if name else "left")
    scores = (str(bootstrap_interval(e.scores)) for e in (before, after))
    table.add_row("mean score", *scores)
    for name, label, form in MEASURES:
        table.add_row(label, *(format(getattr(e, name), form) for e in (before, after)))
    console.print(table)
    for name, evaluation in (("before", before), ("after", after)):
        if evaluation.failed_worlds:
            console.print(
                f"The world failed in {evaluation.failed_worlds} of {len(before.samples)} "
                f"conversations {name} training."
            )
    console.print(f"Gain in score: {result.gain}, paired by prompt. Intervals: 95%, bootstrap.")
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items())
    console.print(f"Time: {seconds}")
    path = result.run.path
    console.print(f"Report: {path / 'report.html'}", soft_wrap=True)
    console.print(f"Run folder: {path} (policy: {path / 'checkpoint' / 'policy'})", soft_wrap=True)


def _title(result: Result) -> str:
    count = len(result.before.samples)
    if result.held_out:
        return f"{count} answers to prompts that were held out"
    return f"{count} answers to the training prompts, too few to hold any out"
