"""Prompts of encoder-decoders are framed; nothing else is."""

import copy
import pickle

import pytest
from letters import Letters

from textenv import TextVectorEnv
from textenv.errors import TokenizerError
from textenv.tokenizers import (
    BytesTokenizer,
    HuggingFaceTokenizer,
    SourceTokenizer,
    encode_prompt,
    prompt_frame,
)


def test_prompts_are_framed_and_texts_are_not():
    plain = Letters(5)
    tokenizer = SourceTokenizer(plain, before=[3], after=[2, 4])
    assert encode_prompt(tokenizer, "ab") == [3, 0, 1, 2, 4]
    assert encode_prompt(plain, "ab") == tokenizer.encode("ab") == [0, 1]
    assert (tokenizer.separator, prompt_frame(tokenizer)) == (4, ((3,), (2, 4)))
    assert prompt_frame(plain) == ((), ())
    assert tokenizer.decode([0, 1, 4]) == "abe"
    assert SourceTokenizer(Letters(3, stop=True)).frame == ((), (3,))


def test_the_fingerprint_knows_the_frame():
    prints = [
        tokenizer.fingerprint
        for tokenizer in (
            BytesTokenizer(),
            SourceTokenizer(BytesTokenizer()),
            SourceTokenizer(BytesTokenizer(), before=[1]),
        )
    ]
    assert len(set(prints)) == 3
    for same in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        assert same(SourceTokenizer(BytesTokenizer())).fingerprint == prints[1]


def test_an_environment_frames_its_prompts_and_nothing_else():
    envs = TextVectorEnv(
        2,
        prompts=["ab", "c"],
        reward=lambda episodes: [float(len(episode.text)) for episode in episodes],
        tokenizer=SourceTokenizer(Letters(4, stop=True)),
        max_new_tokens=3,
    )
    observations, _ = envs.reset(options={"prompt": ["ab", "c"]})
    assert observations.tolist() == [[0, 1, 4, 5, 5, 5], [2, 4, 5, 5, 5, 5]]
    envs.step([3, 3])
    _, rewards, terminated, _, _ = envs.step([4, 0])
    assert rewards.tolist() == [1.0, 0.0] and terminated.tolist() == [True, False]


def real_tokenizers():
    transformers = pytest.importorskip("transformers")
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁b", "c"]
    t5 = transformers.T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=1)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "Ġ", "Ġa"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return t5, transformers.BartTokenizer(vocab=vocabulary, merges=[("Ġ", "a")])


def test_the_frame_is_what_transformers_tokenizers_add():
    for own, frame in zip(real_tokenizers(), [([], [1]), ([0], [2])], strict=True):
        made = HuggingFaceTokenizer(own)
        assert made.special_frame() == frame
        text = "a b a </s>"  # whose last word is text, in a prompt too
        prompt = encode_prompt(SourceTokenizer(made, *frame), text)
        assert prompt.count(made.stop_token) == 1 and prompt[-1] == made.stop_token
        assert encode_prompt(SourceTokenizer(made, *frame), "a b") == own("a b").input_ids
    plain = pytest.importorskip("tokenizers")
    model = plain.models.WordLevel({"a": 0, "b": 1}, unk_token="b")
    assert HuggingFaceTokenizer(plain.Tokenizer(model)).special_frame() == ([], [])


def test_frames_that_cannot_be_told_from_a_source():
    with pytest.raises(TokenizerError, match=r"no stop token to end a prompt.*after="):
        SourceTokenizer(Letters(3))
    with pytest.raises(TokenizerError, match="the separator 2 stands at other places"):
        SourceTokenizer(Letters(3), before=[2], after=[1, 2])
