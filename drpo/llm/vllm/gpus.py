"""How many of this machine's GPUs a model's weights need."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

from drpo.llm.catalog import WEIGHTS_SHARE_OF_MEMORY

_ASKING_S = 20.0


def visible_gpus_gb(environment: Mapping[str, str]) -> tuple[float, ...]:
    """The memory of each GPU that a server would see, in gigabytes; empty where none can be told."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return ()
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=_ASKING_S, check=True).stdout
        mebibytes = [float(line) for line in said.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        mebibytes = _chosen(mebibytes, chosen)
    return tuple(size * 2**20 / 1e9 for size in mebibytes)


def _chosen(cards: list[float], chosen: str) -> list[float]:
    """Those that CUDA_VISIBLE_DEVICES names; as in CUDA the list ends at the first that is none."""
    visible: list[float] = []
    for name in (part.strip() for part in chosen.split(",")):
        # By UUID it cannot be told which: then the next one stands for it.
        index = int(name) if name.isdecimal() else len(visible)
        if name in ("", "-1") or index >= len(cards):
            break
        visible.append(cards[index])
    return visible


def gpus_needed(weights_gb: float | None, gpus_gb: tuple[float, ...]) -> int:
    """The smallest power of two of these GPUs that holds the weights; 1 where something is not known.

    Powers of two, since tensor parallelism has to divide the number of attention heads. If even all do not
    suffice, the largest power of two there is: the server will say what is missing.
    """
    if weights_gb is None or not gpus_gb:
        return 1
    count = 1
    while 2 * count <= len(gpus_gb) and weights_gb > count * min(gpus_gb) * WEIGHTS_SHARE_OF_MEMORY:
        count *= 2
    return count
