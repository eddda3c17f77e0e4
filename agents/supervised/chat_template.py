"""A conversation as text, and which parts of it the assistant said.

The roles are spelt out in plain text, so that any vocabulary can carry them; only the stop token
behind each answer is special. A person can therefore type a role too. This is good enough for
experiments and for one's own chats; it does not guard a system prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textenv import Tokenizer
from textenv.errors import PromptError
from textenv.tokenizers import encode_answer, prompt_frame

ROLES = ("system", "user", "assistant")
FOLLOWS: dict[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
}
"""The roles that may follow each role."""


@dataclass(frozen=True)
class ChatTemplate:
    r"""The text around the messages; `{content}` stands for the message.

    Attributes:
        system: A system message with the text around it.
        user: A person's message with the text around it, up to where the answer begins.
        answer: An answer with the text around it; a stop token follows.
        between: The text between an answer and the next question.

    >>> ChatTemplate().prompt([{"role": "user", "content": "Hello!"}])
    'User: Hello!\nAssistant:'
    """

    system: str = "{content}\n"
    user: str = "User: {content}\nAssistant:"
    answer: str = " {content}"
    between: str = "\n"

    def pieces(self, messages: Sequence[Mapping[str, str]]) -> list[tuple[str, bool]]:
        """The conversation in pieces of text, and whether each is an answer.

        Args:
            messages: Each has a `role` (system, user or assistant) and a `content`.

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
            if role not in FOLLOWS[last]:
                raise ValueError(
                    f"message {number} has the role {role!r} and follows {last or 'nothing'}: "
                    f"its role must be {' or '.join(FOLLOWS[last])}"
                )
            form = {"system": self.system, "user": self.user, "assistant": self.answer}[role]
            before = self.between if last == "assistant" else ""
            pieces.append((before + form.replace("{content}", content), role == "assistant"))
            last = role
        return pieces

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The conversation as text, up to where the next answer begins."""
        return "".join(text for text, _ in self.pieces(messages))

    def prompt_tokens(
        self, messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer
    ) -> list[int]:
        """The same as ids, with the stop token behind each answer, as in training."""
        return encode_pieces(self.pieces(messages), tokenizer)[0]


@dataclass(frozen=True)
class ModelTemplate:
    """The chat template that a model of Hugging Face was published with.

    Attributes:
        tokenizer: A tokenizer of transformers with a `chat_template`.
    """

    tokenizer: Any

    def prompt_tokens(
        self, messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer
    ) -> list[int]:
        """Ids of the conversation, up to where the next answer begins.

        Raises:
            PromptError: The template refuses the messages; some take no system message.
        """
        try:
            ids: list[int] = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        except Exception as error:  # of the template's own, of many classes
            raise PromptError(f"the model's chat template refuses this: {error}") from error
        return ids


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
