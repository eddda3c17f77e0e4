"""The forms in which people publish examples: conversations, and texts with their continuation.

All forms of a conversation become a list of messages with the roles system, user, assistant and
tool. Which forms there are is in the table of docs/data.md. A record is read by the first form
whose names it has; other names are ignored.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from textenv.records.problems import short

Message: TypeAlias = dict[str, Any]
"""A `role` (system, user, assistant or tool) and a `content`, a text; perhaps more."""

ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "function_call"),
    "tool": ("tool", "function", "function_response", "observation", "ipython"),
}
"""The roles, and what else they are called."""

FORMS_OF_EXAMPLES = (
    "'messages', 'conversations', 'instruction' and 'output', 'question' and 'answer', 'prompt' "
    "and 'response' (or 'completion'), 'input' and 'target', or a 'chosen' dialogue"
)

_ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
_LISTS = ("messages", "conversations", "conversation", "dialog", "data")
_ANSWERS = ("output", "response", "completion", "answer", "target")
_SYSTEMS = ("system", "system_prompt", "meta_instruction")
_INPUTS = ("input", "context")
_PAIRS = (("human", "assistant"), ("question", "answer"), ("user", "assistant"))
"""What the two sides of a whole exchange are called where it is one element of a list."""
_TEXTS = (
    ("inputs_pretokenized", "targets_pretokenized"),
    ("inputs", "targets"),
    ("input", "target"),
)
_SPEAKERS = (r"(?:\n\n|^\s*)(Human|Assistant):", r"\s*### ?(Human|Assistant):")
"""What stands before each message of a dialogue in one text: hh-rlhf's and Guanaco's."""


class Example(NamedTuple):
    """What a record teaches: a conversation, or a prompt and its continuation as they are.

    Attributes:
        messages: The conversation; None if the record has texts.
        prompt: The text to go on from.
        answer: The text that goes on.
    """

    messages: list[Message] | None
    prompt: str = ""
    answer: str = ""


def example(record: Mapping[str, Any]) -> Example:
    """What a record teaches.

    Raises:
        ValueError: It has none of the forms, or no answer.
    """
    said = conversation(record)
    if said is not None:
        if all(message["role"] != "assistant" for message in said):
            raise ValueError("the record has no answer to learn")
        return Example(said)
    if record.get("prompt") is not None:
        name = _first(record, (*_ANSWERS, "chosen")) or "response"
        return Example(None, text_of(record, "prompt"), text_of(record, name))
    for prompt, answer in _TEXTS:
        if prompt in record and answer in record:
            return Example(None, text_of(record, prompt), text_of(record, answer))
    raise ValueError(
        f"the record has neither {FORMS_OF_EXAMPLES}; its keys are {short(list(record))}"
    )


def prompt_and_columns(
    record: Mapping[str, Any],
) -> tuple[str | list[Message], dict[str, Any]] | None:
    """What a record without a `prompt` asks, and its other columns; None if it has no such form.

    A conversation is cut before the answer that ends it, which becomes the column `reference`.

    Raises:
        ValueError: It has a form and something is wrong with it, or it asks nothing.
    """
    said = conversation(record)
    if said is None:
        for prompt, answer in _TEXTS:
            if prompt in record and answer in record:
                columns = {name: value for name, value in record.items() if name != prompt}
                return text_of(record, prompt), columns
        return None
    taken = {"prompt", *_LISTS, "chat", "instruction", "question", *_SYSTEMS}
    taken |= {*_INPUTS, "history"} if "instruction" in record else set()
    columns = {name: value for name, value in record.items() if name not in taken}
    if said[-1]["role"] == "assistant":
        columns.setdefault("reference", said.pop()["content"])
    if not said:
        raise ValueError("the record asks nothing: it has an answer alone")
    if "messages" in record:  # rewards in TRL's conversational form read them
        columns["messages"] = list(said)
    return said, columns


def conversation(record: Mapping[str, Any]) -> list[Message] | None:
    """The conversation in a record, or None if its form is another.

    Raises:
        ValueError: It has the names of a form, but not what belongs there.
    """
    for name in _LISTS:
        # A column `data` or the like may be anything; what is called messages must be some.
        given = record.get(name)
        if isinstance(given, list | tuple) or (given is not None and name in _LISTS[:2]):
            return with_system(record, messages_of(given, name))
    forms = (
        *(_exchanges_of_moss, _conversational, _tree, _instruction, _question, _dialogue),
        _texts_with_system,
    )
    for find in forms:
        said = find(record)
        if said is not None:
            return with_system(record, said)
    return None


# -------------------------------------------------------------------- the forms


def _exchanges_of_moss(record: Mapping[str, Any]) -> list[Message] | None:
    """MOSS: `chat` with `turn_1` and so on, each side between marks of its own."""
    turns = record.get("chat")
    if turns is None:
        return None
    if not isinstance(turns, Mapping) or not turns:
        raise ValueError(f"'chat' is {short(turns)}, not an object of turns")
    said: list[Message] = []
    for name, turn in turns.items():
        for side, role in (("Human", "user"), ("MOSS", "assistant")):
            text = turn.get(side) if isinstance(turn, Mapping) else None
            if not isinstance(text, str):
                raise ValueError(f"the turn {name!r} has no text of {side!r}: {short(turn)}")
            plain = re.sub(r"^\s*<\|\w+\|>:\s*|\s*<eo\w>\s*$", "", text)
            said.append({"role": role, "content": plain})
    return said


def _conversational(record: Mapping[str, Any]) -> list[Message] | None:
    """TRL's conversational forms: lists of messages as prompt and completion, or as chosen."""
    prompt = record.get("prompt")
    before = messages_of(prompt, "prompt") if isinstance(prompt, list | tuple) else None
    if before is None:
        chosen = record.get("chosen")
        return messages_of(chosen, "chosen") if isinstance(chosen, list | tuple) else None
    name = _first(record, (*_ANSWERS, "chosen")) or "completion"
    if isinstance(record.get(name), str):
        return [*before, {"role": "assistant", "content": record[name]}]
    answered = messages_of(record.get(name), name)
    return answered if answered[: len(before)] == before else before + answered


def _tree(record: Mapping[str, Any]) -> list[Message] | None:
    """A tree of OpenAssistant: the path of the replies that people ranked best."""
    if not isinstance(record.get("prompt"), Mapping):
        return None
    said: list[Message] = []
    node = record["prompt"]
    while node is not None:
        said.append(_message(node, len(said) + 1))
        node = min(replies_in_tree(node), key=rank_in_tree, default=None)
    return said


def replies_in_tree(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The replies to a message of OpenAssistant.

    Raises:
        ValueError: They are something else.
    """
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(one, Mapping) for one in replies):
        raise ValueError(f"'replies' is {short(replies)}, not a list of messages")
    return replies


def rank_in_tree(reply: Mapping[str, Any]) -> float:
    """The rank of a reply of OpenAssistant, from 0; replies without one are last."""
    rank = reply.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")


def _instruction(record: Mapping[str, Any]) -> list[Message] | None:
    """Alpaca: `instruction`, perhaps `input` (Dolly: `context`), `history` and `system`."""
    if record.get("instruction") is None:
        return None
    history = record.get("history") or ()
    said = messages_of(history, "history") if history else []
    asked = _asked(record, "instruction", _INPUTS)
    return [*said, asked, *_answer(record, "output")]


def _asked(record: Mapping[str, Any], name: str, about: Sequence[str]) -> Message:
    """What a user asks in a column, with the first of the others that has something in it."""
    more = next((text_of(record, n) for n in about if record.get(n) not in (None, "")), "")
    return {"role": "user", "content": "\n".join(p for p in (text_of(record, name), more) if p)}


def _question(record: Mapping[str, Any]) -> list[Message] | None:
    """A question with its answer, and perhaps the `context` that it is about."""
    named = any(name in record for name in (*_ANSWERS, "chosen"))
    if not isinstance(record.get("question"), str) or not named:
        return None
    about = ("context",) if isinstance(record.get("context"), str) else ()
    return [_asked(record, "question", about), *_answer(record, "answer")]


def _texts_with_system(record: Mapping[str, Any]) -> list[Message] | None:
    """A prompt and its answer as texts, which are messages where a system message is given."""
    if not any(record.get(name) for name in _SYSTEMS):
        return None
    for prompt in ("prompt", *(prompt for prompt, _ in _TEXTS)):
        if isinstance(record.get(prompt), str):
            usual = dict(_TEXTS).get(prompt, "response")
            return [_asked(record, prompt, ()), *_answer(record, usual)]
    return None


def _answer(record: Mapping[str, Any], usual: str) -> list[Message]:
    name = _first(record, (usual, *_ANSWERS, "chosen"))
    if name is None:
        return []
    return [{"role": "assistant", "content": text_of(record, name)}]


def _first(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of the columns that is there, if possible one that is not null."""
    there = [name for name in names if name in record]
    return next((name for name in there if record[name] is not None), next(iter(there), None))


def _dialogue(record: Mapping[str, Any]) -> list[Message] | None:
    """A dialogue as one text, with who speaks: `chosen` of hh-rlhf, `text` of Guanaco."""
    for name in ("chosen", "text"):
        if record.get("prompt") is None and isinstance(record.get(name), str):
            said = human_assistant(record[name])
            if said == []:
                raise ValueError(f"in {name!r}, {short(record[name])}, nobody says anything")
            return said
    return None


def human_assistant(text: str) -> list[Message] | None:
    r"""The messages of a dialogue in one text, or None if it does not begin with who speaks.

    A side that speaks twice has one message. What stands behind the last mark is left out if it is
    empty: there the next answer goes.

    >>> human_assistant("\n\nHuman: Hi!\n\nAssistant: Yes?\n\nHuman: Add 1.\n\nAssistant:")[1:]
    [{'role': 'assistant', 'content': 'Yes?'}, {'role': 'user', 'content': 'Add 1.'}]
    """
    mark = next((mark for mark in _SPEAKERS if re.match(mark, text)), None)
    if mark is None:
        return None
    _, *rest = re.split(mark, text)
    said: list[Message] = []
    for name, content in zip(rest[::2], rest[1::2], strict=True):
        role, content = _ROLE_OF[name.lower()], content.strip()
        if said and said[-1]["role"] == role:
            said[-1]["content"] = f"{said[-1]['content']}\n\n{content}".strip()
        else:
            said.append({"role": role, "content": content})
    return said if said[-1]["content"] else said[:-1]


# -------------------------------------------------------------------- messages


def messages_of(given: Any, name: str) -> list[Message]:
    """A list of turns in any of their forms, as messages; errors call it `name`.

    A turn is a message (`role` or `from`, `content` or `value`), a whole exchange (`human` and
    `assistant`, or a list of two texts), or a text, of the user first and of each side in turn.

    Raises:
        ValueError: It is something else, or empty.
    """
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"{name!r} is {short(given)}, not a list of messages")
    if all(isinstance(turn, str) for turn in given):
        sides = ("user", "assistant")
        return [{"role": sides[i % 2], "content": text} for i, text in enumerate(given)]
    return [message for i, turn in enumerate(given, 1) for message in _turn(turn, i, name)]


def transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    r"""Messages as one text for people to read.

    >>> transcript([{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Yes?"}])
    'User: Hi!\n\nAssistant: Yes?'
    """
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)


def text_of(record: Mapping[str, Any], name: str) -> str:
    """A column that must be a text.

    Raises:
        ValueError: It is missing, or is not one.
    """
    value = record.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is {short(value)}, not text")
    return value


def _turn(turn: Any, number: int, name: str) -> Iterator[Message]:
    if isinstance(turn, list | tuple) and len(turn) == 2:
        turn = dict(zip(_PAIRS[0], turn, strict=True))
    if not isinstance(turn, Mapping):
        raise ValueError(f"{name!r} has {short(turn)} as turn {number}, which is no message")
    for pair in _PAIRS:
        if all(isinstance(turn.get(side), str) for side in pair):
            yield {"role": "user", "content": turn[pair[0]]}
            yield {"role": "assistant", "content": turn[pair[1]]}
            return
    yield _message(turn, number)


def _message(turn: Mapping[str, Any], number: int) -> Message:
    names = {"role": ("role", "from"), "content": ("content", "value", "text")}
    found = {k: next((n for n in some if n in turn), some[0]) for k, some in names.items()}
    role, content = turn.get(found["role"]), _text_of_parts(turn.get(found["content"]))
    if not isinstance(role, str) or role.lower() not in _ROLE_OF or not isinstance(content, str):
        raise ValueError(
            f"message {number} has the role {short(role)} and the content {short(content)}: the "
            f"role must be one of {', '.join(_ROLE_OF)}, the content text"
        )
    extra = ("name", "tool_call_id", "tool_calls")
    more = {name: turn[name] for name in extra if turn.get(name) is not None}
    return {"role": _ROLE_OF[role.lower()], "content": content, **more}


def _text_of_parts(content: Any) -> Any:
    """The text of a content in parts, as OpenAI's messages may have it; others as they are."""
    if not isinstance(content, list) or not content:
        return content
    parts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "".join(texts) if len(texts) == len(content) else content


def with_system(record: Mapping[str, Any], said: list[Message]) -> list[Message]:
    """The messages behind the system message that stands in a column of its own."""
    name = next((n for n in _SYSTEMS if record.get(n)), None)
    if name is None or (said and said[0]["role"] == "system"):
        return said
    return [{"role": "system", "content": text_of(record, name)}, *said]
