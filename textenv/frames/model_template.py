"""The chat template that a model was published with, as a frame.

Such a template renders all messages to one text, each time from the beginning. Here only what is
new is rendered and encoded: an answer's ids stay those that were chosen. On messages that the
template leaves as they are, the ids are those of the template's own rendering of the whole. Some
templates rewrite what was said before (they remove thinking, or trim white space): there the ids
differ, and a `RewrittenHistoryWarning` says so once.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from textenv.errors import FrameError, RewrittenHistoryWarning
from textenv.frames.base import Frame, Message
from textenv.imports import optional
from textenv.tokenizers.base import Tokenizer, stop_tokens_of
from textenv.tokenizers.huggingface import ChatTemplateText

_QUESTION, _ANSWER, _NEXT = "QqUestion", "AanSwer", "NnExt"
"""Messages of which a template cannot know; they show where it puts what."""

_AWKWARD = " a \"b\"\n'c' "
"""A message that templates like to write otherwise."""

_REWRITINGS = {
    "begins earlier answers otherwise than new ones": _ANSWER,
    "removes the thinking of earlier answers": "<think>\nWhy\n</think>\n\nYes.",
    "trims white space around answers": " Yes. ",
}


@dataclass(frozen=True)
class ModelTemplate:
    """The chat template that a model was published with.

    Attributes:
        text: The template.
        forbid_roles: Whether the policy may not choose ids that open another role.
    """

    text: ChatTemplateText
    forbid_roles: bool = True

    @classmethod
    def of(cls, tokenizer: Any, *, forbid_roles: bool = True) -> "ModelTemplate":
        """The template of a tokenizer, ours or of transformers.

        Raises:
            FrameError: It has none.
        """
        text = getattr(tokenizer, "chat_template", None)
        if isinstance(text, str | dict | list):  # of transformers
            text = ChatTemplateText.of(tokenizer)
        if not isinstance(text, ChatTemplateText):
            raise FrameError(
                f"the tokenizer {getattr(tokenizer, 'name', tokenizer)!r} was published without a "
                "chat template: give frame=textenv.frames.ChatTemplate(), with texts of your own, "
                "or set the chat_template of its transformers tokenizer first"
            )
        return cls(text, forbid_roles)

    def frame(
        self,
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]] = (),
        stop_tokens: Sequence[int] | None = None,
    ) -> Frame:
        """The template for an environment with this tokenizer.

        Args:
            tokenizer: The model's.
            tools: Schemas of functions that the assistant may call.
            stop_tokens: Ids that end a turn; None takes the tokenizer's.

        Raises:
            FrameError: The tokenizer cannot encode special tokens, or the template refuses a
                question and an answer.
        """
        return _Published(self, tokenizer, tools, stop_tokens)

    def prompt_tokens(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """Ids of the conversation, up to where the next answer begins.

        Raises:
            FrameError: The template refuses the messages; some take no system message.
        """
        return _opening(self, tokenizer, messages, ())

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, goes_on: bool
    ) -> str:
        """The messages as one text.

        Args:
            messages: The messages.
            tools: Schemas of functions that the assistant may call.
            goes_on: Whether the head of the assistant's next message follows.

        Raises:
            FrameError: The template refuses the messages.
            MissingExtraError: transformers is not installed.
        """
        with optional("transformers", extra="huggingface", purpose="a model's chat template"):
            from transformers.utils.chat_template_utils import render_jinja_template
        try:
            (text,), _ = render_jinja_template(
                [[dict(message) for message in messages]],
                tools=list(tools) or None,
                chat_template=self.text.jinja,
                add_generation_prompt=goes_on,
                **self.text.names,
            )
        except Exception as error:  # of the template's own, of many classes
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise FrameError(
                f"the model's chat template refuses messages of the roles {roles}: {error}"
            ) from error
        return str(text)


@dataclass(frozen=True)
class _Form:
    """What a template writes around messages of one role.

    Attributes:
        before: From behind the answer before them to the first message.
        between: From one to the next; None if the template cannot do it.
        after: From the last to where the next answer begins.
        trims: Whether white space around a message is left out.
        keeps: Whether a message is written as it is, but for that.
    """

    before: str
    between: str | None
    after: str
    trims: bool
    keeps: bool


class _Published(Frame):
    """A `ModelTemplate` for one tokenizer."""

    def __init__(
        self,
        template: ModelTemplate,
        tokenizer: Any,
        tools: Sequence[Mapping[str, Any]],
        stop_tokens: Sequence[int] | None,
    ):
        _check_tokenizer(tokenizer)
        self.template, self._tokenizer, self._tools = template, tokenizer, tools
        self._stops = set(stop_tokens_of(tokenizer) if stop_tokens is None else stop_tokens)
        self._added = tokenizer.added_tokens
        self._forms: dict[str, _Form] = {}
        user = self._form("user")
        ids = tokenizer.encode_marked(user.before, further=True)
        # The first special token behind an answer ends it, also where the tokenizer names another.
        marks = [token for token in ids if token in self._added]
        ends = [token for token in ids if token in self._stops]
        self.end_of_turn = next(iter(ends), marks[0] if len(marks) > 1 else None)
        if self.end_of_turn is not None:
            self._stops.add(self.end_of_turn)
        if template.forbid_roles:
            self.role_tokens = self._heads()
        trimmed = self._written([_AWKWARD, _NEXT])
        self._trims_answers = _AWKWARD not in trimmed and _AWKWARD.strip() in trimmed
        self._warn_of_rewriting()

    def opening(self, messages: Sequence[Message]) -> list[int]:
        return _opening(self.template, self._tokenizer, messages, self._tools)

    def bridge(self, texts: Sequence[str], role: str, stopped: bool) -> list[int]:
        form = self._form(role)
        if form.between is None and len(texts) > 1:
            texts = ["\n".join(texts)]
        if form.trims:
            texts = [text.strip() for text in texts]
        if not form.keeps:
            texts = self._as_written(texts, role, form)
        if _spells_special(self._tokenizer, texts):
            ids = self._tokenizer.encode_marked(form.before, further=True)
            for number, text in enumerate(texts):
                ids += self._tokenizer.encode_further(text)
                last = number == len(texts) - 1
                what = form.after if last else form.between
                ids += self._tokenizer.encode_marked(what, further=True)
        else:
            said = (form.between or "").join(texts)
            whole = form.before + said + form.after
            ids = self._tokenizer.encode_marked(whole, further=True)
        if not stopped:
            return list(ids)
        end = next((place for place, token in enumerate(ids) if token in self._stops), -1)
        return list(ids[end + 1 :])

    def answer(self, text: str) -> list[int]:
        if self._trims_answers:  # as the opening does with the answers of a prompt
            text = text.strip()
        said = self._tokenizer.encode_further(text)
        return [*said, *(() if self.end_of_turn is None else (self.end_of_turn,))]

    # ---------------------------------------------------------------- what the template writes

    def _form(self, role: str) -> _Form:
        """What stands around messages of `role`; found once."""
        if role not in self._forms:
            self._forms[role] = self._find_form(role)
        return self._forms[role]

    def _find_form(self, role: str) -> _Form:
        before, after = self._around(self._behind_answer([_NEXT], role), [_NEXT], role)
        two = [_NEXT + "1x", _NEXT + "2x"]
        try:
            _, between, _ = self._parts(self._behind_answer(two, role), two, role)
        except FrameError:
            between = None
        awkward = self._behind_answer([_AWKWARD], role)
        inside = awkward.removeprefix(before).removesuffix(after)
        trims, keeps = inside == _AWKWARD.strip(), inside == _AWKWARD
        return _Form(before, between, after, trims, keeps or trims)

    def _behind_answer(self, texts: Sequence[str], role: str) -> str:
        """What the template writes behind an answer that messages follow."""
        said = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
        said += [{"role": role, "content": text} for text in texts]
        rendered = self.template.render(said, goes_on=True)
        if rendered.count(_ANSWER) != 1:
            raise FrameError("the model's chat template does not write an earlier answer as it is")
        return rendered.partition(_ANSWER)[2]

    def _parts(self, text: str, contents: Sequence[str], role: str) -> list[str]:
        """What stands before, between and after messages."""
        parts = re.split("|".join(map(re.escape, contents)), text)
        if len(parts) != len(contents) + 1:
            raise FrameError(
                f"the model's chat template has no form for a message of the role {role!r} behind "
                "an answer: use Reply(role='user'), or a ChatTemplate with texts of your own"
            )
        return parts

    def _around(self, text: str, contents: Sequence[str], role: str) -> tuple[str, str]:
        before, *_, after = self._parts(text, contents, role)
        return before, after

    def _as_written(self, texts: Sequence[str], role: str, form: _Form) -> Sequence[str]:
        """Messages as a template writes them that changes them, such as to a string of JSON."""
        written = []
        for text in texts:
            whole = self._behind_answer([text], role)
            written.append(whole.removeprefix(form.before).removesuffix(form.after))
        return written

    # ---------------------------------------------------------------- special tokens

    def _heads(self) -> Sequence[int]:
        """The token that opens another's message behind an answer, for each role."""
        found: dict[int, None] = {}
        for role in ("user", "tool", "system"):
            try:
                before = self._form(role).before
            except FrameError:  # it has no such role
                continue
            ids = self._tokenizer.encode_marked(before, further=True)
            # The first one alone: what follows it may be a mark that answers have too.
            opens = [i for i in ids if i in self._added and i not in self._stops]
            found |= dict.fromkeys(opens[:1])
        return tuple(found)

    def _warn_of_rewriting(self) -> None:
        head = self._written([]).removeprefix(self._written([], goes_on=False))
        done = [
            what
            for what, answer in _REWRITINGS.items()
            if (head if answer == _ANSWER else "") + answer + self._form("user").before
            not in self._written([answer, _NEXT])
        ]
        if done:
            _warn_once(self._tokenizer.name, " and ".join(done))

    def _written(self, said: Sequence[str], *, goes_on: bool = True) -> str:
        """A question and what was said after it, by the assistant first."""
        roles = ("assistant", "user")
        messages = [{"role": "user", "content": _QUESTION}]
        messages += [{"role": r, "content": c} for r, c in zip(roles, said, strict=False)]
        return self.template.render(messages, goes_on=goes_on)


def _check_tokenizer(tokenizer: Any) -> None:
    if not hasattr(tokenizer, "encode_marked"):
        raise FrameError(
            f"the tokenizer {tokenizer.name!r} cannot encode a chat template: a model's template "
            "needs the model's own tokenizer, 'hf:<folder>'"
        )


def _spells_special(tokenizer: Any, texts: Sequence[str]) -> bool:
    return any(special in text for special in tokenizer.special_texts.values() for text in texts)


def _opening(
    template: ModelTemplate,
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
) -> list[int]:
    """Ids of messages and of the head of the assistant's next one."""
    _check_tokenizer(tokenizer)
    ids: list[int]
    contents = [m["content"] for m in messages if isinstance(m.get("content"), str)]
    if not _spells_special(tokenizer, contents):
        ids = tokenizer.encode_marked(template.render(messages, tools, goes_on=True))
        return ids
    # Whatever a message spells, it is text: it is encoded apart from what is around it.
    named: dict[str, str] = {}
    renamed = []
    for message in messages:
        name = f"{_NEXT}{len(named)}x"
        if isinstance(message.get("content"), str):
            named[name] = message["content"]
            message = {**message, "content": name}
        renamed.append(message)
    text = template.render(renamed, tools, goes_on=True)
    first, *pieces = re.split(f"({'|'.join(named)})", text)
    ids = tokenizer.encode_marked(first)
    for piece in pieces:
        if piece in named:
            ids += tokenizer.encode_further(named[piece])
        elif piece:
            ids += tokenizer.encode_marked(piece, further=True)
    return ids


@lru_cache
def _warn_once(name: str, what: str) -> None:
    warnings.warn(
        f"the chat template of {name!r} {what} when the conversation goes on. Here what was said "
        "stays as it was chosen, so later turns read other ids than the template would write",
        RewrittenHistoryWarning,
        stacklevel=2,
    )
