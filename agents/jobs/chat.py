"""The job of `textenv chat`: lines from the terminal, answered one by one."""

import difflib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from agents.commands.chat import ChatSettings
from agents.evaluation.safety import profanity_words, refuse_toxic
from agents.feedback.from_people.chat_log import ChatLog
from agents.jobs.begin import begin_with
from agents.jobs.classifiers import own_classifier
from agents.jobs.conversation import Chat, Continuation, Sampling, Talker, Voice
from agents.jobs.environments import chat_template_named, rules_of
from agents.jobs.evaluate import folder_names
from agents.jobs.machine import device_named, to_machine
from agents.jobs.outputs import check_folder
from agents.jobs.side_by_side import SideBySide
from agents.runs.streaming import visible
from policies.templates import template_of
from textenv.errors import OptionError, PromptError
from textenv.frames import ChatTemplate
from textenv.tools import Tools

COMMANDS = {
    "/help": "shows this",
    "/reset": "forgets the conversation",
    "/exit": "ends, and so does Ctrl-D; Ctrl-C stops an answer",
}
CHOICES = {
    "/1": "the first of the two answers was better",
    "/2": "the second was better; the conversation goes on with it",
    "/=": "both were as good",
}
"""Commands of a chat with --beside; with --log they are kept."""

FEEDBACK = {
    "/good": "the last answer was good",
    "/bad": "the last answer was bad",
    "/fix": "and what the last answer should have been, behind it",
}
"""Commands of a chat with --log."""

UNTAUGHT = (
    "This policy has learned from no dialogue, so it continues each text as it is. If it has, take "
    "--dialogue."
)


def run(settings: ChatSettings) -> None:
    """Talk until the input ends.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    answers, talk_options = settings.answers, settings.conversation
    if talk_options.plain and talk_options.system is not None:
        raise OptionError("--plain knows no roles: leave --system out")
    chosen = [name for name in ("plain", "dialogue", "frame") if getattr(talk_options, name)]
    if len(chosen) > 1:
        flags = " and ".join(f"--{name}" for name in chosen)
        raise OptionError(f"{flags} exclude each other: leave one of them out")
    if talk_options.classifier is not None and talk_options.refuse_above is None:
        raise OptionError("--classifier refuses nothing by itself: give --refuse-above too")
    device_named(settings.machine.device)
    guard = None
    if talk_options.refuse_above is not None:
        classifier = own_classifier(talk_options) or profanity_words()
        guard = refuse_toxic(classifier, talk_options.refuse_above)
    one = _talker(settings, answers.folder, guard)
    talker: Talker = one
    if talk_options.beside is not None:
        names = folder_names([answers.folder, talk_options.beside])
        if len(names) < 2:
            raise OptionError(
                f"--beside {talk_options.beside} is the same policy: name another one"
            )
        other = _talker(settings, talk_options.beside, guard)
        if isinstance(one, Chat) != isinstance(other, Chat):
            raise OptionError(
                "one of the two policies has learned from dialogues and the other has not: take "
                "--plain, or --dialogue if both have"
            )
        talker = SideBySide(dict(zip(names, (one, other), strict=True)), settings.machine.seed)
    log = None
    if talk_options.log is not None:
        if isinstance(_first(talker), Continuation):
            raise OptionError(
                "--log keeps conversations, and a text that is continued is none: leave it out"
            )
        check_folder(talk_options.log, "--log")
        log = ChatLog(talk_options.log)
    print("/help lists the commands.")
    talk(talker, log)


def _talker(
    settings: ChatSettings, folder: Path, guard: Callable[[str], str] | None
) -> Chat | Continuation:
    """What answers with the policy in `folder`.

    Raises:
        TextEnvError: The policy cannot be used with the options.
    """
    answers, talk_options = settings.answers, settings.conversation
    tools = Tools(talk_options.tools) if talk_options.tools else None
    policy = to_machine(begin_with(folder, answers.stop, answers.no_bos), settings.machine)
    longest = answers.max_new_tokens or max(policy.context // 2, 1)
    voice = Voice(
        policy,
        Sampling(
            longest,
            answers.temperature,
            answers.top_k,
            answers.top_p,
            **rules_of(answers, policy, longest),
        ),
        np.random.default_rng(settings.machine.seed),
        guard,
    )
    template = ChatTemplate() if talk_options.dialogue else template_of(policy)
    if talk_options.frame is not None:
        template = chat_template_named(talk_options.frame, policy)
    if not (talk_options.plain or template is None):
        return Chat(voice, template, talk_options.system, tools=tools)
    if tools is not None:
        raise OptionError(
            "--tools are told and answered by a chat template: leave --plain out, or name a "
            "textenv.frames.ChatTemplate of yours as --frame file.py:template"
        )
    if talk_options.system is not None:
        raise OptionError(
            f"the policy in {folder} has learned from no dialogue and knows no roles: "
            "leave --system out, or take --dialogue if it has"
        )
    if not talk_options.plain:
        print(UNTAUGHT)
    return Continuation(voice)


def talk(talker: Talker, log: ChatLog | None = None) -> None:
    """Read lines and answer them until /exit or the end of the input.

    Args:
        talker: What answers.
        log: Is told what the person says of the answers; the talker chats then.
    """
    commands = COMMANDS if log is None else {**COMMANDS, **FEEDBACK}
    if isinstance(talker, SideBySide) and isinstance(talker.first, Chat):
        commands = {**commands, **CHOICES}
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text == "/exit":
            return
        if text == "/reset":
            talker.reset()
        elif text == "/help":
            print("\n".join(f"{name:8}{what}" for name, what in commands.items()))
        elif log is not None and text.partition(" ")[0] in FEEDBACK:
            chat = _first(talker)
            assert isinstance(chat, Chat)
            print(noted(chat, log, text))
        elif text in CHOICES and text in commands:
            assert isinstance(talker, SideBySide)
            print(chosen(talker, log, text))
        elif text[:1] == "/" and (near := difflib.get_close_matches(text, commands, 1, 0.75)):
            print(f"There is no {text}; did you mean {near[0]}?")
        elif text:
            try:
                talker.answer(text, lambda piece: print(visible(piece), end="", flush=True))
            except PromptError as error:  # the next one may fit
                print(error, end="")
            except KeyboardInterrupt:
                pass
            print()


def noted(chat: Chat, log: ChatLog, text: str) -> str:
    """Keep what a person says of the last answer; returns what to tell them."""
    command, _, correction = text.partition(" ")
    if not chat.messages or chat.messages[-1]["role"] != "assistant":
        return "There is no answer yet."
    system = [] if chat.system is None else [{"role": "system", "content": chat.system}]
    messages = [*system, *chat.messages]
    if command == "/good":
        log.like(messages)
    elif command == "/bad":
        log.dislike(messages)
    elif not correction.strip():
        return "Write the better answer behind /fix."
    else:
        log.correct(messages, correction.strip())
        # The conversation goes on as it should have been.
        chat.messages[-1] = {"role": "assistant", "content": correction.strip()}
    return "Noted."


def chosen(pair: SideBySide, log: ChatLog | None, text: str) -> str:
    """Note which of the last two answers was better; returns what to tell the person."""
    asked = pair.asked
    if asked is None:
        return "There are no two answers to the same messages."
    if log is not None:
        ranks = {"/1": (1, 2), "/2": (2, 1), "/=": (1, 1)}[text]
        answers = [answer.strip() for answer in pair.answers]  # as messages are kept
        log.rank(asked, answers, ranks, list(pair.talkers))
    if text == "/2":
        pair.go_on_with_the_second()
    pair.answers = []
    return "Noted."


def _first(talker: Talker) -> Talker:
    """Whose conversation goes on."""
    return talker.first if isinstance(talker, SideBySide) else talker
