"""The job of `textenv chat`: lines from the terminal, answered one by one."""

import numpy as np

from agents.commands.chat import ChatSettings
from agents.evaluation.safety import profanity_words, refuse_toxic
from agents.jobs.conversation import Chat, Continuation, Sampling, Talker, Voice
from agents.jobs.machine import device_named, to_machine
from agents.runs.streaming import visible
from policies import load_policy
from textenv.errors import OptionError, PromptError


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
    device_named(settings.machine.device)
    policy = to_machine(load_policy(answers.folder), settings.machine)
    longest = answers.max_new_tokens or max(policy.context // 2, 1)
    limit = talk_options.refuse_above
    voice = Voice(
        policy,
        Sampling(longest, answers.temperature, answers.top_k, answers.top_p),
        np.random.default_rng(settings.machine.seed),
        None if limit is None else refuse_toxic(profanity_words(), limit),
    )
    talker: Talker = Continuation(voice)
    if not talk_options.plain:
        talker = Chat(voice, system=talk_options.system)
    print("/reset forgets the conversation, /exit ends it.")
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
        elif text:
            try:
                talker.answer(text, lambda piece: print(visible(piece), end="", flush=True))
            except PromptError as error:  # the next one may fit
                print(error, end="")
            except KeyboardInterrupt:
                pass
            print()
