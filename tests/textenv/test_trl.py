"""Reward functions written for TRL's trainers, TRL's own among them, unmodified."""

import asyncio
import copy
import signal
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
from episodes import episode, lengths, only_term, score

from textenv.background import wait_for
from textenv.errors import (
    InvalidRewardError,
    RewardCountError,
    RewardRaisedError,
    RewardValueError,
)
from textenv.rewards import from_trl, from_trl_chat, weighted

# ------------------------------------------------------------------ the standard format


def test_a_trl_reward_function_is_called_by_trls_keywords():
    seen = {}

    def record(**kwargs):
        seen.update(kwargs)
        return [0.0, None]

    episodes = [
        episode("ab", "xyz", columns={"answer": "4", "prompt": "dropped"}),
        episode("c", "hello", stop=True, columns={"level": 2}),
    ]
    first, second = score(from_trl(record), episodes)
    assert first == 0.0 and np.isnan(second)  # None: it has no score
    logs = [seen.pop("log_extra"), seen.pop("log_metric")]
    assert [log("name", 1.0) for log in logs] == [None, None]
    assert seen == {
        "prompts": ["ab", "c"],
        "completions": ["xyz", "hello"],
        "completion_ids": [[120, 121, 122], [104, 101, 108, 108, 111, 256]],
        "trainer_state": None,
        "answer": ["4", None],
        "level": [None, 2],
    }


def test_trl_columns_reach_their_parameters():
    def exact(completions, answer, **kwargs):
        return [1.0 if c == a else 0.0 for c, a in zip(completions, answer, strict=True)]

    episodes = [episode("a", "xyz", columns={"answer": a}) for a in ("xyz", "no")]
    assert score(from_trl(exact), episodes) == [1.0, 0.0]
    with pytest.raises(RewardRaisedError, match="missing 1 required positional argument: 'answer'"):
        score(from_trl(exact))


def test_trl_nan_is_still_an_error_and_a_missing_return_too():
    with pytest.raises(RewardValueError, match="nan for episode 0"):
        score(from_trl(lambda **kwargs: [float("nan"), None]))
    with pytest.raises(RewardCountError, match="returned None"):
        score(from_trl(lambda **kwargs: None))


# ------------------------------------------------------------------ the conversational format


def test_a_chat_function_sees_messages():
    seen = {}

    def record(prompts, completions, **kwargs):
        seen.update(prompts=prompts, completions=completions, ids=kwargs["completion_ids"])
        return [1.0, 2.0]

    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    episodes = [
        episode("ab", "xyz"),
        episode("<hi>", "yo", stop=True, columns={"messages": talk}),
    ]
    assert score(from_trl_chat(record), episodes) == [1.0, 2.0]
    assert seen == {
        "prompts": [[{"role": "user", "content": "ab"}], talk],
        "completions": [
            [{"role": "assistant", "content": "xyz"}],
            [{"role": "assistant", "content": "yo"}],
        ],
        "ids": [[120, 121, 122], [121, 111, 256]],
    }


# ------------------------------------------------------------------ async functions


async def slow_lengths(completions, **kwargs):
    await asyncio.sleep(0)
    return [float(len(text)) for text in completions]


class AsyncJudge:
    """Keeps what belongs to one event loop, as a client of a service does."""

    def __init__(self):
        self.lock = None

    async def __call__(self, completions, **kwargs):
        self.lock = self.lock or asyncio.Lock()
        holder = asyncio.ensure_future(self.lock.acquire())
        await holder
        asyncio.get_running_loop().call_later(0.01, self.lock.release)
        async with self.lock:  # must wait: only now does a lock look at its loop
            return [None if text == "xyz" else 3.0 for text in completions]


def test_async_functions_are_waited_for():
    assert score(from_trl(slow_lengths)) == [3.0, 5.0]
    assert score(from_trl(partial(slow_lengths, unused=1))) == [3.0, 5.0]
    both = weighted(a=(1, from_trl(slow_lengths)), b=(1, lengths))
    assert [term.name for term in both.terms] == ["a", "b"]


def test_async_objects_stay_in_one_event_loop():
    judge = from_trl(AsyncJudge())
    for _ in range(2):
        first, second = score(judge)
        assert np.isnan(first) and second == 3.0


def test_async_functions_run_where_a_loop_runs_already():
    async def notebook():
        return score(from_trl(slow_lengths))

    assert asyncio.run(notebook()) == [3.0, 5.0]


def test_what_an_async_function_raises_names_it():
    async def broken(completions, **kwargs):
        raise KeyError("solution")

    with pytest.raises(RewardRaisedError, match="'broken' raised KeyError: 'solution'"):
        score(from_trl(broken))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timers")
def test_an_interrupted_wait_cancels_the_coroutine():
    cancelled = threading.Event()

    async def long():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupt(*arguments):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            wait_for(long())
    finally:
        signal.signal(signal.SIGALRM, before)
    assert cancelled.wait(10)


def test_the_loop_does_not_disturb_the_end_of_the_program():
    code = "from textenv.background import wait_for; import asyncio; wait_for(asyncio.sleep(0))"
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


# ------------------------------------------------------------------ copies, and what is refused


def test_deep_copies_and_pickles():
    judge = from_trl_chat(AsyncJudge())
    assert copy.deepcopy([judge])[0] is judge
    assert only_term(judge).name == "AsyncJudge"


@pytest.mark.parametrize("adapter", [from_trl, from_trl_chat])
def test_what_is_no_function(adapter):
    with pytest.raises(InvalidRewardError, match="is a class"):
        adapter(AsyncJudge)
    with pytest.raises(InvalidRewardError, match="of type int"):
        adapter(3)
    with pytest.raises(InvalidRewardError, match="already"):
        adapter(from_trl(lengths))


# ------------------------------------------------------------------ TRL's own


@pytest.fixture(scope="module")
def trl_rewards():
    return pytest.importorskip("trl.rewards", reason="trl is not installed")


def answers(*texts, **columns):
    return [
        episode("?", text, stop=True, columns={name: values[i] for name, values in columns.items()})
        for i, text in enumerate(texts)
    ]


def test_think_format_reward(trl_rewards):
    reward = from_trl_chat(trl_rewards.think_format_reward)
    episodes = answers("<think>\nSo.\n</think>\nFour.", "<think>\nSo.\nFour.", "Four.")
    assert score(reward, episodes) == [1.0, 0.0, 0.0]
    assert only_term(reward).name == "think_format_reward"


def test_lengths_and_repetitions(trl_rewards):
    # 10 bytes and the stop token are 11 ids: between 8 and 12, (8 - 11) / 4.
    overlong = trl_rewards.get_soft_overlong_punishment(max_completion_len=12, soft_punish_cache=4)
    repetition = trl_rewards.get_repetition_penalty_reward(ngram_size=1, max_penalty=-1.0)
    episodes = answers("abc", "abcdefghij", "abcdefghijklm")
    for adapter in (from_trl, from_trl_chat):  # both read the ids alone
        assert score(adapter(overlong), episodes) == [0.0, -0.75, -1.0]
        # "hello" and the stop token: 5 different ids of 6.
        assert score(adapter(repetition)) == pytest.approx([0.0, -1 / 6])


def test_accuracy_rewards(trl_rewards):
    pytest.importorskip("math_verify", reason="math-verify is not installed")
    solution = [r"$\frac{1}{3}$", r"$\frac{1}{3}$", "no mathematics"]
    texts = [r"It is $\boxed{\frac{2}{6}}$.", r"It is $\boxed{\frac{1}{2}}$.", r"$\boxed{1}$"]
    episodes = answers(*texts, solution=solution)
    right, wrong, unreadable = score(from_trl_chat(trl_rewards.accuracy_reward), episodes)
    assert (right, wrong) == (1.0, 0.0) and np.isnan(unreadable)  # TRL returns None
    thoughts = answers(*(f"<think>?</think> {text}" for text in texts), solution=solution)
    reasoned = from_trl_chat(trl_rewards.reasoning_accuracy_reward)
    assert score(reasoned, thoughts) == [1.0, 0.0, 0.0]
    assert score(reasoned, episodes[:2]) == [0.0, 0.0]  # the reasoning never ends
    # Ids as long as the maximum: the lower end of the rewards of right answers.
    cosine = from_trl_chat(trl_rewards.get_cosine_scaled_reward(max_len=2))
    assert score(cosine, episodes) == pytest.approx([0.5, -0.5, 0.0])
