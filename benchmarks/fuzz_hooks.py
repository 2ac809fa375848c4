"""What schemathesis is told of `drpo serve`: loaded by it, in its environment (see fuzz_serving.py)."""

from __future__ import annotations

import json
from typing import Any

import schemathesis  # type: ignore[import-not-found,unused-ignore]

_ORDER = ("messages", "invalid_value")


@schemathesis.hook  # type: ignore[untyped-decorator,unused-ignore]
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a failure is one: no schema can say whose the last message must be."""
    if failure.code != "ST202":  # a body that the schema admits was refused
        return True
    error = json.loads(response.content)["error"]
    return (error["param"], error["code"]) != _ORDER
