"""Which variable each key comes from, and what is wrong with it as a text. A key itself is never shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from drpo.choices import OPENAI_URL, openai_base_url
from drpo.doctor.check import Check, ok, problem, warning
from drpo.doctor.prepare import Prepared
from drpo.live import cannot_be_sent
from drpo.llm.catalog import parse_model
from drpo.llm.connections import Endpoint

OPENAI_KEY = "OPENAI_API_KEY"
EMBEDDER = "embedder"
_QUOTES = "\"'`"


@dataclass(frozen=True, slots=True)
class KeyOf:
    """Whose key: a role, or the embedder. variables: those that may hold it, the first that is set does.
    needed: nothing can be sent without one."""

    role: str
    variables: tuple[str, ...]
    needed: bool

    def chosen(self, environment: Mapping[str, str]) -> str | None:
        """The variable that holds the key; None: no key is sent."""
        return next((name for name in self.variables if environment.get(name)), None)


def key_checks(prepared: Prepared) -> Iterator[Check]:
    """One line per key, and one for OpenAI's where nobody uses it."""
    environment = prepared.environment
    owners = owners_of(prepared)
    groups: dict[tuple[str, ...], list[KeyOf]] = {}
    for owner in owners:
        groups.setdefault(owner.variables, []).append(owner)
    for same in groups.values():
        yield from _key(same, environment)
    if environment.get(OPENAI_KEY) and not any(owner.chosen(environment) == OPENAI_KEY for owner in owners):
        yield _unused([owner for owner in owners if owner.chosen(environment) is None])
    if not groups and not environment.get(OPENAI_KEY):
        yield ok("keys", "none is needed")


def owners_of(prepared: Prepared) -> list[KeyOf]:
    """Everyone who may send a key."""
    if prepared.plan is None:
        return []
    models = {role: prepared.plan.models[role] for role in prepared.roles}
    owners = [
        KeyOf(role, choice.key_variables, choice.key_variables == (OPENAI_KEY,))
        for role, choice in models.items()
        if choice.key_variables
    ]
    place = embedder_place(prepared.plan.embedder, prepared.environment)
    return owners if place is None else [*owners, KeyOf(EMBEDDER, place[1], place[1] == (OPENAI_KEY,))]


def embedder_place(embedder: str, environment: Mapping[str, str]) -> tuple[Endpoint, tuple[str, ...]] | None:
    """Where an embedding model is served, with its key, and the variables that may hold that, as
    `drpo.wiring` finds them; None where no endpoint is asked. Raises InputError for a wrong name."""
    if not embedder.startswith(("openai/", "vllm/")):
        return None
    spec, base_url = parse_model(embedder), openai_base_url(environment)
    if len(spec.urls) > 1 or (spec.provider == "vllm" and not spec.url):
        return None  # refused as a name: see `drpo.doctor.embedder`
    url = spec.url or base_url
    variables: tuple[str, ...] = ("DRPO_EMBEDDER_API_KEY",)
    if spec.provider == "openai" and url in (OPENAI_URL, base_url):
        variables = (OPENAI_KEY,)
    elif spec.provider == "vllm":
        variables = ("DRPO_EMBEDDER_API_KEY", "VLLM_API_KEY")
    key = next((environment[name] for name in variables if environment.get(name)), None)
    return Endpoint(url, key), variables


def _key(owners: Sequence[KeyOf], environment: Mapping[str, str]) -> Iterator[Check]:
    who = ", ".join(owner.role for owner in owners)
    name, variables = f"key {who}", " or ".join(owners[0].variables)
    chosen = owners[0].chosen(environment)
    if chosen is None and owners[0].needed:
        said = f"{variables} is not set"
        yield problem(name, said, "Set it (or put it into .env), or name another endpoint with @URL")
    elif chosen is None:
        yield ok(name, f"{variables} is not set: no key is sent")
    else:
        yield _as_text(name, chosen, environment[chosen])


def _as_text(name: str, variable: str, key: str) -> Check:
    inner = key.strip()
    if cannot_be_sent(inner) or (inner != key and cannot_be_sent(key)):
        what = "characters that are not ASCII" if not key.isascii() else "a line end or control characters"
        said = f"{variable} is set, but holds {what}: it cannot be sent"
        return problem(name, said, "Copy the key once more, nothing around it")
    if inner != key:
        said = f"{variable} is set, with blanks around the key, which belong to what is sent"
        return warning(name, said, "Remove the blanks")
    if not inner or inner[0] in _QUOTES or inner[-1] in _QUOTES:
        said = f"{variable} is set, with quotation marks around the key, which belong to what is sent"
        return warning(name, said, "Remove the quotation marks")
    if " " in inner:
        said = f"{variable} is set, with a blank inside, which no key has that is known to drpo"
        return warning(name, said, "Copy the key once more")
    return ok(name, f"{variable} is set")


def _unused(without: Sequence[KeyOf]) -> Check:
    said = f"{OPENAI_KEY} is set and not used: it goes to OpenAI's own address (or OPENAI_BASE_URL) only"
    if not without:
        return ok("keys", said)
    named = ", ".join(dict.fromkeys(owner.variables[0] for owner in without))
    return warning("keys", said, f"If an endpoint named by @URL wants a key, set {named}")
