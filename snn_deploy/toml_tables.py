"""Tables of a TOML file, checked against the dataclasses that they fill.

Every refusal is SD104 and names the place, the key and what would be valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from snn_deploy.errors import SnnDeployError


def table(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """The table under a key."""
    value = data.get(key)
    if not isinstance(value, dict):
        raise SnnDeployError(
            "SD104",
            f"a table [{key}] is needed",
            where=where,
            fix="a line with its name in brackets, and its entries below",
        )
    return value


def only(data: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse keys that are not known."""
    unknown = sorted(data.keys() - known)
    if unknown:
        raise SnnDeployError(
            "SD104",
            f"unknown key {unknown[0]!r:.80}",
            where=where,
            fix=f"known keys: {', '.join(sorted(known))}",
        )


def typed(data: dict[str, Any], kind: type, where: str) -> dict[str, Any]:
    """The entries of a table for the fields of a dataclass: which there are, and their types."""
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    only(data, set(known), where)
    for name, declared in known.items():
        if name not in data:
            if declared.default is MISSING:
                needed = (f.name for f in known.values() if f.default is MISSING)
                raise SnnDeployError(
                    "SD104",
                    f"`{name}` is missing",
                    where=where,
                    fix=f"this table needs: {', '.join(needed)}",
                )
            continue
        options = _options(hints[name])
        if not any(_fits(data[name], option) for option in options):
            raise SnnDeployError(
                "SD104",
                f"`{name}` = {shown(data[name])} must be {' or '.join(map(_word, options))}",
                where=where,
            )
    return data


def shown(value: Any) -> str:
    """A value as it may stand in a message: cut, if it is long."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of thousands of digits"


def _options(hint: Any) -> tuple[Any, ...]:
    """What a declared type allows besides None: types, or the texts of a literal."""
    if get_origin(hint) in (Union, UnionType, Literal):
        return tuple(option for option in get_args(hint) if option is not type(None))
    return (hint,)


def _fits(value: Any, option: Any) -> bool:
    if isinstance(option, str):
        return bool(value == option)
    if option is float:
        return type(value) in (int, float)
    if get_origin(option) is Mapping:
        return isinstance(value, dict) and all(type(v) in (int, float) for v in value.values())
    return type(value) is option  # never a tuple: TOML has none


def _word(option: Any) -> str:
    if isinstance(option, str):
        return option
    return "a table of numbers" if get_origin(option) is Mapping else str(option.__name__)
