import pytest

from agents.supervised import ChatTemplate
from textenv.errors import FrameError
from textenv.frames.chat_template import encode_pieces
from textenv.tokenizers import BytesTokenizer, SourceTokenizer

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi {content}"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]


def test_a_conversation_by_hand():
    assert ChatTemplate().pieces(TALK) == [
        ("Be brief.\n", False),
        ("User: Hi {content}\nAssistant:", False),
        (" Hello", True),
        ("\nUser: Bye\nAssistant:", False),
    ]
    assert ChatTemplate().prompt(TALK).endswith("Hello\nUser: Bye\nAssistant:")


def test_ids_have_a_stop_token_behind_each_answer_and_nowhere_else():
    tokenizer = BytesTokenizer()
    ids = ChatTemplate().prompt_tokens(TALK, tokenizer)
    assert ids.count(256) == 1
    assert tokenizer.decode(ids[: ids.index(256)]).endswith("Assistant: Hello")
    assert tokenizer.decode([i for i in ids if i != 256]) == ChatTemplate().prompt(TALK)


def test_what_stands_before_the_first_answer_is_an_encoder_decoders_source():
    tokenizer = SourceTokenizer(BytesTokenizer(), before=[7], after=[8])
    ids, learned = encode_pieces([("a", False), ("b", False), ("c", True), ("d", False)], tokenizer)
    assert ids == [7, 97, 98, 8, 99, 256, 100]
    assert learned == [False] * 4 + [True] * 2 + [False]
    ids = ChatTemplate().prompt_tokens(TALK[:2], tokenizer)
    assert ids[0] == 7 and ids[-1] == 8 and ids.count(8) == 1
    assert ids[1:-1] == ChatTemplate().prompt_tokens(TALK[:2], BytesTokenizer())


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "bot", "content": "x"}], "'bot'"),
        ([{"role": "user", "content": 3}], "content 3"),
        ([{"role": "assistant", "content": "x"}], "follows nothing"),
        ([*TALK[:2], CALL], "message 3 has 'tool_calls', for which these texts have no form"),
        ([{"role": "user", "content": "x"}] * 2, "message 2 has the role 'user' and follows user"),
    ],
)
def test_what_is_no_conversation_is_refused(messages, message):
    with pytest.raises(ValueError, match=message):
        ChatTemplate().pieces(messages)


@pytest.mark.parametrize("role", ["system", "user", "answer", "tool"])
def test_a_form_without_a_place_for_the_message_is_refused(role):
    with pytest.raises(FrameError, match=r"'Q: \{text\}', which has no place for the message"):
        ChatTemplate(**{role: "Q: {text}"})
