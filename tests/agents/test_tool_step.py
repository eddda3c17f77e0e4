"""`benchmarks/tool_step.py` in small: what each side plays on a conversation known by heart."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

pytest.importorskip("trl", reason="TRL is one of the benchmarks' peers")
pytest.importorskip("datasets", reason="TRL needs it")

from benchmarks import tool_step, tool_task

SMALL = tool_task.Setting(
    layers=1, width=64, vocab_size=700, steps=200, batch=1, learning_rate=2e-2
)


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory):
    """A model that knows one conversation, its folder and the conversation."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("by_heart")
    own = tool_task.tokenizer(SMALL.vocab_size)
    policy = tool_task.new_policy(SMALL, own)
    (one,) = tool_task.conversations(1, seed=3)
    tool_task.fine_tune(policy, [one] * (SMALL.batch * SMALL.steps), SMALL)
    policy.model.save_pretrained(folder)
    own.save_pretrained(folder)
    return folder, policy, one


def test_a_conversation_of_the_script_is_rewarded():
    for _, (said, told, answer) in tool_task.conversations(5, seed=0):
        assert tool_task.tagged_json(said)[0].name == "add"
        assert told in answer


@pytest.mark.filterwarnings("ignore")  # transformers' and trl's
def test_both_sides_play_the_same(by_heart, monkeypatch):
    folder, policy, (record, (said, told, answer)) = by_heart
    for module in (tool_task, tool_step):
        monkeypatch.setattr(module, "records", lambda count, seed: [record] * count)
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    rows = tool_step.GROUP
    (ours,) = tool_step.textenv_side(folder, 1, rows, torch.float32)()
    (theirs,) = tool_step.trl_side(folder, 1, rows)()
    know = policy.tokenizer
    chosen = len(know.encode_further(said)) + len(know.encode_further(answer)) + 2
    for played in (ours, theirs):
        assert played.episodes == rows
        assert played.two_turns == rows
        assert played.chosen == rows * chosen  # with probability 0.99 for each episode
        assert 0 < played.rollout_seconds < played.seconds
    assert ours.appended == theirs.appended
    assert ours.appended > rows * len(know.encode_further(told))


def test_sides_that_play_something_else_are_refused():
    same = {"two turns": 1.0, "chosen": 60.0}
    tool_step.check_same(same, {"two turns": 0.96, "chosen": 62.0})
    with pytest.raises(RuntimeError, match=r"chosen: 60\.000 and 70\.000"):
        tool_step.check_same(same, same | {"chosen": 70.0})
