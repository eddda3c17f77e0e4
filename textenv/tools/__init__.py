"""Tools: Python functions that a model calls in its text.

`TextVectorEnv(..., tools=[calculator])` makes a conversation of it. `Tools` makes such a world with
other settings, and `from_trl_environment` makes one from an environment class of TRL.
"""

from textenv.tools.calculator import calculator
from textenv.tools.calls import Call, Parser, fenced_json, find_calls, python_calls, tagged_json
from textenv.tools.description import describe
from textenv.tools.python import PythonRunner, run_python
from textenv.tools.schema import function_schema
from textenv.tools.search import Search
from textenv.tools.trl import from_trl_environment
from textenv.tools.world import CallResult, Tools, ToolWorld, calls_of

__all__ = [
    "Call",
    "CallResult",
    "Parser",
    "PythonRunner",
    "Search",
    "ToolWorld",
    "Tools",
    "calculator",
    "calls_of",
    "describe",
    "fenced_json",
    "find_calls",
    "from_trl_environment",
    "function_schema",
    "python_calls",
    "run_python",
    "tagged_json",
]
