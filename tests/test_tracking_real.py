"""Runs in MLflow, Weights & Biases and OpenTelemetry: the real libraries, without a network but loopback.

Needs the extras mlflow, wandb and otel.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import InputError
from drpo.llm.ledger import CallDone
from drpo.tracking import Trackers, open_trackers
from drpo.tracking.rows import Row
from tests.support.collectors import Collector, collector, plain
from tests.support.processes import free_port
from tests.support.tracked import BEGAN_S, Searched, Tracked, improved, searched
from tests.support.wandb_file import of_kind, records, values

OTLP = "opentelemetry.exporter.otlp.proto.http"
FOREIGN = ("MLFLOW_", "WANDB_", "OTEL_")


def is_missing(library: str) -> bool:
    try:
        return find_spec(library) is None
    except ModuleNotFoundError:  # not even what it is a part of
        return True


pytestmark = pytest.mark.track
needs_mlflow = pytest.mark.skipif(is_missing("mlflow"), reason="mlflow-skinny is not installed")
needs_wandb = pytest.mark.skipif(is_missing("wandb"), reason="wandb is not installed")
needs_otel = pytest.mark.skipif(
    is_missing(OTLP), reason="opentelemetry-exporter-otlp-proto-http is not installed"
)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return searched(tmp_path_factory.mktemp("tracked") / "run")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return improved(tmp_path_factory.mktemp("tracked") / "examples")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The process's environment, without a developer's trackers; what a test or a library adds goes again."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(FOREIGN):
            del os.environ[name]
    os.environ |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    yield os.environ  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(before)


# ---------------------------------------------------------------------------------------------- MLflow


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """A client of an empty file store, which the environment names."""
    from mlflow import MlflowClient

    os.environ["MLFLOW_TRACKING_URI"] = (tmp_path / "mlruns").as_uri()
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def the_run(store: Any, experiment: str = "drpo") -> Any:
    """The only run of an experiment."""
    [run] = store.search_runs([store.get_experiment_by_name(experiment).experiment_id])
    return run


def history(store: Any, run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in store.get_metric_history(run_id, metric)]


def assert_curves(store: Any, run: Any, rows: list[Row]) -> None:
    names = {name for row in rows for name in row.metrics}
    assert names == {name for name in run.data.metrics if not name.startswith("result.")}
    for name in names:
        expected = [(row.step, row.metrics[name]) for row in rows if name in row.metrics]
        assert sorted(history(store, run.info.run_id, name)) == expected


def artifacts(store: Any, run: Any, folder: str = "") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for info in store.list_artifacts(run.info.run_id, folder):
        if info.is_dir:
            found |= artifacts(store, run, info.path)
        else:
            path = store.download_artifacts(run.info.run_id, info.path)
            found[info.path] = Path(path).read_bytes()
    return found


@needs_mlflow
def test_mlflow_has_parameters_curves_prompts_and_files(
    search: Searched, store: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    tracked = Tracked("mlflow").run(search)
    assert capfd.readouterr() == ("", "")  # before the test's own downloads, which may draw a bar
    run = the_run(store)
    assert run.info.status == "FINISHED"
    assert tracked.said == [
        f"tracked: mlflow run run ({run.info.run_id}) at {os.environ['MLFLOW_TRACKING_URI']}"
    ]
    assert run.data.params["width"] == "2"
    assert run.data.params["model.base"] == "demo/seed=0,noise=0.5"
    assert run.data.params["initial_prompt"] == "You are a helpful assistant."
    assert run.data.params["digest.seeds"] == search.facts.digests["seeds"]
    assert "patience" not in run.data.params  # not set
    assert (run.data.tags["drpo.simulated"], run.data.tags["drpo.state"]) == ("true", "finished")
    rows = search.rows()
    assert_curves(store, run, rows)
    assert run.data.metrics["result.path_score"] == search.results["path_score"]
    kept = artifacts(store, run)
    assert kept["alignment.json"] == (search.facts.path / "alignment.json").read_bytes()
    prompts = {name: content for name, content in kept.items() if name.startswith("prompts/")}
    before: str | None = None
    for row in rows:
        if row.prompt != before:
            before = row.prompt
            assert prompts.pop(f"prompts/level-{row.step:03}.txt").decode() == row.prompt
    assert not prompts
    assert kept.keys() - {"alignment.json", "run.json"} == {k for k in kept if k.endswith(".txt")}


@needs_mlflow
def test_mlflow_goes_on_with_the_run_of_a_resumed_search(search: Searched, store: Any) -> None:
    assert Tracked("mlflow").run(search.cut_after(3), "interrupted").problems == []
    run = the_run(store)
    assert (run.info.status, run.data.tags["drpo.state"]) == ("KILLED", "interrupted")
    first = search.cut_after(3).rows()
    assert_curves(store, run, first)
    assert Tracked("mlflow").run(search.resumed()).problems == []
    run = the_run(store)
    assert run.info.status == "FINISHED"
    assert_curves(store, run, first + search.resumed().rows()[3:])  # no level twice


@needs_mlflow
def test_mlflow_gets_the_figures_of_each_example(examples: Searched, store: Any) -> None:
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "mine"
    assert Tracked("mlflow").run(examples).problems == []
    run = the_run(store, "mine")
    assert_curves(store, run, examples.rows())
    assert len(history(store, run.info.run_id, "reward_after")) > 3


@needs_mlflow
def test_mlflow_takes_what_is_long_odd_or_secret(search: Searched, store: Any) -> None:
    os.environ["OPENAI_API_KEY"] = "sk-0123456789"
    odd = {"initial_prompt": "x" * 10_000, "name": "half \ud83d \0", "run_dir": "sk-0123456789"}
    many = {f"setting_{number}": number for number in range(250)}
    facts = replace(search.facts, settings=odd | many)
    assert Tracked("mlflow").run(replace(search, facts=facts)).problems == []
    params = the_run(store).data.params
    assert params["initial_prompt"] == "x" * 499 + "…"
    assert (params["name"], params["run_dir"]) == ("half \\ud83d \\u0000", "***")
    assert params["setting_249"] == "249"


@needs_mlflow
def test_an_mlflow_server_that_is_not_there_is_one_notice(search: Searched) -> None:
    url = f"http://me:secret@127.0.0.1:{free_port()}"
    os.environ["MLFLOW_TRACKING_URI"] = url
    tracked = Tracked("mlflow").run(search)
    [said] = tracked.said
    assert said.removesuffix(". The run goes on without it") == (
        f"--track mlflow: nobody answers at {url.replace('me:secret', '***')} (MLFLOW_TRACKING_URI)"
    )


@needs_mlflow
def test_an_mlflow_server_that_fails_is_one_notice(
    search: Searched, capfd: pytest.CaptureFixture[str]
) -> None:
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    with collector(500, well=("/health",)) as server:
        os.environ["MLFLOW_TRACKING_URI"] = server.url
        [said] = Tracked("mlflow").run(search).said
    assert said.startswith("--track mlflow: MlflowException: API request to http")
    assert "too many 500 error responses" in said
    assert capfd.readouterr() == ("", "")


@needs_mlflow
@pytest.mark.parametrize("uri", ["", "file:mlruns", "gopher://host"])
def test_a_store_that_mlflow_cannot_use_is_refused_before_anything_is_sent(uri: str, tmp_path: Path) -> None:
    if not uri and not is_missing("sqlalchemy"):
        pytest.skip("SQLAlchemy is installed: mlflow's own store can be used")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    with pytest.raises(InputError) as refused:
        open_trackers(("mlflow",), os.environ)
    said = str(refused.value)
    assert said.startswith("--track mlflow: ")
    assert (
        "Set MLFLOW_TRACKING_URI to another store" if uri else "or pip install sqlalchemy alembic"
    ) in said


# ------------------------------------------------------------------------------------ Weights & Biases


@pytest.fixture
def wandb(tmp_path: Path) -> Iterator[Any]:
    """The library, in folders of its own, offline. Its process is ended."""
    for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR"):
        os.environ[f"WANDB_{name}"] = str(tmp_path)
    os.environ["WANDB_MODE"] = "offline"
    os.environ["WANDB__DISABLE_STATS"] = "true"
    import wandb

    wandb.teardown()  # so that it looks at this environment
    yield wandb
    wandb.teardown()


def written_by(wandb: Any, folder: Path) -> list[list[Any]]:
    """The records of each offline run, in the order of the runs. Its process has to end first: until then it
    may write."""
    wandb.teardown()
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    return [records(file) for file in files]


@needs_wandb
def test_wandb_has_settings_curves_prompts_and_files(
    search: Searched, wandb: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracked = Tracked("wandb").run(search)
    [folder] = tmp_path.glob("wandb/offline-run-*")
    [written] = written_by(wandb, tmp_path)
    [run] = of_kind(written, "run")
    assert (run.project, run.display_name, run.job_type) == ("drpo", "run", "optimize")
    assert tracked.said == [f"tracked: wandb run {run.run_id}, offline: `wandb sync {folder}` sends it"]
    config = values(run.config.update)
    assert config["settings"]["width"] == 2
    assert config["models"] == dict(search.facts.models)
    assert config["simulated"] is True
    curves = [values(row.item) for row in of_kind(written, "history")]
    assert curves == [row.metrics for row in search.rows()]
    summary: dict[str, Any] = {}
    for record in of_kind(written, "summary"):
        summary |= values(record.update)
    assert summary["result.path_score"] == search.results["path_score"]
    assert summary["state"] == "finished"
    [artifact] = of_kind(written, "artifact")
    names = {entry.path for entry in artifact.manifest.contents}
    assert {"alignment.json", "run.json", "prompts/level-000.txt"} <= names
    assert {Path(name).suffix for name in names} == {".json", ".txt"}
    [ended] = of_kind(written, "exit")
    assert ended.exit_code == 0
    assert capfd.readouterr() == ("", "")


@needs_wandb
def test_wandb_goes_on_under_the_same_id_with_the_same_values(
    search: Searched, wandb: Any, tmp_path: Path
) -> None:
    assert Tracked("wandb").run(search.cut_after(3), "interrupted").problems == []
    assert Tracked("wandb").run(search.resumed()).problems == []
    first, second = written_by(wandb, tmp_path)
    [run] = of_kind(first, "run")
    [again] = of_kind(second, "run")
    assert again.run_id == run.run_id
    assert of_kind(first, "exit")[0].exit_code == 130
    before = [values(row.item) for row in of_kind(first, "history")]
    for known, repeated in zip(
        before, [values(row.item) for row in of_kind(second, "history")], strict=False
    ):
        assert repeated.items() <= known.items()


@needs_wandb
def test_wandb_gets_the_figures_of_each_example(examples: Searched, wandb: Any, tmp_path: Path) -> None:
    assert Tracked("wandb").run(examples).problems == []
    [written] = written_by(wandb, tmp_path)
    assert [values(row.item) for row in of_kind(written, "history")] == [r.metrics for r in examples.rows()]


@needs_wandb
def test_an_applications_own_wandb_run_stays_as_it_is(search: Searched, wandb: Any, tmp_path: Path) -> None:
    with wandb.init(project="app", id="app") as run:
        assert Tracked("wandb").run(search).problems == []
        run.log({"loss": 1.0})
    written = {of_kind(records, "run")[0].run_id: records for records in written_by(wandb, tmp_path)}
    assert [values(row.item) for row in of_kind(written["app"], "history")] == [{"loss": 1.0}]
    assert len(written) == 2


@needs_wandb
def test_wandb_without_a_key_is_refused_before_anything_is_sent(wandb: Any) -> None:
    os.environ["WANDB_MODE"] = "online"
    with pytest.raises(InputError, match="no key is known: run `wandb login`, set WANDB_API_KEY, or"):
        open_trackers(("wandb",), os.environ)


@needs_wandb
def test_a_wandb_server_that_is_not_there_is_one_notice(
    search: Searched, wandb: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "0123456789" * 4
    os.environ |= {
        "WANDB_MODE": "online",
        "WANDB_API_KEY": key,
        "WANDB_BASE_URL": f"http://127.0.0.1:{free_port()}",
        "WANDB_INIT_TIMEOUT": "2",
    }
    [said] = Tracked("wandb").run(search).said
    assert said.startswith("--track wandb: CommError: ") and "connection refused" in said
    assert key not in said
    assert capfd.readouterr() == ("", "")


# --------------------------------------------------------------------------------------- OpenTelemetry


@needs_otel
def test_a_trace_has_a_span_for_the_run_and_one_for_each_request(search: Searched) -> None:
    refused = replace(
        search.calls[0], ending="failed", again=True, usage=None, usd=None, problem="ProviderRefused"
    )
    unsent = replace(refused, ending="unsent")
    search = replace(search, calls=(*search.calls, refused, unsent))
    with collector() as server:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.url
        tracked = Tracked("otel").run(search)
    spans = server.spans
    assert {resource["service.name"] for resource, _ in spans} == {"drpo"}
    [run] = [span for _, span in spans if not span.parent_span_id]
    calls = sorted((s for _, s in spans if s.parent_span_id), key=lambda span: span.start_time_unix_nano)
    assert tracked.said == [f"tracked: otel trace {run.trace_id.hex()} at {server.url}/v1/traces"]
    assert_run_span(run, search)
    assert len(calls) == len(search.calls) - 1  # what was not sent is no request
    for span in calls:
        assert (span.trace_id, span.parent_span_id) == (run.trace_id, run.span_id)
        assert (span.name, span.kind) == ("chat demo", 3)  # CLIENT
    failed = next(span for span in calls if span.status.code)
    assert failed.status.code == 2  # ERROR
    assert plain(failed.attributes)["error.type"] == "ProviderRefused"
    assert plain(failed.attributes)["drpo.again"] is True
    answered = [span for span in calls if span is not failed]
    for span, call in zip(answered, search.calls, strict=False):
        assert_call_span(span, call)
    assert_no_content(server, search)


def assert_run_span(span: Any, search: Searched) -> None:
    assert (span.name, span.kind, span.status.code) == ("drpo optimize", 1, 0)  # INTERNAL, no error
    attributes = plain(span.attributes)
    assert attributes["drpo.width"] == 2
    assert attributes["drpo.model.base"] == "demo/seed=0,noise=0.5"
    assert attributes["drpo.state"] == "finished"
    assert attributes["drpo.result.path_score"] == search.results["path_score"]
    told = [(event.name, plain(event.attributes)) for event in span.events]
    expected = search.rows()
    assert [name for name, _ in told] == ["drpo.level"] * len(expected)
    for (_, figures), row in zip(told, expected, strict=True):
        named = {f"drpo.{name}": value for name, value in row.metrics.items()}
        assert figures == {"drpo.level": row.step, **named}


def assert_call_span(span: Any, call: CallDone) -> None:
    assert span.start_time_unix_nano == int(call.began_s * 1e9) >= BEGAN_S * 1e9
    assert span.end_time_unix_nano == int((call.began_s + call.took_s) * 1e9)
    assert call.usage is not None
    assert plain(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "demo",
        "gen_ai.request.model": "demo",
        "gen_ai.request.max_tokens": 2048,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": call.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": call.usage.completion_tokens,
        "drpo.role": call.role,
        "drpo.usd": call.usd,
    }


def assert_no_content(server: Collector, search: Searched) -> None:
    sent = b"".join(body for _, _, body in server.requests)
    assert b"gen_ai.usage.input_tokens" in sent  # and so it is not compressed
    assert [text for text in search.texts() if text.encode() in sent] == []


@needs_otel
def test_no_span_is_lost_however_quickly_they_come(search: Searched) -> None:
    many = tuple(replace(search.calls[0], began_s=BEGAN_S + number) for number in range(6_000))
    with collector() as server:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.url
        assert Tracked("otel").run(replace(search, calls=many)).problems == []
    assert len(server.spans) == len(many) + 1


@needs_otel
def test_a_run_of_many_examples_keeps_all_its_events(examples: Searched) -> None:
    subjects = {event.subject for event in examples.events}
    copies = tuple(
        replace(event, subject=event.subject + turn * len(subjects))
        for turn in range(12)
        for event in examples.events
        if event.subject is not None
    )
    with collector() as server:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.url
        assert Tracked("otel").run(replace(examples, events=copies)).problems == []
    [run] = [span for _, span in server.spans if not span.parent_span_id]
    assert len(run.events) == 12 * len(subjects) > 128
    assert {event.name for event in run.events} == {"drpo.example"}


@needs_otel
def test_a_collector_that_is_not_there_is_one_notice(
    search: Searched, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
    os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "3"  # seconds; one attempt is repeated, and so is its reason
    [said] = Tracked("otel").run(search).said
    spans = len(search.calls) + 1
    assert said == (
        f"--track otel: {spans} spans were not taken by http://127.0.0.1:{port}/v1/traces: "
        "[Errno 111] Connection refused"
    )
    assert capfd.readouterr() == ("", "")


@needs_otel
def test_a_collector_that_refuses_is_one_notice(search: Searched, capfd: pytest.CaptureFixture[str]) -> None:
    with collector(401) as server:
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{server.url}/v1/traces"
        [said] = Tracked("otel").run(search).said
    assert said.startswith(f"--track otel: {len(search.calls) + 1} spans were not taken by {server.url}")
    assert "401" in said or "Unauthorized" in said
    assert capfd.readouterr() == ("", "")


@needs_otel
def test_a_collector_that_is_lost_during_the_run_ends_the_tracking_only(search: Searched) -> None:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "0.2"
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "1"
    said: list[str] = []
    trackers = open_trackers(("otel",), os.environ, said.append)
    search.tell(trackers)
    deadline = time.monotonic() + 30
    while trackers and time.monotonic() < deadline:
        trackers.call(search.calls[0])
    assert not trackers
    [notice] = said
    assert "spans were not taken by" in notice and notice.endswith(". The run goes on without it")


@needs_otel
def test_an_applications_tracer_provider_is_used_and_left_open(
    search: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)  # it can be set once in a process
    with provider.get_tracer("app").start_as_current_span("request of the application") as outer:
        tracked = Tracked("otel").run(search)
    spans: list[Any] = list(kept.get_finished_spans())
    [run] = [span for span in spans if span.name == "drpo optimize"]
    assert run.parent.span_id == outer.get_span_context().span_id
    assert tracked.said == [f"tracked: otel trace {run.context.trace_id:032x}"]
    children = [span for span in spans if span.parent and span.parent.span_id == run.context.span_id]
    assert len(children) == len(search.calls)
    assert spans[-1].name == "request of the application"  # taken after our end: nobody shut it down
    provider.shutdown()


@needs_otel
def test_a_failed_run_is_a_span_with_an_error(search: Searched) -> None:
    with collector() as server:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.url
        os.environ["OTEL_SERVICE_NAME"] = "mine"
        assert Tracked("otel").run(search, "failed").problems == []
    [(resource, run)] = [(resource, span) for resource, span in server.spans if not span.parent_span_id]
    assert (run.status.code, plain(run.attributes)["error.type"]) == (2, "failed")
    assert resource["service.name"] == "mine"


@needs_mlflow
@needs_wandb
@needs_otel
def test_all_trackers_follow_one_run_and_one_that_fails_takes_none_with_it(
    search: Searched, store: Any, wandb: Any, tmp_path: Path
) -> None:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
    said: list[str] = []
    trackers: Trackers = open_trackers(("mlflow", "wandb", "otel"), os.environ, said.append)
    search.tell(trackers)
    asyncio.run(trackers.end("finished", search.results, search.files))
    assert sorted(notice.split()[1] for notice in said) == ["mlflow", "otel:", "wandb"]
    assert the_run(store).info.status == "FINISHED"
    [written] = written_by(wandb, tmp_path)
    assert len(of_kind(written, "history")) == len(search.levels)
