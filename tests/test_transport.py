"""What the lean HTTP client takes from the environment; the rest is in test_client.py, through the SDK."""

from __future__ import annotations

import pytest

from drpo.llm.transport import environment_proxy

NAMES = [
    name for base in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (base, base.lower())
]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "scheme", "expected"),
    [
        ({}, "https", None),
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "https", "http://proxy.test:3128"),
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "http", None),
        ({"ALL_PROXY": "proxy.test:3128"}, "http", "http://proxy.test:3128"),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "example.test"}, "https", None),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "other.test"}, "https", "http://p.test"),
    ],
)
def test_proxies_are_those_of_the_environment(
    variables: dict[str, str], scheme: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name.lower(), value)
    assert environment_proxy(scheme, "api.example.test") == expected
