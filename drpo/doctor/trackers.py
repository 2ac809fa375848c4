"""Whether the trackers of --track can be used. None is sent anything, and no store is made."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from drpo.doctor.check import Check, of_error, ok
from drpo.doctor.prepare import Prepared
from drpo.errors import InputError
from drpo.plan import run_path
from drpo.results import is_finished
from drpo.tracking import open_trackers


def track_checks(prepared: Prepared) -> Iterator[Check]:
    """A check for each tracker: opened as the run would, where that leaves nothing behind."""
    plan = prepared.plan
    if plan is None or not plan.config.track:
        return
    names = tuple(dict.fromkeys(plan.config.track))
    if prepared.whole and _has_result(prepared):
        yield ok("track", f"{', '.join(names)}: not opened, the run has its result")
        return
    for name in names:
        if name == "mlflow" and _would_make_a_store(prepared):
            yield ok("track", "mlflow: installed; its store is opened when the run begins, not now")
            continue
        try:
            open_trackers([name], prepared.environment)
            yield ok("track", f"{name}: can be opened; nothing is sent before the run begins")
        except InputError as error:
            yield of_error("track", error, "Mend it, or leave this --track out")


def _has_result(prepared: Prepared) -> bool:
    assert prepared.plan is not None
    try:
        return is_finished(run_path(prepared.plan))
    except InputError:
        return False  # the check of the run's directory says so


def _would_make_a_store(prepared: Prepared) -> bool:
    """Whether MLflow is there and would make folders or tables: it does where it is not told of a server."""
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:  # the latter: a mere folder of that name
        return False
    uri = prepared.environment.get("MLFLOW_TRACKING_URI", "")
    return not uri.startswith(("http://", "https://"))
