"""What a reward sees: ids exactly as they were chosen, and the text of the answer alone."""

import numpy as np
import pytest
from environments import single, vector

from textenv.tokenizers import load_tokenizer, train_bpe


def collect(**arguments):
    """An environment whose reward keeps its episodes, and the list of those."""
    episodes = []

    def keep(given):
        episodes.extend(given)
        return [0.0] * len(given)

    return single(reward=keep, **arguments), episodes


def test_all_fields_after_a_stop():
    env, episodes = collect(prompts=[{"prompt": "2+2=", "answer": "4"}], max_new_tokens=5)
    env.reset(seed=0)
    for action in (52, 33, 256):
        *_, info = env.step(action)
    (episode,) = episodes
    assert episode.prompt == "2+2=" and episode.prompt_tokens.tolist() == [50, 43, 50, 61]
    assert episode.tokens.tolist() == [52, 33, 256] and episode.tokens.dtype == np.int64
    assert episode.text == info["text"] == "4!" and episode.finish_reason == "stop"
    assert episode.columns == {"answer": "4"}
    assert episode.tokenizer is env.tokenizer


def test_no_stop_token_is_forged_when_the_budget_ends():
    env, episodes = collect(max_new_tokens=2)
    env.reset(seed=0)
    env.step(65)
    observation, *_ = env.step(66)
    assert episodes[0].tokens.tolist() == [65, 66] and episodes[0].finish_reason == "length"
    assert observation[2:].tolist() == [65, 66] and episodes[0].text == "AB"


def test_the_stop_token_stays_in_the_observation():
    """Padding is another id than the stop token, which a learner must see to learn to stop."""
    env, _ = collect(max_new_tokens=3)
    env.reset(seed=0)
    observation, *_ = env.step(256)
    assert observation.tolist() == [120, 62, 256, 257, 257]
    assert env.pad_token == 257 and env.observation_space.high.max() == 257


def test_any_stop_token_is_left_out_of_the_text():
    env, episodes = collect(stop_tokens=[46, 33])
    env.reset(seed=0)
    for action in (65, 256, 33):  # 256 stops nothing here
        env.step(action)
    assert episodes[0].text == "A" and episodes[0].tokens.tolist() == [65, 256, 33]


def test_an_empty_answer():
    env, episodes = collect()
    env.reset(seed=0)
    *_, info = env.step(256)
    assert episodes[0].text == info["text"] == "" and episodes[0].tokens.tolist() == [256]


def splits(tokenizer, word):
    """`word` as the tokenizer writes it, and in one token a byte."""
    return tokenizer.encode(word), [
        token for byte in word.encode() for token in tokenizer.encode(chr(byte))
    ]


@pytest.mark.parametrize("kind", ["own", "gpt2"])
def test_ids_make_no_round_trip_through_text(request, kind):
    """ "h" "e" "l" "l" "o" is not turned into "hello", though the text is the same."""
    if kind == "gpt2":
        request.getfixturevalue("tiktoken_files")
        tokenizer = load_tokenizer("gpt2")
    else:
        tokenizer = train_bpe(["hello hello hello"] * 3, 261)
    merged, split = splits(tokenizer, "hello")
    assert len(merged) < len(split) == 5
    for ids in (merged, split):
        env, episodes = collect(
            tokenizer=tokenizer, max_prompt_tokens=5, max_new_tokens=len(ids), prompts=["x"]
        )
        env.reset(options={"tokens": split})
        for token in ids:
            observation, *_ = env.step(token)
        assert episodes[0].tokens.tolist() == ids and episodes[0].text == "hello"
        assert episodes[0].prompt_tokens.tolist() == split and episodes[0].prompt == "hello"
        assert observation.tolist() == split + ids


def test_room_for_a_prompt_of_split_ids():
    """Kept apart from the test above: the room is that of the longest prompt, in ids."""
    env, _ = collect(prompts=["x", {"tokens": [1] * 9}], max_new_tokens=2)
    assert env.observation_space.shape == (11,)


def test_episodes_of_one_step_come_in_one_call_and_in_the_order_of_the_rows():
    calls = []

    def reward(episodes):
        calls.append([e.text for e in episodes])
        return [float(len(e.text)) for e in episodes]

    envs = vector(4, reward=reward, max_new_tokens=2, stop_tokens=[46])
    envs.reset(seed=0)
    envs.step([46, 65, 46, 66])
    rewards = envs.step([67, 67, 46, 46])[1]
    assert calls == [["", ""], ["AC", "", "B"]]
    assert rewards.tolist() == [0.0, 2.0, 0.0, 1.0]


def test_an_episode_outlives_the_row_it_came_from():
    env, episodes = collect(max_prompt_tokens=2, max_new_tokens=1)
    for prompt, action in (("ab", 65), ("cd", 66)):
        env.reset(options={"prompt": prompt})
        env.step(action)
    assert [e.prompt_tokens.tolist() for e in episodes] == [[97, 98], [99, 100]]
    assert [e.tokens.tolist() for e in episodes] == [[65], [66]]


def test_text_is_decoded_once_and_only_if_asked_for():
    tokenizer = load_tokenizer("bytes")
    decoded = []

    class Counting(type(tokenizer)):
        def decode(self, ids):
            decoded.append(list(ids))
            return super().decode(ids)

    env = single(
        tokenizer=Counting(), reward=lambda es: [len(e.text) for e in es], max_new_tokens=2
    )
    env.reset(seed=0)
    env.step(65)
    assert decoded == []
    env.step(66)
    assert decoded == [[65, 66]]  # for the reward and the info together
