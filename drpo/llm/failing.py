"""What went wrong with a request to an endpoint, as drpo's own errors: sentences without keys and markup."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping

from drpo.errors import DrpoError, ParameterRefused, ProviderRefused
from drpo.llm.base import Choice, Completion, Request
from drpo.llm.connections import Endpoint
from drpo.llm.faults import GATEWAY, Fault, one_line
from drpo.llm.retry import Transient, Unconnected, retry_after_s
from drpo.llm.wire import body_of

_REMEDIES = {
    401: "Check the API key: the variable that holds it, and that it belongs to this endpoint",
    403: "Check that the API key may use this model",
    404: "Check the model's name, and that the URL ends where the API begins (often /v1)",
}


class Failing:
    """Turns what a server and the connections to it do wrong into what is to be raised, for one model."""

    def __init__(self, endpoint: Endpoint, model_name: str) -> None:
        self._endpoint, self._model_name = endpoint, model_name

    def unconnected(self, request: Request, err: Exception) -> DrpoError:
        import httpx2

        causes: list[BaseException] = [err]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 9:
            causes.append(cause)
        said = self.clean(next((str(c) for c in reversed(causes) if str(c)), type(err).__name__))
        if any(isinstance(c, ssl.SSLCertVerificationError) for c in causes):
            remedy = "Check the address; a private authority's certificate belongs into the system's store"
            return ProviderRefused(f"{self._who(request)}: its certificate is not trusted: {said}. {remedy}.")
        if any(isinstance(c, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)) for c in causes):
            return ProviderRefused(
                f"{self._who(request)}: not a usable URL: {said}. Expected http(s)://HOST/v1."
            )
        never = any(isinstance(c, (httpx2.ConnectError, httpx2.ConnectTimeout)) for c in causes)
        message = f"{self._who(request)}: no connection, or it broke: {said}"
        return Unconnected(message, charge="unsent" if never else "perhaps")

    def fault(self, request: Request, fault: Fault, headers: Mapping[str, str]) -> Completion | DrpoError:
        """What an error of the server means: a completion, or the exception to raise."""
        said = self.clean(fault.said).rstrip(". ") or "no message"
        message = f"{self._who(request)}: HTTP {fault.status}: {said}"
        meaning = fault.meaning()
        if meaning == "filtered":
            return Completion((Choice("", "content_filter"),))
        if meaning == "too_long":
            return Completion((Choice("", "context_length"),))
        if meaning == "no_credit":
            return _told(
                ProviderRefused(
                    f"{message}. Add credit or raise the account's limit, then run the same again."
                ),
                fault.status,
                said,
            )
        if (name := fault.parameter_not_taken(body_of(request, self._model_name))) is not None:
            return ParameterRefused(name, f"{message}. The model does not take {name!r}: leave it out.")
        if meaning == "passing":
            lost = fault.status in GATEWAY
            waits_s = retry_after_s(headers, time.time())
            return Transient(message, waits_s, charge="perhaps" if lost else "none", status=fault.status)
        return _told(ProviderRefused(f"{message}. {self._remedy(fault.status)}."), fault.status, said)

    def _remedy(self, status: int) -> str:
        if status == 401 and not self._endpoint.api_key:
            return "No key was sent: set the variable that holds this endpoint's API key"
        return _REMEDIES.get(
            status, "The endpoint does not accept this request; check the model and its settings"
        )

    def transient(self, request: Request, problem: str, status: int | None = None) -> Transient:
        return Transient(f"{self._who(request)}: {problem}", status=status)

    def _who(self, request: Request) -> str:
        return f"{request.role} model {self._model_name} at {self._endpoint.shown}"

    def clean(self, text: str) -> str:
        return one_line(text, self._endpoint.api_key)


def _told(refused: ProviderRefused, status: int, said: str) -> ProviderRefused:
    refused.status, refused.said = status, said
    return refused
