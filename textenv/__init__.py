"""Token generation as a Gymnasium environment. Never imports torch."""

from gymnasium.vector import AutoresetMode

from textenv.env import TextEnv
from textenv.episode import Episode
from textenv.prompts import FunctionPrompts, ListPrompts, Prompt, PromptSource, load_prompts
from textenv.registration import register_environments
from textenv.starts import Start
from textenv.tokenizers import Tokenizer, load_tokenizer
from textenv.vector import TextVectorEnv
from textenv.worlds import BatchedWorld, Reply, Turn, World

__version__ = "0.2.0.dev0"

__all__ = [
    "AutoresetMode",
    "BatchedWorld",
    "Episode",
    "FunctionPrompts",
    "ListPrompts",
    "Prompt",
    "PromptSource",
    "Reply",
    "Start",
    "TextEnv",
    "TextVectorEnv",
    "Tokenizer",
    "Turn",
    "World",
    "load_prompts",
    "load_tokenizer",
    "register_environments",
]

register_environments()
