"""Questions through a chat template: what the policy reads, and what counts as its answer."""

import numpy as np
import pytest

from agents.evaluation.asking import Query, Said, ask
from policies import TransformerConfig, TransformerPolicy, generate
from textenv.errors import FrameError, PromptTooLongError, TokenizerError
from textenv.frames import ChatTemplate
from textenv.tokenizers import CharacterTokenizer

TEMPLATE = ChatTemplate(user="?{content}=", answer="{content}")
TOKENIZER = CharacterTokenizer("ab?=\n")


@pytest.fixture
def policy():
    config = TransformerConfig(TOKENIZER.vocab_size, context=24, n_layer=1, n_head=1, n_embd=8)
    return TransformerPolicy(config, tokenizer=TOKENIZER, seed=0)


def said_by(role, text):
    return {"role": role, "content": text}


SHOWN = [said_by("user", "a"), said_by("assistant", "b")]
QUERIES = [
    Query([said_by("user", text)], {"number": 1}, [SHOWN, SHOWN]) for text in ("a", "ab", "bb")
]


def test_it_answers_as_generate_does_behind_the_same_ids(policy):
    ids = [TEMPLATE.prompt_tokens(query.messages, TOKENIZER) for query in QUERIES]
    texts = generate(policy, ids, 6, temperature=0.7, generator=np.random.default_rng(3))
    said = ask(policy, TEMPLATE, QUERIES, max_new_tokens=6, temperature=0.7, seed=3)
    assert [one.text for one in said] == texts
    assert all(one.shots == 0 and 1 <= one.tokens <= 6 for one in said)
    assert said == ask(policy, TEMPLATE, QUERIES, max_new_tokens=6, temperature=0.7, seed=3)


def test_examples_stand_before_the_question_as_far_as_they_fit(policy):
    told = [said_by("user", "a"), said_by("assistant", "b"), said_by("user", "ab")]
    ids = TEMPLATE.prompt_tokens(told, TOKENIZER)
    query = [Query(told[-1:], {}, [SHOWN] * 9)]
    one = ask(policy, TEMPLATE, query, shots=1, max_new_tokens=4, temperature=0.0)
    assert one[0].shots == 1
    assert one[0].text == generate(policy, [ids], 4, temperature=0.0)[0]
    # An example has six ids ("?a=b", a stop token and a line's end), the question four.
    many = ask(policy, TEMPLATE, query, shots=9, max_new_tokens=4, temperature=0.0)
    assert many[0].shots == (24 - 4 + 1 - 4) // 6


def test_the_history_can_be_left_out():
    talk = Query([*SHOWN, said_by("user", "b")], {"number": 2}, [SHOWN])
    assert talk.without_history() == Query([said_by("user", "b")], {"number": 2}, [SHOWN])


def test_a_stop_string_ends_an_answer(policy):
    def spoken(stop_strings):
        return ask(policy, TEMPLATE, QUERIES * 4, stop_strings=stop_strings, max_new_tokens=8)

    free, ended = spoken(()), spoken(("b",))
    assert any("b" in one.text for one in free)
    assert not any("b" in one.text for one in ended)
    assert sum(one.tokens for one in ended) < sum(one.tokens for one in free)


def test_what_cannot_be_asked(policy):
    with pytest.raises(FrameError, match="ChatTemplate"):
        ask(policy, None, QUERIES)
    with pytest.raises(PromptTooLongError, match="prompt 0"):
        ask(policy, TEMPLATE, [Query([said_by("user", "a" * 30)])], max_new_tokens=4)
    policy.tokenizer = None
    with pytest.raises(TokenizerError):
        ask(policy, TEMPLATE, QUERIES)
    assert Said("a", 2).shots == 0
