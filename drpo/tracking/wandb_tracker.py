"""Runs in Weights & Biases: settings, curves by level, prompts as texts, the result's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drpo.errors import InputError
from drpo.events import Event
from drpo.llm.ledger import CallDone
from drpo.tracking.base import Clean, NotDelivered, RunFacts, as_utf8, import_library, offer
from drpo.tracking.rows import Rows

PROJECT = "drpo"
_QUIET = {
    "WANDB_SILENT": "true",  # its lines would go through the run's display; `where` says what matters
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_INIT_TIMEOUT": "15",  # seconds
    "WANDB_FINISH_TIMEOUT": "15",
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
}
_EXIT_CODES = {"finished": 0, "budget": 0, "interrupted": 130}


class WandbTracker:
    """Logs to the project WANDB_PROJECT (drpo), online or into a folder (WANDB_MODE=offline).

    A resumed run goes on under the same id; levels that the server has are not logged again. Offline nobody
    knows what was logged: the levels are, with the same values. Raises InputError where there is no key.
    """

    def __init__(self, environment: Mapping[str, str], clean: Clean) -> None:
        offer(environment, "WANDB_", _QUIET)
        self._wandb: Any = import_library("wandb", "wandb", "init")
        self._environment, self._clean = environment, clean
        try:
            online = self._wandb.setup().settings.mode in ("online", "run", "shared", None)
            has_key = not online or self._wandb.login(prompt=False, verify=False)
        except Exception as error:  # noqa: BLE001 - told with the remedy
            raise InputError(f"--track wandb: {clean.error(error)}. Check the variables WANDB_*") from None
        if not has_key:
            raise InputError(
                "--track wandb: no key is known: run `wandb login`, set WANDB_API_KEY, or set "
                "WANDB_MODE=offline and sync the run later"
            )
        self._run: Any = None
        self._rows = Rows()
        self._next_step = 0
        self._id = self._where = ""
        self._prompts: dict[int, str] = {}

    @property
    def where(self) -> str:
        """The run's page, or how to send what lies in a folder."""
        return self._where

    def begin(self, run: RunFacts) -> None:
        """Make the tracked run, or go on with the one of the processes before."""
        self._id, self._rows = run.id, Rows(run.spent)
        told = self._environment.get
        self._run = self._wandb.init(
            project=told("WANDB_PROJECT") or PROJECT,
            name=told("WANDB_NAME") or self._clean(run.name),
            job_type=told("WANDB_JOB_TYPE") or run.command,
            id=told("WANDB_RUN_ID") or run.id,
            resume="allow",
            config=self._config(run),
            allow_val_change=True,
            reinit="create_new",  # an application's own run is none of ours
            settings=self._wandb.Settings(console="off"),  # the terminal's text is not logged
        )
        self._next_step = self._run.starting_step
        self._where = self._page()

    def event(self, event: Event) -> None:
        """Log the rows that are complete now; the best prompt is kept where it is another one."""
        for row in self._rows.event(event):
            if row.step >= self._next_step:
                self._run.log(row.metrics, step=row.step, commit=True)
            if row.prompt is not None and row.prompt != next(reversed(self._prompts.values()), None):
                self._prompts[row.step] = row.prompt

    def call(self, call: CallDone) -> None:
        """Count it."""
        self._rows.call(call)

    def end(self, state: str, results: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log results and files, and close the tracked run."""
        try:
            self._run.summary.update({**{f"result.{k}": v for k, v in results.items()}, "state": state})
            artifact = self._wandb.Artifact(self._id, type="drpo-run")
            for step, prompt in self._prompts.items():
                with artifact.new_file(f"prompts/level-{step:03}.txt", mode="w", encoding="utf-8") as file:
                    file.write(as_utf8(prompt))
            for path in files:
                if path.is_file():
                    artifact.add_file(str(path), name=path.name)
            self._run.log_artifact(artifact)
        finally:
            self._finish(state)

    def _finish(self, state: str) -> None:
        folder = self._run.settings.sync_dir
        try:
            self._run.finish(exit_code=_EXIT_CODES.get(state, 1))
        except TimeoutError:
            raise NotDelivered(f"not everything was uploaded in time: `wandb sync {folder}` does") from None

    def _config(self, run: RunFacts) -> dict[str, Any]:
        def fit(value: Any) -> Any:
            if isinstance(value, str):
                return self._clean(value)
            if isinstance(value, Mapping):
                return {self._clean(str(name)): fit(inner) for name, inner in value.items()}
            return [fit(inner) for inner in value] if isinstance(value, (list, tuple)) else value

        facts = {
            "command": run.command,
            "path": str(run.path.absolute()),
            "models": run.models,
            "settings": run.settings,
            "digests": run.digests,
            "simulated": run.simulated,
        }
        fitting: dict[str, Any] = fit(facts)
        return fitting

    def _page(self) -> str:
        if self._run.settings.mode == "offline":
            return f"wandb run {self._run.id}, offline: `wandb sync {self._run.settings.sync_dir}` sends it"
        return f"wandb run {self._run.url}" if self._run.url else ""
