"""Settings as command-line flags: one field, one flag, nothing written twice."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from pydantic.fields import FieldInfo

from drpo.config import RunConfig, flag

F = TypeVar("F", bound=Callable[..., Any])


def settings_flags(kind: type[RunConfig], names: Collection[str] | None = None) -> Callable[[F], F]:
    """Adds a flag for each setting of `kind`, or for `names`; a flag that is not given arrives as None."""
    fields = {name: kind.model_fields[name] for name in _own_first(kind) if name != "roles"}
    options = [_option(name, field) for name, field in fields.items() if names is None or name in names]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _own_first(kind: type[RunConfig]) -> list[str]:
    """The settings of `kind`, those of its own before those that it shares."""
    order = {cls: place for place, cls in enumerate(kind.__mro__)}

    def place(name: str) -> int:
        return min(place for cls, place in order.items() if name in inspect.get_annotations(cls))

    return sorted(kind.model_fields, key=place)


def _option(name: str, field: FieldInfo) -> Callable[[F], F]:
    kind = _without_none(field.annotation)
    text = (field.description or "") + _default(field)
    if kind is bool:
        return click.option(f"{flag(name)}/--no-{flag(name)[2:]}", name, default=None, help=text)
    if typing.get_origin(kind) is tuple:
        return click.option(flag(name), name, multiple=True, callback=_given_or_none, help=text)
    return click.option(flag(name), name, type=_click_type(kind), default=None, help=text)


def _given_or_none(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    return value or None


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation


def _click_type(kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        return click.Choice(typing.get_args(kind))
    return {int: int, float: float, Path: click.Path(path_type=Path)}.get(kind, str)


def _default(field: FieldInfo) -> str:
    default = field.default
    if field.is_required():
        return "  [required]"
    if default is None or default == () or isinstance(default, bool):
        return ""
    if isinstance(default, tuple):
        default = ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in default)
    return f"  [default: {default}]"
