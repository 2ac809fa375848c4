"""Where settings come from: flags, environment, a TOML file and presets, in this order of precedence."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from dotenv import dotenv_values
from pydantic import ValidationError

from drpo.config import (
    PUBLISHED,
    PUBLISHED_EXAMPLES,
    ExamplesConfig,
    OptimizeConfig,
    RunConfig,
    flag,
    variable,
)
from drpo.config_align_pro import EstimateConfig
from drpo.config_bpo import BuildConfig
from drpo.config_judging import AuditConfig, CompareConfig, EvaluateConfig
from drpo.config_study import StudyConfig
from drpo.config_training import AlignProTrainConfig, BpoTrainConfig
from drpo.config_use import GenerateConfig, RewriteConfig, ServeConfig
from drpo.errors import InputError

Config = TypeVar("Config", bound=RunConfig)
_KINDS: tuple[type[RunConfig], ...] = (
    *(OptimizeConfig, ExamplesConfig),
    *(EvaluateConfig, CompareConfig, AuditConfig, GenerateConfig, RewriteConfig, ServeConfig),
    StudyConfig,
    BuildConfig,
    BpoTrainConfig,
    AlignProTrainConfig,
    EstimateConfig,
)
_ROLE_FIELDS = {
    "base": "model",
    **{role: role for role in ("optimizer", "evaluator", "selector", "judge", "rewriter")},
    "against": "against_model",
}
_KEY_VARIABLES = [f"{role}_API_KEY" for role in (*map(str.upper, _ROLE_FIELDS), "EMBEDDER", "REWARD")]
_OTHER_VARIABLES = [*_KEY_VARIABLES, "CONFIG", "JSON", "QUIET", "CACHE_DIR", "TRACEBACK", "PUBLISHED_RUNS"]


def environment(folder: Path | None = None) -> dict[str, str]:
    """The process environment over the `.env` file of `folder` (default: the current one)."""
    file = (folder or Path.cwd()) / ".env"
    try:
        dotenv = dotenv_values(file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected lines NAME=VALUE in UTF-8: {error}. Mend or move it") from None
    return {**{name: value for name, value in dotenv.items() if value is not None}, **os.environ}


def resolve(
    kind: type[Config], given: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> Config:
    """The settings: `given` (flags or keyword arguments; None means not given), then DRPO_* variables, then
    the TOML file, then the defaults. A preset stands right below what was given where it was given itself,
    and below the file where it came from there. Raises InputError naming the setting."""
    _refuse_misspelt(environment)
    fields = kind.model_fields
    unknown = [name for name in given if name not in fields]
    if unknown:
        raise InputError(f"unknown setting {unknown[0]!r}{_closest(unknown[0], fields)}")
    values: dict[str, Any] = dict(_from_file(kind, file))
    for name in fields:
        text = environment.get(variable(name))
        if text is not None and name != "roles":
            values[name] = text
    given = {name: value for name, value in given.items() if value is not None}
    preset = _preset(kind, given.get("preset"))
    values = {**_preset(kind, values.get("preset")), **values, **preset, **given}
    roles = values.get("roles", {})
    for role, field in _ROLE_FIELDS.items():
        if field not in fields:
            continue
        model = (
            roles.get(role, {}).get("model")
            if isinstance(roles, Mapping) and isinstance(roles.get(role, {}), Mapping)
            else None
        )
        if model is not None:
            values.setdefault(field, model)
    if isinstance(values.get("protect"), str):
        values["protect"] = (values["protect"],)
    for name in ("vllm_arg", "price", "track"):  # a variable holds several, parted by blanks
        if isinstance(values.get(name), str):
            values[name] = tuple(values[name].split())
    for name in ("initial_prompt", "protect"):
        if name in values and name in fields:
            values[name] = _text_or_file(name, values[name])
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(_sentence(error, kind)) from None


def _preset(kind: type[RunConfig], name: object) -> dict[str, Any]:
    if name != "published":
        return {}
    return PUBLISHED if issubclass(kind, OptimizeConfig) else PUBLISHED_EXAMPLES


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """A setting that is silently ignored costs a run. What resembles no setting is somebody else's."""
    names = {variable(name) for kind in _KINDS for name in kind.model_fields}
    names |= {f"DRPO_{name}" for name in _OTHER_VARIABLES}
    for name in environment:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.85) if name.startswith("DRPO_") else []
        if near and name not in names:
            raise InputError(f"{name}: no setting has this name; did you mean {near[0]}?")


def _from_file(kind: type[RunConfig], file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"--config {file}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--config {file}: expected TOML in UTF-8: {error}") from None
    known = {name: field for kind_ in _KINDS for name, field in kind_.model_fields.items()}
    values: dict[str, Any] = {}
    for key, value in data.items():
        name = key.replace("-", "_")
        if name not in known and f"{name}_" in known:
            name += "_"
        if name not in known:
            raise InputError(f"--config {file}: unknown setting {key!r}{_closest(name, known)}")
        if name in kind.model_fields:
            values[name] = value
    return values


def _text_or_file(name: str, value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_text_or_file(name, item) for item in value)
    if not isinstance(value, str):
        return value
    if not value.startswith("@"):
        return value.replace("\r\n", "\n")
    path = Path(value[1:])
    try:
        return path.read_text(encoding="utf-8-sig").strip("\r\n").replace("\r\n", "\n")
    except FileNotFoundError:
        raise InputError(
            f"{flag(name)} {value}: no such file (a text that begins with @ names a file)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{flag(name)} {value}: expected a text file in UTF-8: {error}") from None


def _closest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return f"; did you mean {near[0].rstrip('_').replace('_', '-')!r}?" if near else ""


def _sentence(error: ValidationError, kind: type[RunConfig]) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{flag(where)} is missing: {kind.model_fields[where].description}"
    if not where:
        return f"--{message}"
    if (
        first["loc"][0] == "roles"
    ):  # stands in a file only; what came may be a key put where its variable belongs
        return f"[{where.removesuffix('.[key]')}] in the --config file: {message[0].lower()}{message[1:]}"
    came = str(first["input"])[:80]
    return f"{flag(where)} (or {variable(where)}): {message[0].lower()}{message[1:]}, came {came!r}"


def parse_overrides(settings: list[str]) -> dict[str, str]:
    """`["width=3"]` -> `{"width": "3"}`, for `drpo replay --set`."""
    values = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {setting}: expected NAME=VALUE, for example width=3")
        values[name.strip().replace("-", "_")] = value.strip()
    return values
