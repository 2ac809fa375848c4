"""Another Python that runs a module of the same drpo, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

_BEGIN = (
    "import sys; from importlib import import_module; "
    "sys.path[:] = sys.argv[2:]; import_module(sys.argv[1]).main()"
)


def can_start() -> bool:
    """Whether there is a Python to start: an application that has one built in is none."""
    executable = sys.executable or ""
    return bool(executable) and "py" in Path(executable).name.lower() and not hasattr(sys, "frozen")


def command_of(module: str) -> list[str]:
    """The command that runs `main` of a module, of the same drpo wherever it was found."""
    return [sys.executable, "-P", "-c", _BEGIN, module, *sys.path]
