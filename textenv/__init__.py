"""Token generation as a Gymnasium environment. Never imports torch."""

from gymnasium.vector import AutoresetMode

from textenv.env import TextEnv
from textenv.episode import Episode
from textenv.prompts import FunctionPrompts, ListPrompts, Prompt, PromptSource, load_prompts
from textenv.registration import register_environments
from textenv.tokenizers import Tokenizer, load_tokenizer
from textenv.vector import TextVectorEnv

__version__ = "0.2.0.dev0"

__all__ = [
    "AutoresetMode",
    "Episode",
    "FunctionPrompts",
    "ListPrompts",
    "Prompt",
    "PromptSource",
    "TextEnv",
    "TextVectorEnv",
    "Tokenizer",
    "load_prompts",
    "load_tokenizer",
    "register_environments",
]

register_environments()
