"""drpo: search for the system prompt and the in-context examples that align a frozen language model.

    import drpo
    result = drpo.optimize(model="demo")
    print(result.alignment.system_prompt)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drpo.alignment import Alignment as Alignment
    from drpo.api import LoadedAlignment as LoadedAlignment
    from drpo.api import load as load
    from drpo.api import optimize as optimize
    from drpo.api import optimize_async as optimize_async
    from drpo.api import optimize_examples as optimize_examples
    from drpo.api import optimize_examples_async as optimize_examples_async
    from drpo.api import replay as replay
    from drpo.config import ExamplesConfig as ExamplesConfig
    from drpo.config import OptimizeConfig as OptimizeConfig
    from drpo.errors import DrpoError as DrpoError
    from drpo.llm.base import LLM as LLM
    from drpo.llm.base import Choice as Choice
    from drpo.llm.base import Completion as Completion
    from drpo.llm.base import Message as Message
    from drpo.llm.base import Request as Request
    from drpo.llm.base import Usage as Usage
    from drpo.replaying import MissingCall as MissingCall
    from drpo.replaying import ReplayReport as ReplayReport
    from drpo.results import ExamplesResult as ExamplesResult
    from drpo.results import OptimizeResult as OptimizeResult
    from drpo.run import Hooks as Hooks

_HOMES = {
    "alignment": ("Alignment",),
    "api": (
        "LoadedAlignment",
        "load",
        "optimize",
        "optimize_async",
        "optimize_examples",
        "optimize_examples_async",
        "replay",
    ),
    "config": ("ExamplesConfig", "OptimizeConfig"),
    "errors": ("DrpoError",),
    "llm.base": ("LLM", "Choice", "Completion", "Message", "Request", "Usage"),
    "replaying": ("MissingCall", "ReplayReport"),
    "run": ("ExamplesResult", "Hooks", "OptimizeResult"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'drpo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"drpo.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
