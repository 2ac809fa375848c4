"""Text of models, users and files on a page: only ever text, and nothing hidden in it."""

from __future__ import annotations

import json
import re
from typing import Any

# Controls (but line feed and tab), what reorders the text around it (overrides, embeddings, isolates), line
# and paragraph separators, halves of surrogate pairs, and what shows nothing but can carry a message. The
# marks and joiners that written languages and emoji need (U+200C to U+200F) stay.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
_ACTIVE = re.compile("[<>&]")


def visible(text: str) -> str:
    """`text` with each control, reordering or invisible character as its escape, such as `\\u202e`."""
    return _HIDDEN.sub(_escape, text)


def island(value: Any) -> str:
    """`value` as JSON that can stand inside a script element, and says the same after JSON.parse.

    Strings are made `visible`; `<`, `>` and `&` are escaped, so that no tag, comment or entity begins in it.
    """
    return _ACTIVE.sub(
        _escape, json.dumps(_visible_all(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    )


def _visible_all(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, (list, tuple)):
        return [_visible_all(item) for item in value]
    if isinstance(value, dict):
        return {visible(str(name)): _visible_all(item) for name, item in value.items()}
    return value


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
