"""The state of an object that belongs to one episode, such as a world or a game."""

from typing import Any, TypeVar

from textenv.errors import WorldError
from textenv.prompts import Prompt

T = TypeVar("T")


def state_of(thing: Any) -> Any:
    """What its `state_dict` gives, or else its attributes, if JSON can hold them.

    Raises:
        WorldError: JSON cannot.
    """
    if hasattr(thing, "state_dict"):
        return thing.state_dict()
    try:  # a prompt's columns are saved by the same rules
        return Prompt("", vars(thing)).to_json()["columns"]
    except Exception as error:
        raise WorldError(
            f"{type(thing).__name__} has attributes that JSON cannot hold: give it state_dict() "
            f"and load_state_dict(state); {error}"
        ) from error


def restored(thing: T, state: Any) -> T:
    """The object, with the state that `state_of` gave."""
    if hasattr(thing, "load_state_dict"):
        thing.load_state_dict(state)
    else:
        vars(thing).update(state)
    return thing
