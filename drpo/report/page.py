"""The report: one page that needs nothing but itself, made from what a run directory says."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from drpo.progress import RunState
from drpo.report.charts import examples_chart, level_figures, reward_chart
from drpo.report.facts import Memory, TreeFacts, read_facts
from drpo.report.heat import LOW_BELOW, heat_map
from drpo.report.layout import picture
from drpo.report.scale import count, number, plural
from drpo.report.shown import island, visible
from drpo.report.spending import spent_table
from drpo.report.summary import cards, settings_of, shown, standing, why_unknown
from drpo.report.validated import ValidationPart, validation_part
from drpo.run_view import RunView

if TYPE_CHECKING:
    import jinja2

_TITLE_LENGTH = 90


class Page:
    """Renders reports; the templates are read and compiled once. What a node needs is kept from one
    rendering to the next, so that a run that has grown costs only its new nodes."""

    def __init__(self) -> None:
        self._memory = Memory()
        self._env = _environment()
        folder = files("drpo.report") / "templates"
        self._style = (folder / "report.css").read_text(encoding="utf-8")
        self._script = (folder / "report.js").read_text(encoding="utf-8")

    def preparations(self) -> list[Callable[[], object]]:
        """What the first page would do else, in pieces: the templates are compiled one by one."""
        return [partial(self._env.get_template, name) for name in self._env.list_templates(extensions=["j2"])]

    def render(self, view: RunView, written_s: float | None = None, state: RunState | None = None) -> str:
        """The page. written_s: when, in seconds since 1970, to be said on it. state: how the run stands where
        that is known. Raises InputError where an event is not what drpo writes."""
        from markupsafe import Markup

        # An event of all examples together, as their validation is, belongs to no search.
        view = replace(view, trees=tuple(tree for tree in view.trees if tree.nodes))
        trees = read_facts(view, self._memory)
        policy = (
            "default-src 'none'; "
            f"script-src '{_hash(self._script)}'; style-src '{_hash(self._style)}'; "
            "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        )
        return self._env.get_template("page.html.j2").render(
            _context(view, trees, self._memory, written_s, state),
            policy=Markup(policy),
            style=Markup(self._style),
            script=Markup(self._script),
            data=Markup(_data(view, trees, self._memory)),
        )


def render_report(view: RunView, *, written_s: float | None = None, state: RunState | None = None) -> str:
    """The report of a run as one HTML page. Arguments and errors as `Page.render`."""
    return Page().render(view, written_s, state)


def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("drpo.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,  # markup is another type
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _context(
    view: RunView, trees: Sequence[TreeFacts], memory: Memory, written_s: float | None, state: RunState | None
) -> dict[str, Any]:
    identity = view.identity
    is_prompt = view.command == "optimize"
    return {
        "view": view,
        "name": view.path.name or "run",
        "about": "A search for a system prompt for" if is_prompt else "A search for better examples",
        "base": identity["models"].get("base"),
        "standing": standing(view, trees, state),
        "written": written_s and time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(written_s)),
        "cards": cards(view, trees),
        "validation": _validation(view),
        "trees": trees,
        **(_prompt_parts(view, trees[0], memory) if is_prompt and trees else {}),
        **({} if is_prompt else _example_parts(view, trees, memory)),
        "pictures": [
            {
                "picture": picture(tree),
                "best": tree.best.id if tree.best else 0,
                "subject": tree.subject,
                "title": _title(view, tree),
            }
            for tree in trees
            if tree.nodes
        ],
        "dropped": _dropped(trees),
        "heat": heat_map(trees, memory.queries),
        "low_below": LOW_BELOW,
        "spent": None if view.spent is None else spent_table(view.spent),
        "spent_unknown": why_unknown(view),
        "found_calls": _found_calls(view),
        "models": _words(identity["models"]),
        "embedder": identity["embedder"],
        "settings": settings_of(view),
        "digests": _words(identity["digests"]),
        "versions": _words(view.run.get("versions")),
        "version": _version(),
        "number": number,
        "count": count,
        "plural": plural,
    }


def _validation(view: RunView) -> ValidationPart | None:
    if view.improved is not None:
        return validation_part(view.improved.validation, of_examples=True)
    return validation_part(view.alignment.validation if view.alignment else None)


def _prompt_parts(view: RunView, tree: TreeFacts, memory: Memory) -> dict[str, Any]:
    start = tree.root.text if tree.root else ""
    result = view.alignment.system_prompt if view.alignment else tree.best.text if tree.best else start
    figures = level_figures(tree)
    return {
        "result": result,
        "result_parts": memory.changes(start, result),
        "levels": figures,
        "chart": reward_chart(tree, figures),
    }


def _example_parts(view: RunView, trees: Sequence[TreeFacts], memory: Memory) -> dict[str, Any]:
    improved = {
        tree.subject: memory.changes(tree.root.text, tree.best.text)
        for tree in trees
        if tree.root and tree.best
    }
    return {
        "examples_chart": examples_chart([example.query for example in view.examples], trees),
        "improved": improved,
    }


def _title(view: RunView, tree: TreeFacts) -> str:
    if tree.subject is None:
        return ""
    query = " ".join(view.examples[tree.subject].query.split())
    return query if len(query) <= _TITLE_LENGTH else f"{query[: _TITLE_LENGTH - 1]}…"


def _dropped(trees: Sequence[TreeFacts]) -> list[dict[str, Any]]:
    return [
        {
            "tree": index,
            "number": number,
            "subject": tree.subject,
            "level": tree.by_id[dropped.parent].depth + 2,
            "dropped": dropped,
        }
        for index, tree in enumerate(trees)
        for number, dropped in enumerate(tree.dropped)
    ]


def _found_calls(view: RunView) -> dict[str, int]:
    if view.alignment is not None:
        return view.alignment.found.calls
    return view.improved.calls if view.improved is not None else {}


def _words(values: object) -> dict[str, str]:
    """A table of run.json as text, whatever stands in it."""
    found: Mapping[Any, Any] = values if isinstance(values, dict) else {}
    return {str(name): shown(value) for name, value in found.items()}


def _version() -> str:
    try:
        return version("drpo")
    except PackageNotFoundError:
        return "(not installed)"


def _data(view: RunView, trees: Sequence[TreeFacts], memory: Memory) -> str:
    """What the page's script reads. The nodes are JSON already."""
    shots = {shot for tree in trees for node in tree.nodes for shot in node.shots}
    rows = ",".join(
        f'{{"dropped":{island([dropped.parent for dropped in tree.dropped])},"nodes":['
        + ",".join(memory.fragment(tree.subject, node) for node in tree.nodes)
        + "]}"
        for tree in trees
    )
    head = island(
        {
            "prompts": view.command == "optimize",
            "queries": list(memory.queries),
            "aspects": list(memory.aspects),
            "shots": {str(shot): view.examples[shot].query for shot in sorted(shots)},
        }
    )
    return f'{head[:-1]},"trees":[{rows}]}}'
