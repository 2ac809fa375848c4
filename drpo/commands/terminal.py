"""Text of models on a terminal: shown, never obeyed."""

from __future__ import annotations

import unicodedata


def safe(text: str) -> str:
    """`text` with control characters (escape sequences, bells, direction overrides) made visible."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else f"\\u{ord(c):04x}" for c in text
    )
