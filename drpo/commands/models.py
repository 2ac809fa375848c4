"""drpo models"""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from drpo.commands.terminal import print_json, print_table
from drpo.llm.catalog import CatalogEntry, entries


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(as_json: bool) -> None:
    """List the model names that drpo knows, and what they stand for.

    Any other model is openai/NAME (an OpenAI-compatible server) or vllm/REPO-OR-PATH, with @URL behind it for
    an endpoint: openai/my-model@http://127.0.0.1:8000/v1.
    """
    if as_json:
        print_json([_row(entry) for entry in entries()])
        return
    table = Table()
    for heading in ("name", "stands for", "asked as", "context", "refuses", "note"):
        # Names are there to be copied and searched for: never folded, however narrow the terminal is.
        table.add_column(heading, overflow="fold", no_wrap=heading in ("name", "stands for"))
    for entry in entries():
        context = f"{entry.context_tokens:,}" if entry.context_tokens else "-"
        refuses = ", ".join(sorted(entry.refuses)) or "-"
        table.add_row(entry.alias, _stands_for(entry), entry.form, context, refuses, entry.note)
    print_table(table)


def _stands_for(entry: CatalogEntry) -> str:
    return entry.name if entry.provider == "demo" else f"{entry.provider}/{entry.name}"


def _row(entry: CatalogEntry) -> dict[str, Any]:
    return {
        "name": entry.alias,
        "stands_for": _stands_for(entry),
        "form": entry.form,
        "context_tokens": entry.context_tokens,
        "refuses": sorted(entry.refuses),
        "note": entry.note,
    }
