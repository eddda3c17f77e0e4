#!/usr/bin/env bash
# openenv 0.10.0: the end is in the result, not in the observation; HTTP routes forget the game.
#
# A server takes `done` and `reward` out of an observation before it sends it. A client that makes
# its typed observation of what came, as the template of `openenv init` does, has `done` False and
# `reward` None in each of them, the last one included: they are attributes of the result alone.
# POST /reset and POST /step make an environment for each request, so /step meets one that was never
# reset. Only a session over the WebSocket goes on.
#
# Seen: the observation's done stays False at the end; after two steps over HTTP the count is 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openenv==0.10.0
cd "$folder"

cat > ends.py <<'PYTHON'
import json
import socket
import threading
import time
import urllib.request

import uvicorn
from openenv.core.client_types import StepResult
from openenv.core.env_client import EnvClient
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Move(Action):
    pass


class Seen(Observation):
    count: int = 0


class Twice(Environment):
    """Ends at the second step."""

    count = 0

    def reset(self, seed=None, episode_id=None, **more):
        self.count = 0
        return Seen()

    def step(self, action, timeout_s=None, **more):
        self.count += 1
        return Seen(count=self.count, reward=1.0, done=self.count == 2)

    @property
    def state(self):
        return State()


class Client(EnvClient):
    def _step_payload(self, action):
        return {}

    def _parse_result(self, payload):
        seen = Seen(**payload["observation"])
        return StepResult(seen, payload.get("reward"), payload.get("done", False))

    def _parse_state(self, payload):
        return payload


listening = socket.socket()
listening.bind(("127.0.0.1", 0))
address = f"http://127.0.0.1:{listening.getsockname()[1]}"
config = uvicorn.Config(create_fastapi_app(Twice, Move, Seen), log_level="error")
server = uvicorn.Server(config)
threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
while not server.started:
    time.sleep(0.01)

with Client(base_url=address).sync() as env:
    env.reset()
    env.step(Move())
    last = env.step(Move())
print("result:", last.done, last.reward)
print("observation:", last.observation.done, last.observation.reward)


def post(route, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address + route, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))


post("/reset", {})
post("/step", {"action": {}})
print("count over HTTP:", post("/step", {"action": {}})["observation"]["count"])
PYTHON

got=$(venv/bin/python -W ignore ends.py)
expected="result: True 1.0
observation: False None
count over HTTP: 1"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
