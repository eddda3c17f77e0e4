"""Write the results of `docs/assistant.md` from those of runs.

textenv recipe --task assistant --seed 0 --seed 1 --seed 2 --out runs/en
textenv recipe --task assistant --language zh --seed 0 --seed 1 --seed 2 --out runs/zh
python docs/make_assistant_results.py runs/en/results.json runs/zh/results.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from agents.jobs.recipe.assistant.examination import PPO, SFT, Result
from agents.jobs.recipe.assistant.summary import tables
from agents.report import TableData

PAGE = Path(__file__).with_name("assistant.md")
BEGIN, END = "<!-- results: made by docs/make_assistant_results.py -->", "<!-- end of results -->"
LANGUAGES = {"en": "English", "zh": "Chinese"}


def markdown(table: TableData) -> str:
    """A table of the report for a page."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(["", *lines, "", table.note])


def dialogues(result: Result) -> str:
    """The first held-out dialogues with each stage."""
    lines = []
    for name, talks in result.transcripts.items():
        lines += ["", f"{name}:", "", "```text"]
        for talk in talks:
            lines += [line for q, a in talk for line in (f"User: {q}", f"Assistant: {a}")] + [""]
        lines[-1] = "```"
    return "\n".join(lines)


def history(results: Sequence[Result]) -> str:
    """Later questions with what was said before, and without it."""
    rows = [
        [
            r.settings["seed"],
            *(
                f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
                for name in (SFT, PPO)
                for found in r.conduct[name]["history"].values()
            ),
        ]
        for r in results
    ]
    columns = ["seed", *(f"{n}, {how}" for n in (SFT, PPO) for how in ("with", "without", "gain"))]
    return markdown(TableData("", columns, rows, "Later questions of dialogues, by history."))


def main(paths: Sequence[str]) -> None:
    """Replace the results in the page."""
    parts = [BEGIN]
    for path in paths:
        results = [Result(**one) for one in json.loads(Path(path).read_text(encoding="utf-8"))]
        language = LANGUAGES[results[0].settings["language"]]
        parts.append(f"\n### {language}")
        parts += [markdown(table) for table in tables(results)]
        parts.append(history(results))
        seed = results[0].settings["seed"]
        parts.append(
            f"\n#### The first held-out dialogues, {language}\n\nSeed {seed}, not chosen; answers "
            "at the recipe's temperature, behind the policy's own answers. The base model has no "
            "examples here."
        )
        parts.append(dialogues(results[0]))
    parts.append(END)
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(before + "\n".join(parts) + after, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
