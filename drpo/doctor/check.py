"""What a check says, what a failing one means for the exit code, and how a broken one is kept apart."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from drpo.errors import (
    BudgetSpent,
    DrpoError,
    InputError,
    ProviderDown,
    ProviderRefused,
    RecordDamaged,
    RunConflict,
    StorageError,
)

Status = Literal["ok", "warning", "problem"]

# As a run would meet them: it reads its settings, claims its directory, reads what is recorded there, and
# then asks its models until a limit is reached.
SEVERITY = (
    InputError.exit_code,
    RunConflict.exit_code,
    StorageError.exit_code,
    RecordDamaged.exit_code,
    ProviderRefused.exit_code,
    ProviderDown.exit_code,
    BudgetSpent.exit_code,
    DrpoError.exit_code,
)
_SECRET_NAME = re.compile(r"(?i)(^|_)(KEYS?|TOKEN|SECRET|PASSWORD|PASSWD)$")
_SHORTEST_SECRET = 4  # characters; what is shorter stands in ordinary words


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. remedy: what to do, for whatever is not ok. exit_code: that of a run
    which fails for it; 0 unless it is a problem."""

    name: str
    status: Status
    said: str
    remedy: str = ""
    exit_code: int = 0


def ok(name: str, said: str) -> Check:
    """A check that found nothing wrong."""
    return Check(name, "ok", said)


def warning(name: str, said: str, remedy: str) -> Check:
    """A check that found what does not keep a run from its end."""
    return Check(name, "warning", said, remedy)


def problem(name: str, said: str, remedy: str, kind: type[DrpoError] = InputError) -> Check:
    """A check that found what a run would end with, as an error of that kind."""
    return Check(name, "problem", said, remedy, kind.exit_code)


def of_error(name: str, error: DrpoError, remedy: str) -> Check:
    """The problem that a run would end with; `remedy` where the error's own sentence has none behind it."""
    said, own = split_remedy(str(error))
    return Check(name, "problem", said, own or remedy, type(error).exit_code)


def split_remedy(message: str) -> tuple[str, str]:
    """An error's message in two: what is wrong, and what to do where that stands behind it (else empty)."""
    said, stop, last = message.rpartition(". ")
    if not stop or not last[:1].isupper():
        said, stop, last = message.rpartition("; ")
    if not stop:
        return message, ""
    return said, last[:1].upper() + last[1:].removesuffix(".")


def exit_code_of(checks: Iterable[Check]) -> int:
    """0 where nothing is a problem, else the code of the first problem in the order of `SEVERITY`."""
    found = {check.exit_code for check in checks if check.status == "problem"}
    return next((code for code in SEVERITY if code in found), max(found, default=0))


async def guarded(
    name: str, work: Callable[[], Awaitable[Iterable[Check]]], secrets: Iterable[str]
) -> tuple[Check, ...]:
    """What `work` finds, without secrets; whatever it raises is a problem of that name."""
    try:
        found = tuple(await work())
    except DrpoError as error:
        found = (of_error(name, error, "Mend this, then run the doctor again"),)
    except Exception as error:  # noqa: BLE001 - a bug in one check must not hide what the others found
        said = f"this check could not be made, by a bug of drpo: {type(error).__name__}: {error}"
        found = (problem(name, said, "Please report it; the other checks stand", DrpoError),)
    return tuple(without_secrets(check, secrets) for check in found)


def secrets_of(environment: Mapping[str, str], named: Iterable[str] = ()) -> frozenset[str]:
    """Every value that must not be shown, in each of the ways in which a message may hold it: those of
    variables that are called keys or tokens, and those of the variables `named`."""
    wanted = set(named)
    values = {
        value for name, value in environment.items() if name in wanted or _SECRET_NAME.search(name.upper())
    }
    forms = {form for value in values for form in (value, value.strip(), value.strip(" \t\r\n\"'"))}
    forms |= {repr(form)[1:-1] for form in forms}
    return frozenset(form for form in forms if len(form) >= _SHORTEST_SECRET)


def without_secrets(check: Check, secrets: Iterable[str]) -> Check:
    """The check with `[key]` in place of each secret, the longest first."""
    name, said, remedy = check.name, check.said, check.remedy
    for secret in sorted(secrets, key=len, reverse=True):
        name, said, remedy = (text.replace(secret, "[key]") for text in (name, said, remedy))
    return replace(check, name=name, said=said, remedy=remedy)
