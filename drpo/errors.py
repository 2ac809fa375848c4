"""The exceptions of drpo and the exit code each one ends a command with.

    DrpoError                     1   a bug of ours, unless a child says otherwise
    |- InputError                 2   bad input or usage: file, line and remedy are in the message
    |- ProviderRefused            3   key, model, permission or quota; one request was enough to know
    |  '- ParameterRefused        3   the model takes no such parameter; asked again without it
    |- GateRefused                4   the output is valid and says no
    |  '- ReplayMissed            4   a strict replay needs calls that were never recorded
    |- ProviderDown               5   no answer past every retry; resumable
    |- RunConflict                6   the run directory is in use, or belongs to other settings
    |- RecordDamaged              7   the record of calls is damaged elsewhere than in its last line
    |- StorageError               8   disk full, read-only, failed fsync; resumable
    |- BudgetSpent                9   the budget is spent, the best so far is written; resumable
    |- Interrupted              130   asked to stop; resumable
    '- Stopped                    1   a call was not sent because the run is ending; never reaches a user

A message says what was expected, what came, where, and what to do. What a model writes wrongly is no
exception at all: see `drpo.types.Failed`.
"""

from __future__ import annotations

from typing import ClassVar


class DrpoError(Exception):
    """Base of every exception that drpo raises on purpose."""

    exit_code: ClassVar[int] = 1


class InputError(DrpoError):
    """Something the user gave cannot be used: a file, a value, a combination."""

    exit_code = 2


class ProviderRefused(DrpoError):
    """A provider said no for good: wrong key, unknown model, missing permission, exhausted quota.

    status, said: the HTTP status and the server's own words without keys; None and "" where there are none.
    """

    exit_code = 3
    status: int | None = None
    said: str = ""


class ParameterRefused(ProviderRefused):
    """The model does not take `parameter` (a field name of `Request`); the same call works without it."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class GateRefused(DrpoError):
    """A check said no; what was written is valid and says so."""

    exit_code = 4


class ReplayMissed(GateRefused):
    """A strict replay asked for a call that the record does not hold."""


class ProviderDown(DrpoError):
    """A provider or server gave no usable answer within the deadline, past every retry."""

    exit_code = 5


class RunConflict(DrpoError):
    """The run directory is in use by another process, or belongs to other settings."""

    exit_code = 6


class RecordDamaged(DrpoError):
    """A journal line other than a torn last one cannot be trusted."""

    exit_code = 7


class StorageError(DrpoError):
    """The disk refused: full, read-only, or a failed fsync."""

    exit_code = 8


class BudgetSpent(DrpoError):
    """The limit on calls or money is reached."""

    exit_code = 9


class Interrupted(DrpoError):
    """The user asked to stop; everything answered so far is recorded."""

    exit_code = 130


class Stopped(DrpoError):
    """Raised to whoever asks for a new call while the run is ending; `llm.limits.Stop` holds the cause."""
