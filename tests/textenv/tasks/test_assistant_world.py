"""The assistant's world as an environment."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from textenv import TextVectorEnv
from textenv.errors import WorldError
from textenv.frames import ChatTemplate
from textenv.tasks import assistant
from textenv.testing import check_text_env
from textenv.tokenizers import load_tokenizer

BY_NAME = {
    "world": "textenv.tasks.assistant:AssistantWorld",
    "frame": ChatTemplate(),
    "tokenizer": "bytes",
    "max_prompt_tokens": 256,
    "max_turns": 4,
    "max_turn_tokens": 60,
    "max_new_tokens": 700,
    "stop_strings": ["\n"],
}


def played(prompts, answer):
    """Rewards of the turns of each dialogue, in which `answer(dialogue, number)` is said."""
    envs = TextVectorEnv(
        len(prompts), prompts=[assistant.world_record(d) for d in prompts], **BY_NAME
    )
    tokenizer = load_tokenizer("bytes")
    starts = {"prompt": [assistant.world_record(d) for d in prompts]}
    envs.reset(seed=0, options=starts)
    said = [[] for _ in prompts]
    rewards_of = [[] for _ in prompts]
    done = np.zeros(len(prompts), bool)
    for row, dialogue in enumerate(prompts):
        said[row] = list(tokenizer.encode(answer(dialogue, 0) + "\n"))
    turn = [0] * len(prompts)
    while not done.all():
        actions = [row.pop(0) if row else 0 for row in said]
        _, rewards, terminated, truncated, _ = envs.step(np.array(actions))
        for row in np.flatnonzero(~done):
            if not said[row]:
                rewards_of[row].append(float(rewards[row]))
                turn[row] += 1
                if not terminated[row]:
                    said[row] = list(tokenizer.encode(answer(prompts[row], turn[row]) + "\n"))
        done |= terminated | truncated
    return rewards_of


@pytest.mark.parametrize("language", ["en", "zh"])
def test_references_are_paid_in_every_turn(language):
    kinds = ["follow_sum", "follow_person", "follow_list", "follow_word"]
    prompts = assistant.dialogues(language, "held_out", 8, 0, kinds)
    paid = played(prompts, lambda d, n: " " + d.exchanges[n].reference)
    assert paid == [[1.0] * len(d.exchanges) for d in prompts]
    wrong = played(prompts, lambda d, n: " x")
    assert wrong == [[0.0] * len(d.exchanges) for d in prompts]


def test_it_keeps_all_rules_of_an_environment():
    shortest = sorted(
        assistant.dialogues("zh", "training", 60, 0, ["follow_word"]),
        key=lambda dialogue: len(str(dialogue.messages())),
    )
    small = {"max_prompt_tokens": 64, "max_turn_tokens": 2, "max_new_tokens": 60}
    prompts = [assistant.world_record(dialogue) for dialogue in shortest[:2]]
    check_text_env(partial(TextVectorEnv, 2, prompts=prompts, **BY_NAME | small))


@pytest.mark.parametrize("language", ["english_questions", "chinese_questions"])
def test_it_is_made_by_name(language):
    prompts = f"textenv.tasks.assistant:{language}"
    envs = gym.make_vec("textenv/Generate-v0", num_envs=4, prompts=prompts, **BY_NAME)
    first, _ = envs.reset(seed=1)
    again, _ = envs.reset(seed=1)
    other, _ = envs.reset(seed=2)
    assert (first == again).all() and not np.array_equal(first, other)
    envs.close()


def test_a_prompt_without_a_dialogue_is_refused():
    envs = TextVectorEnv(1, prompts=["Hello."], **BY_NAME)
    with pytest.raises(WorldError, match="world_record"):
        envs.reset(seed=0)
