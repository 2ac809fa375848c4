"""A repository of the Hugging Face hub, through huggingface_hub: who may, what came, what failed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from drpo.alignment import FILE_NAME
from drpo.errors import InputError, ProviderDown, ProviderRefused
from drpo.llm.connections import Endpoint
from drpo.llm.faults import one_line
from drpo.sharing.folder import MOST_BYTES, Files, refuse_large

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo

PUBLIC_HUB = "https://huggingface.co"
TIMEOUT_S = 60.0  # of one request without any news; the library itself would wait for ever
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?", re.ASCII)
_REVISION = re.compile(r"[\w./-]{1,200}", re.ASCII)
_OF_EVERY_REPOSITORY = {".gitattributes"}


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where an alignment lies now. commit: of what lies there; created: the repository is new."""

    url: str
    commit: str
    created: bool


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a repository holds of a shared alignment, at one commit. left: how many other files it has."""

    files: Files
    commit: str
    left: int


def repository_name(given: str) -> str:
    """`given`, if it is USER/REPO as the hub names them, whose parts can be no path. Else InputError."""
    parts = given.split("/")
    if len(parts) == 2 and all(_NAME.fullmatch(part) and not re.search(r"--|\.\.", part) for part in parts):
        return given
    raise InputError(
        f"{given[:200]}: expected USER/REPO, as the hub names a repository: letters, digits, '-', '_' and '.'"
    )


def require_hub() -> None:
    """Nothing, if the library that speaks to the hub is installed; else InputError."""
    if find_spec("huggingface_hub") is None:
        raise InputError("sharing needs the package huggingface_hub: pip install 'drpo[hub]'")


class Hub:
    """The hub that HF_ENDPOINT names, else the public one; with the token of HF_TOKEN or of the hub's login.

    Every method raises ProviderRefused where the hub says no, ProviderDown where it gives no usable answer.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        require_hub()
        self._url = (environment.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/")
        if urlsplit(self._url).scheme not in ("http", "https") or not urlsplit(self._url).hostname:
            raise InputError("HF_ENDPOINT: expected the URL of a hub, http(s)://HOST; mend or unset it")
        self._token = environment.get("HF_TOKEN", "").strip() or None

    def url_of(self, repository: str) -> str:
        """Where people find the repository."""
        return f"{Endpoint(self._url).shown}/{repository}"

    def push(self, repository: str, files: Files, *, public: bool) -> Pushed:
        """Upload the files as one commit; the repository is made where there is none.

        InputError where one of that name is not as private as asked for, or holds something else.
        """
        with self._session(repository) as api:
            from huggingface_hub import CommitOperationAdd

            known = self._find(api, repository)
            if known is None:
                api.create_repo(repository, private=not public)
            else:
                _refuse_other_use(repository, known, public=public)
            done = api.create_commit(
                repository,
                [CommitOperationAdd(name, content) for name, content in files.items()],
                commit_message="An alignment, by drpo push",
                parent_commit=None if known is None else known.sha,  # else what came in between would be lost
            )
            return Pushed(self.url_of(repository), str(done.oid), known is None)

    def pull(self, repository: str, revision: str | None) -> Pulled:
        """The files of a shared alignment at `revision` (the main branch), and no other file.

        InputError where there is no alignment, or a file is larger than it may be.
        """
        if revision is not None and not _REVISION.fullmatch(revision):
            raise InputError(
                f"--revision {revision[:200]}: expected a branch, a tag or a commit of {repository}"
            )
        with self._session(repository, revision) as api:
            info = api.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
            there = {item.rfilename: item.size or 0 for item in info.siblings or ()}
            if FILE_NAME not in there:
                raise InputError(f"{repository}: expected an alignment, there is no {FILE_NAME} in it")
            wanted = [name for name in MOST_BYTES if name in there]
            for name in wanted:
                _refuse_large(repository, name, there[name])
            files = {name: self._download(api, repository, name, str(info.sha)) for name in wanted}
            return Pulled(files, str(info.sha), len(there.keys() - files.keys() - _OF_EVERY_REPOSITORY))

    def _find(self, api: HfApi, repository: str) -> ModelInfo | None:
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return api.model_info(repository, timeout=TIMEOUT_S)
        except HfHubHTTPError as error:
            if error.response.status_code == 404:
                return None
            raise

    def _download(self, api: HfApi, repository: str, name: str, commit: str) -> bytes:
        """The file's bytes; reading ends where there are more than there may be, whatever was announced."""
        from huggingface_hub import hf_hub_url

        tools = _tools()
        url = hf_hub_url(repository, name, revision=commit, endpoint=self._url)
        headers = tools.build_hf_headers(token=self._token, library_name="drpo")
        content = bytearray()
        with tools.get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            tools.hf_raise_for_status(response)
            for part in response.iter_bytes(65_536):
                content += part
                _refuse_large(repository, name, len(content))
        return bytes(content)

    @contextlib.contextmanager
    def _session(self, repository: str, revision: str | None = None) -> Iterator[HfApi]:
        """The library's door, bounded in time, silent, and with sentences for its errors."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        tools = _tools()
        verbosity, client = tools.logging.get_verbosity(), tools.get_session()
        timeout, client.timeout = client.timeout, tools.httpx.Timeout(TIMEOUT_S)
        tools.logging.set_verbosity_error()
        try:
            yield HfApi(endpoint=self._url, token=self._token, library_name="drpo")
        except HfHubHTTPError as error:
            raise self._refusal(error, repository, revision) from None
        except OfflineModeIsEnabled:
            raise InputError(
                "HF_HUB_OFFLINE is set: nothing is asked of the hub; unset it to share"
            ) from None
        except (tools.httpx.HTTPError, OSError) as error:
            said = one_line(str(error), self._secret()) or type(error).__name__
            raise ProviderDown(
                f"{self.url_of(repository)}: no answer: {said}. Check the network and HF_ENDPOINT, then "
                "try again"
            ) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ProviderDown(
                f"{Endpoint(self._url).shown}: its answer is not that of a hub ({type(error).__name__}). "
                "Check HF_ENDPOINT, then try again"
            ) from None
        finally:
            client.timeout = timeout
            tools.logging.set_verbosity(verbosity)

    def _secret(self) -> str | None:
        """The token that was sent, so that it can be taken out of what is shown."""
        from huggingface_hub import get_token

        return self._token or get_token()

    def _refusal(self, error: HfHubHTTPError, repository: str, revision: str | None) -> Exception:
        """The hub's error as one of ours, with the remedy."""
        status = error.response.status_code
        said = one_line(str(error.server_message or ""), self._secret())
        told = f"{self.url_of(repository)}: status {status}{f': {said}' if said else ''}"
        if status >= 500 or status in (408, 429):
            return ProviderDown(f"{told}. The hub cannot answer now; try again later")
        if status == 404:
            what = f"repository, or no revision {revision}" if revision else "repository"
            return ProviderRefused(f"{told}: no such {what}, or it is private; check the name and HF_TOKEN")
        remedies = {
            401: "Token missing or wrong, or no such repository: set HF_TOKEN, or run hf auth login",
            403: f"The token may not do this: give it the right to write to {repository}, or ask for access",
            409: "Somebody has just made or changed it; look at it and try again",
            412: "Somebody has just changed it; look at it and try again",
        }
        return ProviderRefused(f"{told}. {remedies.get(status, 'Check the name, the licence and the token')}")


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether a token is at hand: in HF_TOKEN, or by the hub's own login."""
    require_hub()
    from huggingface_hub import get_token

    return bool(environment.get("HF_TOKEN", "").strip() or get_token())


def _tools() -> Any:
    """The library's documented helpers, which it loads by name, unseen by a type checker."""
    return import_module("huggingface_hub.utils")


def _refuse_large(repository: str, name: str, size: int) -> None:
    try:
        refuse_large(name, size)
    except InputError as error:
        raise InputError(f"{repository}: {error}; nothing was written") from None


def _refuse_other_use(repository: str, known: Any, *, public: bool) -> None:
    """Nothing, if the repository is as private as was asked for and holds an alignment or nothing."""
    if bool(known.private) == public:
        now, flag = ("private", "without --public") if known.private else ("public", "with --public")
        raise InputError(
            f"{repository}: exists and is {now}: push to it {flag}, or to another one; nothing was uploaded"
        )
    names = {item.rfilename for item in known.siblings or ()} - _OF_EVERY_REPOSITORY
    if names and FILE_NAME not in names:
        raise InputError(
            f"{repository}: holds other files and no alignment; push to a repository of its own; nothing was "
            "uploaded"
        )
