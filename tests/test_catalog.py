"""How models are named, and what the catalog promises about them."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import InputError
from drpo.llm.base import Request
from drpo.llm.catalog import (
    CatalogEntry,
    ModelSpec,
    entries,
    gpus_for,
    normalise_url,
    parse_model,
    strong_model,
)
from drpo.llm.prices import price_per_million

URL = "http://127.0.0.1:8321/v1"
PROMISED = [
    "demo",
    "mistral-7b",
    "mistral-7b-instruct",
    "llama-2-7b",
    "llama-2-7b-chat",
    "llama-2-70b",
    "llama-2-70b-chat",
    "llama-3-8b",
    "llama-3-8b-instruct",
    "gpt-3.5-turbo",
    "gpt-4",
    "gpt-4-turbo",
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
]


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_model(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.alias)
def test_every_alias_parses_to_its_entry(entry: CatalogEntry) -> None:
    assert parse_model(entry.alias) == ModelSpec(entry.provider, entry.name, (), entry)


@pytest.mark.parametrize("alias", PROMISED)
def test_the_promised_aliases_are_there(alias: str) -> None:
    assert parse_model(alias).entry is not None


def test_aliases_and_names_are_unique_and_sorted_by_provider() -> None:
    found = entries()
    assert len({entry.alias for entry in found}) == len(found)
    assert len({(entry.provider, entry.name) for entry in found}) == len(found)
    assert [(e.provider, e.alias) for e in found] == sorted((e.provider, e.alias) for e in found)


def test_only_fields_of_a_request_are_refused() -> None:
    known = {field.name for field in fields(Request)}
    assert all(entry.refuses <= known for entry in entries())


def test_base_models_are_asked_in_text_form_and_all_others_in_chat_form() -> None:
    text = {entry.alias for entry in entries() if entry.form == "text"}
    assert text == {"mistral-7b", "llama-2-7b", "llama-2-70b", "llama-3-8b", "llama-3.1-8b", "qwen3-8b-base"}
    assert all(entry.form == "chat" for entry in entries() if entry.alias not in text)


def test_llama_2_70b_is_the_quantized_one_of_the_paper() -> None:
    entry = parse_model("llama-2-70b").entry
    assert entry is not None
    assert (entry.quantization, entry.gpus) == ("awq", 2)


def test_reasoning_models_refuse_sampling_parameters() -> None:
    entry = parse_model("gpt-6.1-sol").entry
    assert entry is not None
    assert entry.refuses == {"temperature", "top_p", "max_tokens"}


def test_only_served_models_need_gpus() -> None:
    assert all((entry.gpus > 0) == (entry.provider == "vllm") for entry in entries())


def test_the_cards_of_an_alias_are_those_of_its_weights() -> None:
    for entry in entries():
        assert entry.gpus == (0 if entry.weights_gb is None else gpus_for(entry.weights_gb))


@pytest.mark.parametrize(
    ("weights_gb", "gpus"), [(14.5, 1), (19.2, 1), (19.3, 2), (36.6, 2), (65.5, 4), (140, 8)]
)
def test_gpus_are_a_power_of_two_that_the_weights_fill_to_four_fifths(weights_gb: float, gpus: int) -> None:
    assert gpus_for(weights_gb) == gpus


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("openai/base", ModelSpec("openai", "base")),
        (f"openai/base@{URL}", ModelSpec("openai", "base", (URL,))),
        ("openai/ft:gpt-x:org::id", ModelSpec("openai", "ft:gpt-x:org::id")),
        ("openai/some/nested/name", ModelSpec("openai", "some/nested/name")),
        ("vllm/./my-model", ModelSpec("vllm", "./my-model")),
        (f"vllm//models/mine@{URL}", ModelSpec("vllm", "/models/mine", (URL,))),
        ("vllm/me/repo@main", ModelSpec("vllm", "me/repo@main")),
        ("vllm/me/repo@refs/pr/1", ModelSpec("vllm", "me/repo@refs/pr/1")),
        (f"vllm/me/repo@v1.0@{URL}", ModelSpec("vllm", "me/repo@v1.0", (URL,))),
        ("  openai/base\n", ModelSpec("openai", "base")),
    ],
)
def test_a_provider_and_a_name_make_a_model(text: str, spec: ModelSpec) -> None:
    assert parse_model(text) == spec


def test_an_alias_may_be_served_elsewhere() -> None:
    entry = parse_model("mistral-7b").entry
    assert parse_model(f"mistral-7b@{URL}") == ModelSpec("vllm", "mistralai/Mistral-7B-v0.1", (URL,), entry)


@pytest.mark.parametrize(
    ("text", "alias"),
    [
        (f"vllm/mistralai/Mistral-7B-v0.1@{URL}", "mistral-7b"),
        (f"openai/mistralai/Mistral-7B-v0.1@{URL}", "mistral-7b"),
        ("vllm/mistralai/Mistral-7B-v0.1@main", "mistral-7b"),
        ("openai/gpt-4o", "gpt-4o"),
        ("vllm/gpt-4o", None),
        ("openai/unheard-of", None),
    ],
)
def test_a_known_name_gets_its_entry(text: str, alias: str | None) -> None:
    entry = parse_model(text).entry
    assert (entry.alias if entry else None) == alias


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("demo", "demo"),
        ("gpt-4o", "openai/gpt-4o"),
        ("openai/base@HTTP://LocalHost:80/v1/", "openai/base@http://localhost/v1"),
        ("openai/base@https://API.example:443", "openai/base@https://api.example"),
        ("openai/base@https://h:80/V1", "openai/base@https://h:80/V1"),
        ("vllm/a/b@http://[::1]:8000/", "vllm/a/b@http://[::1]:8000"),
        ("vllm/a/B@main@http://h", "vllm/a/B@main@http://h"),
    ],
)
def test_one_endpoint_has_one_identity(text: str, identity: str) -> None:
    assert parse_model(text).identity == identity


def test_normalising_twice_changes_nothing() -> None:
    once = normalise_url("HTTPS://Some.Host:443/a/B//")
    assert once == normalise_url(once) == "https://some.host/a/B"


@pytest.mark.parametrize("text", ["", "  "])
def test_no_model_at_all_is_said(text: str) -> None:
    assert refusal(text).startswith("model: expected demo, an alias, openai/NAME or vllm/REPO-OR-PATH")


@pytest.mark.parametrize(("text", "closest"), [("mistal-7b", "mistral-7b"), ("GPT-4O", "gpt-4o")])
def test_an_unknown_alias_names_the_closest(text: str, closest: str) -> None:
    message = refusal(text)
    assert f"{text!r}" in message
    assert f"the closest alias is {closest!r}" in message
    assert "`drpo models`" in message


def test_an_alias_like_none_names_no_closest() -> None:
    assert "closest" not in refusal("zzzzzzzz")


def test_an_unknown_provider_says_how_a_repository_is_written() -> None:
    message = refusal("mistralai/Mistral-7B-v0.1")
    assert "'mistralai' is no provider" in message
    assert "'vllm/mistralai/Mistral-7B-v0.1'" in message


@pytest.mark.parametrize("text", ["openai/", "vllm/", f"openai/@{URL}", "openai/two words"])
def test_a_provider_wants_a_name(text: str) -> None:
    assert "expected a name without blanks behind" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "openai/base@127.0.0.1:8321/v1",
        "openai/base@localhost/v1",
        "openai/base@localhost",
        "openai/base@some.host/v1",
        "openai/base@//host/v1",
        "openai/base@http://",
        "openai/base@http:///v1",
        "openai/base@ftp://host/v1",
        "openai/base@http://host:port/v1",
        "openai/base@http://[::1/v1",
        "openai/base@http://ho st/v1",
        "openai/base@http://host/v1\tx",
        "openai/base@",
        "mistral-7b@",
        "mistral-7b@main",
        "vllm/a@b@c",
    ],
)
def test_a_url_needs_scheme_and_host(text: str) -> None:
    assert "expected http(s)://HOST[:PORT][/PATH] behind @, came " in refusal(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("openai/base@http://user:s3cret@host/v1", "user or password"),
        ("openai/base@http://s3cret@host/v1", "user or password"),
        ("openai/base@http://user:12#s3cret@host/v1", "user or password"),
        ("openai/base@http://host/v1?api_key=s3cret", "query"),
        ("openai/base@http://host/v1#s3cret", "fragment"),
        ("mistral-7b@https://user:s3cret@host", "user or password"),
    ],
)
def test_a_url_holds_no_secret_and_none_is_repeated(text: str, what: str) -> None:
    message = refusal(text)
    assert f"expected no {what}" in message
    assert "DRPO_BASE_API_KEY" in message
    assert "s3cret" not in message
    assert "host" in message


@pytest.mark.parametrize("text", ["openai/base@user:s3cret@host/v1", "gpt-4o@user:s3cret@host"])
def test_a_secret_before_a_host_without_scheme_is_not_repeated(text: str) -> None:
    assert "s3cret" not in refusal(text)


@pytest.mark.parametrize("name", ["vllm/a/b", "openai/a", "mistral-7b"])
def test_servers_of_one_model_are_one_identity_in_whatever_order_they_are_named(name: str) -> None:
    one, two = "http://a:8000/v1", "http://b:8000/v1"
    spec = parse_model(f"{name}@{two},HTTP://A:8000/v1/,{one}")
    assert spec == parse_model(f"{name}@{one},{two}")
    assert spec.urls == (one, two) and spec.url == one
    assert spec.identity == f"{parse_model(name).identity}@{one},{two}"


def test_a_server_named_twice_is_one_server() -> None:
    assert parse_model(f"openai/base@{URL},{URL}/") == parse_model(f"openai/base@{URL}")
    assert parse_model("openai/base").urls == () and parse_model("openai/base").url is None


HOSTS = st.sampled_from(["http://a", "http://b:8000/v1", "https://c/v1", "http://[::1]:8000"])


@given(
    st.lists(HOSTS, min_size=1, max_size=6).flatmap(
        lambda urls: st.tuples(st.just(urls), st.permutations(urls))
    )
)
def test_order_and_repetition_of_servers_are_of_no_matter(orders: tuple[list[str], list[str]]) -> None:
    one, two = (parse_model(f"vllm/a/b@{','.join(urls)}") for urls in orders)
    assert one == two and one.identity == two.identity and set(one.urls) == set(orders[0])


@pytest.mark.parametrize(
    "urls",
    [
        f"{URL},",
        f"{URL},,{URL}",
        f"{URL},other:8000/v1",
        f"{URL},other",
        f"{URL}, {URL}",
        f"{URL},//other",
    ],
)
def test_each_of_several_servers_is_a_whole_url(urls: str) -> None:
    assert "expected http(s)://HOST[:PORT][/PATH] right behind each comma" in refusal(f"openai/base@{urls}")


def test_each_of_several_servers_needs_a_host() -> None:
    assert "behind @, came 'http://:8000'" in refusal(f"openai/base@{URL},http://:8000")
    assert "came 'ftp://other'" in refusal(f"openai/base@{URL},ftp://other")


@pytest.mark.parametrize(
    "urls",
    [
        f"http://user:s3cret@host/v1,{URL}",
        f"{URL},http://user:s3cret@host/v1",
        "http://user:s3,cret@host/v1",
        "http://user:s3,http://cret@host/v1",
        f"{URL},user:s3cret@host/v1",
        f"http://host/v1?key=s3cret,{URL}",
        f"{URL},http://host/v1#s3cret",
        "http://host/v1?key=s3,http://s3cret",
    ],
)
def test_no_secret_of_several_urls_is_repeated(urls: str) -> None:
    message = refusal(f"openai/base@{urls}")
    assert "s3" not in message and "cret@" not in message
    assert "DRPO_BASE_API_KEY" in message


def test_where_a_single_url_is_expected_a_comma_is_refused() -> None:
    with pytest.raises(InputError, match="expected a single http"):
        normalise_url(f"{URL},{URL}")


def test_the_demo_has_no_endpoint() -> None:
    assert "expected no URL" in refusal(f"demo@{URL}")
    assert len(refusal("demo@" + ",".join(f"http://h{i}" for i in range(1000)))) < 400


def test_a_long_text_is_cut_in_the_message() -> None:
    assert len(refusal("x" * 10_000)) < 400


def test_the_strong_model_is_an_alias_of_openai_with_a_price() -> None:
    strong = strong_model()
    assert strong.entry is not None
    assert (strong.provider, strong.url) == ("openai", None)
    assert price_per_million(strong.name) is not None
