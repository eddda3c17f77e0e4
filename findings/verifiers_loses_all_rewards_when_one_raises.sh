#!/usr/bin/env bash
# verifiers 0.4.0, its module verifiers.v1: a reward that raises takes the other rewards along.
#
# Task.score runs all rewards with one asyncio.gather and records them afterwards. If one raises,
# none is recorded: not even those that had already returned. Metrics have been recorded by then.
# Two tasks of a batch are scored apart, so the others keep theirs.
#
# Seen: both rewards are None, the metric is there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q verifiers==0.4.0
cd "$folder"

cat > rewards.py <<'PYTHON'
import asyncio

import verifiers.v1 as vf


class Word(vf.Task):
    @vf.reward(priority=1)
    async def right(self, trace) -> float:
        return 1.0

    @vf.reward
    async def length(self, trace) -> float:
        return 1 / len(trace.last_reply)

    @vf.metric
    async def turns(self, trace) -> float:
        return float(trace.num_turns)


task = Word(vf.TaskData(prompt="Say a word."))
trace = vf.Trace(
    task=vf.TraceTask(type="Word", data=task.data),
    agent=vf.AgentInfo(config=vf.AgentConfig()),
    nodes=[vf.MessageNode(message=vf.AssistantMessage(content=""), sampled=True)],
)
try:
    asyncio.run(task.score(trace))
except vf.TaskError as error:
    print("raised", type(error).__name__)
print("rewards:", trace.rewards, "metrics:", trace.metrics)
PYTHON

got=$(venv/bin/python -W ignore rewards.py)
expected="raised TaskError
rewards: {'right': None, 'length': None} metrics: {'turns': 1.0}"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
