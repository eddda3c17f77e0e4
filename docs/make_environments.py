"""Write a page for each registered environment, in the form of Gymnasium's pages.

Run as `python docs/make_environments.py`. All of it is read from the docstrings and signatures of
the classes and from the spaces of an example; a test compares the pages with what this writes.
"""

import importlib
import inspect
import re
from pathlib import Path

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

import textenv  # noqa: F401  (registers the environments)

FOLDER = Path(__file__).parent / "environments"
EXAMPLE = 'prompts=["the "], reward="my_rewards:score"'
HEAD = """<!-- Written by docs/make_environments.py from the docstrings: change those. -->

# {title}

| | |
|---|---|
| Action space | `{actions}` |
| Observation space | `{observations}` |
| Import | `import textenv` |
| Single | `gymnasium.make("{id}", {example})` |
| Vector | `gymnasium.make_vec("{id}", num_envs=8, {example})` |

The spaces are those of this example, with the default tokenizer, bytes, and 64 new tokens.

{vector_summary} `gymnasium.make_vec` makes `{vector}`, which is described here.

{single_summary} `gymnasium.make` makes `{single}`. {single_rest}
"""


def pages() -> dict[Path, str]:
    """The text of every page by the file it belongs into."""
    ours = [spec for name, spec in sorted(gym.registry.items()) if name.startswith("textenv/")]
    return {FOLDER / f"{spec.name.lower()}.md": page(spec) for spec in ours}


def page(spec: EnvSpec) -> str:
    """The page of one environment."""
    single, vector = load(spec.entry_point), load(spec.vector_entry_point)
    example = vector(prompts=["the "], reward=len)  # never called
    summary, sections, arguments = read(vector)
    single_summary, single_rest = read(single)[0].split("\n\n", maxsplit=1)
    history = sections.pop("Version history")
    head = HEAD.format(
        title=spec.name,
        actions=example.single_action_space,
        observations=example.single_observation_space,
        id=spec.id,
        example=EXAMPLE,
        vector=vector.__name__,
        single=single.__name__,
        vector_summary=summary,
        single_summary=single_summary,
        single_rest=joined(single_rest),
    )
    sections["Arguments"] = table(vector, arguments["Args"])
    sections["Errors"] = bullets(arguments["Raises"])
    sections["Version history"] = history
    body = "\n".join(f"## {name}\n\n{text}\n" for name, text in sections.items())
    return f"{head}\n{body}"


def load(entry_point: object) -> type:
    """The class that `"module:name"` stands for."""
    module, name = str(entry_point).split(":")
    return getattr(importlib.import_module(module), name)


def read(cls: type) -> tuple[str, dict[str, str], dict[str, dict[str, str]]]:
    """Summary, `##` sections, and the entries of `Args:` and the like of a class's docstring."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    prose, *google = re.split(r"^(Args|Raises):\n", doc, flags=re.M)
    summary, *sections = re.split(r"^## (.*)\n", prose, flags=re.M)
    listed = {name: entries(text) for name, text in pairs(google)}
    return summary.strip(), {name: text.strip() for name, text in pairs(sections)}, listed


def pairs(items: list[str]) -> list[tuple[str, str]]:
    """Names and what follows them, as `re.split` with a group gives them in turns."""
    return list(zip(items[::2], items[1::2], strict=True))


def entries(text: str) -> dict[str, str]:
    """The `name: description` entries of a Google section."""
    found = re.findall(r"^    (\S+): (.*(?:\n        .*)*)", text, flags=re.M)
    return {name: joined(description) for name, description in found}


def joined(text: str) -> str:
    """A paragraph in one line."""
    return " ".join(text.split())


def table(cls: type, descriptions: dict[str, str]) -> str:
    """Arguments with their defaults, in the order of the signature."""
    lines = ["| argument | default | |", "|---|---|---|"]
    for name, parameter in list(inspect.signature(cls).parameters.items()):
        default = parameter.default
        shown = "required" if default is parameter.empty else f"`{default!r}`"
        if hasattr(default, "name"):  # an enum
            shown = f"`{default}`"
        description = descriptions[name].replace("|", "\\|")
        lines.append(f"| `{name}` | {shown} | {description} |")
    return "\n".join(lines)


def bullets(descriptions: dict[str, str]) -> str:
    """A list of names and what is said of them."""
    return "\n".join(f"- `{name}`: {text}" for name, text in descriptions.items())


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
