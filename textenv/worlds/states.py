"""The state of an object that belongs to one episode, such as a world or a game."""

from typing import Any, TypeVar

from textenv.errors import WorldError
from textenv.records import short

T = TypeVar("T")


def state_of(thing: Any) -> Any:
    """What its `state_dict` gives, or else a copy of its attributes, if they are plain.

    Plain is what JSON holds as it is: an array, a tuple or a number as a key would come back as
    something else.

    Raises:
        WorldError: They are not plain.
    """
    if hasattr(thing, "state_dict"):
        return thing.state_dict()
    try:
        return _copied(vars(thing))
    except TypeError as error:
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


def _copied(value: Any) -> Any:
    """A copy of something that JSON holds as it is.

    Raises:
        TypeError: It would come back as something else, or not at all.
    """
    kind = type(value)  # exactly: of a class derived from these JSON keeps half
    if value is None or kind in (str, int, float, bool):
        return value
    if kind is list:
        return [_copied(one) for one in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: _copied(one) for key, one in value.items()}
    raise TypeError(f"it would not come back as it is: {short(value)}")
