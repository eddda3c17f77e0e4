"""Posting JSON to a server over HTTP, with time-outs and retries."""

import email.utils
import json
import math
import os
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from textenv.errors import RemoteError
from textenv.imports import optional
from textenv.records import short

if TYPE_CHECKING:
    import httpx

LONGEST_PAUSE = 60.0
"""The longest pause between two tries, in seconds, even if a server asks for more."""

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses after which the same request may succeed."""


class Endpoint:
    """A URL that takes JSON and gives JSON.

    Failures that may pass are tried again: connections that cannot be made or break off, time-outs,
    and the statuses in `PASSING`. The pause doubles from try to try; a server's `Retry-After` is
    obeyed up to `LONGEST_PAUSE`. A request may therefore reach the server more than once.
    Redirections are not followed. Several threads may post at the same time.

    Args:
        url: Begins with http:// or https://.
        headers: Gives the headers; it is called before each try, so no secret need be kept.
        timeout: Seconds to wait for a connection, and for each part of the answer.
        tries: How many times a request is sent at most.
        pause: Seconds before the second try.

    Raises:
        MissingExtraError: The package `httpx` is not installed.
        ValueError: An argument makes no sense.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Callable[[], Mapping[str, str]] = dict,
        timeout: float = 30.0,
        tries: int = 5,
        pause: float = 0.5,
    ):
        with optional("httpx", extra="remote", purpose="a reward from a server"):
            import httpx
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"the url {url!r} is not a valid one: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"the url {url!r} does not begin with http:// or https://")
        if tries < 1 or not timeout > 0 or not pause >= 0:
            raise ValueError(
                f"tries={tries}, timeout={timeout} and pause={pause} must be at least 1, above 0 "
                "and at least 0"
            )
        self.url = url
        # A password, or a key in the query, does not belong in an error message.
        self.shown = str(parsed.copy_with(userinfo=b"", query=None))
        self.headers = headers
        self.timeout = timeout
        self.tries = tries
        self.pause = pause
        self._clients: dict[int, httpx.Client] = {}

    def post(self, data: Any) -> Any:
        """The server's answer to `data`, as parsed JSON.

        Raises:
            RemoteError: The server could not be reached, refused, or did not answer with JSON.
        """
        import httpx

        body = _as_json(data)
        for attempt in range(1, self.tries + 1):
            pause = min(self.pause * 2 ** (attempt - 1), LONGEST_PAUSE)
            try:
                headers = {"Content-Type": "application/json", **self.headers()}
                response = self.client.post(self.url, content=body, headers=headers)
            except httpx.RequestError as error:
                problem = f"{type(error).__name__}: {error}"
                advice = f"is the server running, and is its time-out of {self.timeout:g} s enough?"
            else:
                if response.is_success:
                    return self._parsed(response)
                problem, advice = _refusal(response)
                if response.status_code not in PASSING:
                    raise RemoteError(f"{self.shown} answered with {problem}; {advice}")
                pause = min(_retry_after(response, pause), LONGEST_PAUSE)
            if attempt < self.tries:
                time.sleep(pause)
        raise RemoteError(f"{self.shown} failed {self.tries} times, last with {problem}; {advice}")

    @property
    def client(self) -> "httpx.Client":
        """Made on first use and closed with the endpoint; a forked process has its own."""
        process = os.getpid()
        if process not in self._clients:
            import httpx

            # Reading the certificates takes most of a second, and http does not use them.
            secure = self.url.startswith("https://")
            self._clients[process] = httpx.Client(timeout=self.timeout, verify=secure)
            weakref.finalize(self, self._clients[process].close)
        return self._clients[process]

    def _parsed(self, response: "httpx.Response") -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise RemoteError(
                f"{self.shown} answered with {short(response.text)}, which is not JSON ({error})"
            ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": {}}  # connections stay where they are


class BearerKey:
    """A header with the key in an environment variable, which is read whenever it is needed.

    Args:
        variable: Name of the variable; None, or one that is not set, gives no header.
    """

    def __init__(self, variable: str | None):
        self.variable = variable

    def __call__(self) -> Mapping[str, str]:
        """The headers of a request that is made now."""
        key = os.environ.get(self.variable) if self.variable else None
        return {"Authorization": f"Bearer {key.strip()}"} if key else {}


def _as_json(data: Any) -> bytes:
    try:
        return json.dumps(data, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise RemoteError(f"the request cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{short(value)} of type {type(value).__name__} is not JSON")


def _refusal(response: "httpx.Response") -> tuple[str, str]:
    status = response.status_code
    advice = {
        401: "check the key and the variable that holds it",
        403: "check the key and the variable that holds it",
        404: "check the path of the url",
        413: "send fewer episodes at once",
        429: "lower the number of concurrent requests, or raise `tries` and `pause`",
    }.get(status, "see the server's log")
    return f"status {status} {response.reason_phrase}: {short(response.text)}", advice


def _retry_after(response: "httpx.Response", otherwise: float) -> float:
    """Seconds that the server asks to wait; it may give them as a number or as a date."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return otherwise
    return max(seconds, 0.0) if math.isfinite(seconds) else otherwise
