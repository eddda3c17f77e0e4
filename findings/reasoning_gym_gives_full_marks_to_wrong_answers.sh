#!/usr/bin/env bash
# reasoning-gym 0.1.25: two verifiers give full marks to wrong answers, and three pay for none.
#
# game_of_life_halting compares bool(answer) with bool(entry["answer"]). Both are texts, and
# bool("False") is True: any text that is not empty is right, the opposite of the answer included.
#
# puzzle24 asks whether the expression is 24 and has four numbers between 1 and 10, but not whether
# these are the numbers of the puzzle: one answer solves all of them.
#
# countdown, fraction_simplification and puzzle24 pay 0.01 for the answer None, which other kinds
# score with 0. A policy whose answers cannot be extracted is paid for that.
#
# Seen: 1.0 for each of the first three lines, 0.01 for each of the last.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q reasoning-gym==0.1.25
cd "$folder"

cat > verifiers.py <<'PYTHON'
import reasoning_gym

halting = reasoning_gym.create_dataset("game_of_life_halting", seed=0)
entry = next(entry for entry in halting if entry["answer"] == "False")
for answer in ("True", "I do not know"):
    print("halting,", answer + ":", halting.score_answer(answer, entry))

puzzles = reasoning_gym.create_dataset("puzzle24", seed=0)
numbers = sorted(puzzles[3]["metadata"]["numbers"])
print("puzzle24, 1*2*3*4 of", numbers, ":", puzzles.score_answer("1*2*3*4", puzzles[3]))

for kind in ("countdown", "fraction_simplification", "puzzle24"):
    dataset = reasoning_gym.create_dataset(kind, seed=0)
    print(kind + ", None:", dataset.score_answer(None, dataset[0]))
PYTHON

got=$(venv/bin/python -W ignore verifiers.py)
expected="halting, True: 1.0
halting, I do not know: 1.0
puzzle24, 1*2*3*4 of [2, 4, 6, 8] : 1.0
countdown, None: 0.01
fraction_simplification, None: 0.01
puzzle24, None: 0.01"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
