"""The job of `textenv chat`: lines from the terminal, answered one by one."""

import difflib

import numpy as np

from agents.commands.chat import ChatSettings
from agents.evaluation.safety import profanity_words, refuse_toxic
from agents.jobs.begin import begin_with
from agents.jobs.classifiers import own_classifier
from agents.jobs.conversation import Chat, Continuation, Sampling, Talker, Voice
from agents.jobs.environments import chat_template_named, rules_of, template_of
from agents.jobs.machine import device_named, to_machine
from agents.runs.streaming import visible
from textenv.errors import OptionError, PromptError
from textenv.frames import ChatTemplate
from textenv.tools import Tools

COMMANDS = {
    "/help": "shows this",
    "/reset": "forgets the conversation",
    "/exit": "ends, and so does Ctrl-D; Ctrl-C stops an answer",
}
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
    tools = Tools(talk_options.tools) if talk_options.tools else None
    chosen = [name for name in ("plain", "dialogue", "frame") if getattr(talk_options, name)]
    if len(chosen) > 1:
        flags = " and ".join(f"--{name}" for name in chosen)
        raise OptionError(f"{flags} exclude each other: leave one of them out")
    if talk_options.classifier is not None and talk_options.refuse_above is None:
        raise OptionError("--classifier refuses nothing by itself: give --refuse-above too")
    device_named(settings.machine.device)
    policy = to_machine(begin_with(answers.folder, answers.stop, answers.no_bos), settings.machine)
    longest = answers.max_new_tokens or max(policy.context // 2, 1)
    guard = None
    if talk_options.refuse_above is not None:
        classifier = own_classifier(talk_options) or profanity_words()
        guard = refuse_toxic(classifier, talk_options.refuse_above)
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
    if talk_options.plain or template is None:
        if tools is not None:
            raise OptionError(
                "--tools are told and answered by a chat template: leave --plain out, or name a "
                "textenv.frames.ChatTemplate of yours as --frame file.py:template"
            )
        if talk_options.system is not None:
            raise OptionError(
                f"the policy in {answers.folder} has learned from no dialogue and knows no roles: "
                "leave --system out, or take --dialogue if it has"
            )
        if not talk_options.plain:
            print(UNTAUGHT)
        talker: Talker = Continuation(voice)
    else:
        talker = Chat(voice, template, talk_options.system, tools=tools)
    print("/help lists the commands.")
    talk(talker)


def talk(talker: Talker) -> None:
    """Read lines and answer them until /exit or the end of the input."""
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
            print("\n".join(f"{name:8}{what}" for name, what in COMMANDS.items()))
        elif text[:1] == "/" and (near := difflib.get_close_matches(text, COMMANDS, 1, 0.75)):
            print(f"There is no {text}; did you mean {near[0]}?")
        elif text:
            try:
                talker.answer(text, lambda piece: print(visible(piece), end="", flush=True))
            except PromptError as error:  # the next one may fit
                print(error, end="")
            except KeyboardInterrupt:
                pass
            print()
