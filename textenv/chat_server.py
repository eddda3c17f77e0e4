"""A language model behind an OpenAI-compatible server: it writes, and chooses between options.

OpenAI, vLLM, llama.cpp, Ollama and others have such servers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from textenv.endpoint import BearerKey, Endpoint
from textenv.errors import RemoteError, RewardValueError
from textenv.frames import Message
from textenv.records import short

DETERMINISTIC: Mapping[str, Any] = {"temperature": 0}

Q = TypeVar("Q")
T = TypeVar("T")


class ChatServer:
    """Asks `{url}/chat/completions`, several questions at a time.

    Args:
        url: Address of the server with the version, such as `https://api.openai.com/v1` or
            `http://localhost:8000/v1`.
        model: Name of the model, as the server knows it.
        options: Further fields of the request, such as `max_tokens`.
        key_variable: Name of the environment variable with the key; no key is sent if it is not
            set.
        read: Reads which option a reply chooses: a share of each, or None, which is an error.
        concurrency: Number of requests at the same time.
        timeout: Seconds to wait for a connection, and for each part of the reply.
        tries: How many times a request is sent at most; see `textenv.endpoint.Endpoint`.
        pause: Seconds before the second try; each further one takes twice as long.

    Attributes:
        endpoint: Where the questions are posted.

    Raises:
        MissingExtraError: The package `httpx` is not installed.
        ValueError: An argument makes no sense.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        options: Mapping[str, Any] = DETERMINISTIC,
        read: Callable[[str, Sequence[str]], Sequence[float] | None] | None = None,
        key_variable: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 60.0,
        tries: int = 5,
        pause: float = 0.5,
    ):
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency} must be at least 1")
        self.endpoint = Endpoint(
            f"{url.rstrip('/')}/chat/completions",
            headers=BearerKey(key_variable),
            timeout=timeout,
            tries=tries,
            pause=pause,
        )
        self.model = model
        self.options = options
        self.read = read or read_choice
        self.concurrency = concurrency

    def reply(self, question: str | Sequence[Message], **options: Any) -> str:
        """What the model says to one question; empty if it refuses.

        Args:
            question: The message of the user, or the messages of a dialogue.
            **options: Fields of the request that come before those of the server.

        Raises:
            RemoteError: The server could not be reached, refused, or answered with something else.
        """
        said = [{"role": "user", "content": question}] if isinstance(question, str) else question
        messages = [dict(message) for message in said]
        request = {"model": self.model, "messages": messages, **self.options, **options}
        reply = self.endpoint.post(request)
        try:
            content = reply["choices"][0]["message"]["content"]
        except (TypeError, LookupError) as error:
            raise RemoteError(
                f"{self.endpoint.shown} answered with {short(reply)}, not with a chat completion"
            ) from error
        return content if isinstance(content, str) else ""  # None where a model refuses

    def write(self, requests: Sequence[str | Sequence[Message]]) -> list[str]:
        """A text to each request; raises as `reply`."""
        return self.at_once(self.reply, requests)

    def choose(
        self, questions: Sequence[str], options: Sequence[str] = ("A", "B")
    ) -> NDArray[np.float64]:
        """What the model chooses: 1 at its option, equal shares where it calls them equal.

        Args:
            questions: Each ends in asking for one of the options, or for TIE.
            options: What may be chosen, as the model is to write it.

        Returns:
            Shape (questions, options); every row sums to 1.

        Raises:
            RemoteError: As `reply`.
            RewardValueError: A reply names no option.
        """

        def chosen(question: str) -> Sequence[float]:
            reply = self.reply(question, **DETERMINISTIC)
            shares = self.read(reply, options)
            if shares is None:
                raise RewardValueError(
                    f"the reply {short(reply)} of {self.model!r} names none of "
                    f"{', '.join(options)}; it was asked {short(question)}: reword the question, "
                    "take a model that answers as it is told, or give `read` a function of yours"
                )
            return shares

        rows = self.at_once(chosen, questions)
        return np.array(rows, dtype=np.float64).reshape(len(questions), len(options))

    def at_once(self, ask: Callable[[Q], T], questions: Sequence[Q]) -> list[T]:
        """`ask` of each question, in their order, several at the same time."""
        with ThreadPoolExecutor(self.concurrency) as threads:
            return list(threads.map(ask, questions))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def read_choice(reply: str, options: Sequence[str]) -> list[float] | None:
    """Which option a reply chooses, as shares that sum to 1; None if it does not say so clearly.

    Read are the option alone or at the beginning, as in "B." or "(B) because ...", behind "answer:"
    or the like at the end of a line, in double brackets, and in "B is better". "Tie" in the place
    of an option, or "equally good", gives all the same share. What only mentions an option is not
    read: "A" is a word too. Nor is what denies ("B is not better"), compares ("better than answer
    B") or goes through the options ("A: short. B: kind.").

    >>> read_choice("The first is a bit rude. [[B]]", "AB"), read_choice("**A**", "AB")
    ([0.0, 1.0], [1.0, 0.0])
    >>> read_choice("Tie.", "AB"), read_choice("A good question!", "AB")
    ([0.5, 0.5], None)
    """
    named = "(" + "|".join(re.escape(option) for option in (*options, "tie")) + ")"
    alone = rf"{named}(?:[.,:;)\]*]|\s*\Z)"
    forms = (
        rf"\[\[{named}\]\]",
        rf"\b{named}\b\W*is\s+(?!(?:{_DENIES}|second|next)\b)(?:\w+\s+)?(?:better|best)\b",
        rf"\b(?:answer|option|better|choice|verdict)(?:\s+is)?[\s:*_(]+{named}\W*$",
        rf"\A\W*{alone}",
        r"\bequally\s+(good)\b",
    )
    flags = re.IGNORECASE | re.MULTILINE
    begun = {name.lower() for name in re.findall(rf"(?:^|[.,;!?]\s)\W*{alone}", reply, flags)}
    for form in forms:
        found = [
            match[1].lower()
            for match in re.finditer(form, reply, flags)
            if form == forms[0] or not _UNSAID.search(reply[: match.start()])
        ]
        if found and (form != forms[3] or len(begun) == 1):
            if found[-1] in ("tie", "good"):
                return [1 / len(options)] * len(options)
            return [float(option.lower() == found[-1]) for option in options]
    return None


_DENIES = "not|no|never|hardly|neither|nor"
_GOES_ON = r"(?:(?!\b(?:but|while|so|and)\b)[^.,:;!?\n])*\Z"
_UNSAID = re.compile(
    # A denial, doubt or condition in the same part of the sentence, or a comparison just before.
    rf"(?:\b(?:{_DENIES}|cannot|if|whether)\b|n['\u2019]t\b){_GOES_ON}"
    r"|\bbetween\b[^.,:;!?\n]*\Z|\b(?:than|over|to|or|beats)\s+(?:the\s+)?\Z",
    re.IGNORECASE,
)
