"""A reward that a server computes: episodes go there as JSON, scores come back.

The request is `{"episodes": [{"prompt", "text", "tokens", "finish_reason", "columns"}, ...]}`, the
answer `{"scores": [number, ...]}`, one finite number for each episode. A server takes a few lines
of the standard library:

    import json
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Scores(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            episodes = json.loads(self.rfile.read(length))["episodes"]
            body = json.dumps({"scores": [len(e["text"]) for e in episodes]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    ThreadingHTTPServer(("127.0.0.1", 8000), Scores).serve_forever()
"""

import math
from collections.abc import Sequence
from typing import Any, Self

from textenv.endpoint import BearerKey, Endpoint
from textenv.episode import Episode
from textenv.errors import RemoteError, RewardCountError, RewardValueError
from textenv.records import short


class RemoteReward:
    """The scores of a server as a reward; see `remote_reward`.

    Attributes:
        endpoint: The server that scores the episodes.
    """

    __name__ = "remote"

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint

    def __call__(self, episodes: Sequence[Episode]) -> list[float]:
        """One score for each episode."""
        if not episodes:
            return []
        answer = self.endpoint.post({"episodes": [_record(episode) for episode in episodes]})
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise RemoteError(
                f"{self.endpoint.shown} answered with {short(answer)}; the answer must be "
                '{"scores": [number, ...]}'
            )
        if len(scores) != len(episodes):
            raise RewardCountError(
                f"{self.endpoint.shown} gave {len(scores)} scores for {len(episodes)} episodes"
            )
        return [self._number(index, score) for index, score in enumerate(scores)]

    def _number(self, index: int, score: Any) -> float:
        try:
            number = float(score) if type(score) in (int, float) else math.nan
        except OverflowError:  # JSON's integers have no end
            number = math.inf
        if math.isfinite(number):
            return number
        raise RewardValueError(
            f"{self.endpoint.shown} gave {short(score)} to episode {index}; it must be a finite "
            "number"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def remote_reward(
    url: str,
    *,
    key_variable: str | None = None,
    timeout: float = 30.0,
    tries: int = 5,
    pause: float = 0.5,
) -> RemoteReward:
    """A reward that the server at `url` computes; the module describes requests and answers.

    Args:
        url: Address to which the episodes are posted.
        key_variable: Name of an environment variable; its value, if it has one, is sent as
            `Authorization: Bearer ...`.
        timeout: Seconds to wait for a connection, and for each part of the answer.
        tries: How many times a batch is sent at most; see `textenv.endpoint.Endpoint`.
        pause: Seconds before the second try; each further one takes twice as long.

    Calling the reward raises:
        RemoteError: The server could not be reached, refused, or answered with something else.
        RewardCountError: The number of scores is not the number of episodes.
        RewardValueError: A score is not a finite number.

    Raises:
        MissingExtraError: The package `httpx` is not installed.
    """
    return RemoteReward(
        Endpoint(url, headers=BearerKey(key_variable), timeout=timeout, tries=tries, pause=pause)
    )


def _record(episode: Episode) -> dict[str, Any]:
    return {
        "prompt": episode.prompt,
        "text": episode.text,
        "tokens": episode.tokens.tolist(),
        "finish_reason": episode.finish_reason,
        "columns": dict(episode.columns),
    }
