"""kill -9 costs what was in the air and nothing else; benchmarks/kills.py tries it by the hundred."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from benchmarks.kills import demo_scene, server_scene

ROOT = Path(__file__).parents[1]


def test_a_killed_demo_run_comes_out_the_same_to_the_byte(tmp_path: Path) -> None:
    scene = demo_scene(3, random.Random(3), tmp_path, [3])
    assert scene.violations == []
    assert scene.kills == 3


def test_no_recorded_call_is_ever_sent_again(tmp_path: Path) -> None:
    scene = server_scene(2, random.Random(5), tmp_path, [3])
    assert scene.violations == []
    assert scene.requests > 0 and scene.kills == 2


def test_a_run_killed_at_its_first_fsyncs_and_renames_starts_again() -> None:
    command = [sys.executable, "-m", "benchmarks.kills", "--kills", "0", "--steps", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].split()[:3] == ["steps", "8", "8"]
