"""A stand-in for the Hugging Face hub's API on loopback: what huggingface_hub asks for push and pull.

Repositories are kept as commits; git blob ids are the real ones, since the library compares them. It knows
tokens with and without the right to write, private repositories, revisions, and faults that a test sets.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "hf_writer_of_the_tests", "hf_reader_of_the_tests"


@dataclass
class Repository:
    """Its commits, oldest first: (id, files). announced: sizes it lies about. branches: name -> commit."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    announced: dict[str, int] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """What the main branch holds."""
        return self.commits[-1][1]

    def commit(self, files: dict[str, bytes]) -> str:
        """A further commit, its id."""
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits.append((name, files))
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a revision means."""
        wanted = self.commits[-1][0] if revision == "main" else self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit[0] == wanted), None)


@dataclass(frozen=True)
class Asked:
    """One request as it arrived. body: as JSON, or the lines of a commit."""

    method: str
    path: str
    token: str | None
    body: Any


@dataclass(frozen=True)
class Fault:
    """What is answered instead, to requests whose path contains `where`."""

    where: str
    status: int
    message: str = "no"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing where the client left, which it may: it reads no more of a file than there may be."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class HubServer:
    """Serves while the context is open, in a thread."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def holds(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        """A repository that is there already."""
        repository = self.repositories[name] = Repository(private)
        repository.commit({".gitattributes": b"", **files})
        return repository

    def changes(self) -> list[str]:
        """The paths of the requests that wanted to change something."""
        return [
            asked.path for asked in self.asked if asked.method != "GET" and "validate-yaml" not in asked.path
        ]

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def answer(self, asked: Asked) -> tuple[int, Any]:
        """Status and body: bytes as they are, anything else as JSON."""
        self.asked.append(asked)
        for fault in self.faults:
            if fault.where in asked.path:
                return fault.status, {"error": fault.message}
        path, _, query = asked.path.partition("?")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if asked.token not in (None, WRITER, READER):
            return 401, {"error": "Invalid credentials in Authorization header"}
        match parts:
            case ["api", "validate-yaml"]:
                return 200, {"errors": [], "warnings": []}
            case ["api", "repos", "create"]:
                return self._create(asked)
            case ["api", "models", user, name, *more]:
                return self._model(asked, f"{user}/{name}", more, query)
            case [user, name, "resolve", revision, *file]:
                found = self._visible(f"{user}/{name}", asked.token)
                commit = found.at(revision) if found else None
                if commit is None or "/".join(file) not in commit[1]:
                    return 404, {"error": "Entry not found"}
                return 200, commit[1]["/".join(file)]
        return 404, {"error": "Not found"}

    def _visible(self, name: str, token: str | None) -> Repository | None:
        found = self.repositories.get(name)
        return None if found is None or (found.private and token is None) else found

    def _create(self, asked: Asked) -> tuple[int, Any]:
        if asked.token != WRITER:
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        name = f"{asked.body['organization']}/{asked.body['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo"}
        private = asked.body.get("visibility", "public") == "private" or bool(asked.body.get("private"))
        self.holds(name, {}, private=private)
        return 200, {"url": f"{self.url}/{name}", "name": name, "id": "1"}

    def _model(self, asked: Asked, name: str, more: list[str], query: str) -> tuple[int, Any]:
        found = self._visible(name, asked.token)
        if found is None:  # the real one hides from strangers whether there is one
            return (404 if asked.token else 401), {"error": "Repository not found"}
        match more:
            case [] | ["revision", _]:
                commit = found.at(more[1] if more else "main")
                if commit is None:
                    return 404, {"error": f"Invalid rev id: {more[1]}"}
                return 200, _info(name, found, commit, "blobs" in parse_qs(query))
            case ["preupload", "main"]:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    | {"oid": _blob_id(found.files.get(file["path"]))}
                    for file in asked.body["files"]
                ]
                return 200, {"files": files}
            case ["commit", "main"]:
                return self._commit(asked, name, found)
        return 404, {"error": "Not found"}

    def _commit(self, asked: Asked, name: str, found: Repository) -> tuple[int, Any]:
        if asked.token != WRITER:
            return 403, {"error": "You don't have the rights to write to this repository"}
        head, *changes = asked.body
        parent = head["value"].get("parentCommit")
        if parent and parent != found.commits[-1][0]:
            return 412, {"error": "A commit has happened since"}
        added = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in changes}
        commit = found.commit({**found.files, **added})
        return 200, {"success": True, "commitOid": commit, "commitUrl": f"{self.url}/{name}/commit/{commit}"}


def _info(name: str, found: Repository, commit: tuple[str, dict[str, bytes]], sizes: bool) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = []
    for file, content in commit[1].items():
        size = {"size": found.announced.get(file, len(content)), "blobId": _blob_id(content)}
        siblings.append({"rfilename": file, **(size if sizes else {})})
    return {
        "_id": "1",
        "id": name,
        "modelId": name,
        "sha": commit[0],
        "private": found.private,
        "tags": [],
        "siblings": siblings,
        "downloads": 0,
        "likes": 0,
    }


def _blob_id(content: bytes | None) -> str | None:
    if content is None:
        return None
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _handler_of(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet, or the second would wait for the other side's sign

        def do_GET(self) -> None:
            self._serve()

        def do_HEAD(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            asked = Asked(self.command, self.path, token, self._body())
            status, answer = hub.answer(asked)
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
            self.send_header("Content-Type", kind)
            if status == 404 and "/resolve/" in urlsplit(self.path).path:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        def _body(self) -> Any:
            if self.headers.get("Transfer-Encoding") == "chunked":
                raw = b""
                while size := int(self.rfile.readline(), 16):
                    raw += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not raw:
                return None
            if "ndjson" in (self.headers.get("Content-Type") or ""):
                return [json.loads(line) for line in raw.splitlines()]
            return json.loads(raw)

        def log_message(self, *_: Any) -> None:
            """Nothing: a test's output is its own."""

    return Handler
