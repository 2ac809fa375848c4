"""drpo models"""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from drpo.llm.catalog import entries


@click.command("models")
def command() -> None:
    """List the model names that drpo knows, and what they stand for.

    Any other model is openai/NAME (an OpenAI-compatible server) or vllm/REPO-OR-PATH, with @URL behind it for
    an endpoint: openai/my-model@http://127.0.0.1:8000/v1.
    """
    table = Table()
    for heading in ("name", "stands for", "asked as", "context", "refuses", "note"):
        table.add_column(heading, overflow="fold")
    for entry in entries():
        context = f"{entry.context_tokens:,}" if entry.context_tokens else "-"
        refuses = ", ".join(sorted(entry.refuses)) or "-"
        name = entry.name if entry.provider == "demo" else f"{entry.provider}/{entry.name}"
        table.add_row(entry.alias, name, entry.form, context, refuses, entry.note)
    Console(markup=False, highlight=False).print(table)
