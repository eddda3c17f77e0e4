"""Worlds that exist: environments of other libraries, without containers.

Each adapter is an object for `TextVectorEnv(world=...)`. Their libraries are optional, but for
Gymnasium, and are imported when an adapter is made.
"""

from textenv.worlds.adapters.gem_env import GemWorld
from textenv.worlds.adapters.gymnasium_env import GymnasiumWorld, read_number
from textenv.worlds.adapters.openenv_session import OpenEnvWorld
from textenv.worlds.adapters.textarena_game import Partner, Talk, TextArenaWorld, one_by_one
from textenv.worlds.adapters.verifiers_tasks import VerifiersWorld

__all__ = [
    "GemWorld",
    "GymnasiumWorld",
    "OpenEnvWorld",
    "Partner",
    "Talk",
    "TextArenaWorld",
    "VerifiersWorld",
    "one_by_one",
    "read_number",
]
