"""Checks a JSON value against a schema written as plain Python values."""

from __future__ import annotations

from typing import Any

__all__ = ["has_form"]


def has_form(value: object, form: Any) -> bool:
    """Whether a JSON value has a form.

    Args:
        value: As `json.loads` returns it.
        form: A type (`float` stands for integers too, `bool` is no number, `object` is anything);
            or a list of the form of its elements; or a dict with the form of each of its keys, none
            of which may be absent and no other present; or a dict of `str` and the form of all
            values.

    >>> has_form({"id": "a", "sizes": [1, 2.5]}, {"id": str, "sizes": [float]})
    True
    >>> has_form({"id": "a"}, {"id": str, "sizes": [float]}), has_form({"b": None}, {str: int})
    (False, False)
    """
    if isinstance(form, type):
        types = (int, float) if form is float else form
        return isinstance(value, types) and (form in (bool, object) or not isinstance(value, bool))
    if isinstance(form, list):
        return isinstance(value, list) and all(has_form(inner, form[0]) for inner in value)
    if not isinstance(value, dict):
        return False
    if str in form:
        return all(has_form(inner, form[str]) for inner in value.values())
    return value.keys() == form.keys() and all(has_form(value[key], form[key]) for key in form)
