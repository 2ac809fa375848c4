"""Pairs of a prompt and its optimized form, as `drpo bpo build` writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from drpo.errors import InputError
from drpo.plan import digest_of

PAIRS_NAME = "pairs.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """A user's prompt and what a rewriter is to make of it; equal ones teach it to leave good ones alone."""

    prompt: str
    optimized: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of a file, in its order."""

    source: Path
    pairs: tuple[Pair, ...]

    @property
    def digest(self) -> str:
        """Tells apart what is trained on."""
        return digest_of([[pair.prompt, pair.optimized] for pair in self.pairs])

    @property
    def unchanged(self) -> int:
        """How many are equal on both sides."""
        return sum(pair.prompt == pair.optimized for pair in self.pairs)


def read_pairs(path: Path) -> Pairs:
    """The pairs of a folder (its pairs.jsonl) or of a JSONL file with "prompt" and "optimized_prompt" on each
    line. Raises InputError with the place of what is wrong."""
    file = path / PAIRS_NAME if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"--data {path}: expected {file}, there is none. `drpo bpo build` makes it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--data {path}: expected JSONL in UTF-8: {error}") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    pairs = tuple(_pair(line, f"--data {file}:{number}") for number, line in lines)
    if not pairs:
        raise InputError(f"--data {file}: expected at least one pair, came none. Build more")
    return Pairs(file, pairs)


def _pair(line: str, place: str) -> Pair:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: expected a JSON object: {error}. Mend the line") from None
    found = [data.get(name) if isinstance(data, dict) else None for name in ("prompt", "optimized_prompt")]
    prompt, optimized = found
    if (
        not isinstance(prompt, str)
        or not isinstance(optimized, str)
        or not prompt.strip()
        or not optimized.strip()
    ):
        raise InputError(
            f"{place}: expected texts in prompt and optimized_prompt. Mend the line or take it out"
        )
    return Pair(prompt, optimized)
