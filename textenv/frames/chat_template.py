"""A conversation as text, and which parts of it the assistant said.

The roles are spelt out in plain text, so that any vocabulary can carry them; only the stop token
behind each answer is special. A person can therefore type a role too. This is good enough for
experiments and for one's own chats; it does not guard a system prompt.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textenv.errors import FrameError
from textenv.frames.base import Frame, Message
from textenv.tokenizers.base import Tokenizer, prompt_frame, stop_tokens_of
from textenv.tokenizers.texts import encode_answer

ROLES = ("system", "user", "assistant", "tool")
FOLLOWS: dict[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant",),
}
"""The roles that may follow each role."""


@dataclass(frozen=True)
class ChatTemplate:
    r"""The text around the messages; `{content}` stands for the message.

    Attributes:
        system: A system message with the text around it.
        user: A person's message with the text around it, up to where the answer begins.
        answer: An answer with the text around it; a stop token follows.
        between: The text between an answer and what follows it.
        tool: What a tool returned with the text around it, up to where the answer begins.

    Raises:
        FrameError: A form of messages lacks `{content}`.

    >>> ChatTemplate().prompt([{"role": "user", "content": "Hello!"}])
    'User: Hello!\nAssistant:'
    """

    system: str = "{content}\n"
    user: str = "User: {content}\nAssistant:"
    answer: str = " {content}"
    between: str = "\n"
    tool: str = "Tool: {content}\nAssistant:"

    def __post_init__(self) -> None:
        for role, form in self._forms.items():
            if "{content}" not in form:
                raise FrameError(
                    f"the form of {role} messages is {form!r}, which has no place for the message: "
                    "write {content} where it goes"
                )

    def pieces(self, messages: Sequence[Mapping[str, str]]) -> list[tuple[str, bool]]:
        """The conversation in pieces of text, and whether each is an answer.

        Args:
            messages: Each has a `role` (system, user, assistant or tool) and a `content`.

        Raises:
            ValueError: A message has another form or role, or the roles do not take turns.
        """
        pieces: list[tuple[str, bool]] = []
        last: str | None = None
        for number, message in enumerate(messages, start=1):
            role, content = message.get("role"), message.get("content")
            if role not in ROLES or not isinstance(content, str):
                raise ValueError(
                    f"message {number} has the role {role!r} and the content {content!r}: the role "
                    f"must be one of {', '.join(ROLES)}, the content text"
                )
            if message.get("tool_calls"):
                raise ValueError(
                    f"message {number} has 'tool_calls', for which these texts have no form: write "
                    "the call into the 'content'"
                )
            if role not in FOLLOWS[last]:
                raise ValueError(
                    f"message {number} has the role {role!r} and follows {last or 'nothing'}: "
                    f"its role must be {' or '.join(FOLLOWS[last])}"
                )
            form = self._forms[role]
            before = self.between if last == "assistant" else ""
            pieces.append((before + form.replace("{content}", content), role == "assistant"))
            last = role
        return pieces

    @property
    def _forms(self) -> dict[str, str]:
        return {
            "system": self.system,
            "user": self.user,
            "assistant": self.answer,
            "tool": self.tool,
        }

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The conversation as text, up to where the next answer begins."""
        return "".join(text for text, _ in self.pieces(messages))

    def prompt_tokens(
        self, messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer
    ) -> list[int]:
        """The same as ids, with the stop token behind each answer, as in training."""
        return encode_pieces(self.pieces(messages), tokenizer)[0]

    def frame(
        self,
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]] = (),
        stop_tokens: Sequence[int] | None = None,
    ) -> Frame:
        """The template for an environment with this tokenizer.

        Args:
            tokenizer: Encodes the texts.
            tools: Schemas of functions, which go into a system message, one a line.
            stop_tokens: Ids that end a turn; None takes the tokenizer's.
        """
        return _SpeltOut(self, tokenizer, tools, stop_tokens)


class _SpeltOut(Frame):
    """A `ChatTemplate` for one tokenizer. Roles are plain text: no id alone can open one."""

    def __init__(
        self,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]],
        stop_tokens: Sequence[int] | None,
    ):
        self.template, self._tokenizer = template, tokenizer
        self._tools = "\n".join(json.dumps(schema) for schema in tools)
        ends = stop_tokens_of(tokenizer) if stop_tokens is None else stop_tokens
        self.end_of_turn = next(iter(ends), None)

    def opening(self, messages: Sequence[Message]) -> list[int]:
        messages = list(messages)
        if self._tools:
            first = messages.pop(0)["content"] + "\n" if _begins_with_system(messages) else ""
            messages.insert(0, {"role": "system", "content": first + self._tools})
        try:
            return self.template.prompt_tokens(messages, self._tokenizer)
        except ValueError as error:
            raise FrameError(str(error)) from error

    def bridge(self, texts: Sequence[str], role: str, stopped: bool) -> list[int]:
        template, content = self.template, "\n".join(texts)
        form = {
            "user": template.user,
            "tool": template.tool,
            "system": template.system + template.user.partition("{content}")[2],
        }[role]
        said = template.between + form.replace("{content}", content)
        end = [] if stopped or self.end_of_turn is None else [self.end_of_turn]
        return [*end, *encode_answer(self._tokenizer, said)]

    def answer(self, text: str) -> list[int]:
        said = encode_answer(self._tokenizer, self.template.answer.replace("{content}", text))
        return said if self.end_of_turn is None else [*said, self.end_of_turn]


def _begins_with_system(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[0].get("role") == "system"


def encode_pieces(
    pieces: Sequence[tuple[str, bool]], tokenizer: Tokenizer
) -> tuple[list[int], list[bool]]:
    """Ids of all pieces, and which of them belong to answers, their stop tokens included.

    The first piece is encoded as the environment encodes prompts, and each of the others as what
    goes on from them. If the tokenizer frames prompts, the text before the first answer is framed.
    """
    encoded = [
        (encode_answer(tokenizer, text) if number else tokenizer.encode(text), is_answer)
        for number, (text, is_answer) in enumerate(pieces)
    ]
    for piece, is_answer in encoded:
        if is_answer and tokenizer.stop_token is not None:
            piece.append(tokenizer.stop_token)
    before, after = prompt_frame(tokenizer)
    first = [is_answer for _, is_answer in [*encoded, ([], True)]].index(True)
    encoded.insert(first, ([*after], False))
    encoded.insert(0, ([*before], False))
    ids = [token for piece, _ in encoded for token in piece]
    return ids, [is_answer for piece, is_answer in encoded for _ in piece]
