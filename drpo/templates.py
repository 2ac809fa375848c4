"""Renders the prompt templates. Text of models, users and files goes in as values and stays what it is."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from drpo.errors import InputError
from drpo.resources import resource_folder
from drpo.types import Aspect

JOBS = (
    "choose_aspects",
    "evaluate",
    "improve_system_prompt",
    "improve_response",
    "repair",
    "respond_text",
    "respond_chat",
)
ASPECTS_FILE = "aspects.toml"


@dataclass(frozen=True, slots=True)
class AspectBook:
    """The known aspects by name, in file order, and the fixed set of `--reward static`."""

    aspects: tuple[Aspect, ...]
    static: tuple[Aspect, ...]


class Templates:
    """The seven templates and the aspects of one folder; what the folder lacks comes from the shipped one."""

    def __init__(self, folder: Path | None = None) -> None:
        shipped = resource_folder("prompts")
        if folder is not None and not folder.is_dir():
            raise InputError(f"--prompts: expected a folder with templates (*.j2), {folder} is none")
        self._folders = [shipped] if folder is None else [folder, shipped]
        self._env = jinja2.Environment(
            loader=jinja2.FileSystemLoader(self._folders, encoding="utf-8"),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # prompts are plain text, not markup
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.filters.update(json=_json, fenced=fenced)
        self._jobs = {job: self._load(job) for job in JOBS}
        self.book = self._load_aspects()

    def render(self, job: str, **values: object) -> str:
        """The text of one job. An unknown variable in the template is an `InputError` that names it."""
        try:
            return self._jobs[job].render(**values)
        except jinja2.TemplateError as error:
            raise InputError(f"{self._path(job + '.j2')}: {error} (given: {', '.join(sorted(values))})") from error

    def render_macro(self, job: str, macro: str, *values: str) -> str:
        """The text of one macro of a job, such as `system` of `respond_chat`."""
        try:
            return str(getattr(self._jobs[job].module, macro)(*values))
        except (jinja2.TemplateError, AttributeError, TypeError) as error:
            raise InputError(f"{self._path(job + '.j2')}: macro {macro!r}: {error}") from error

    def digests(self) -> dict[str, str]:
        """File name -> first 16 hex digits of the SHA-256 of its text, for the record of a run."""
        names = [f"{job}.j2" for job in JOBS] + [ASPECTS_FILE]
        return {name: hashlib.sha256(self._path(name).read_bytes()).hexdigest()[:16] for name in names}

    def source(self, name: str) -> str:
        """The text of a template file or of the aspects file."""
        return self._path(name).read_text(encoding="utf-8")

    def _path(self, name: str) -> Path:
        return next((f / name for f in self._folders if (f / name).is_file()), self._folders[-1] / name)

    def _load(self, job: str) -> jinja2.Template:
        path = self._path(f"{job}.j2")
        try:
            return self._env.get_template(path.name)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"{path}:{error.lineno}: not a jinja2 template: {error.message}") from error
        except (jinja2.TemplateNotFound, UnicodeDecodeError) as error:
            raise InputError(f"{path}: expected a jinja2 template in UTF-8: {error}") from error

    def _load_aspects(self) -> AspectBook:
        path = self._path(ASPECTS_FILE)
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: expected TOML in UTF-8: {error}") from error
        defined = data.get("aspects")
        if not isinstance(defined, dict) or len(defined) < 2:
            raise InputError(f'{path}: expected a table [aspects] with at least two lines name = "definition"')
        for name, definition in defined.items():
            if not isinstance(definition, str) or not definition.strip() or not name.strip():
                raise InputError(f"{path}: aspect {name!r}: expected a definition in quotes, came {definition!r}")
        aspects = {name: Aspect(name, definition) for name, definition in defined.items()}
        static = data.get("static", list(aspects))
        unknown = [name for name in static if name not in aspects]
        if unknown:
            raise InputError(f"{path}: static names {unknown[0]!r}, which [aspects] does not define")
        return AspectBook(tuple(aspects.values()), tuple(aspects[name] for name in static))


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
