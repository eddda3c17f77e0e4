"""The job of `textenv dpo`: a policy from preferences, without a reward model."""

from rich.console import Console

from agents.algorithms.preferences import DPO, IPO
from agents.commands.dpo import DPOSettings
from agents.distribution.gathering import save_whole
from agents.feedback import has_messages, read_rankings, split_rankings
from agents.feedback.direct import DirectPreferences
from agents.jobs.begin import begin_training, reference_of
from agents.jobs.environments import template_of_records
from agents.jobs.machine import divided
from agents.runs.stages import Stages
from agents.supervised.sft import steps_of
from policies import tokenizer_of
from textenv.frames import load_frame
from textenv.records import read_files

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
    (learned, kept), policy = begin_training(
        task,
        machine,
        lambda: split_rankings(
            read_files(task.preferences, read_rankings), task.held_out, machine.seed
        ),
    )
    template = template_of_records(task.frame, policy, has_messages([*learned, *kept]))
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
    total = steps_of(len(learned), training.epochs, training.batch_size)
    with Stages(console).bar(training.loss.upper(), total, "steps") as advance:
        for step in direct.steps(learned, training.epochs):
            advance(step.number, f"loss {step.loss:.3f}  accuracy {step.accuracy:.2f}")
    save_whole(policy, task.out)
    with console.status("Examination"):
        accuracy = direct.accuracy(kept)
    pairs = sum(len(ranking.pairs()) for ranking in kept)
    console.print(f"The better answer raised more, in {pairs} held-out pairs: {accuracy}")
    console.print(f"Policy: {task.out}", soft_wrap=True)
