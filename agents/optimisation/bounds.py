"""Bounds of numeric fields: each stands in its field, and is checked where the value is given.

A field's metadata has `minimum` and `maximum`, which are allowed themselves, `above`, which is not,
or `any_number`. Python checks them when the dataclass is made, the command line when it reads the
line; help and docs say them in the same words. Nothing here imports torch.
"""

import dataclasses
from collections.abc import Mapping
from numbers import Real
from typing import Any

from textenv.errors import OptionError


def bounded(default: Any, **bounds: Any) -> Any:
    """A field with bounds.

    Args:
        default: Its default.
        **bounds: `minimum`, `maximum`, `above`, or `any_number=True`.
    """
    return dataclasses.field(default=default, metadata=bounds)


def metadata_of(cls: type, name: str) -> dict[str, Any]:
    """What a field's metadata says, that of the same field in base classes included.

    A subclass may therefore give a field another default and keep its bounds.
    """
    together: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for field in vars(base).get("__dataclass_fields__", {}).values():
            if field.name == name:
                together |= field.metadata
    return together


def words(metadata: Mapping[str, Any]) -> str:
    """The bounds in words; empty if there are none.

    >>> words({"minimum": 0, "maximum": 1}), words({"above": 0}), words({"above": 0, "maximum": 1})
    ('from 0 to 1', 'more than 0', 'more than 0, at most 1')
    """
    if metadata.get("any_number"):
        return "any number"
    least, above, most = (metadata.get(name) for name in ("minimum", "above", "maximum"))
    if least is not None and above is not None:  # the tighter one counts
        least, above = (least, None) if least > above else (None, above)
    if least is not None and most is not None:
        return f"from {least:g} to {most:g}"
    parts = ((least, "at least"), (above, "more than"), (most, "at most"))
    return ", ".join(f"{word} {bound:g}" for bound, word in parts if bound is not None)


def fits(value: float, metadata: Mapping[str, Any]) -> bool:
    """Whether a number is within its bounds; NaN never is."""
    least, above, most = (metadata.get(name) for name in ("minimum", "above", "maximum"))
    return bool(
        value == value
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
    )


def check_fields(instance: Any) -> None:
    """Refuse a dataclass with a number out of its bounds; for `__post_init__`.

    What is not a number, such as None or a function, is not looked at.

    Raises:
        OptionError: A number is out of its bounds.
    """
    cls = type(instance)
    for field in dataclasses.fields(instance):
        value, metadata = getattr(instance, field.name), metadata_of(cls, field.name)
        if not isinstance(value, Real) or isinstance(value, bool):
            continue
        if not fits(float(value), metadata):
            wanted = words(metadata) or "a number"
            raise OptionError(f"{cls.__name__}: {field.name} is {value}; it must be {wanted}")


@dataclasses.dataclass(frozen=True)
class Checked:
    """Base class of frozen dataclasses whose bounds are checked when one is made.

    Raises:
        OptionError: A field has a number out of its bounds.
    """

    def __post_init__(self) -> None:
        """Refuse numbers out of their bounds."""
        check_fields(self)
