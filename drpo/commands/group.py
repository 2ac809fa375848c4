"""A group of commands that are loaded when they are called, so that help is quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click


class _Lazy(click.Group):
    """`drpo NAME COMMAND` is `command` of the module drpo.commands.NAME_COMMAND."""

    def __init__(self, name: str, text: str, texts: Mapping[str, str]) -> None:
        super().__init__(name, help=text)
        self._texts = dict(texts)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._texts)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._texts:
            return None
        module = importlib.import_module(f"drpo.commands.{f'{self.name}_{cmd_name}'.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._texts.items()))


def lazy_group(name: str, text: str, texts: Mapping[str, str]) -> click.Group:
    """The group `drpo name` with a command per entry of `texts` (name -> what it does)."""
    return _Lazy(name, text, texts)
