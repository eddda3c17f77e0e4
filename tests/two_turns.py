"""A world whose conversations of two turns are written out by hand."""

from letters import Letters

from textenv import Prompt, Reply, World

A, B, C, D, E, F, STOP, PAD = range(8)


class Echo(World):
    """Begins with the prompt and an e; repeats the first turn with an f, and pays half.

    After the second turn it pays 1 and ends the episode, unless the turn was cut.
    """

    def begin(self, record, rng):
        return f"{record['prompt']}e"

    def reply(self, turn, rng):
        paid, told = (0.5, 1.0)[turn.number - 1], {"heard": turn.text}
        over = turn.number == 2 and turn.finish_reason == "stop"
        return Reply(f"{turn.text}f", reward=paid, terminated=over, info=told)


class InTurn:
    """The prompts c, d, c, ... in the order in which they are asked for: one for each seed."""

    def __init__(self):
        self.numbers = {}

    def draw(self, seeds):
        numbers = [self.numbers.setdefault(int(s), len(self.numbers)) for s in seeds]
        return [Prompt("cd"[number % 2], {"nth": number}) for number in numbers]


def options():
    """A text of 8 places: two for the opening. A turn has one or two tokens."""
    return {
        "world": Echo,
        "prompts": InTurn(),
        "tokenizer": Letters(6, stop=True),
        "max_prompt_tokens": 2,
        "max_new_tokens": 6,
        "max_turn_tokens": 2,
        "min_new_tokens": 1,
        "group_size": 2,
    }


ACTIONS = [(A, A), (STOP, B), (B, A), (STOP, B), (C, C), (A, A)]
"""A step each, a token a row; the same in every autoreset mode."""
