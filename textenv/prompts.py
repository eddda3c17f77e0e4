"""Prompts and where they come from: lists, files and functions.

A source has no position. It maps 64-bit seeds to prompts, so numbers alone seed and resume a run.
Files are read whole; nothing is streamed. Chats are rendered by an environment's frame.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from textenv.errors import EmptyPromptsError, PromptError
from textenv.loading import load_object
from textenv.records import FORMS_OF_EXAMPLES, Records, placed_records, prompt_and_columns, short
from textenv.records.files import FORMATS, format_of
from textenv.records.reading import read_lines


@dataclass(frozen=True, eq=False)
class Prompt:
    """The start of an episode.

    Attributes:
        text: The prompt as text; may be empty if `tokens` are given.
        columns: The other columns of the prompt's record, such as `answer`; rewards see them.
        tokens: Ids to start from instead of the text, shape (prompt_length,), int64, or None.
        messages: The messages of a chat (`{"role": ..., "content": ...}`) instead of the text, for
            environments with a frame; or None.
        origin: Where it was read, such as "my.jsonl:3", for messages; or empty.
        number: Which prompt of its source it is, for sources that are told what was scored, such as
            `textenv.curriculum.Curriculum`; None otherwise.

    Raises:
        PromptError: The text is not a string that UTF-8 can hold, the names of the columns are not
            strings, the tokens are not a list of ids, or the messages have no role or content.
        EmptyPromptsError: The list of tokens is empty.
    """

    text: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    tokens: NDArray[np.int64] | None = None
    messages: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    origin: str = field(default="", repr=False)
    number: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.messages is not None:
            object.__setattr__(self, "messages", _messages(self.messages))
            said = "\n".join(str(message["content"]) for message in self.messages)
            object.__setattr__(self, "text", self.text or said)
        if not isinstance(self.text, str):
            raise PromptError(
                f"the prompt is {short(self.text)} of type {type(self.text).__name__}; it must be "
                "a text or a list of messages"
            )
        try:
            self.text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the prompt {short(self.text)} is not valid text: {error}"
            ) from error
        if not all(isinstance(name, str) for name in self.columns):
            raise PromptError(
                f"the columns {short(list(self.columns))} have names that are not strings"
            )
        if self.tokens is not None:
            object.__setattr__(self, "tokens", _token_ids(self.tokens))

    @property
    def content(self) -> str | bytes:
        """What the policy reads: equal for prompts that differ in their columns alone."""
        if self.messages is not None:
            return json.dumps(self.messages, sort_keys=True, default=str)
        return self.text if self.tokens is None else self.tokens.tobytes()

    @property
    def record(self) -> dict[str, Any]:
        """Its `Record` as a dict: for worlds and dense rewards."""
        return dict(Record(self))

    @property
    def last_text(self) -> str:
        """The text, or that of the last message of a chat."""
        return self.text if self.messages is None else str(self.messages[-1]["content"])

    def with_last_text(self, text: str) -> Self:
        """The same prompt with another `last_text`."""
        if self.messages is None:
            return replace(self, text=text)
        *before, last = self.messages
        return replace(self, text="", messages=[*before, {**last, "content": text}])

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        r"""A prompt from a record with a `prompt` (a text or messages) or `tokens` (ids).

        The other names are columns. Records of conversations and instructions are read too, as
        `textenv.records` describes them: what stands before the answer that ends them is the
        prompt, a list of messages, and the answer the column `reference`. Prompt and text of an
        `input` and `target` are taken as they are.

        >>> Prompt.from_row({"prompt": "2 + 2 =", "answer": "4"})
        Prompt(text='2 + 2 =', columns={'answer': '4'}, tokens=None)
        >>> Prompt.from_row({"instruction": "Add.", "input": "2 and 2", "output": "4"}).messages
        ({'role': 'user', 'content': 'Add.\n2 and 2'},)

        Raises:
            PromptError: The record has none of these forms, both `prompt` and `tokens`, or a value
                is of the wrong kind.
        """
        columns = dict(row)
        if "prompt" in columns and "tokens" in columns:
            raise PromptError(
                "the record has both of 'prompt' and 'tokens', it needs one of them; "
                f"its keys are {short(list(columns))}"
            )
        if "tokens" in columns:
            return cls("", tokens=_token_ids(columns.pop("tokens")), columns=columns)
        if "prompt" in columns and not isinstance(columns["prompt"], Mapping):
            given = columns.pop("prompt")
            if isinstance(given, list | tuple):
                return cls("", columns, messages=given)
            return cls(given, columns)
        try:
            asked = prompt_and_columns(columns)
        except ValueError as error:
            raise PromptError(str(error)) from error
        if asked is None:
            raise PromptError(
                "the record has neither of 'prompt' and 'tokens', nor a form of examples "
                f"({FORMS_OF_EXAMPLES}); its keys are {short(list(columns))}"
            )
        said, columns = asked
        if isinstance(said, str):
            return cls(said, columns)
        return cls("", columns, messages=said)

    def to_json(self) -> dict[str, Any]:
        """The prompt as a dict that `json.dumps` takes and `from_json` reads.

        Numpy values in the columns become plain ones, tuples become lists.

        Raises:
            PromptError: A column holds something that JSON cannot.
        """
        tokens = None if self.tokens is None else self.tokens.tolist()
        saved = {"text": self.text, "columns": columns_as_json(self.columns), "tokens": tokens}
        if self.messages is not None:
            saved["messages"] = [dict(message) for message in self.messages]
        if self.number is not None:
            saved["number"] = self.number
        return saved

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The prompt that `to_json` wrote."""
        return cls(
            data["text"],
            data["columns"],
            data["tokens"],
            data.get("messages"),
            number=data.get("number"),
        )

    def numbered(self, number: int) -> Self:
        """The same prompt with a number."""
        return replace(self, number=number)


def columns_as_json(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as JSON holds them: numpy values become plain ones, tuples become lists.

    Raises:
        PromptError: One holds something that JSON cannot.
    """
    try:
        saved: dict[str, Any] = json.loads(json.dumps(dict(columns), default=_plain))
    except (TypeError, ValueError) as error:
        raise PromptError(f"the columns {short(dict(columns))} cannot be saved: {error}") from error
    return saved


class Record(Mapping[str, Any]):
    """A prompt's record: its columns, and as `prompt` its text, or its messages if it has them.

    It is no dict on purpose. Gymnasium's vector environments take the dicts of their rows' infos
    apart into one array for each key, which columns of mixed types do not fit.

    >>> dict(Record(Prompt("2 + 2 =", {"answer": "4"})))
    {'answer': '4', 'prompt': '2 + 2 ='}
    """

    __slots__ = ("_prompt",)

    def __init__(self, prompt: Prompt):
        self._prompt = prompt

    def __getitem__(self, name: str) -> Any:
        if name != "prompt":
            return self._prompt.columns[name]
        messages = self._prompt.messages
        return self._prompt.text if messages is None else [dict(one) for one in messages]

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._prompt.columns if name != "prompt")
        yield "prompt"

    def __len__(self) -> int:
        return len({*self._prompt.columns, "prompt"})

    def __repr__(self) -> str:
        return f"Record({dict(self)})"


@runtime_checkable
class PromptSource(Protocol):
    """Where prompts come from."""

    def draw(self, seeds: NDArray[np.uint64]) -> Sequence[Prompt]:
        """One prompt for each of `seeds`, shape (n,), uint64; depends on the seed alone."""
        ...


class NoPrompts:
    """No prompts at all: of an environment whose world says what episodes begin with."""

    def draw(self, seeds: NDArray[np.uint64]) -> Sequence[Prompt]:
        """An empty prompt for each of `seeds`."""
        return [Prompt("")] * len(seeds)


class ListPrompts:
    """A uniform choice from finitely many prompts.

    Args:
        prompts: Texts, records (see `Prompt.from_row`) or `Prompt`s.

    Attributes:
        prompts: All of them, in the order given.

    Raises:
        EmptyPromptsError: The list is empty.
        PromptError: A prompt cannot be used; the message says which.

    >>> source = ListPrompts(["one", {"prompt": "two", "answer": "2"}])
    >>> [prompt.text for prompt in source.draw(np.array([4, 7, 2], dtype=np.uint64))]
    ['one', 'two', 'one']
    """

    def __init__(self, prompts: Iterable[str | Mapping[str, Any] | Prompt]):
        if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
            raise PromptError(
                f"{short(prompts)} is not a list of prompts; write [...] around a single prompt"
            )
        self.prompts = tuple(_numbered(prompts))
        if not self.prompts:
            raise EmptyPromptsError("the list of prompts is empty")

    def draw(self, seeds: NDArray[np.uint64]) -> list[Prompt]:
        """One prompt for each of `seeds`, shape (n,), uint64; the seeds must be well mixed."""
        return [self.prompts[i] for i in (seeds % np.uint64(len(self.prompts))).tolist()]

    def with_prompts(self, prompts: Sequence[Prompt]) -> "ListPrompts":
        """A source of the same kind of other prompts."""
        return ListPrompts(prompts)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and may be large


class FunctionPrompts:
    """Prompts that a function makes.

    Args:
        function: Called for each prompt with a fresh `numpy.random.Generator`; all its randomness
            must come from that. Returns a text, a record (see `Prompt.from_row`) or a `Prompt`.
    """

    def __init__(self, function: Callable[[np.random.Generator], str | Mapping[str, Any] | Prompt]):
        self.function = function

    def draw(self, seeds: NDArray[np.uint64]) -> list[Prompt]:
        """One prompt for each of `seeds`, shape (n,), uint64.

        Raises:
            PromptError: The function does not take one argument, or did not return a prompt.
                Exceptions of the function itself
                pass through.
        """
        return [self._make(seed) for seed in seeds.tolist()]

    def _make(self, seed: int) -> Prompt:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        try:
            made = self.function(np.random.default_rng(seed))
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # from within the function
            raise PromptError(
                f"the prompt function {name!r} must take one argument, a numpy Generator: {error}"
            ) from error
        try:
            return _as_prompt(made)
        except PromptError as error:
            message = f"the prompt function {name!r} returned {short(made)}: {error}"
            raise type(error)(message) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # the function is the user's, and may hold something large


def load_prompts(source: Any) -> PromptSource:
    """A source of prompts, from anything that describes prompts.

    Args:
        source: One of
            a list of texts, records (see `Prompt.from_row`) or `Prompt`s;
            a path ending in `.txt` (UTF-8, a prompt on each line that is not blank);
            a path ending in `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet`, perhaps compressed (a
            record each);
            an iterable of records, such as a `Dataset` or a stream of `datasets`, which is read
            to its end;
            a callable that takes a `numpy.random.Generator` and returns a prompt;
            a `PromptSource`;
            a string `"package.module:name"` or `"file.py:name"` that names one of these.

    Raises:
        PromptError: `source` is none of these, or the file cannot be read.
        EmptyPromptsError: The source holds no prompt.
        MalformedRecordError: Lines of the file cannot be read; the first ten are listed.
        ObjectNotFoundError: The string names an object that cannot be imported.
    """
    if isinstance(source, str) and re.fullmatch(r"(.+\.py|[\w.]+):\w+", source):
        source = load_object(source)
    if isinstance(source, str | os.PathLike):
        return ListPrompts(_read_file(source))
    is_class = isinstance(source, type)  # has the methods of its instances, but they need one
    if isinstance(source, PromptSource) and not is_class:
        return source
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return ListPrompts(source)
    if callable(source) and not is_class:
        return FunctionPrompts(source)
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping | Set | type):
        return ListPrompts(read_prompts(source, Prompt.from_row, "prompts"))
    raise PromptError(
        f"{short(source)} of type {type(source).__name__} is not a source of prompts: pass a list "
        "of texts or records, a .txt or .jsonl path, or a function of a numpy Generator"
    )


def _read_file(source: str | os.PathLike[str]) -> list[Prompt]:
    path = Path(source)
    if format_of(path) in FORMATS:
        prompts = read_prompts(path, Prompt.from_row, "prompts")
    elif path.suffix.lower() == ".txt":
        lines = read_lines(path, Prompt, "prompts")
        prompts = [replace(prompt, origin=place) for place, prompt in lines]
    else:
        raise PromptError(
            f"{short(str(source))} is neither a path ending in .txt or .jsonl (or .json, .csv, "
            ".tsv, .parquet, compressed) nor 'package.module:function'; if it is itself the "
            "prompt, pass a list: [...]"
        )
    if not prompts:
        raise EmptyPromptsError(f"there is no prompt in {path}")
    return prompts


def read_prompts(
    source: Records, parse: Callable[[dict[str, Any]], Prompt], what: str
) -> list[Prompt]:
    """A prompt from every record of a source; each knows where it stands.

    Args:
        source: A file or an iterable of records; see `textenv.records.read_records`.
        parse: Makes a prompt from a record; raises ValueError if it cannot.
        what: What the records should be, for messages.

    Raises:
        MalformedRecordError: The file or some records of it cannot be read.
    """
    placed = placed_records(source, parse, what)
    return [replace(prompt, origin=place) for place, prompt in placed]


def _numbered(prompts: Iterable[Any]) -> Iterable[Prompt]:
    for number, prompt in enumerate(prompts):
        try:
            yield _as_prompt(prompt)
        except PromptError as error:
            raise type(error)(f"prompts[{number}]: {error}") from error


def _as_prompt(value: Any) -> Prompt:
    if isinstance(value, Prompt):
        return value
    if isinstance(value, list | tuple):
        return Prompt("", messages=value)
    return Prompt.from_row(value) if isinstance(value, Mapping) else Prompt(value)


def _messages(given: Any) -> Sequence[Mapping[str, Any]]:
    right = isinstance(given, list | tuple) and all(
        isinstance(message, Mapping)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        for message in given
    )
    if not right or not given:
        raise PromptError(
            f"the prompt is {short(given)}; a list must hold the messages of a chat, each with a "
            "'role' and a 'content' that are texts"
        )
    return tuple(given)


def _token_ids(tokens: Any) -> NDArray[np.int64]:
    try:
        given = np.asarray(tokens)
    except ValueError:  # lists of different lengths
        given = np.array(None)
    if given.shape == (0,):
        raise EmptyPromptsError("the tokens of the prompt are an empty list")
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise PromptError(f"the tokens {short(tokens)} are not a list of integers")
    ids = given.astype(np.int64)
    if ids.min() < 0:  # an id of 2**63 or more wraps to below 0
        raise PromptError(f"the tokens {short(tokens)} are outside every vocabulary")
    return ids


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{short(value)} of type {type(value).__name__} is not JSON")
