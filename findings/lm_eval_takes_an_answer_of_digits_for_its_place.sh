#!/usr/bin/env bash
# lm_eval 0.4.13: where the options of a multiple-choice task are numerals, the text of the right
# answer is taken for its place in the list.
#
# doc_to_target may give the number of the right option or its text. Any text of digits is read as
# the number, even where it is one of the options. So with the options "1" and "0" and the label "1",
# the right answer is "0"; a label that is no place in the list makes every answer wrong, with a
# warning. Tasks of arithmetic, years or counts are affected; the accuracy is plausible.
#
# Seen: a model that finds "1" likeliest has accuracy 0 where the label is "1", but for the order
# "0", "1", in which the text is the place by chance.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lm_eval==0.4.13 transformers==5.23.0 torch==2.13.0 accelerate==1.15.0
cd "$folder"

cat > seen.py <<'PYTHON'
import json
from pathlib import Path

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager


class SaysOne(LM):
    """Finds the option "1" likeliest."""

    def loglikelihood(self, requests):
        return [(0.0 if r.args[1].strip() == "1" else -9.0, True) for r in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


Path("tasks").mkdir()
Path("docs.jsonl").write_text(json.dumps({"question": "How many?", "label": "1"}))
for options in (["0", "1"], ["1", "0"]):
    task = {
        "task": "count",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "docs.jsonl"}, "cache_dir": "cache"},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": options,
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}],
    }
    Path("tasks/count.yaml").write_text(json.dumps(task))
    manager = TaskManager(include_path="tasks", include_defaults=False)
    found = lm_eval.simple_evaluate(
        SaysOne(), tasks=["count"], task_manager=manager, bootstrap_iters=0
    )
    print(options, found["results"]["count"]["acc,none"])
PYTHON

got=$(HF_HUB_OFFLINE=1 venv/bin/python -W ignore seen.py 2> errors) || { cat errors; exit 1; }
expected="['0', '1'] 1.0
['1', '0'] 0.0"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
