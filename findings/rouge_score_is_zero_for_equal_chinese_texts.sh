#!/usr/bin/env bash
# rouge-score 0.1.2: ROUGE of a text with itself is 0 where it has no Latin letters or digits.
#
# The default tokenizer drops every character but a-z and 0-9, so nothing is left of a Chinese,
# Russian or Greek text; of a French one the words fall apart at their accents. The score is 0
# without a warning. Whoever drops what is too much alike, as Self-Instruct does, then keeps every
# copy. A tokenizer of one's own (`RougeScorer(..., tokenizer=...)`) gives 1.
#
# Seen: 0 for equal texts in Chinese and Russian, 1 in English; 1 with another tokenizer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rouge-score==0.1.2
cd "$folder"

cat > equal.py <<'PYTHON'
from rouge_score.rouge_scorer import RougeScorer


class Characters:
    def tokenize(self, text):
        return list(text)


for name, text in {"English": "write a poem", "Chinese": "写一首诗", "Russian": "стих"}.items():
    plain = RougeScorer(["rougeL"]).score(text, text)["rougeL"].fmeasure
    own = RougeScorer(["rougeL"], tokenizer=Characters()).score(text, text)["rougeL"].fmeasure
    print(f"{name}: {plain:.0f}, with characters as tokens {own:.0f}")
PYTHON

got=$(venv/bin/python equal.py)
expected="English: 1, with characters as tokens 1
Chinese: 0, with characters as tokens 1
Russian: 0, with characters as tokens 1"
echo "rouge-score 0.1.2"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
