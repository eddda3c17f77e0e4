"""The job of `textenv demonstrate`: a person writes answers."""

from rich.console import Console

from agents.commands.demonstrate import DemonstrateSettings
from agents.feedback.from_people.demonstrations import write_demonstrations
from agents.jobs.outputs import check_file
from agents.jobs.preferences import chosen_prompts


def run(settings: DemonstrateSettings) -> None:
    """Show questions, and keep the answers.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console, task = Console(), settings.task
    check_file(task.out, "--out")
    chosen = chosen_prompts(task.prompts, task.limit, task.seed)
    asked = [prompt.messages or prompt.text for prompt in chosen]
    if not write_demonstrations(asked, task.out, console=console):
        console.print("Stopped; the same command goes on from here.")
    console.print(f"Demonstrations: {task.out}", soft_wrap=True)
