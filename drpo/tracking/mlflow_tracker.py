"""Runs in MLflow: parameters, curves by level, prompts as texts, the result's files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from drpo.errors import InputError
from drpo.events import Event
from drpo.llm.ledger import CallDone
from drpo.tracking.base import (
    Clean,
    NotDelivered,
    RunFacts,
    as_text,
    as_utf8,
    import_library,
    offer,
    parameters,
)
from drpo.tracking.rows import Row, Rows

T = TypeVar("T")
EXPERIMENT = "drpo"
_ID_TAG = "drpo.run_id"
_LONGEST_VALUE = 500
"""What every server of MLflow takes as a parameter's value."""
_MOST_PARAMETERS = 100
_PROBE_S = 5.0
_STATUS = {"finished": "FINISHED", "budget": "KILLED", "interrupted": "KILLED"}
_QUIET = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout belongs to the result
    "MLFLOW_DISABLE_TELEMETRY": "true",  # who logs to a server of theirs has not asked to report to another
}


class MlflowTracker:
    """Logs to the server or store of MLFLOW_TRACKING_URI, experiment MLFLOW_EXPERIMENT_NAME (drpo).

    A resumed run is found by its tag drpo.run_id and goes on: levels that it has are not logged again.
    Raises InputError where the store cannot be used at all.
    """

    def __init__(self, environment: Mapping[str, str], clean: Clean) -> None:
        offer(environment, "MLFLOW_", _QUIET)
        import_library("mlflow", "mlflow", "MlflowClient")
        from mlflow import MlflowClient

        self._environment, self._clean = environment, clean
        try:
            self._client: Any = MlflowClient()
            self._uri = str(self._client.tracking_uri)
        except Exception as error:  # noqa: BLE001 - told with the remedy
            raise InputError(f"--track mlflow: {_why_no_store(clean.error(error), environment)}") from None
        self._run_id = self._name = ""
        self._rows = Rows()
        self._next_step = 0
        self._prompt: str | None = None

    @property
    def where(self) -> str:
        """Run and store."""
        return f"mlflow run {self._name} ({self._run_id}) at {self._uri}" if self._run_id else ""

    def begin(self, run: RunFacts) -> None:
        """Make the tracked run, or find the one of the processes before."""
        self._probe()
        self._rows = Rows(run.spent)
        known = self._find(run)
        if known is None:
            tags = {
                _ID_TAG: run.id,
                "drpo.command": run.command,
                "drpo.path": self._clean(str(run.path.absolute()), _LONGEST_VALUE),
                "drpo.simulated": str(run.simulated).lower(),
            }
            known = self._client.create_run(self._experiment(), tags=tags, run_name=self._clean(run.name))
        else:
            self._client.update_run(known.info.run_id, status="RUNNING")
            history = self._client.get_metric_history(known.info.run_id, "nodes")
            self._next_step = 1 + max((metric.step for metric in history), default=-1)
        self._run_id, self._name = known.info.run_id, str(known.info.run_name)
        self._client.set_tag(self._run_id, "drpo.state", "running")
        self._log_parameters(run, known.data.params)

    def event(self, event: Event) -> None:
        """Log the rows that are complete now, and the best prompt where it is another one."""
        for row in self._rows.event(event):
            if row.step >= self._next_step:
                self._log(row.metrics, row.step)
                self._log_prompt(row)
            self._prompt = row.prompt

    def call(self, call: CallDone) -> None:
        """Count it."""
        self._rows.call(call)

    def end(self, state: str, results: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log results and files, and close the tracked run."""
        try:
            self._log({f"result.{name}": value for name, value in results.items()}, 0)
            for file in files:
                if file.is_file():
                    self._client.log_artifact(self._run_id, str(file))
        finally:
            self._client.set_tag(self._run_id, "drpo.state", state)
            self._client.set_terminated(self._run_id, _STATUS.get(state, "FAILED"))

    def _probe(self) -> None:
        """Notice at once that a server cannot be reached: the library asks again for minutes."""
        if not self._uri.startswith(("http://", "https://")):
            return
        requests: Any = import_library("mlflow", "requests", "get")  # what MLflow asks with; knows of proxies
        try:
            requests.get(f"{self._uri.rstrip('/')}/health", timeout=_PROBE_S, allow_redirects=False).close()
        except requests.exceptions.SSLError:
            pass  # the library has variables for that, and a message
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout):
            raise NotDelivered(f"nobody answers at {self._uri} (MLFLOW_TRACKING_URI)") from None

    def _find(self, run: RunFacts) -> Any:
        named = self._environment.get("MLFLOW_RUN_ID")
        if named:
            return self._client.get_run(named)
        tagged = f"tags.`{_ID_TAG}` = '{run.id}'"
        return next(iter(self._client.search_runs([self._experiment()], tagged, max_results=1)), None)

    def _experiment(self) -> str:
        if given := self._environment.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = self._environment.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known is not None else self._client.create_experiment(name))

    def _log_parameters(self, run: RunFacts, known: Mapping[str, str]) -> None:
        """Those that are not there: MLflow lets none be changed, and what decides the run does not change."""
        from mlflow.entities import Param

        wanted = (
            Param(name, self._clean(as_text(value), _LONGEST_VALUE))
            for name, value in parameters(run)
            if name not in known
        )
        for some in _batches(wanted, _MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=some)

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        values = [Metric(name, value, now_ms, step) for name, value in metrics.items()]
        if values:
            self._client.log_batch(self._run_id, metrics=values)

    def _log_prompt(self, row: Row) -> None:
        if row.prompt is not None and row.prompt != self._prompt:
            name = f"prompts/level-{row.step:03}.txt"
            self._client.log_text(self._run_id, as_utf8(row.prompt), name)


def _batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(values)
    while some := list(islice(left, size)):
        yield some


def _why_no_store(said: str, environment: Mapping[str, str]) -> str:
    if environment.get("MLFLOW_TRACKING_URI"):
        return f"{said}. Set MLFLOW_TRACKING_URI to another store, such as http://HOST:5000"
    return (
        "MLFLOW_TRACKING_URI is not set, and MLflow's own default, a file of SQLite, cannot be used "
        f"({said.partition(':')[0]}): the small MLflow that drpo installs has no SQLAlchemy. Set "
        "MLFLOW_TRACKING_URI=http://HOST:5000, or pip install sqlalchemy alembic"
    )
