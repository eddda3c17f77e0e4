"""Environments with worlds that are drawn: what hypothesis needs to look for a counter-example."""

from hypothesis import strategies as st

from textenv import Reply, World
from textenv.frames import ChatTemplate
from textenv.tokenizers import CharacterTokenizer

TOKENIZER = CharacterTokenizer("abcdef\n")  # a line break stands between messages of a frame
WRAPPED = ChatTemplate(
    system="{content}f", user="e{content}f", answer="{content}", between="f", tool="f{content}e"
)
texts = st.text("abcd", max_size=4)
rewards = st.integers(-8, 8).map(lambda eighths: eighths / 8)  # which sum exactly


class Drawn(World):
    """Begins with one of `openings`, and replies with one of `replies`, as its numbers say."""

    openings = ("a",)
    replies = (Reply(),)

    def begin(self, record, rng):
        return self.openings[rng.integers(len(self.openings))]

    def reply(self, turn, rng):
        return self.replies[rng.integers(len(self.replies))]


@st.composite
def replies(draw):
    """A reply of no text, one or several, which pays, and now and then ends the episode."""
    said = draw(texts | st.lists(texts, max_size=3).map(tuple))
    end = draw(st.sampled_from(["", "", "", "", "terminated", "truncated"]))
    role = draw(st.sampled_from(["user", "tool", "system"]))
    return Reply(said, draw(rewards), role=role, **{end: True} if end else {})


@st.composite
def environments(draw):
    """Arguments of `TextVectorEnv` or `TextEnv` with a drawn world."""
    members = {
        "openings": draw(st.lists(st.text("abcd", min_size=1, max_size=3), min_size=1, max_size=3)),
        "replies": draw(st.lists(replies(), min_size=1, max_size=4)),
    }
    return {
        "world": type("Drawn", (Drawn,), members),
        "tokenizer": TOKENIZER,
        "frame": draw(st.sampled_from([None, WRAPPED])),
        "stop_strings": draw(st.sampled_from([(), ("ab",), ("c", "dd")])),
        "max_prompt_tokens": 5,  # with the frame's two letters
        "max_new_tokens": draw(st.integers(4, 16)),
        "max_turn_tokens": draw(st.none() | st.integers(1, 4)),
        "max_turns": draw(st.none() | st.integers(1, 3)),
        "min_new_tokens": draw(st.integers(0, 2)),
        "budget": draw(st.sampled_from(["terminate", "truncate"])),
        "reward": draw(st.sampled_from([None, number_of_tokens])),
    }


def number_of_tokens(episodes):
    """A reward of whole episodes beside what the world pays."""
    return [float(len(episode.tokens)) for episode in episodes]
