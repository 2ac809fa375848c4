"""Real runs of the simulated models for the commands that look at runs, and what becomes of their files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from drpo.api import optimize, optimize_examples
from drpo.data import base_examples, read_examples, write_examples
from drpo.jsonl import encode_line

HOSTILE = "red \x1b[31m bell \x07 turned \u202e </script> [bold]x[/bold] 子\u0301 e\u0301 \ud83d"


def prompt_run(path: Path, **settings: Any) -> Path:
    """A finished `optimize`, of four levels or five; nobody's cache is read."""
    wanted = {"depth": 4, "max_extra_depth": 1, "report": False, "reuse": False, **settings}
    optimize(model="demo", run_dir=path, **wanted)
    return path


def examples_run(path: Path, count: int = 3, **settings: Any) -> Path:
    """A finished `optimize-examples` of the first `count` shipped examples."""
    given = path.with_name(f"{path.name}-given.jsonl")
    write_examples(given, read_examples(base_examples()).examples[:count])
    wanted = {"depth": 2, "report": False, "reuse": False, **settings}
    optimize_examples(model="demo", examples=given, run_dir=path, **wanted)
    return path


def copy_of(run: Path, path: Path, *, without: Iterable[str] = ()) -> Path:
    """A run directory like `run`, without some of its files."""
    shutil.copytree(run, path, ignore=shutil.ignore_patterns(*without))
    return path


def killed(run: Path, path: Path, levels: int) -> Path:
    """The run as it was when its process was killed after so many levels."""
    copy_of(run, path, without=("alignment.json", "result.json", "examples.jsonl"))
    for name in ("examples.jsonl", "queries.jsonl"):  # those of inputs/, which the names above have hit too
        if (run / "inputs" / name).exists():
            shutil.copyfile(run / "inputs" / name, path / "inputs" / name)
    kept: list[str] = []
    for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines(keepends=True):
        if levels == 0:
            kept.append(line[: len(line) // 2])  # torn
            break
        kept.append(line)
        levels -= json.loads(line)["event"] == "level"
    (path / "events.jsonl").write_text("".join(kept), encoding="utf-8")
    if (path / "progress.json").exists():
        change_json(path / "progress.json", lambda data: data.update(state="running", updated_s=1.0))
    return path


def events_of(run: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind, as they stand in the file."""
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def result_of(run: Path) -> dict[str, Any]:
    """What stands in alignment.json."""
    found: dict[str, Any] = json.loads((run / "alignment.json").read_text(encoding="utf-8"))
    return found


def set_progress(run: Path, **values: Any) -> None:
    """Let progress.json say this."""
    change_json(run / "progress.json", lambda data: data.update(values))


def nodes_of(run: Path) -> dict[int, dict[str, Any]]:
    """The nodes of an `optimize` run by their number."""
    return {node["id"]: node for node in events_of(run, "node")}


def kept_node(run: Path) -> dict[str, Any]:
    """The first node whose prompt was kept."""
    return next(node for node in nodes_of(run).values() if node["kept"])


def result_json(run: Path) -> dict[str, Any]:
    """What stands in result.json."""
    found: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return found


def change_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` alter what stands in a JSON file."""
    data = json.loads(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(json.dumps(data), encoding="utf-8")


def change_events(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` alter each event."""
    lines = []
    for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        change(event)
        lines.append(json.dumps(event) + "\n")
    (run / "events.jsonl").write_text("".join(lines), encoding="utf-8")


def write_ledger(run: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Let these be the books of the run."""
    text = "".join(encode_line(line) + "\n" for line in lines)
    (run / "ledger.jsonl").write_text(text, encoding="ascii")


def sent(number: int, role: str, at_most_usd: float | None) -> dict[str, Any]:
    """A request that was sent."""
    about = {"role": role, "model": "openai/some", "at_most_usd": at_most_usd, "again": False}
    return {"kind": "sent", "id": number, **about}


def answered(number: int, usd: float | None) -> dict[str, Any]:
    """Its answer."""
    return {"kind": "answered", "id": number, "usage": [1000, 100, None], "usd": usd, "took_s": 0.5}
