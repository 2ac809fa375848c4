"""Whether `drpo serve` keeps to the OpenAPI document that it serves, whatever it is sent.

    python -m benchmarks.fuzz_serving --schemathesis PATH [--cases 10000] [--seed 0]

schemathesis (in an environment of its own: `make fuzz`) draws requests from the document, many of them
against it, and sends them to a real server: before a mock model, with and without a key, and before the
simulated model. No answer may be a 5xx, nor of another status, type, header or shape than the document says;
what it forbids must be refused, and what it admits must not. Exits with 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.alignments import written_alignment

_HOOKS = Path(__file__).with_name("fuzz_hooks.py")
_KEY = "fuzz-key"
_CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "ignored_auth"),
    *("response_headers_conformance", "response_schema_conformance", "negative_data_rejection"),
    *("positive_data_acceptance", "missing_required_header", "unsupported_method"),
    "allow_header_conformance",
)
_EXAMPLES = 100
"""What one run draws for each route. Longer runs take longer for each: they look for what is new."""


@dataclass
class Found:
    """What came of one server. answers: by status, as the server counted them."""

    cases: int = 0
    took_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Print the table; exit with 1 where something was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schemathesis", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=10_000, help="at least so many, over all servers")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    program = given.schemathesis.absolute()
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as name, _line_of(_UPSTREAM, "http") as upstream:
        folder = Path(name)
        bees = str(written_alignment(folder / "bees.json"))
        mock = (bees, "--model", f"openai/m@{upstream}")
        for title, arguments, part in (
            ("a mock model", mock, 0.5),
            ("a mock model, with a key", (*mock, "--api-key-env", "FUZZ_KEY"), 0.25),
            ("the simulated model", (bees, "--model", "demo"), 0.25),
        ):
            with _line_of([*_SERVER, *arguments, "--port", "0"], "serving at ") as line:
                root = line.split()[0].removesuffix("/v1:")
                keyed = "FUZZ_KEY" in arguments
                found[title] = _fuzzed(
                    program, root, folder, int(part * given.cases), given.seed, keyed=keyed
                )
    _print(found)
    raise SystemExit(1 if any(one.failures for one in found.values()) else 0)


_UPSTREAM = [sys.executable, "-m", "tests.support.streaming_upstream", "--tokens", "3", "--interval-ms", "0"]
_SERVER = [sys.executable, "-m", "drpo", "serve"]


@contextlib.contextmanager
def _line_of(command: Sequence[str], mark: str) -> Iterator[str]:
    """A process that runs while the context is open, and its first line with `mark`, from there on."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "FUZZ_KEY": _KEY},
    )
    said = process.stdout
    assert said is not None
    told: list[str] = []
    rest = threading.Thread(target=lambda: told.extend(said))  # or the pipe would be full one day
    try:
        for line in said:
            told.append(line)
            if mark in line:
                break
        else:
            raise SystemExit(f"{command} ended before it was ready:\n{''.join(told)}")
        rest.start()
        yield line[line.index(mark) :].removeprefix("serving at ").strip()
    finally:
        process.terminate()
        process.wait()
        if rest.ident is not None:
            rest.join()
    if any("Traceback" in line or "bug of drpo" in line for line in told):
        raise SystemExit(f"{command} said:\n{''.join(told)}")


def _fuzzed(program: Path, root: str, folder: Path, cases: int, seed: int, *, keyed: bool) -> Found:
    """Runs of schemathesis until there were so many cases, or one of them found something."""
    found = Found()
    phases, only = "examples,coverage,fuzzing,stateful", list[str]()
    while found.cases < cases and not found.failures:
        command = [str(program), "run", f"{root}/openapi.json", f"--phases={phases}", f"--seed={seed}"]
        command += [f"--max-examples={_EXAMPLES}", "--checks", ",".join(_CHECKS), "--continue-on-failure"]
        command += ["--no-color", "--suppress-health-check=all", "--generation-database=none"]
        command += [f"--header=Authorization: Bearer {_KEY}"] if keyed else []
        command += only
        began_s = time.monotonic()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(_HOOKS)},
        )
        found.took_s += time.monotonic() - began_s
        counted = re.search(r"([\d,]+) generated", done.stdout)
        if counted is None or done.returncode:
            found.failures.append(done.stdout + done.stderr)
        found.cases += int(counted[1].replace(",", "")) if counted else 0
        # All routes, and what follows from the document, had their turn: from now on, what has a body.
        seed, phases, only = seed + 1, "fuzzing", ["--include-method=POST"]
    found.answers = _answers(root, keyed=keyed)
    return found


def _answers(root: str, *, keyed: bool) -> Counter[str]:
    headers = {"Authorization": f"Bearer {_KEY}"} if keyed else {}
    with urllib.request.urlopen(urllib.request.Request(f"{root}/metrics", headers=headers)) as reply:
        text: str = reply.read().decode()
    counted = Counter[str]()
    for status, count in re.findall(r'drpo_requests_total\{.*status="(\d+)"\} (\d+)', text):
        counted[status] += int(count)
    return counted


def _print(found: dict[str, Found]) -> None:
    for title, one in found.items():
        said = ", ".join(f"{status}: {count:,}" for status, count in sorted(one.answers.items()))
        print(f"{title:26} {one.cases:7,} cases {one.took_s:6.0f} s   answers {said}")
        for failure in one.failures:
            print(failure)
    cases, took_s = sum(one.cases for one in found.values()), sum(one.took_s for one in found.values())
    failed = sum(bool(one.failures) for one in found.values())
    print(f"{cases:,} cases in {took_s:.0f} s; servers that did not keep to their document: {failed}")


if __name__ == "__main__":
    main()
