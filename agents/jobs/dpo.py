"""The job of `textenv dpo`: a policy from preferences, without a reward model."""

from rich.console import Console

from agents.algorithms.preferences import DPO, IPO
from agents.commands.dpo import DPOSettings
from agents.distribution.gathering import save_whole
from agents.feedback.direct import DirectPreferences
from agents.jobs.begin import begin_with_preferences, reference_of
from agents.jobs.going_on import CHECKPOINT, unfinished
from agents.jobs.machine import divided
from agents.runs.stages import Stages
from policies import tokenizer_of
from textenv.frames import load_frame

LOSSES = {"dpo": DPO, "ipo": IPO}


def run(settings: DPOSettings) -> None:
    """Train, examine and save the policy.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, training, machine = settings.task, settings.training, settings.machine
    work = unfinished(task.out / CHECKPOINT, settings, settings.saving, console)
    policy, learned, kept, template = begin_with_preferences(task, machine)
    reference = reference_of(policy, task.lora)
    direct = DirectPreferences(
        divided(policy, machine, reference),
        reference,
        LOSSES[training.loss](beta=training.beta),
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        precision=machine.precision,
        micro_batch_tokens=training.micro_batch_tokens,
        frame=load_frame(template, tokenizer_of(policy)),
        seed=machine.seed,
    )
    total = direct.count(learned, training.epochs)
    if work.saved is not None:
        direct.load(work.saved)
        work.tell(direct.done, total)
    with (
        Stages(console).bar(training.loss.upper(), total, "steps") as advance,
        work.saving_by(direct.save, direct.done) as saving,
    ):
        for step in direct.steps(learned, training.epochs):
            advance(step.number, f"loss {step.loss:.3f}  accuracy {step.accuracy:.2f}")
            saving.after(step.number)
        saving.finish()
    save_whole(policy, task.out)
    work.finished()
    with console.status("Examination"):
        accuracy = direct.accuracy(kept)
    pairs = sum(len(ranking.pairs()) for ranking in kept)
    console.print(f"The better answer raised more, in {pairs} held-out pairs: {accuracy}")
    console.print(f"Policy: {task.out}", soft_wrap=True)
