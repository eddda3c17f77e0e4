"""The single environment: a vector of one row."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from textenv.infos import row_info
from textenv.spec import SharedRewardSpec
from textenv.starts import Start
from textenv.vector import TextVectorEnv


class TextEnv(gym.Env[NDArray[np.int64], np.int64]):
    """One text that grows by one token at every step.

    It is a view on a `TextVectorEnv` with one row; everything is described there. The arguments are
    the same, without `num_envs`, `group_size` and `autoreset_mode`.

    Args:
        render_mode: None, `"ansi"` (`render` returns the text so far) or `"human"` (each token is
            printed when it is chosen).
        **kwargs: Arguments of `TextVectorEnv`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (declared so by Env)
        "render_modes": ["ansi", "human"],
        "render_fps": 30,
    }
    spec: Any = SharedRewardSpec()

    def __init__(self, *, render_mode: str | None = None, **kwargs: Any):
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"render_mode is {render_mode!r}; it must be None or one of {modes}")
        if rows := {"num_envs", "group_size", "autoreset_mode"} & kwargs.keys():
            raise ValueError(
                f"{', '.join(sorted(rows))} belong to an environment of many rows: make it with "
                "gymnasium.make_vec, or leave them out"
            )
        self._vector = TextVectorEnv(1, **kwargs, autoreset_mode=AutoresetMode.DISABLED)
        self.render_mode = render_mode
        self.action_space = self._vector.single_action_space
        self.observation_space = self._vector.single_observation_space
        self.tokenizer = self._vector.tokenizer
        self.pad_token = self._vector.pad_token
        self.stop_tokens = self._vector.stop_tokens
        self.world = self._vector.world
        self.prompts = self._vector.prompts
        self.max_new_tokens = self._vector.max_new_tokens
        self._shown = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Start a new episode; see `TextVectorEnv.reset`."""
        super().reset(seed=seed)
        observations, infos = self._vector.reset(seed=seed, options=options)
        self._shown = ""
        if self.render_mode == "human":
            self._print_news(is_last=False)
        return observations[0], row_info(infos, 0)

    def step(
        self, action: np.int64 | int
    ) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        """Append one token; see `TextVectorEnv.step`."""
        observations, rewards, terminated, truncated, infos = self._vector.step(
            np.asarray(action)[None]
        )
        if self.render_mode == "human":
            over = bool(terminated[0] or truncated[0])
            self._print_news(is_last=over)
            if over:
                print(f"  [{infos['finish_reason'][0]}, reward {rewards[0]:.3f}]")
        return (
            observations[0],
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            row_info(infos, 0),
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """Which tokens may be chosen next, shape (V,), bool."""
        masks: NDArray[np.bool_] = self._vector.action_masks()[0]
        return masks

    @property
    def answer_rules(self) -> dict[str, Any]:
        """What an answer keeps to, as arguments of `generate`; see `TextVectorEnv.answer_rules`."""
        return self._vector.answer_rules

    @property
    def encodes_replies(self) -> bool:
        """See `TextVectorEnv.encodes_replies`."""
        return self._vector.encodes_replies

    def render(self) -> str | None:
        """The text so far in mode `"ansi"`, else None; mode `"human"` has printed it already."""
        return self._vector.row_text(0) if self.render_mode == "ansi" else None

    def _print_news(self, is_last: bool) -> None:
        """Print the part of the text that is new since the last call."""
        text = self._vector.row_text(0)
        if text.endswith("\ufffd") and not is_last:
            return  # perhaps half a character: wait for the rest of it
        # Some vocabularies rewrite what went before; then the text is shown anew.
        is_longer = text.startswith(self._shown)
        print(text.removeprefix(self._shown) if is_longer else f"\n{text}", end="", flush=True)
        self._shown = text

    def start_of(self, save_world: bool = True) -> Start:
        """The text so far as a start; see `TextVectorEnv.start_of`."""
        return self._vector.start_of(0, save_world)

    def state_dict(self) -> dict[str, Any]:
        """The state of the environment; see `TextVectorEnv.state_dict`."""
        return self._vector.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> NDArray[np.int64]:
        """Continue from a saved state; returns the observation at that point."""
        self._shown = ""
        observation: NDArray[np.int64] = self._vector.load_state_dict(state)[0]
        return observation
