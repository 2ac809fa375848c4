"""The conversation of `drpo chat` on a terminal: what is typed, what is shown."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import click

from drpo.commands.running import tell
from drpo.commands.terminal import line_of, print_table, safe, styled
from drpo.errors import DrpoError, InputError
from drpo.jsonl import write_atomically
from drpo.rewriting.contract import REASONS
from drpo.use.asking import Using, using
from drpo.use.chatting import Conversation
from drpo.use.plan import UsePlan

_COMMANDS = {
    "/shots": "print the examples that stand before this conversation",
    "/system": "print the system prompt",
    "/reset": "begin a new conversation",
    "/save FILE": "write the conversation as JSON",
    "/with ALIGNMENT": "answer with both from now on, side by side; /with alone ends that",
    "/help": "print this",
    "/quit": "leave (Ctrl-D too)",
}


class ChatRoom:
    """Reads queries and commands, and shows answers. make: the plan of another alignment by its name."""

    def __init__(
        self,
        runner: asyncio.Runner,
        stack: contextlib.AsyncExitStack,
        ready: Using,
        make: Callable[[str], UsePlan],
        environment: Mapping[str, str],
    ) -> None:
        self._runner, self._stack, self._make, self._environment = runner, stack, make, environment
        self._own = Conversation(ready)
        self._other: Conversation | None = None

    def talk(self, source: TextIO) -> None:
        """Until the input ends, or /quit."""
        for line in _typed(source):
            text = line.strip()
            if not text:
                continue
            if text == "/quit":
                return
            try:
                if text.startswith("/"):
                    self._command(text)
                elif self._other is None:
                    self._answer(text)
                else:
                    self._answer_both(text, self._other)
            except KeyboardInterrupt:
                click.echo("\n(stopped; what came so far is kept)", err=True)
            except DrpoError as error:
                click.echo(f"drpo: {safe(str(error))}", err=True)

    def _answer(self, query: str) -> None:
        is_told = bool(self._own.turns)

        async def work() -> None:
            nonlocal is_told
            async with contextlib.aclosing(self._own.say(query)) as words:
                async for word in words:
                    if not is_told:
                        _tell_rewrite(self._own)
                    is_told = True
                    click.echo(safe(word), nl=False)

        try:
            self._runner.run(work())
        finally:
            click.echo()
        if self._own.cut_short:
            tell("(cut at the limit of tokens: --base-max-tokens)")

    def _answer_both(self, query: str, other: Conversation) -> None:
        from rich.table import Table

        async def whole(conversation: Conversation) -> str:
            async with contextlib.aclosing(conversation.say(query)) as words:
                return "".join([word async for word in words])

        async def work() -> list[str]:
            return list(await asyncio.gather(whole(self._own), whole(other)))

        is_first = not self._own.turns
        answers = self._runner.run(work())
        if is_first:
            _tell_rewrite(self._own)
        table = Table(show_lines=True)
        for conversation in (self._own, other):
            table.add_column(safe(conversation.using.plan.subject.name), ratio=1, overflow="fold")
        table.add_row(*map(safe, answers))
        print_table(table)

    def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        match name:
            case "/shots":
                self._print_shots()
            case "/system":
                click.echo(safe(self._own.using.plan.subject.system_prompt))
            case "/reset":
                for conversation in filter(None, (self._own, self._other)):
                    conversation.reset()
                tell("a new conversation")
            case "/save":
                self._save(rest.strip())
            case "/with":
                self._compare(rest.strip())
            case "/help":
                for command, meaning in _COMMANDS.items():
                    click.echo(f"{command:<16}{meaning}")
            case _:
                raise InputError(f"{name}: no such command; /help lists them")

    def _print_shots(self) -> None:
        shown = self._own.shown()
        if not shown:
            why = "none are shown" if self._own.shots is not None else "they are chosen for the first query"
            tell(f"no examples: {why}")
        for number, shot in enumerate(shown, 1):
            click.echo(f"{styled(f'{number}. {safe(shot.query)}', bold=True)}\n{safe(shot.response)}\n")

    def _save(self, name: str) -> None:
        if not name:
            raise InputError("/save: expected the name of a file")
        path = Path(name).expanduser()
        if path.exists():
            raise InputError(f"/save {name}: there is such a file and nothing is written over; name another")
        write_atomically(path, self._own.as_json())
        tell(f"written: {path}")

    def _compare(self, name: str) -> None:
        if not name:
            self._other = None
            tell(f"answers of {self._own.using.plan.subject.name} alone")
            return
        plan = self._make(name)
        ready = self._runner.run(self._stack.enter_async_context(using(plan, self._environment, tell)))
        self._other = Conversation(ready)
        if self._own.turns:
            self._own.reset()
            tell("a new conversation, so that both begin alike")


def _tell_rewrite(conversation: Conversation) -> None:
    """How the first query was put to the model, where a rewriter stands before it."""
    rewrite = conversation.rewrite
    if rewrite is None or not (rewrite.is_changed or rewrite.kept):
        return
    said = (
        f"read as: {line_of(rewrite.text)}" if rewrite.is_changed else f"as it was: {REASONS[rewrite.kept]}"
    )
    click.secho(f"({said})", err=True, dim=not os.environ.get("NO_COLOR"))


def _typed(source: TextIO) -> Iterator[str]:
    """Line by line: at a terminal with editing and history, else as they come."""
    if not source.isatty():
        yield from source
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() then edits, and keeps a history
    while True:
        try:
            yield input("> ")
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:  # what was typed is dropped
            click.echo()
