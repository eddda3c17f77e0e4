"""Write docs/command_line.md: the commands, their options, and the fields of every algorithm.

Run as `python docs/make_command_line.py`. All of it is read from the dataclasses in
`agents/commands` and `agents/algorithms`; a test compares the page with what this writes.
"""

import inspect
from dataclasses import MISSING
from pathlib import Path

from agents.algorithms.names import ALGORITHMS
from agents.commands import COMMANDS
from agents.commands.options import Common, Group, Option, groups_of, options_of, title_of
from agents.commands.train import TrainSettings
from agents.optimisation import bounds

PAGE = Path(__file__).parent / "command_line.md"
HEAD = """<!-- Written by docs/make_command_line.py from dataclasses: change those. -->

# The command line

`textenv COMMAND --help` prints what stands here. Every option is a field of a dataclass in \
`agents/commands/`; names have hyphens on the command line and underscores in files.

```bash
textenv train --algorithm grpo --group-size 8 --prompts my.jsonl --reward my.py:reward
textenv train --config my.toml --tokens 200000
textenv train --resume runs/20261128-120000
```

A configuration file holds the same names, as TOML or JSON; options given beside it win. A run \
keeps its own as `config.json`, so `--config runs/.../config.json` repeats it:

```toml
algorithm = "grpo"
group_size = 8
clip_high = 0.28
tokens = 200_000
```

`--algorithm` also takes a class of your own, `my.py:MyAlgorithm`: a frozen dataclass derived from \
`agents.Algorithm` ([algorithms.md](algorithms.md)); its fields become options, with the lines \
under "Attributes" of its docstring as their help. Exit codes: 0, 1 for what went wrong, 2 for \
options that cannot be used, 130 after Ctrl-C.
"""


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for name, command in COMMANDS.items():
        parts.append(f"## textenv {name}\n\n{inspect.cleandoc(command.settings.__doc__ or '')}\n")
        parts += [table(group) for group in groups_of(command.settings) if group.choice is None]
    parts.append(f"## All commands\n\n{rows(options_of(Common))}\n")
    parts.append(
        "## Algorithms\n\nWhat `textenv train --algorithm NAME` takes besides; in Python these are "
        "the fields of the class, whose defaults may differ: `train` takes two epochs of PPO.\n"
    )
    for name, cls in ALGORITHMS.items():
        parts.append(f"### {name}\n\n`agents.{cls.__name__}`. {title_of(cls)}\n")
        chosen = groups_of(TrainSettings, {"algorithm": name})
        options = next(group.options for group in chosen if group.choice is not None)
        parts.append(f"{rows(options)}\n")
    return "\n".join(parts)


def table(group: Group) -> str:
    """The options of a group under its title."""
    return f"**{group.title.removesuffix('.')}**\n\n{rows(group.options)}\n"


def rows(options: list[Option]) -> str:
    """Options with their defaults and their help."""
    lines = ["| option | default | takes | |", "|---|---|---|---|"]
    lines += [f"| `{shown(o)}` | {default(o)} | {takes(o)} | {escaped(o.help)} |" for o in options]
    return "\n".join(lines)


def shown(option: Option) -> str:
    """What is typed."""
    return str(option.metadata["metavar"]) if option.metadata.get("positional") else option.flag


def default(option: Option) -> str:
    """The default in a table."""
    if option.default is MISSING:
        return "required"
    if option.default is None or option.default is False or option.default == []:
        return ""
    value = option.default
    return f"`{' '.join(map(str, value)) if isinstance(value, list) else value}`"


def takes(option: Option) -> str:
    """The bounds of a number or the names that may be chosen, in a table."""
    others = option.metadata.get("others", {})
    names = [*(f"`{name}`" for name in option.names), *others]
    return bounds.words(option.metadata) or ", ".join(names)


def escaped(text: str) -> str:
    """A text in a cell."""
    return text.replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
