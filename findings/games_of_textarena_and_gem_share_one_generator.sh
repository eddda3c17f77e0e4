#!/usr/bin/env bash
# textarena 0.7.4 and gem-llm 0.1.0: a game's seed does not say what happens in it.
#
# `reset(seed=...)` seeds the generator of the whole process (random.seed, and numpy.random.seed in
# GEM), and games that roll dice or place tiles as they go draw from it. So two games with the same
# seed and the same moves differ if another game is stepped between their moves, as in a batch; and
# whatever else in the process draws is seeded by each reset. Gymnasium gives each environment a
# generator of its own.
#
# Seen: the same dice and tiles for a game that is alone; others beside a second game.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for package in textarena==0.7.4 gem-llm==0.1.0; do
    python3 -m venv "$folder/${package%==*}"
    "$folder/${package%==*}/bin/pip" install -q "$package"
done
cd "$folder"

cat > dice.py <<'PYTHON'
import textarena


def rolls(beside):
    games = [textarena.make("PigDice-v0-500-raw") for _ in range(1 + beside)]
    for game in reversed(games):
        game.reset(num_players=2, seed=0)
    for _ in range(12):
        for game in games:
            game.step("[roll]")
    return games[0].state.logs


print("dice repeat alone:", rolls(0) == rolls(0))
print("dice repeat beside another game:", rolls(0) == rolls(1))
PYTHON

cat > tiles.py <<'PYTHON'
import gem


def tiles(beside):
    games = [gem.make("game:Game2048-v0-hard") for _ in range(1 + beside)]
    for game in reversed(games):
        game.reset(seed=0)
    for move in ("up", "left", "down", "right") * 2:
        for game in games:
            game.step(f"\\boxed{{{move}}}")
    return str(games[0].board)


print("tiles repeat alone:", tiles(0) == tiles(0))
print("tiles repeat beside another game:", tiles(0) == tiles(1))
PYTHON

got=$(textarena/bin/python dice.py; gem-llm/bin/python tiles.py)
expected="dice repeat alone: True
dice repeat beside another game: False
tiles repeat alone: True
tiles repeat beside another game: False"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
