"""drpo chat"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from drpo.commands.chat_room import ChatRoom
from drpo.commands.running import introduce, tell
from drpo.config_use import UseConfig
from drpo.measuring.answering import made_for_another
from drpo.options import settings_flags
from drpo.settings import environment, resolve
from drpo.use.asking import using
from drpo.use.plan import UsePlan, use_plan

_HELP = """\b
In the chat: /shots, /system, /reset, /save FILE, /with ALIGNMENT (answers of both, side by side; /with alone
ends that), /help, /quit. Ctrl-C stops an answer, Ctrl-D leaves.
"""


@click.command("chat", epilog=_HELP)
@click.argument("alignment")
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="DRPO_CONFIG", help="TOML file with settings."
)
@settings_flags(UseConfig)
def command(alignment: str, config: Path | None, **flags: Any) -> None:
    """Talk to the model as ALIGNMENT (a run, an alignment file, none or urial) asks it.

    The examples are chosen for the first turn and kept. Lines from a pipe are answered one after the other.
    """
    env = environment()
    settings = resolve(UseConfig, flags, env, config)
    plan = use_plan("chat", alignment, settings, env)
    introduce_chat(plan)
    with asyncio.Runner() as runner:
        runner.run(_begin())
        stack = contextlib.AsyncExitStack()
        try:
            ready = runner.run(stack.enter_async_context(using(plan, env, tell)))
            beside = _at_the_same_model(settings, plan)
            room = ChatRoom(runner, stack, ready, lambda name: use_plan("chat", name, beside, env), env)
            room.talk(sys.stdin)
        finally:
            runner.run(stack.aclose())


def _at_the_same_model(settings: UseConfig, plan: UsePlan) -> UseConfig:
    """The settings by which another alignment is asked beside: at the model that is talked to."""
    known = plan.subject.found_for
    if settings.model is not None or known is None:
        return settings
    return settings.model_copy(update={"model": "demo" if known.startswith("demo/") else known})


async def _begin() -> None:
    """The runner's loop is made with its first task."""


def introduce_chat(plan: UsePlan) -> None:
    """Say on stderr who is talked to."""
    introduce(plan, where=False)
    if (said := made_for_another(plan.subject, plan.choice)) is not None:
        tell(said)
    click.echo("/help says what can be typed; Ctrl-C stops an answer, Ctrl-D leaves.", err=True)
