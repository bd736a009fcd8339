"""Values of a config checked against the types of the classes they are for.

Hydra instantiates whatever it is given; a word in place of a number would come up much later,
and as something else.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_class

from unierase.errors import UserError, invalid_choice

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def check_types(config: Mapping[str, Any], name: str = "") -> None:
    """Raise a UserError for the first value that does not fit the class named by `_target_`.

    config: a resolved config as plain containers. Classes that are no dataclasses, and options
    whose type is itself a class, are left to their constructors.
    """
    hints = _option_types(config.get("_target_"))
    for key, value in config.items():
        option = f"{name}.{key}" if name else key
        if hints is not None and not key.startswith("_"):
            if key not in hints:
                raise invalid_choice(name, key, sorted(hints))
            expected = _expected(hints[key])
            if expected and not any(_fits(value, one) for one in expected):
                words = [word for one in expected if (word := _word(one))]
                raise UserError(f"{option}={value}: give {' or '.join(words)}")
        if isinstance(value, Mapping):
            check_types(value, option)


def _option_types(target: Any) -> dict[str, Any] | None:
    if not isinstance(target, str):
        return None
    cls = get_class(target)
    if not dataclasses.is_dataclass(cls):
        return None
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def _expected(hint: Any) -> tuple[Any, ...]:
    """The alternatives of ``hint``; none where one of them is not a plain value."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    alternatives = typing.get_args(hint) if union else (hint,)
    return alternatives if all(_word(one) is not None for one in alternatives) else ()


def _word(hint: Any) -> str | None:
    if hint is type(None):
        return "null"
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = _word(typing.get_args(hint)[0])
        return inner and f"a list, each {inner}"
    return _WORDS.get(hint)


def _fits(value: Any, hint: Any) -> bool:
    if hint is type(None):
        return value is None
    if typing.get_origin(hint) is not None:
        inner = typing.get_args(hint)[0]
        return isinstance(value, list) and all(_fits(item, inner) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
