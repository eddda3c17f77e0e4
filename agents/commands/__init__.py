"""The command line: one file a command, put together here."""

import typer

from agents.commands.chat import chat_command
from agents.commands.evaluate import evaluate_command
from agents.commands.preferences import preferences_command
from agents.commands.pretrain import pretrain_command
from agents.commands.recipe import recipe_command
from agents.commands.reward_model import reward_model_command
from agents.commands.sft import sft_command
from agents.commands.train import train_command

app = typer.Typer(
    name="textenv",
    help="Reinforcement learning on text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def commands() -> None:
    """Reinforcement learning on text."""


# In the order of the recipe.
app.command("pretrain")(pretrain_command)
app.command("sft")(sft_command)
app.command("preferences")(preferences_command)
app.command("reward-model")(reward_model_command)
app.command("train")(train_command)
app.command("eval")(evaluate_command)
app.command("chat")(chat_command)
app.command("recipe")(recipe_command)


def main() -> None:
    """Run the command line."""
    app()
