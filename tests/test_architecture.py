"""The laws of the house: who may import whom, how long a thing may be, what must not be in it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "drpo"

# A room imports rooms of its own layer and of those above it in this list, lazy imports included. A folder's
# name stands for all of its modules but those that are listed by themselves.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        *("errors", "types", "jsonl", "resources", "text_diff", "run_file", "measured", "statistics"),
        *("bootstrap", "money", "run_log", "another_python", "align_pro.closed_form"),
    ),
    ("events", "llm.base", "templates", "text_files"),
    ("reply_literals", "reply_json", "reply_scores", "parse", "reply_schemas"),
    ("search", "compose", "retrieve", "ask", "judging"),
    ("reward", "transition", "validation"),
    ("problems",),
    (
        "llm",
        "query_rows",
        "data",
        "evaluation_data",
        "config_common",
        "config",
        "config_rewriting",
        "config_bpo",
        "config_align_pro",
        "config_training",
        "config_asking",
        "config_use",
        "config_judging",
        "config_study",
        "settings",
        "alignment",
    ),
    ("choices",),
    ("plan",),
    ("tariffs", "estimate", "tracking"),
    ("live", "wiring", "respond", "over_record"),
    ("validating", "validating_examples"),
    ("searches", "search_events", "example_searches"),
    ("align_pro.rewarding",),
    ("rewriting",),
    ("progress", "results", "run_dir"),
    ("run_view", "run_list", "loading"),
    ("report",),
    ("monitor",),
    ("following",),
    ("run", "replaying"),
    ("measuring",),
    ("align_pro", "bpo", "training"),
    ("use",),
    ("sharing",),
    ("exporting",),
    ("serving",),
    ("studies",),
    ("doctor",),
    ("api", "api_measuring", "api_use", "api_study", "testing", "options"),
    ("cli", "commands"),
    ("__main__",),
    ("",),  # the package itself, whose names are loaded when they are used
)
ROOMS = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}
# Rooms that know less than their layer would let them.
NARROW = {
    "search": {"types", "errors", "search"},
    "llm": {"errors", "types", "jsonl", "llm", "llm.base"},
    "options": {"config"},
}
CLIENTS = {
    *("llm.client", "llm.simulated", "llm.embed", "llm.reward_model", "llm.reward_local", "llm.local_model"),
    *("llm.world", "llm.vllm.server"),
}
HEAVY = (
    *("torch", "sentence_transformers", "transformers", "openai", "vllm", "pydantic", "numpy", "jinja2"),
    "datasets",
)
LONGEST_FILE, LONGEST_FUNCTION = 350, 60

FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_data" not in path.parts
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def room(module: str) -> str:
    """The room of a module: itself or the nearest folder with a place among the layers."""
    while module not in ROOMS and "." in module:
        module = module.rpartition(".")[0]
    return module


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Line and module (without `drpo.`) of each import of our own, wherever in the file it stands."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] != "drpo":
                continue
            inner = name.removeprefix("drpo").removeprefix(".")
            yield node.lineno, inner if inner in FILES else inner.rpartition(".")[0]


EDGES = [(module, line, target) for module in FILES for line, target in imports(module)]


def test_every_module_has_its_place() -> None:
    assert sorted(module for module in FILES if room(module) not in ROOMS) == []


def test_a_room_imports_only_what_stands_before_it() -> None:
    wrong = [
        f"drpo.{module}:{line} imports drpo.{target}"
        for module, line, target in EDGES
        if module and ROOMS[room(target)] > ROOMS[room(module)]
    ]
    assert wrong == []


@pytest.mark.parametrize("narrow", NARROW)
def test_some_rooms_know_even_less(narrow: str) -> None:
    wrong = [
        f"drpo.{module}:{line} imports drpo.{target}"
        for module, line, target in EDGES
        if room(module) == narrow and room(target) not in NARROW[narrow]
    ]
    assert wrong == []


def test_nothing_below_wiring_names_a_concrete_client() -> None:
    wrong = [
        f"drpo.{module}:{line} imports drpo.{target}"
        for module, line, target in EDGES
        if any(target == client or target.startswith(f"{client}.") for client in CLIENTS)
        and room(module) != "llm"
        and ROOMS[room(module)] < ROOMS["live"]
    ]
    assert wrong == []


def test_there_are_no_cycles() -> None:
    wanted = {module: {target for m, _, target in EDGES if m == module} - {module} for module in FILES}
    wanted.pop("")  # loads the others by name when they are used
    while free := [module for module, targets in wanted.items() if not targets & wanted.keys()]:
        for module in free:
            del wanted[module]
    assert wanted == {}


@pytest.mark.parametrize("module", FILES)
def test_no_file_and_no_function_has_two_jobs(module: str) -> None:
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for node in ast.walk(TREES[module]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, f"{module}.{node.name}"


@pytest.mark.parametrize("module", ["drpo", "drpo.cli"])
def test_importing_costs_nothing(module: str) -> None:
    code = f"import {module}, sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert done.stdout.split() == []


def is_broad(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {kind.id if isinstance(kind, ast.Name) else None for kind in kinds}
    return handler.type is None or bool(names & {"Exception", "BaseException"})


@pytest.mark.parametrize("module", FILES)
def test_whoever_catches_everything_raises_again_or_says_why(module: str) -> None:
    lines = FILES[module].read_text(encoding="utf-8").splitlines()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ExceptHandler) and is_broad(node):
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert raises or "noqa: BLE001" in lines[node.lineno - 1], f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", FILES)
def test_no_text_becomes_code(module: str) -> None:
    for node in ast.walk(TREES[module]):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            names = [f"{ast.unparse(node.func)}()"]
        for name in names:
            refused = {
                "pickle",
                "marshal",
                "shelve",
                "dill",
                "eval()",
                "exec()",
                "jinja2.Template()",
                "Template()",
            }
            assert name not in refused, f"{module}:{getattr(node, 'lineno', 0)}: {name}"
            assert not name.endswith(".from_string()"), f"{module}:{getattr(node, 'lineno', 0)}: {name}"


def told_files() -> list[Path]:
    """Every text that is part of the project, but for tests and what is made at work."""
    folders = ("drpo", "prompts", "seeds", "icl_examples", "docs", "benchmarks", ".ci")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    found += [path for ending in ("*.md", "*.toml", "*.txt") for path in ROOT.glob(ending)]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def test_no_text_names_a_machine() -> None:
    needles = [f"/{folder}/" for folder in ("work", "root", "opt")]
    found = [
        f"{path.relative_to(ROOT)}: {needle}"
        for path in told_files()
        for needle in needles
        if needle in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []
