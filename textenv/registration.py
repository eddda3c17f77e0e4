"""Names under which `gym.make` and `gym.make_vec` find the environments."""

import gymnasium as gym


def register_environments() -> None:
    """Register `textenv/Generate-v0`, once."""
    if "textenv/Generate-v0" not in gym.registry:
        gym.register(
            id="textenv/Generate-v0",
            entry_point="textenv.env:TextEnv",
            vector_entry_point="textenv.vector:TextVectorEnv",
        )
