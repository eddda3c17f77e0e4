"""Records: the files and objects that hold them, the forms that people give them, what is wrong.

`reading` reads them and reports all that cannot be read, `files` knows the formats of files,
`conversations` and `rankings` know the forms of examples, prompts and preferences.
"""

from textenv.records.conversations import (
    FORMS_OF_EXAMPLES,
    Message,
    conversation,
    example,
    human_assistant,
    messages_of,
    prompt_and_columns,
    transcript,
)
from textenv.records.problems import MAX_PROBLEMS_SHOWN, listed, short
from textenv.records.rankings import ranking
from textenv.records.reading import (
    Records,
    parsed,
    placed_records,
    read_files,
    read_lines,
    read_records,
)

__all__ = [
    "FORMS_OF_EXAMPLES",
    "MAX_PROBLEMS_SHOWN",
    "Message",
    "Records",
    "conversation",
    "example",
    "human_assistant",
    "listed",
    "messages_of",
    "parsed",
    "placed_records",
    "prompt_and_columns",
    "ranking",
    "read_files",
    "read_lines",
    "read_records",
    "short",
    "transcript",
]
