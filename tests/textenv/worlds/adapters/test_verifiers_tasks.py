"""Tasks of verifiers: its prompts, turns of its environments, and its rewards."""

import asyncio
import sys
from pathlib import Path

import pytest

from textenv import TextVectorEnv
from textenv.errors import WorldError
from textenv.worlds.adapters import VerifiersWorld

pytest.importorskip(
    "verifiers", reason='needs pip install "textenv[verifiers]" in an environment of its own'
)
import verifiers.v1 as vf

STOP = 256


@pytest.fixture(scope="module")
def words():
    """The taskset's package, which verifiers finds by its name."""
    sys.path.insert(0, str(Path(__file__).parent))
    import verifiers_words

    yield verifiers_words
    sys.path.remove(str(Path(__file__).parent))


@pytest.fixture
def tasks(words):
    return words.Words(words.WordsConfig(id="verifiers_words"))


@pytest.fixture
def env(words):
    taskset = words.WordsConfig(id="verifiers_words")
    return vf.load_environment(words.WordsEnvConfig(taskset=taskset))


def play(world, num_envs=1, **options):
    defaults = {"prompts": world.prompts, "max_new_tokens": 60}
    return TextVectorEnv(num_envs, world=world, **defaults | options)


def say(envs, *texts):
    longest = max(map(len, texts))
    for characters in zip(*(f"{text:{longest}}." for text in texts), strict=True):
        step = envs.step([STOP if c == "." else ord(c) for c in characters])
    return step


def start(envs, *numbers):
    """Begin with tasks of these numbers."""
    prompts = [envs.world.prompts[number] for number in numbers]
    return envs.reset(seed=0, options={"prompt": prompts})


def test_a_task_is_one_answer_and_its_rewards_are_paid(tasks):
    envs = play(VerifiersWorld(tasks), 2)
    _, infos = start(envs, 0, 1)
    assert infos["prompt"].tolist() == ["Be short.\n\nReverse ab.", "Be short.\n\nReverse cd."]
    _, rewards, terminated, truncated, infos = say(envs, "ba", "cd!")
    assert rewards == pytest.approx([2.0 - 0.2, -0.3])  # weights 2 and 1
    assert terminated.all() and not truncated.any()
    assert infos["final_info"]["world_info"][0] == {
        "rewards": {"right": 2.0, "short": -0.2},
        "metrics": {"turns": 1.0},
    }


def test_the_rewards_are_those_that_verifiers_computes(tasks):
    task = next(iter(tasks))
    trace = vf.Trace(
        task=vf.TraceTask(type="WordTask", data=task.data),
        agent=vf.AgentInfo(config=vf.AgentConfig()),
        nodes=[
            vf.MessageNode(message=vf.UserMessage(content=task.data.prompt)),
            vf.MessageNode(parent=0, message=vf.AssistantMessage(content="ba, ba"), sampled=True),
        ],
    )
    asyncio.run(task.score(trace))
    envs = play(VerifiersWorld(tasks))
    start(envs, 0)
    assert say(envs, "ba, ba")[1][0] == pytest.approx(sum(r.value for r in trace.rewards.values()))


def test_a_reward_that_raises_ends_its_row_alone_and_takes_the_others_along(tasks):
    envs = play(VerifiersWorld(tasks), 2)
    start(envs, 0, 1)
    _, rewards, terminated, truncated, infos = say(envs, "ba raise", "dc")
    assert truncated.tolist() == [True, False] and terminated.tolist() == [False, True]
    assert rewards == pytest.approx([0.0, 2.0 - 0.2])  # of the first, the right answer too
    assert "scoring: RuntimeError: this reward raises" in infos["final_info"]["world_error"][0]


def test_an_environment_has_turns_and_judges_at_the_end(env):
    envs = play(VerifiersWorld(env=env), 2)
    _, infos = start(envs, 0, 1)
    _, rewards, terminated, _, infos = say(envs, "x", "dc")
    assert infos["reply"].tolist() == ["No (1).", None]
    assert rewards == pytest.approx([0.0, 2.0 - 0.2 - 0.0])
    assert terminated.tolist() == [False, True]
    assert infos["final_info"]["world_info"][1]["rewards"]["again"] == 0.0
    start(envs, 0, 1)  # both begin anew; the unfinished run is given up
    say(envs, "x", "x")
    _, _, terminated, _, infos = say(envs, "y", "y")
    assert infos["reply"].tolist() == ["No (2).", "No (2)."] and not terminated.any()
    _, rewards, terminated, _, infos = say(envs, "z", "dc")
    assert rewards == pytest.approx([-0.1 - 1.0, 2.0 - 0.2 - 1.0]) and terminated.all()
    assert infos["final_info"]["world_info"][1]["metrics"] == {"turns": 3.0}


def test_a_limit_of_turns_ends_the_interaction_and_the_task_is_scored(env):
    envs = play(VerifiersWorld(env=env, max_turns=2), max_turns=2)
    start(envs, 0)
    assert not say(envs, "x")[2][0]
    _, rewards, terminated, _, infos = say(envs, "y")
    assert rewards[0] == pytest.approx(-0.1 - 0.5) and terminated[0]
    assert infos["final_info"]["finish_reason"][0] == "world"


def test_a_saved_conversation_goes_on(env):
    one, other = play(VerifiersWorld(env=env)), play(VerifiersWorld(env=env))
    start(one, 1)
    say(one, "x")
    start(other, 0)
    other.load_state_dict(one.state_dict())
    for text in ("y", "dc"):
        mine, theirs = say(one, text), say(other, text)
        for a, b in zip(mine[:4], theirs[:4], strict=True):
            assert (a == b).all()


class Endless(vf.Taskset[vf.Task, vf.TasksetConfig]):
    INFINITE = True

    def load(self):
        while True:
            yield vf.Task(vf.TaskData(prompt="again"))


class Stopping(vf.Task):
    @vf.stop
    async def done(self, trace: vf.Trace) -> bool:
        return True


class Running(vf.Task):
    @vf.reward
    async def passes(self, runtime) -> float:
        return 1.0


class TwoSeats(vf.EnvConfig):
    solver: vf.AgentConfig = vf.AgentConfig()
    judge: vf.AgentConfig = vf.AgentConfig()


class TwoSeatsEnv(vf.Env[TwoSeats]):
    async def run(self, task, agents):
        await agents.judge.run(task)


def test_what_cannot_be_played(words):
    with pytest.raises(WorldError, match=r"Endless has no end: give it with \.take\(n\)"):
        VerifiersWorld(Endless(vf.TasksetConfig()))
    assert len(VerifiersWorld(Endless(vf.TasksetConfig()).take(3)).tasks) == 3
    for kind, needs in ((Stopping, "@vf.stop"), (Running, "a runtime for passes")):
        with pytest.raises(WorldError, match=rf"{kind.__name__} needs {needs}, and here"):
            VerifiersWorld([kind(vf.TaskData(prompt="p"))])
    with pytest.raises(WorldError, match="there are no tasks"):
        VerifiersWorld()
    seats = TwoSeatsEnv(TwoSeats(taskset=words.WordsConfig(id="verifiers_words")))
    with pytest.raises(WorldError, match="has the seats solver, judge: say with seat="):
        VerifiersWorld(env=seats)
    envs = play(VerifiersWorld(env=seats, seat="solver"))
    with pytest.raises(WorldError, match="asks for the seat 'judge', which has no model here"):
        start(envs, 0)


def test_the_environment_needs_the_tasks_prompts(tasks):
    with pytest.raises(WorldError, match="names no task: give the environment prompts="):
        play(VerifiersWorld(tasks), prompts=["hello"]).reset(seed=0)
