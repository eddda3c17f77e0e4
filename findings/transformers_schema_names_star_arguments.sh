#!/usr/bin/env bash
# transformers 5.23.0: the JSON schema of a function with *args and **kwargs asks the model for
# arguments of those names.
#
# get_json_schema takes `*others: str` and `**options: int` for two required arguments, a text and a
# number. A call that follows the schema puts both into **options, so the function runs on other
# arguments than were meant, and no error is raised.
#
# Seen: the schema requires "others" and "options"; the call gives others=() and both as options.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0
cd "$folder"

cat > star.py <<'PYTHON'
from transformers.utils import get_json_schema


def paint(colour: str, *others: str, **options: int) -> str:
    """Paint.

    Args:
        colour: The colour.
        others: Further colours.
        options: Sizes by name.
    """
    return f"{colour} {others} {options}"


parameters = get_json_schema(paint)["function"]["parameters"]
print({name: kind["type"] for name, kind in parameters["properties"].items()})
print(parameters["required"])
print(paint(**{"colour": "red", "others": "blue", "options": 3}))
PYTHON

got=$(venv/bin/python -W ignore star.py 2> errors) || { cat errors; exit 1; }
expected="{'colour': 'string', 'others': 'string', 'options': 'integer'}
['colour', 'others', 'options']
red () {'others': 'blue', 'options': 3}"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
