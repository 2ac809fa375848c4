"""Where each setting of a command was given, for a dry run to tell."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.config import PUBLISHED, PUBLISHED_EXAMPLES, OptimizeConfig, RunConfig, flag, variable


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it was resolved. name: as in the settings, or with dots as in a file. source: the flag,
    variable or file it comes from, "preset" or "default"."""

    name: str
    value: Any
    source: str
    is_default: bool


def settings_of(
    config: RunConfig, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> tuple[Setting, ...]:
    """Every setting with its value and where that comes from, in the order of `drpo.settings.resolve`."""
    in_file = _names_in(file)
    preset = PUBLISHED if isinstance(config, OptimizeConfig) else PUBLISHED_EXAMPLES
    chosen = getattr(config, "preset", None)
    preset_given = flags.get("preset") is not None
    found = []
    for name, value in config.model_dump(mode="json").items():
        field = type(config).model_fields[name]
        by_preset = chosen is not None and name in preset
        if flags.get(name) is not None:
            source = flag(name)
        elif by_preset and preset_given:
            source = f"--preset {chosen}"
        elif variable(name) in environment and name != "roles":
            source = variable(name)
        elif name.rstrip("_") in in_file:
            source = str(file)
        else:
            source = f"preset {chosen}" if by_preset else "default"
        if name == "roles":  # the models of the file stand under their own names, its keys' variables here
            found += [
                Setting(f"roles.{role}.api_key_env", given["api_key_env"], source, False)
                for role, given in value.items()
                if given["api_key_env"] is not None
            ]
            continue
        found.append(Setting(name, value, source, getattr(config, name) == field.default))
    return tuple(found)


def _names_in(file: Path | None) -> set[str]:
    """The settings that the file gives; it was read before, so it can be read."""
    if file is None:
        return set()
    data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    names = {name.replace("-", "_") for name in data}
    roles = data.get("roles", {})
    by_role = {"base": "model"}
    return names | {by_role.get(role, role) for role, given in roles.items() if "model" in given}
