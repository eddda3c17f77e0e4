"""Tasks of verifiers as worlds: its prompts, its environments' turns and its rewards."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from textenv.errors import WORLD_FAILURES, WorldError
from textenv.imports import optional
from textenv.worlds.adapters.concurrent import ConcurrentWorld
from textenv.worlds.base import Reply


def as_text(task: Any) -> str:
    """A task's system prompt, if it has one, an empty line, and its prompt."""
    parts = [task.data.system_prompt, task.data.prompt_text]
    return "\n\n".join(part for part in parts if part)


class VerifiersWorld(ConcurrentWorld):
    """Plays tasks of verifiers 0.4, its module `verifiers.v1`.

        world = VerifiersWorld(ReverseTasks(config).take(500))
        envs = textenv.TextVectorEnv(32, world=world, prompts=world.prompts)

    Without an environment a task is one answer, like verifiers' own `SingleAgentEnv`. With one, its
    `run(task, agents)` is the other side of the conversation: each `interaction.turn(message)` is
    what the agent is told, and the turn's text is the segment that it waits for. Afterwards the
    task is scored, and the sum of its weighted rewards is paid; `world_info` at the end has them by
    name, with the metrics.

    Everything runs in this process. So tools on servers, containers, rewards that read a runtime,
    `@vf.stop` and seats other than the agent's are refused by name, and `setup` and `finalize` get
    None as their runtime. A reward that raises takes all rewards of its episode along, as in
    verifiers: the episode ends, truncated, with the reason in `world_error`.

    Args:
        tasks: Tasks, or a `Taskset` that is not endless; None takes the environment's.
        env: An `Env`, such as `vf.load_environment` makes; its seats' models are not used.
        seat: The agent's seat; None takes the only one.
        max_turns: Turns of an interaction, after which verifiers' environment is told that the
            agent has terminated. Give the environment of texts the same: if it ends an episode
            first, the task is not scored.
        opening: Makes of a task what the episode begins with.
        timeout: Seconds that verifiers may take to answer one turn, its rewards included; None
            sets no limit.

    Attributes:
        tasks: The tasks.
        prompts: A record for each task, for `TextVectorEnv(prompts=...)`: its prompt, and its
            number as `task`.

    Raises:
        MissingExtraError: verifiers is not installed.
        WorldError: A task or the environment needs what is not here.
    """

    def __init__(
        self,
        tasks: Iterable[Any] | None = None,
        *,
        env: Any = None,
        seat: str | None = None,
        max_turns: int | None = None,
        opening: Callable[[Any], Any] = as_text,
        timeout: float | None = 300.0,
    ):
        with optional("verifiers", extra="verifiers", purpose="a task of verifiers"):
            import verifiers.v1  # noqa: F401
        if tasks is None and env is None:
            raise WorldError("there are no tasks: give tasks=, or an env= that has a taskset")
        given = env.taskset if tasks is None else tasks
        if not getattr(given, "bounded", True):
            raise WorldError(f"{type(given).__name__} has no end: give it with .take(n)")
        self.tasks = list(given)
        for one in {type(task): task for task in self.tasks}.values():
            _check(one)
        self._env, self._seat = env, "agent" if env is None else seat or _only_seat(env)
        self._max_turns, self._opening = max_turns, opening
        self.prompts: list[dict[str, Any]] = [
            {"prompt": as_text(task) or f"task {number}", "task": number}
            for number, task in enumerate(self.tasks)
        ]
        super().__init__(
            lambda: _Play(self._env, self._seat, self._max_turns, self._opening),
            timeout,
        )

    def _reset_columns(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        if "task" not in record:
            raise WorldError("the record names no task: give the environment prompts=world.prompts")
        return {"task": int(record["task"])}

    async def _reset_one(self, env: Any, seed: int, options: Mapping[str, Any]) -> Any:
        return await env.begin(self.tasks[options["task"]])

    async def _step_one(self, env: Any, text: str) -> Reply:
        return await env.hear(text)


def _check(task: Any) -> None:
    """Refuse a task that needs more than this process.

    Raises:
        WorldError: It does.
    """
    scores = [*task.hooks("reward"), *task.hooks("metric")]
    parameters = [(fn.__name__, inspect.signature(fn).parameters.get("runtime")) for fn in scores]
    needs = {
        "a container": task.NEEDS_CONTAINER,
        "tools on a server": bool(type(task).toolsets(task.config)),
        "@vf.stop": bool(task.hooks("stop")),
    } | {
        f"a runtime for {name}": parameter is not None and parameter.default is parameter.empty
        for name, parameter in parameters
    }
    missing = [name for name, needed in needs.items() if needed]
    if missing:
        raise WorldError(
            f"{type(task).__name__} needs {', '.join(missing)}, and here is one process: play it "
            "with verifiers, or leave it out of the tasks"
        )


def _only_seat(env: Any) -> str:
    from verifiers.v1.configs.env import agent_config_fields

    seats = list(agent_config_fields(env.config))
    if len(seats) != 1:
        raise WorldError(
            f"{type(env).__name__} has the seats {', '.join(seats)}: say with seat= which is the "
            "agent's; the others have no model here"
        )
    return seats[0]


class _Play:
    """One task being played: the agent's turns go in, what it is told comes out."""

    def __init__(self, env: Any, seat: str, max_turns: int | None, opening: Callable[[Any], Any]):
        self.env, self.max_turns, self.opening = env, max_turns, opening
        self.agents = _Agents(self, seat)
        self.traces: list[Any] = []
        self._running: asyncio.Task[None] | None = None

    async def begin(self, task: Any) -> Any:
        await self.close()
        self.traces = []
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self._running = asyncio.create_task(self._run(task))
        opening = await self._next()
        if isinstance(opening, Reply):
            raise WorldError(f"task {task.data.idx} was over before the agent's first turn")
        return opening

    async def hear(self, text: str) -> Reply:
        self._said.put_nowait(text)
        told = await self._next()
        return told if isinstance(told, Reply) else Reply(told)

    async def _next(self) -> Any:
        told = await self._told.get()
        if isinstance(told, WORLD_FAILURES):
            raise told
        return told

    async def tell(self, message: Any) -> str:
        """Tell the agent something; returns what it says to that."""
        self._told.put_nowait(message)
        return await self._said.get()

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self, task: Any) -> None:
        try:
            if self.env is None:
                await self.agents.agent.run(task)
            else:
                await self.env.setup(self.agents)
                await self.env.run(task, self.agents)
                await self.env.finalize(task, self._episode(task))
            self._told.put_nowait(self._paid())
        except WORLD_FAILURES as error:  # it belongs to the agent's row
            self._told.put_nowait(error)

    def _episode(self, task: Any) -> Any:
        from verifiers.v1 import EnvInfo, Episode

        info = EnvInfo(id=self.env.config.env_id)
        return Episode(env=info, task=_described(task), traces=self.traces)

    def _paid(self) -> Reply:
        rewards: dict[str, float] = {}
        metrics: dict[str, float] = {}
        for trace in self.traces:
            rewards |= {name: one.value for name, one in trace.rewards.items() if one is not None}
            metrics |= {name: one for name, one in trace.metrics.items() if one is not None}
        info = {"rewards": rewards, "metrics": metrics}
        return Reply(reward=sum(rewards.values()), terminated=True, info=info)


class _Agents:
    """What an environment's `run` gets: the agent in its seat."""

    def __init__(self, play: _Play, seat: str):
        self._seat, self._agent = seat, _Agent(play)

    def __getattr__(self, name: str) -> "_Agent":
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)
        if name != self._seat:
            raise WorldError(
                f"the environment asks for the seat {name!r}, which has no model here; the agent "
                f"has the seat {self._seat!r}"
            )
        return self._agent


class _Agent:
    trainable = True

    def __init__(self, play: _Play):
        self._play = play

    async def run(self, task: Any) -> Any:
        async with self.interaction(task) as interaction:
            await interaction.turn()
        return interaction.trace

    @asynccontextmanager
    async def interaction(self, task: Any) -> AsyncIterator["_Interaction"]:
        interaction = _Interaction(self._play, task)
        await task.setup(interaction.trace, None)
        yield interaction
        interaction.trace.stop("user_closed")
        await task.finalize(interaction.trace, None)
        await task.score(interaction.trace)
        self._play.traces.append(interaction.trace)


class _Interaction:
    """The agent's side of a conversation, as verifiers' own `Interaction` has it."""

    def __init__(self, play: _Play, task: Any):
        from verifiers.v1 import AgentConfig, AgentInfo, Trace
        from verifiers.v1.state import state_cls

        self._play, self._task, self._turns = play, task, 0
        self.trace = Trace(
            task=_described(task),
            state=state_cls(type(task))(),
            agent=AgentInfo(config=AgentConfig()),
        )

    async def turn(self, message: str | None = None) -> Any:
        """Tell the agent something and wait for its turn; a bare one lets it begin."""
        from verifiers.v1 import AssistantMessage, Segment

        if self._play.max_turns is not None and self._turns >= self._play.max_turns:
            self.trace.stop("max_turns")
            return Segment(messages=[], terminated=True)
        told: Any = message
        if self._turns == 0:
            self._write(_prompt_messages(self._task))
            told = self._play.opening(self._task) if message is None else message
        if message is not None:
            self._write([_message("user", message)])
        said = AssistantMessage(content=await self._play.tell(told))
        self._write([said], sampled=True)
        self._turns += 1
        return Segment(messages=[said])

    def _write(self, messages: Sequence[Any], sampled: bool = False) -> None:
        from verifiers.v1 import MessageNode

        for message in messages:
            parent = len(self.trace.nodes) - 1 if self.trace.nodes else None
            self.trace.nodes.append(MessageNode(parent=parent, message=message, sampled=sampled))


def _message(role: str, text: str) -> Any:
    from verifiers.v1 import SystemMessage, UserMessage

    return (SystemMessage if role == "system" else UserMessage)(content=text)


def _prompt_messages(task: Any) -> list[Any]:
    system, prompt = task.data.system_prompt, task.data.prompt
    messages = [_message("system", system)] if system else []
    if isinstance(prompt, str):
        return [*messages, _message("user", prompt)]
    return [*messages, *(prompt or ())]


def _described(task: Any) -> Any:
    from verifiers.v1 import TraceTask

    return TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
