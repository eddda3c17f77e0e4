"""Documents: records of any form with the text by which they are judged."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from textenv.files import read_text
from textenv.records import Records, example, placed_records, ranking, short, transcript


class Document(NamedTuple):
    """A record and the text by which it is judged.

    Attributes:
        place: Where it was read, such as "books.jsonl:3".
        record: What is written again.
        text: All that it says.
    """

    place: str
    record: dict[str, Any]
    text: str


def document(record: Mapping[str, Any], place: str = "") -> Document:
    """A record as a document: a `text`, or what a conversation, an example or a ranking says.

    Raises:
        ValueError: It has none of these forms.
    """
    return Document(place, dict(record), _said(record))


def _said(record: Mapping[str, Any]) -> str:
    if isinstance(record.get("text"), str):
        return str(record["text"])
    problems = []
    for read in (_of_ranking, _of_example, _of_prompt):
        try:
            return read(record)
        except ValueError as error:
            problems.append(str(error))
    if "text" in record:
        raise ValueError(f"'text' is {short(record['text'])}, not text")
    raise ValueError(f"the record has no 'text', and is no example: {problems[1]}")


def _of_ranking(record: Mapping[str, Any]) -> str:
    given = ranking(record)
    asked = given["prompt"]
    return "\n\n".join([asked if isinstance(asked, str) else transcript(asked), *given["answers"]])


def _of_example(record: Mapping[str, Any]) -> str:
    said = example(record)
    if said.messages is None:
        return said.prompt + said.answer
    return "\n\n".join(message["content"] for message in said.messages)


def _of_prompt(record: Mapping[str, Any]) -> str:
    prompt = record.get("prompt")
    if not isinstance(prompt, str):
        raise ValueError(f"'prompt' is {short(prompt)}, not text")
    return prompt


def is_page(one: Document) -> bool:
    """Whether it is a running text, and not a conversation, whose lines belong to its form."""
    return isinstance(one.record.get("text"), str)


def read_documents(source: Records) -> list[Document]:
    """The documents of a file or of an object that gives records.

    Args:
        source: A `.txt` file is one document; see `textenv.records.read_records` for the others,
            and `document` for the forms of their records.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: The file or some of its records cannot be read.
    """
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".txt":
        return [document({"text": read_text(source)}, f"{Path(source)}:1")]
    read = placed_records(source, document, "documents")
    return [one._replace(place=place) for place, one in read]
