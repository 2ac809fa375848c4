"""Renders the prompt templates. Text of models, users and files goes in as values and stays what it is."""

from __future__ import annotations

import functools
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from drpo.errors import InputError
from drpo.resources import resource_folder
from drpo.types import Aspect

ASPECTS_FILE = "aspects.toml"
_EVALUATED = ("query", "response", "evaluation", "history")
VARIABLES: dict[str, tuple[str, ...]] = {  # what each job's template is given, and no other may be used in it
    "choose_aspects": ("query", "aspects", "fewest", "most"),
    "evaluate": ("query", "response", "aspects", "reasoning"),
    "improve_system_prompt": (*_EVALUATED, "system_prompt", "protected", "most_bullets", "most_new_bullets"),
    "improve_response": _EVALUATED,
    "repair": ("problem",),
    "respond_text": ("system_prompt", "shots", "query"),
    "respond_chat": (),
}
JOBS = tuple(VARIABLES)
CHAT_MACROS = ("system", "user", "assistant")
# What jinja2 and the Python operations inside a template raise.
UNUSABLE = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


@dataclass(frozen=True, slots=True)
class AspectBook:
    """The known aspects by name, in file order, and the fixed set of `--reward static`."""

    aspects: tuple[Aspect, ...]
    static: tuple[Aspect, ...]


class TemplateFolder:
    """The templates of `folder`/`inside` and whatever other files belong to them; what it lacks comes from
    the shipped ones.

    Each file is read once, so that what is rendered, told by its digest and copied into a run is one text.
    Templates can for that reason not include others. All of them are checked here, before the first call: an
    `InputError` names the file and, in a template, the line. variables: job -> what its template is given.
    """

    def __init__(
        self, folder: Path | None, inside: str, variables: Mapping[str, Sequence[str]], *others: str
    ) -> None:
        shipped, own = resource_folder("prompts") / inside, None if folder is None else folder / inside
        self._inside = f"{inside}/" if inside else ""
        self._folders = [shipped] if own is None or not own.is_dir() else [own, shipped]
        names = [f"{job}.j2" for job in variables]
        refuse_misnamed(self._folders[0], names)
        self._sources = {name: read_source(self.path(name)) for name in (*names, *others)}
        self._jobs = {job: self._load(job, tuple(given)) for job, given in variables.items()}

    def render(self, job: str, **values: object) -> str:
        """The text of one job. A template that cannot be filled with `values` is an `InputError`."""
        try:
            return self._jobs[job].render(**values)
        except UNUSABLE as error:
            given = ", ".join(sorted(values))
            raise InputError(f"{self.path(job + '.j2')}: {error} (given: {given})") from error

    def render_macro(self, job: str, macro: str, *values: str) -> str:
        """The text of one macro of a job, such as `system` of `respond_chat`."""
        if len(values) == 1 and (around := plain_macro(self._sources[f"{job}.j2"], macro)) is not None:
            return values[0].join(around)
        try:
            return str(getattr(self._jobs[job].module, macro)(*values))
        except UNUSABLE as error:
            raise InputError(f"{self.path(job + '.j2')}: macro {macro!r}: {error}") from error

    def digests(self) -> dict[str, str]:
        """`inside`/FILE -> first 16 hex digits of the SHA-256 of its text, for the record of a run."""
        return {
            self._inside + name: hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
            for name, text in self._sources.items()
        }

    def source(self, name: str) -> str:
        """The text of a file, without mark and carriage returns."""
        return self._sources[name]

    def path(self, name: str) -> Path:
        """Where a file is read from."""
        return next((f / name for f in self._folders if (f / name).is_file()), self._folders[-1] / name)

    def _load(self, job: str, variables: tuple[str, ...]) -> jinja2.Template:
        path = self.path(f"{job}.j2")
        try:
            return compiled(self._sources[path.name], variables)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"{path}:{error.lineno}: {error.message}") from error


class Templates:
    """The seven templates and the aspects of one folder, read and checked as a `TemplateFolder` is."""

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise InputError(f"--prompts: expected a folder with templates (*.j2), {folder} is none")
        self._files = TemplateFolder(folder, "", VARIABLES, ASPECTS_FILE)
        for macro in CHAT_MACROS:
            self.render_macro("respond_chat", macro, "")
        self.book = self._load_aspects()

    def render(self, job: str, **values: object) -> str:
        """The text of one job. A template that cannot be filled with `values` is an `InputError`."""
        return self._files.render(job, **values)

    def render_macro(self, job: str, macro: str, *values: str) -> str:
        """The text of one macro of a job, such as `system` of `respond_chat`."""
        return self._files.render_macro(job, macro, *values)

    def digests(self) -> dict[str, str]:
        """File name -> first 16 hex digits of the SHA-256 of its text, for the record of a run."""
        return self._files.digests()

    def source(self, name: str) -> str:
        """The text of a template file or of the aspects file, without mark and carriage returns."""
        return self._files.source(name)

    def _load_aspects(self) -> AspectBook:
        path = self._files.path(ASPECTS_FILE)
        try:
            data = tomllib.loads(self._files.source(ASPECTS_FILE))
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path}: expected TOML: {error}") from error
        defined = data.get("aspects")
        if not isinstance(defined, dict) or len(defined) < 2:
            raise InputError(
                f'{path}: expected a table [aspects] with at least two lines name = "definition"'
            )
        for name, definition in defined.items():
            if not isinstance(definition, str) or not definition.strip() or not name.strip():
                raise InputError(
                    f"{path}: aspect {name!r}: expected a definition in quotes, came {definition!r}"
                )
        aspects = {name: Aspect(name, definition) for name, definition in defined.items()}
        static = data.get("static", list(aspects))
        if not isinstance(static, list) or not static or not all(isinstance(name, str) for name in static):
            raise InputError(f"{path}: static: expected a list of names from [aspects], came {static!r}")
        unknown = [name for name in static if name not in aspects]
        if unknown:
            raise InputError(f"{path}: static names {unknown[0]!r}, which [aspects] does not define")
        return AspectBook(tuple(aspects.values()), tuple(aspects[name] for name in dict.fromkeys(static)))


@functools.lru_cache(maxsize=4 * len(JOBS))
def compiled(source: str, variables: tuple[str, ...]) -> jinja2.Template:
    """The template that `source` is; compiling takes longer than all that is done with it in a small run.

    Raises jinja2.TemplateSyntaxError where it is none, or uses what is not among `variables`.
    """
    # Templates may come from a folder that somebody else has made: none reaches what its values are made of.
    env = _environment()
    try:
        tree = env.parse(source)
        code = env.compile(env.parse(source))  # compiling changes its tree
    except jinja2.TemplateSyntaxError as error:
        raise jinja2.TemplateSyntaxError(f"not a jinja2 template: {error.message}", error.lineno) from error
    for named in tree.find_all(
        (jinja2.nodes.Extends, jinja2.nodes.Include, jinja2.nodes.Import, jinja2.nodes.FromImport)
    ):
        raise jinja2.TemplateSyntaxError(
            "expected a template that stands alone, found one that names another", named.lineno
        )
    unknown = jinja2.meta.find_undeclared_variables(tree) - {*variables, *env.globals}
    if unknown:
        name = min(unknown)
        lines = [node.lineno for node in tree.find_all(jinja2.nodes.Name) if node.name == name]
        known = ", ".join(variables) or "none, only the parameters of its macros"
        raise jinja2.TemplateSyntaxError(
            f"unknown variable {name!r}; this template is given: {known}", min(lines)
        )
    return jinja2.Template.from_code(env, code, dict(env.globals))


@functools.lru_cache(maxsize=64)
def plain_macro(source: str, macro: str) -> tuple[str, ...] | None:
    """What stands around the one parameter of a macro, wherever it is put down; None where the macro, or the
    file beside its macros, does more than that. Joining takes a tenth of a template's time."""
    nodes = [node for node in _environment().parse(source).body if not isinstance(node, jinja2.nodes.Output)]
    macros = [node for node in nodes if isinstance(node, jinja2.nodes.Macro)]
    named = [node for node in macros if node.name == macro and len(node.args) == 1 and not node.defaults]
    if len(named) != 1 or len({node.name for node in macros}) != len(nodes):
        return None
    around = [""]
    for node in named[0].body:
        for part in node.nodes if isinstance(node, jinja2.nodes.Output) else [node]:
            if isinstance(part, jinja2.nodes.TemplateData):
                around[-1] += part.data
            elif isinstance(part, jinja2.nodes.Name) and part.name == named[0].args[0].name:
                around.append("")
            else:
                return None
    return tuple(around)


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # prompts are plain text, not markup
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(json=_json, fenced=fenced)
    return env


def refuse_misnamed(folder: Path, names: Sequence[str]) -> None:
    """Nothing, if every template directly in `folder` is one of `names`."""
    for path in sorted(folder.glob("*.j2")):
        if path.name not in names:
            raise InputError(f"{path}: no template has this name; expected {', '.join(names)}")


def read_source(path: Path) -> str:
    """The text of a file in UTF-8, without mark and carriage returns."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a text file in UTF-8: {error}") from error


def fenced(text: object, label: str) -> str:
    """`text` between two marks that it cannot contain: `<label-xxxxxxxx>` and `</label-xxxxxxxx>`.

    The eight digits are from the digest of the text, so that the same request stays the same request, and
    no text can name its own mark.
    """
    body, salt = str(text), 0
    while True:
        digits = hashlib.sha256(f"{salt}:{body}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
        if f"{label}-{digits}" not in body:
            return f"<{label}-{digits}>\n{body}\n</{label}-{digits}>"
        salt += 1


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
