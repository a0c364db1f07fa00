"""Validated settings: frozen pydantic dataclasses, changed field by field by dotted names.

A settings class is defined beside the code that uses it. pydantic converts text from the command
line and checks types, choices and bounds; this module turns its errors into one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

__all__ = ["SETTINGS", "first_fault", "flatten", "with_field"]

S = TypeVar("S")

SETTINGS = ConfigDict(extra="forbid", allow_inf_nan=False)


def first_fault(error: ValidationError) -> str:
    """The first error of a pydantic validation in one line: the field and what is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    what = message[:1].lower() + message[1:]
    if first["type"] == "model_type":
        what = "expected a JSON object"
    return f"{where}: {what}" if where else what


def with_field(settings: S, path: str, value: Any) -> S:
    """Copies settings with one field changed.

    Args:
        settings: A frozen pydantic dataclass, whose fields may be settings themselves.
        path: A field, such as "lr", or a field of nested settings, such as "augment.hflip".
        value: The new value, or text that pydantic converts to it.

    Returns:
        A changed copy.

    Raises:
        ValueError: There is no such field (the nearest name is given), or the value is not allowed
            (what is allowed is given).
    """
    return _changed(settings, path.split("."), value, path)


def flatten(
    values: Mapping[str, Any], is_leaf: Callable[[Mapping[str, Any]], bool] = lambda value: False
) -> dict[str, Any]:
    """Gives the values of nested mappings the dotted names that `with_field` takes.

    Args:
        values: Nested mappings.
        is_leaf: Whether a mapping is a value itself.

    >>> flatten({"lr": 1e-3, "augment": {"hflip": 0.5}})
    {'lr': 0.001, 'augment.hflip': 0.5}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and not is_leaf(value):
            inner = flatten(value, is_leaf)
            flat |= {f"{name}.{field}": found for field, found in inner.items()}
        else:
            flat[name] = value
    return flat


def _changed(owner: Any, path: list[str], value: Any, shown: str) -> Any:
    name, *inner = path
    names = [field.name for field in fields(owner)]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}" if near else f"known are {', '.join(names)}"
        raise ValueError(f"{shown}: no such field; {hint}")
    current = getattr(owner, name)
    if is_dataclass(current):
        if not inner:
            listed = ", ".join(field.name for field in fields(current))
            raise ValueError(f"{shown} has fields of its own: {listed}")
        value = _changed(current, inner, value, shown)
    elif inner:
        raise ValueError(f"{shown}: {name} has no fields")
    elif isinstance(value, bool) and not isinstance(current, bool):  # pydantic would take it for 1
        raise ValueError(f"{shown} is {value}; expected a valid {type(current).__name__}")
    try:
        return replace(owner, **{name: value})
    except ValidationError as error:
        raise ValueError(_describe_error(error, shown)) from None


def _describe_error(error: ValidationError, shown: str) -> str:
    """The first error in one line: the field, its value and what is allowed."""
    first = error.errors()[0]
    allowed = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{shown} is {first['input']!r}; expected {allowed}"
