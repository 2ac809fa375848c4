"""How large a report is, how soon a browser shows it, and what keeping one costs a run.

    python -m benchmarks.report [--repeats 5] [--screenshots docs]

The report of 400 nodes is one of a made-up search, four prompts a level and four proposals each, with
responses of 2,000 characters and five scores with their rationales. It is opened from disk in headless
Chromium; counted is from the request for the page to its load event, with the tree drawn and a node open. The
run beside which a report is kept is a default one with simulated models that take 50 ms for each reply. With
--screenshots a folder gets pictures of such a report: light, dark and narrow.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from drpo.config import OptimizeConfig
from drpo.events import Event
from drpo.plan import optimize_plan
from drpo.report import LiveReport, render_report, write_report
from drpo.run import Hooks, run_optimize
from drpo.run_dir import read_run
from drpo.run_view import read_view
from drpo.settings import environment
from tests.support.report_browser import browser, missing_part, opened
from tests.support.report_runs import demo_run, large_events, set_events

NODES, RESPONSE = 400, 2_000
_SHOWN: dict[str, Any] = {"depth": 9, "max_extra_depth": 1, "demo_seed": 4}


def main() -> None:
    """Print the figures, and take the pictures if they are wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--screenshots", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large_report(Path(folder) / "large", given.repeats)
        asyncio.run(cost_of_keeping(Path(folder), given.repeats))
        if given.screenshots:
            take_pictures(Path(folder) / "demo", given.screenshots)


def large_report(run: Path, repeats: int) -> None:
    """Size, writing and opening of a large report."""
    demo_run(run, depth=2, max_extra_depth=0, validate=0)
    set_events(run, large_events(NODES, RESPONSE))
    view = read_view(run)
    began = time.perf_counter()
    render_report(view)
    took_ms = 1000 * (time.perf_counter() - began)
    report = write_report(run)
    print(
        f"{NODES} nodes, responses of {RESPONSE:,} characters: {report.stat().st_size / 1e6:.2f} MB, ", end=""
    )
    print(f"made in {took_ms:.0f} ms")
    if missing := missing_part():
        print(f"not opened: {missing}")
        return
    times: list[float] = []
    with browser() as chromium:
        for _ in range(repeats + 1):
            with opened(chromium, report) as page:
                assert page.count('[role="treeitem"]') == NODES and page.text("#node-title").startswith(
                    "Node"
                )
                times.append(page.ask("performance.getEntriesByType('navigation')[0].loadEventEnd"))
                page.check_quiet()
    counted = times[1:]  # the first one starts the browser's processes
    print(f"open after {statistics.median(counted):.0f} ms, at most {max(counted):.0f}; first {times[0]:.0f}")


async def cost_of_keeping(folder: Path, repeats: int) -> None:
    """What a run with a report takes more than one without, in turn, and how long its report holds it up."""
    took: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for number in range(repeats):
        for report in (False, True):
            config = _slow(folder / f"{number}-{report}", report=report)
            began = time.perf_counter(), time.process_time()
            await run_optimize(optimize_plan(config, environment()), environment(), Hooks())
            took[report].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    wall_s = statistics.median(wall for wall, _ in took[False])
    print(f"a run of {wall_s:.2f} s with a report, pair by pair, {repeats} pairs:")
    for index, what in enumerate(("wall", "CPU")):
        more = [
            with_it[index] - without[index] for without, with_it in zip(took[False], took[True], strict=True)
        ]
        middle, least, most = statistics.median(more), min(more), max(more)
        print(
            f"  {what} time {1000 * middle:+.0f} ms ({1000 * least:+.0f} to {1000 * most:+.0f}), "
            f"{middle / wall_s:+.1%} of its wall time"
        )
    held_s = await _held_up(folder / "held")
    print(f"  held up for {1000 * held_s:.0f} ms, {held_s / wall_s:.1%}; the rest is done by another process")


def _slow(run: Path, *, report: bool) -> OptimizeConfig:
    return OptimizeConfig(
        model="demo", validate=0, run_dir=run, demo_latency_ms=50, reuse=False, report=report
    )


async def _held_up(run: Path) -> float:
    """Seconds that a run waits for its report, which is here one of its observers."""
    plan = optimize_plan(_slow(run, report=False), environment())
    reports: list[LiveReport] = []
    took_s = 0.0

    def observe(event: Event) -> None:
        nonlocal took_s
        began = time.perf_counter()
        if not reports:  # with the first event the run directory is there
            inputs = plan.inputs
            reports.append(LiveReport(run, read_run(run), inputs.queries, inputs.examples.examples, dict))
        reports[0](event)
        took_s += time.perf_counter() - began

    result = await run_optimize(plan, environment(), Hooks(observers=(observe,)))
    began = time.perf_counter()
    reports[0].finish(result.alignment, None, "finished")
    return took_s + time.perf_counter() - began


def take_pictures(run: Path, folder: Path) -> None:
    """report-light.png, report-dark.png and report-narrow.png in `folder`."""
    report = write_report(demo_run(run, **_SHOWN))
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        with opened(chromium, report, color_scheme="light", viewport={"width": 1280, "height": 1050}) as page:
            page.ask("document.getElementById('tree').scrollIntoView({behavior: 'instant'})")
            page.page.screenshot(path=folder / "report-light.png")
        with opened(chromium, report, color_scheme="dark", viewport={"width": 1280, "height": 1500}) as page:
            page.page.screenshot(path=folder / "report-dark.png")
        with opened(chromium, report, viewport={"width": 390, "height": 1400}) as page:
            page.page.locator("#n-0-1").click()
            page.ask("document.querySelector('.tree-scroll').scrollIntoView({behavior: 'instant'})")
            page.page.screenshot(path=folder / "report-narrow.png")
    for picture in sorted(folder.glob("report-*.png")):
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
