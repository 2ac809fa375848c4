"""What a server's error means, read from its status, codes and words."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

_SHOWN = 300
_SECRETS = re.compile(r"(?i)(bearer\s+)[^\s\"',;]+|\b(sk-|gsk_|hf_|xai-|AIza)[\w*.\-]{3,}")

GATEWAY = frozenset({408, 502, 504, *range(520, 528)})
"""Said by a gateway that lost the model's server, or its patience with it: who knows how far that came."""
Meaning = Literal["filtered", "too_long", "no_credit", "passing", "final"]

_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_FILTERED = {"content_filter", "content_policy_violation", "invalid_prompt"}
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}
_NOT_TAKEN = {"unsupported_parameter", "unsupported_value", "unknown_parameter"}
_STATUS_OF_CODE = {
    **dict.fromkeys((*_QUOTA, "rate_limit_exceeded", "rate_limit_error"), 429),
    **dict.fromkeys(("invalid_api_key", "authentication_error"), 401),
    **dict.fromkeys(("model_not_found", "not_found_error"), 404),
    **dict.fromkeys((*_FILTERED, *_TOO_LONG, *_NOT_TAKEN, "invalid_request_error", "BadRequestError"), 400),
}
_TOO_LONG_TEXT = re.compile(
    r"maximum context length|context window|context size|input token count|(?<!array )too long"
)
_NOT_TAKEN_TEXT = re.compile(
    r"not support|unsupported|unrecognized request argument|unexpected keyword|unknown (?:parameter|field)"
    r"|extra inputs are not permitted|cannot both be"
)
_ONLY_ONE = re.compile(r"must be (?:1|one)\b|at most (?:1|one)\b|only (?:n ?= ?)?1\b|<= ?1\b|n ?> ?1\b")
# What a server says that takes no schema for replies, or not this one.
_SCHEMA_TEXT = re.compile(
    r"response[_ ]?format|(?:json|response)[_ ]?schema|structured[_ ]?output|guided[_ ](?:decod|json)|grammar"
)
_FIELDS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "n")


@dataclass(frozen=True)
class Fault:
    """What a server said was wrong; `codes`: its code and its type, `param`: the parameter it names or ""."""

    status: int
    said: str
    codes: frozenset[str]
    param: str

    def meaning(self) -> Meaning:
        """Filtered content, a request too long, an empty account; else whether it may pass or is final."""
        text = self.said.lower()
        if self.status in (400, 403, 422) and self._is_filtered(text):
            return "filtered"
        if self.status in (400, 413, 422) and self._is_too_long(text):
            return "too_long"
        if self.status == 402 or (self.status == 429 and self.codes & _QUOTA):
            return "no_credit"
        if self.status in (408, 409, 429) or (self.status >= 500 and self.status not in (501, 505)):
            return "passing"
        return "final"

    def parameter_not_taken(self, sent: Collection[str]) -> str | None:
        """The field of `Request` among the wire names `sent` that the model does not take."""
        text = self.said.lower()
        if "response_format" in sent and self._is_about_schema(text):
            return "reply_schema"
        if self.status not in (400, 422):
            return None
        places = {name: _place(name, text) for name in _FIELDS if name in sent}
        if self.param:
            places = {name: 0 for name in places if name == self.param.removeprefix("body.")}
        places = {name: place for name, place in places.items() if place >= 0}
        if not self.codes & _NOT_TAKEN and not _NOT_TAKEN_TEXT.search(text):
            places = {name: place for name, place in places.items() if name == "n" and _ONLY_ONE.search(text)}
        if not places:
            return None
        # "temperature and top_p cannot both be given": greedy needs its temperature
        name = "top_p" if "cannot both" in text and "top_p" in places else min(places, key=places.__getitem__)
        return name

    def _is_about_schema(self, text: str) -> bool:
        """Unknown, unwelcome or beyond what the server can compile: whatever it is, leaving it out helps."""
        if self.status not in (400, 422, 500, 501) or self.param.removeprefix("body.") in _FIELDS:
            return False
        return _SCHEMA_TEXT.search(f"{self.param} {text}") is not None

    def _is_filtered(self, text: str) -> bool:
        if self.codes & _FILTERED or "input was flagged" in text:
            return True
        return self.status == 400 and "flagged" in text and "account" not in text

    def _is_too_long(self, text: str) -> bool:
        return bool(self.codes & _TOO_LONG or self.param == "input_tokens" or _TOO_LONG_TEXT.search(text))


def read_fault(error: object, status: int | None = None) -> Fault:
    """The error body of a response, of any shape; without `status`, its own code says which it stands for."""
    if isinstance(error, dict) and isinstance(error.get("error"), (dict, str)):
        error = error["error"]
    if not isinstance(error, dict):
        return Fault(status or 500, str(error or ""), frozenset(), "")
    said = error.get("message") or error.get("detail") or error
    said = said if isinstance(said, str) else json.dumps(said, default=str)
    metadata = error.get("metadata")  # where a router quotes the provider behind it
    if isinstance(metadata, dict) and (raw := metadata.get("raw")):
        said = f"{said}: {raw}"
    codes = frozenset(str(code) for code in (error.get("code"), error.get("type")) if code is not None)
    param = error.get("param")
    return Fault(status or _status_of(codes), said, codes, param if isinstance(param, str) else "")


def one_line(text: str, key: str | None) -> str:
    """What a server said, fit to be shown: one line of at most 300 characters without markup or secrets."""
    if key and len(key) > 3:
        text = text.replace(key, "[key]")
    text = _SECRETS.sub(r"\1\2[key]", text)
    text = re.sub(r"//[^/\s@]+@", "//", re.sub(r"<[^>]*>", " ", text))
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _status_of(codes: Collection[str]) -> int:
    numbers = [int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)]
    return (numbers or [_STATUS_OF_CODE[code] for code in sorted(codes) if code in _STATUS_OF_CODE] or [500])[
        0
    ]


def _place(name: str, text: str) -> int:
    """Where `text` speaks of the parameter `name`, -1 if nowhere; short names are also ordinary words."""
    if len(name) > 4:
        pattern = rf"(?<!\w){name}(?!\w)"
    else:
        before = r"(?:parameter|argument|keyword|field|value)s?(?: supplied)?:? "
        after = r" ?(?:parameter|value|must|is not|=|>)"
        pattern = rf"[\"'`]{name}[\"'`]|{before}{name}\b|(?<!\w){name}{after}"
    found = re.search(pattern, text)
    return found.start() if found else -1
