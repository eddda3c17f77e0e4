"""Conversations with tools: calls are carried out, results come back, an answer ends it."""

import asyncio
import json
import pickle
import time

import gymnasium as gym
import numpy as np
import pytest

from textenv import Reply, TextEnv, TextVectorEnv, World, tools, worlds
from textenv.errors import InvalidRewardError, ObjectNotFoundError, ToolError
from textenv.frames import ChatTemplate
from textenv.testing import check_text_env
from textenv.tools import Tools, ToolWorld, calculator, calls_of, describe, python_calls

STOP = 256


def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return 2 * number


def fail(number: int) -> int:
    """Fail.

    Args:
        number: The number.
    """
    raise RuntimeError(f"no {number}")


async def slow(number: int) -> int:
    """Think of a number.

    Args:
        number: The number; a negative one takes for ever, 0 fails.
    """
    await asyncio.sleep(0.05 if number >= 0 else 100)
    return 1 // number


def right(episodes):
    return [float(e.text == e.columns["answer"]) for e in episodes]


def nothing(episodes):
    return [0.0] * len(episodes)


PROMPTS = [{"prompt": "2*21=", "answer": "42"}]


def with_tools(num_envs=1, tools=(double, fail), **options):
    defaults = {"prompts": PROMPTS, "reward": right, "max_new_tokens": 200}
    if not isinstance(tools, Tools):
        return TextVectorEnv(num_envs, tools=list(tools), **defaults | options)
    return TextVectorEnv(num_envs, world=tools, **defaults | options)


def say(envs, text):
    """All rows say a text and stop; the last step."""
    for token in (*text.encode(), STOP):
        step = envs.step([token] * envs.num_envs)
    return step


def results(infos, row=0):
    """What a row's model is told of each call in its last turn."""
    return [call["result"] for call in infos["reply_info"][row]["calls"]]


def shown(envs, observation):
    ids = observation[observation != envs.pad_token].tolist()
    return bytes(124 if token == STOP else token for token in ids).decode()


def test_a_call_its_result_and_an_answer_by_hand():
    envs = with_tools(autoreset_mode="Disabled")
    envs.reset(seed=0)
    observations, rewards, terminated, truncated, infos = say(envs, "double(21)")
    assert shown(envs, observations[0]) == "2*21=double(21)|42"  # the bar is the stop token
    assert (rewards[0], terminated[0], truncated[0]) == (0.0, False, False)
    assert infos["reply"].tolist() == ["42"] and infos["turn"].tolist() == [1]
    told = {"name": "double", "arguments": {}, "positional": [21], "result": "42", "error": ""}
    assert infos["reply_info"].tolist() == [{"calls": [told]}]
    observations, rewards, terminated, truncated, infos = say(envs, "42")
    assert shown(envs, observations[0]) == "2*21=double(21)|4242|"
    assert (rewards[0], terminated[0], truncated[0]) == (1.0, True, False)
    assert infos["finish_reason"].tolist() == ["world"] and infos["text"].tolist() == ["42"]
    assert infos["turns"].tolist() == [2]


def test_a_reward_sees_the_calls():
    seen = []

    def reward(episodes):
        seen.extend(calls_of(episode) for episode in episodes)
        return [0.0] * len(episodes)

    envs = with_tools(reward=reward)
    envs.reset(seed=0)
    say(envs, "[double(2), fail(3)]")
    say(envs, '<tool_call>{"name": "double", "arguments": {"number": 5}}</tool_call>')
    say(envs, "10")
    ((first, second, third),) = seen
    assert (first["result"], first["error"]) == ("4", "")
    assert (second["result"], second["error"]) == ("error: no 3", "raised")
    assert third["arguments"] == {"number": 5} and third["result"] == "10"


def test_several_results_are_several_messages_of_the_role_tool():
    turns = []

    def reward(episodes):
        turns.extend(episodes[0].turns)
        return [0.0]

    envs = with_tools(reward=reward)
    envs.reset(seed=0)
    observations, *_ = say(envs, "[double(1), double(2)]")
    assert shown(envs, observations[0]).endswith("|24")  # without a frame, as they are
    say(envs, "done")
    reply = turns[1]
    assert (reply.role, list(reply.text)) == ("tool", ["2", "4"])


@pytest.mark.parametrize(
    ("said", "told", "kind"),
    [
        ("triple(2)", "error: there is no tool triple; there are double, fail", "unknown"),
        ("double()", "error: double needs the argument number", "arguments"),
        ("double('2')", "error: number must be integer, not '2'", "arguments"),
        ("fail(7)", "error: no 7", "raised"),
        ("<tool_call>{</tool_call>", "error: this is not JSON: Expecting", "malformed"),
        ("double(x)", "error: the arguments of double must be written as values", "malformed"),
    ],
)
def test_what_goes_wrong_is_told_to_the_model(said, told, kind):
    envs = with_tools()
    envs.reset(seed=0)
    *_, terminated, truncated, infos = say(envs, said)
    assert infos["reply"][0].startswith(told)
    assert infos["reply_info"][0]["calls"][0]["error"] == kind
    assert not terminated[0] and not truncated[0]
    *_, terminated, _, _ = say(envs, "42")
    assert terminated[0]


def test_a_result_that_cannot_be_written_is_an_error_too():
    def power(exponent: int) -> int:
        """A power of ten.

        Args:
            exponent: The exponent.
        """
        return 10**exponent  # Python writes no more than 4,300 digits

    envs = with_tools(tools=[power])
    envs.reset(seed=0)
    assert say(envs, "power(5000)")[-1]["reply"][0].startswith("error: Exceeds the limit")


def test_calls_beyond_the_limit_are_not_carried_out():
    envs = with_tools(tools=Tools([double], max_calls=2), max_new_tokens=400)
    envs.reset(seed=0)
    *_, infos = say(envs, "double('x')")  # not carried out, so it does not count
    assert infos["reply"][0].startswith("error: number")
    *_, infos = say(envs, "[double(1), double(2), double(3)]")
    limit = "error: no more than 2 calls are allowed: answer now"
    assert results(infos) == ["2", "4", limit]
    *_, infos = say(envs, "double(4)")
    assert infos["reply"][0] == limit and infos["reply_info"][0]["calls"][0]["error"] == "limit"
    _, rewards, terminated, *_ = say(envs, "42")
    assert terminated[0] and rewards[0] == 1.0
    *_, infos = say(envs, "double(4)")  # the next episode counts anew
    assert infos["reply"][0] == "8"


def test_long_results_are_cut_with_a_mark():
    def repeat(times: int) -> str:
        """Repeat.

        Args:
            times: How often.
        """
        return "ab" * times

    envs = with_tools(tools=Tools([repeat], max_result_chars=5))
    envs.reset(seed=0)
    assert say(envs, "repeat(3)")[-1]["reply"][0] == "ababa... (1 more characters)"
    assert say(envs, "repeat(2)")[-1]["reply"][0] == "abab"
    envs = with_tools(tools=Tools([repeat], max_result_chars=None), max_new_tokens=5000)
    envs.reset(seed=0)
    assert say(envs, "repeat(1001)")[-1]["reply"][0] == "ab" * 1001


def test_async_tools_of_all_rows_run_together_and_keep_their_place():
    envs = with_tools(8, tools=[slow, double])
    envs.reset(seed=0)
    begun = time.perf_counter()
    *_, infos = say(envs, "[slow(1), double(2), slow(0)]")
    assert time.perf_counter() - begun < 0.05 * 8
    for row in range(8):
        first, second, third = results(infos, row)
        assert (first, second) == ("1", "4") and third.startswith("error: integer division")


def test_an_async_tool_that_hangs_ends_its_row_alone():
    envs = with_tools(2, tools=[slow], reply_timeout=0.2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    for first, second in zip(b"slow(-1)", b"slow( 1)", strict=True):
        envs.step([first, second])
    *_, terminated, truncated, infos = envs.step([STOP, STOP])
    assert truncated.tolist() == [True, False] and not terminated.any()
    assert infos["finish_reason"][0] == "error" and "Timeout" in infos["world_error"][0]
    assert infos["reply"][1] == "1"


def test_ones_own_parser_replaces_the_forms():
    def sums(text):
        from textenv.tools import Call

        return [Call("calculator", {"expression": text})] if "+" in text else []

    envs = with_tools(tools=Tools([calculator], parse=sums))
    envs.reset(seed=0)
    assert say(envs, "21+21")[-1]["reply"][0] == "42"
    envs = with_tools(tools=Tools([double], parse=python_calls))
    envs.reset(seed=0)
    _, _, terminated, *_ = say(envs, '{"name": "double", "arguments": {"number": 5}}')
    assert terminated[0]  # another form is an answer


def test_a_call_in_the_last_turn_is_carried_out_and_the_budget_ends_it():
    seen = []

    def reward(episodes):
        seen.extend(episodes)
        return [0.0]

    envs = with_tools(max_turns=1, reward=reward)
    envs.reset(seed=0)
    _, _, terminated, *_ = say(envs, "double(4)")
    assert terminated[0] and seen[0].finish_reason == "turns"
    assert calls_of(seen[0])[0]["result"] == "8" and seen[0].text == "double(4)"


def test_a_frame_tells_the_schemas_and_frames_each_result():
    envs = with_tools(frame=ChatTemplate(), max_prompt_tokens=600, max_new_tokens=300)
    observations, _ = envs.reset(seed=0)
    opening = shown(envs, observations[0])
    assert opening.endswith("User: 2*21=\nAssistant:")
    for schema in Tools([double, fail]).tools:
        assert json.dumps(schema) in opening
    observations, *_ = say(envs, "[double(1), fail(2)]")
    said = shown(envs, observations[0]).removeprefix(opening)
    assert said == "[double(1), fail(2)]|\nTool: 2\nerror: no 2\nAssistant:"


# ---------------------------------------------------------------- making it


def test_both_registered_ids_take_tools_by_name():
    name = f"{__name__}:double"
    arguments = {
        "prompts": ["2*21="],
        "reward": f"{__name__}:nothing",
        "max_new_tokens": 100,
        "tools": [name],
    }
    env = gym.make("textenv/Generate-v0", **arguments)
    assert json.loads(env.spec.to_json())["kwargs"]["tools"] == [name]
    env.reset(seed=0)
    for token in (*b"double(3)", STOP):
        *_, info = env.step(token)
    assert info["reply"] == "6"
    envs = gym.make_vec("textenv/Generate-v0", num_envs=3, **arguments)
    envs.reset(seed=0)
    assert say(envs, "double(3)")[-1]["reply"].tolist() == ["6"] * 3


def test_an_environment_with_tools_passes_the_checks():
    options = {"prompts": PROMPTS, "reward": right, "tools": [double], "max_new_tokens": 12}
    check_text_env(TextEnv(**options))
    check_text_env(TextVectorEnv(3, **options))


def test_the_factory_carries_the_schemas_and_can_be_pickled():
    tools = Tools([double, calculator])
    assert [schema["function"]["name"] for schema in tools.tools] == ["double", "calculator"]
    again = pickle.loads(pickle.dumps(tools))
    assert again.tools == tools.tools and repr(again) == "Tools(double, calculator)"


def test_what_cannot_be_given_is_refused_by_name():
    with pytest.raises(ToolError, match="two tools have the same name: double, double"):
        Tools([double, double])
    with pytest.raises(ToolError, match="a list of functions, not 'math:sqrt'"):
        Tools("math:sqrt")
    with pytest.raises(ToolError, match="a list of functions"):
        Tools(double)
    with pytest.raises(ObjectNotFoundError, match="no module"):
        with_tools(tools=["nowhere:f"])
    with pytest.raises(ToolError, match="leave out world="):
        with_tools(world=Tools([double]))


def test_a_world_may_have_tools_of_its_own():
    class Questions(ToolWorld):
        tools = TOOLS.tools

        def __init__(self):
            super().__init__(TOOLS)

        def begin(self, record, rng):
            return f"{record['prompt']}?"

    envs = TextVectorEnv(1, prompts=PROMPTS, reward=right, world=Questions, max_prompt_tokens=9)
    _, infos = envs.reset(seed=0)
    assert infos["prompt"][0] == "2*21=?"
    assert say(envs, "double(21)")[-1]["reply"][0] == "42"


TOOLS = Tools([double])


def test_the_count_of_calls_is_saved():
    def make():
        return with_tools(tools=Tools([double], max_calls=1))

    envs, other = make(), make()
    envs.reset(seed=0)
    say(envs, "double(1)")
    other.reset(seed=5)
    other.load_state_dict(envs.state_dict())
    for one in (envs, other):
        assert say(one, "double(1)")[-1]["reply"][0].startswith("error: no more than 1")


def test_tools_in_plain_words():
    text = describe(Tools([double]).tools)
    assert text.startswith("You can call these tools:\n\n- double: Double a number.\n")
    assert "  number (integer): The number." in text
    assert '<tool_call>{"name": "the tool\'s name", "arguments"' in text


# ---------------------------------------------------------------- rewards that belong to a world


class Paying(World):
    """Remembers what was said; its own reward counts the turns."""

    def begin(self, record, rng):
        self.said = []
        return "?"

    def reply(self, turn, rng):
        self.said.append(turn.text)
        return Reply("!", reward=0.5, terminated=turn.text == "end")

    @staticmethod
    def episode_reward(episodes):
        return [float(len(e.world.said)) for e in episodes]


def test_a_world_may_bring_a_reward_of_finished_episodes():
    envs = TextVectorEnv(2, world=Paying, max_prompt_tokens=1, max_turns=2, max_new_tokens=30)
    envs.reset(seed=0)
    say(envs, "a")
    _, rewards, terminated, _, infos = say(envs, "b")
    assert terminated.all() and rewards.tolist() == [2.5, 2.5]  # whatever ends it
    components = infos["final_info"]["reward_components"]
    assert components["episode_reward"].tolist() == [2.0, 2.0]
    _, rewards, *_ = say(envs, "end")
    assert rewards.tolist() == [1.5, 1.5]  # of the next episode's own world


def test_a_reward_of_a_world_stands_beside_the_environments():
    options = {"prompts": PROMPTS, "reward": right, "max_prompt_tokens": 5, "max_new_tokens": 30}
    envs = TextVectorEnv(1, world=Paying, **options)
    envs.reset(seed=0)
    _, rewards, *_, infos = say(envs, "end")
    assert rewards[0] == 1.5
    told = infos["final_info"]["reward_components"]
    assert {"right", "episode_reward", "world"} < told.keys()

    def episode_reward(episodes):
        return [0.0] * len(episodes)

    with pytest.raises(InvalidRewardError, match="under a name that is taken"):
        TextVectorEnv(1, world=Paying, **options | {"reward": episode_reward})

    class Wrong(Paying):
        episode_reward = 3

    with pytest.raises(InvalidRewardError, match="is not a reward"):
        TextVectorEnv(1, world=Wrong, max_prompt_tokens=1)


def test_rewards_see_no_world_where_one_world_has_all_rows():
    from textenv import BatchedWorld

    class All(BatchedWorld):
        def begin(self, rows, records, rngs):
            return ["?" for _ in rows]

        def reply(self, rows, turns, rngs):
            return [Reply(terminated=True) for _ in rows]

    seen = []

    def reward(episodes):
        seen.extend(episode.world for episode in episodes)
        return np.zeros(len(episodes))

    envs = TextVectorEnv(2, world=All, reward=reward, max_prompt_tokens=1)
    envs.reset(seed=0)
    say(envs, "a")
    assert seen == [None, None]


@pytest.mark.parametrize("budget", ["terminate", "truncate"])
def test_an_answer_that_the_budget_cuts_ends_as_the_budget_says(budget):
    envs = with_tools(budget=budget, max_new_tokens=4, reward=nothing)
    envs.reset(seed=0)
    for token in b"4242":
        _, _, terminated, truncated, infos = envs.step([token])
    assert (terminated[0], truncated[0]) == (budget == "terminate", budget == "truncate")
    assert infos["final_info"]["finish_reason"].tolist() == ["length"]


def test_a_tool_that_exits_is_an_error_that_the_model_is_told():
    def leave(code: int) -> int:
        """Leave.

        Args:
            code: The code.
        """
        raise SystemExit(f"code {code}")

    async def leave_later(code: int) -> int:
        """Leave later.

        Args:
            code: The code.
        """
        raise SystemExit(f"code {code}")

    for name in ("leave", "leave_later"):
        envs = with_tools(tools=[leave, leave_later], reward=nothing)
        envs.reset(seed=0)
        for token in (*f"{name}(3)".encode(), STOP):
            *_, infos = envs.step([token])
        assert infos["reply"][0] == "error: code 3"


def test_no_name_is_that_of_another_class_in_worlds():
    assert not set(tools.__all__) & set(worlds.__all__)
