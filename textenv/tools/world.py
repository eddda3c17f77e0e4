"""A world that carries out the calls of tools that a model writes, and returns their results."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textenv.episode import LENGTH, Episode
from textenv.errors import WORLD_FAILURES, ToolError
from textenv.loading import load_object
from textenv.tools.arguments import bound
from textenv.tools.calls import Call, Parser, find_calls
from textenv.tools.schema import Schema, function_schema
from textenv.worlds import Reply, Turn, World

Tool = Callable[..., Any]


@dataclass(frozen=True)
class CallResult:
    """What became of one call.

    Attributes:
        call: The call.
        text: What the model is told: the result, or what was wrong.
        error: Empty if the tool returned; else `"malformed"`, `"unknown"` (there is no such tool),
            `"arguments"`, `"raised"` or `"limit"`.
    """

    call: Call
    text: str
    error: str = ""


class Tools:
    """Makes the worlds of an environment whose model may call tools; pass it as `world=`.

    `tools=[...]` of an environment is `world=Tools([...])`; use this for other settings.

    A turn without a call, whole or cut by `max_turn_tokens`, is the answer and ends the episode as
    the world's (`finish_reason` is `"world"`); `reward=` then judges `Episode.text`. One that
    `max_new_tokens` cuts ends as the environment's `budget` says (`"length"`). After a turn with
    calls each call's result is returned, in the calls' order, with the role `"tool"`: each is a
    message of its own in a frame; without one they follow each other as they are. What goes wrong
    in a call is told to the model as text that begins with `error:`, and the episode goes on: an
    unknown tool, arguments of another type, a tool that raises, JSON that cannot be read. Plain
    tools run one after the other, `async` ones of all rows together, within the environment's
    `reply_timeout`.

    Args:
        functions: Functions or methods with type hints and a docstring (see
            `textenv.tools.function_schema`), or strings `"module:function"`. What one returns is
            shown to the model as `str` shows it.
        parse: Reads the calls in a turn; see `textenv.tools.calls`.
        max_calls: Calls that may be carried out in an episode; None sets no limit. Further ones are
            answered with an error, so that the model can still answer.
        max_result_chars: Characters of a result that are shown; a mark says how many are left out.
            None shows all.

    Attributes:
        tools: The functions' schemas, which a frame writes into the opening.

    Raises:
        ToolError: A function cannot be used as a tool, or two have one name.
        ObjectNotFoundError: A string does not name an object.
    """

    def __init__(
        self,
        functions: Sequence[Tool | str],
        *,
        parse: Parser = find_calls,
        max_calls: int | None = None,
        max_result_chars: int | None = 2000,
    ):
        if isinstance(functions, str) or not isinstance(functions, Sequence):
            raise ToolError(f"tools are a list of functions, not {functions!r}")
        found: list[Any] = [load_object(f) if isinstance(f, str) else f for f in functions]
        self.schemas = {
            schema["function"]["name"]: schema for schema in map(function_schema, found)
        }
        self.functions: Mapping[str, Tool] = {f.__name__: f for f in found}
        if len(self.functions) < len(found):
            names = [function.__name__ for function in found]
            raise ToolError(f"two tools have the same name: {', '.join(names)}")
        self.tools: Sequence[Schema] = tuple(self.schemas.values())
        self.parse, self.max_calls, self.max_result_chars = parse, max_calls, max_result_chars

    def __call__(self) -> "ToolWorld":
        """A world for one episode."""
        return ToolWorld(self)

    def __repr__(self) -> str:
        return f"Tools({', '.join(self.schemas)})"


class ToolWorld(World):
    """The tools in one episode; made by `Tools`.

    Derive from it for an opening of one's own:

        class Questions(ToolWorld):
            tools = SETTINGS.tools  # which a frame tells

            def __init__(self):
                super().__init__(SETTINGS)

            def begin(self, record, rng):
                return f"Use the calculator. {record['prompt']}"

    Args:
        settings: Parser, limits and schemas.
        functions: The tools by name; those of the settings if None.

    Attributes:
        calls: Calls that were carried out.
    """

    def __init__(self, settings: Tools, functions: Mapping[str, Tool] | None = None):
        self._settings = settings
        self._functions = settings.functions if functions is None else functions
        self.calls = 0

    def reply(self, turn: Turn, rng: np.random.Generator) -> Any:
        """The results of the calls in a turn; the end if there is none."""
        calls = self._settings.parse(turn.text)
        if not calls:  # an answer that the text has no room for is cut, and no answer
            return Reply(terminated=not (turn.spent and turn.finish_reason == LENGTH))
        outcomes = [self._carry_out(call) for call in calls]
        if any(inspect.isawaitable(outcome) for outcome in outcomes):
            return self._when_all_are_there(outcomes)
        return self._told(outcomes)

    def _carry_out(self, call: Call) -> Any:
        """What became of a call; of an `async` tool, something to wait for."""
        if call.problem:
            return CallResult(call, call.problem, "malformed")
        schemas, limit = self._settings.schemas, self._settings.max_calls
        if call.name not in schemas:
            known = f"; there are {', '.join(schemas)}" if schemas else ""
            return CallResult(call, f"there is no tool {call.name}{known}", "unknown")
        if limit is not None and self.calls >= limit:
            return CallResult(call, f"no more than {limit} calls are allowed: answer now", "limit")
        try:
            arguments = bound(call, schemas[call.name])
        except ValueError as error:
            return CallResult(call, str(error), "arguments")
        self.calls += 1
        try:
            result = self._functions[call.name](**arguments)
            if inspect.isawaitable(result):
                return _awaited(call, result)
            return CallResult(call, str(result))  # which may raise too
        except WORLD_FAILURES as error:
            return _raised(call, error)

    async def _when_all_are_there(self, outcomes: Sequence[Any]) -> Reply:
        """The reply once the `async` tools have returned; they run together."""
        waiting = [place for place, one in enumerate(outcomes) if inspect.isawaitable(one)]
        there = list(outcomes)
        results = await asyncio.gather(*(outcomes[place] for place in waiting))
        for place, result in zip(waiting, results, strict=True):
            there[place] = result
        return self._told(there)

    def _told(self, outcomes: Sequence[CallResult]) -> Reply:
        texts = [self._shown(outcome) for outcome in outcomes]
        calls = [
            {
                "name": outcome.call.name,
                "arguments": dict(outcome.call.arguments),
                "positional": list(outcome.call.positional),
                "result": text,
                "error": outcome.error,
            }
            for outcome, text in zip(outcomes, texts, strict=True)
        ]
        text = texts[0] if len(texts) == 1 else texts
        return Reply(text, role="tool", info={"calls": calls})

    def _shown(self, outcome: CallResult) -> str:
        text = f"error: {outcome.text}" if outcome.error else outcome.text
        limit = self._settings.max_result_chars
        if limit is None or len(text) <= limit:
            return text
        return f"{text[:limit]}... ({len(text) - limit} more characters)"

    def state_dict(self) -> dict[str, Any]:
        """How many calls were carried out."""
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.calls = state["calls"]


async def _awaited(call: Call, result: Awaitable[Any]) -> CallResult:
    try:
        return CallResult(call, str(await result))
    except WORLD_FAILURES as error:
        return _raised(call, error)


def _raised(call: Call, error: BaseException) -> CallResult:
    return CallResult(call, str(error) or type(error).__name__, "raised")


def calls_of(episode: Episode) -> list[dict[str, Any]]:
    """What became of each call in a finished episode, for rewards and measures.

    Each entry has the call's `name`, `arguments` and `positional` arguments, the `result` as the
    model was told it, and `error`, which is empty if the tool returned (see `CallResult.error`).

    >>> def mean_calls(episodes):
    ...     return [len(calls_of(episode)) for episode in episodes]
    >>> def share_without_error(episodes):
    ...     return [
    ...         sum(not call["error"] for call in calls_of(e)) / max(len(calls_of(e)), 1)
    ...         for e in episodes
    ...     ]
    """
    replies = [entry for entry in episode.turns if isinstance(entry, Reply)]
    return [call for reply in replies for call in reply.info.get("calls", ())]
