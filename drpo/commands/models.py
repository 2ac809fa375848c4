"""drpo models"""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from drpo.commands import models_serve
from drpo.commands.terminal import print_json, print_table
from drpo.llm.catalog import GPU_MEMORY_GB, CatalogEntry, entries

LEAST_WIDTH = 160
"""Below it rich would cut names; so a narrow terminal, or a pipe, gets longer lines than it is wide."""


@click.group("models", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the model names that drpo knows, and what they stand for.

    Any other model is openai/NAME (an OpenAI-compatible server) or vllm/REPO-OR-PATH, with @URL behind it for
    an endpoint: openai/my-model@http://127.0.0.1:8000/v1. Several servers of one model are named together:
    @http://one:8000/v1,http://two:8000/v1.
    """
    if context.invoked_subcommand is None:
        list_models(as_json)


command.add_command(models_serve.command)


def list_models(as_json: bool) -> None:
    """Every alias on stdout, as a table or as one JSON document."""
    if as_json:
        print_json([_row(entry) for entry in entries()])
        return
    table = Table()
    for heading in ("name", "stands for", "asked as", "context", "needs", "refuses", "note"):
        # Names are there to be copied and searched for: never folded or cut, however narrow the terminal is.
        table.add_column(heading, overflow="fold", no_wrap=heading in ("name", "stands for"))
    for entry in entries():
        context = f"{entry.context_tokens:,}" if entry.context_tokens else "-"
        refuses = ", ".join(sorted(entry.refuses)) or "-"
        needs = _needs(entry) or "-"
        table.add_row(entry.alias, _stands_for(entry), entry.form, context, needs, refuses, entry.note)
    print_table(table, LEAST_WIDTH)


def _stands_for(entry: CatalogEntry) -> str:
    return entry.name if entry.provider == "demo" else f"{entry.provider}/{entry.name}"


def _needs(entry: CatalogEntry) -> str:
    """The cards that the weights fill as they are named; nothing for a model that is served elsewhere."""
    if not entry.gpus:
        return ""
    cards = f"{entry.gpus} GPU{'' if entry.gpus == 1 else 's'} of {GPU_MEMORY_GB} GB"
    return f"{cards}, {entry.quantization}" if entry.quantization else cards


def _row(entry: CatalogEntry) -> dict[str, Any]:
    return {
        "name": entry.alias,
        "stands_for": _stands_for(entry),
        "form": entry.form,
        "context_tokens": entry.context_tokens,
        "needs": _needs(entry) or None,
        "refuses": sorted(entry.refuses),
        "note": entry.note,
    }
