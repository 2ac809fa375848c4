"""Writes the data files beside the model: seed queries, held-out queries, plain examples.

python -m benchmarks.demo_lm.files --out demo-lm
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

from benchmarks.demo_lm import world
from benchmarks.demo_lm.world import FITTING


def plain_examples() -> list[dict[str, str]]:
    """Ten harmless questions whose answers have none of the features: the prompt has to do the work."""
    rng = random.Random("examples")
    seeds = set(world.seed_queries())
    examples: list[dict[str, str]] = []
    for kind in (kind for kind in FITTING if kind != "harmful"):
        wanted = len(examples) + 2
        while len(examples) < wanted:
            question = world.draw_question(rng, kind)
            if question.text not in seeds:
                seeds.add(question.text)
                answer = world.draw_parts(question, rng).write(())
                examples.append({"query": question.text, "response": answer, "kind": "informative"})
    return examples


def _write(path: Path, lines: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    for name, queries in (("seeds", world.seed_queries()), ("held_out", world.held_out_queries())):
        _write(out / f"{name}.jsonl", ({"query": query} for query in queries))
    _write(out / "examples.jsonl", plain_examples())


if __name__ == "__main__":
    main()
