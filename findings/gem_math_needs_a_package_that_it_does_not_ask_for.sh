#!/usr/bin/env bash
# gem-llm 0.1.0: its environments of mathematics, code and questions cannot be made after
# `pip install gem-llm`.
#
# They import datasets, which only the extra "search" asks for (with torch and pyserini); then those
# of mathematics import pylatexenc, which nothing asks for. The games and those of reasoning-gym are
# not concerned.
#
# Seen: what is missing for each.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gem-llm==0.1.0
cd "$folder"

cat > missing.py <<'PYTHON'
import importlib

for name in ("math_env", "code_env", "qa_env", "reasoning_gym"):
    try:
        importlib.import_module(f"gem.envs.{name}")
        print(name, "is whole")
    except ModuleNotFoundError as error:
        print(name, "lacks", error.name)
PYTHON

got=$(venv/bin/python -W ignore missing.py)
venv/bin/pip install -q datasets
got+=$'\n'$(venv/bin/python -W ignore missing.py)
expected="math_env lacks datasets
code_env lacks datasets
qa_env lacks datasets
reasoning_gym is whole
math_env lacks pylatexenc
code_env is whole
qa_env is whole
reasoning_gym is whole"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
