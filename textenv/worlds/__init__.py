"""Worlds: what answers when the agent has spoken.

An episode with a world is a conversation. The agent chooses one token a step; when its turn ends,
the world is told what was said and returns a `Reply`. The reply's ids are appended in the same
step. They are read like the prompt and never chosen.

`World` is a class with one object for each episode. `BatchedWorld` is one object for all rows, for
partners that answer in batches, such as a network or a server. Text that the world says is encoded
once; ids are never made from text that was made from ids. `TwoPlayerGame` is the rules of a game in
which a policy has the other seat; that policy is `agents.partners`.
"""

from textenv.worlds.base import BatchedWorld, Opening, Reply, Turn, TurnRules, World
from textenv.worlds.games import Outcome, Play, TwoPlayerGame
from textenv.worlds.rows import OneWorldPerEpisode, WorldArgument, checked, load_world, reward_of

__all__ = [
    "BatchedWorld",
    "OneWorldPerEpisode",
    "Opening",
    "Outcome",
    "Play",
    "Reply",
    "Turn",
    "TurnRules",
    "TwoPlayerGame",
    "World",
    "WorldArgument",
    "checked",
    "load_world",
    "reward_of",
]
