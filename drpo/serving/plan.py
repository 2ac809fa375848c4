"""From the words of the command line to what is served under which name. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from drpo.config_asking import NONE
from drpo.config_use import ServeConfig
from drpo.errors import InputError
from drpo.live import cannot_be_sent
from drpo.measuring.answering import made_for_another
from drpo.measuring.subject import read_subject
from drpo.serving.door import is_loopback
from drpo.use.plan import UsePlan, use_plan

_LONGEST_NAME = 200
_WITHOUT_EFFECT = ("max_calls", "max_usd")


def serve_plans(
    arguments: Sequence[str], config: ServeConfig, environment: Mapping[str, str]
) -> dict[str, UsePlan]:
    """What is served by name, the first argument first; the unaligned models (`--base none`) come last.

    arguments: ALIGNMENT or NAME=ALIGNMENT each. Raises InputError for whatever cannot be served.
    """
    _refuse_settings(config)
    plans: dict[str, UsePlan] = {}
    for argument in arguments:
        name, alignment = _named(argument)
        _add(plans, name, use_plan("serve", alignment, config, environment))
    if config.base == NONE:
        unaligned = read_subject(NONE, "--base", config.model_copy(update={"shots": 0}))
        by_model = {plan.choice.identity: plan for plan in plans.values()}
        for plan in by_model.values():
            _add(plans, plan.choice.name, replace(plan, subject=unaligned))
    for plan in plans.values():
        if config.api_key_env is not None and config.api_key_env in plan.choice.key_variables:
            raise InputError(
                f"--api-key-env {config.api_key_env}: that is the key of the model's own endpoint; give the "
                "clients one of their own, in another variable"
            )
    return plans


def notices_of(plans: Mapping[str, UsePlan]) -> list[str]:
    """What a user wants to know before the server begins."""
    found = [made_for_another(plan.subject, plan.choice) for plan in plans.values()]
    if any(plan.choice.provider == "demo" for plan in plans.values()):
        found.append("demo is a simulated model: its answers say nothing about real ones")
    return [said for said in found if said is not None]


def client_key(config: ServeConfig, environment: Mapping[str, str]) -> str | None:
    """The key that clients must send; None where the server is for this machine alone."""
    if config.api_key_env is None:
        if not is_loopback(config.host):
            raise InputError(
                f"--host {config.host}: other machines may reach this address, which needs a key: set a "
                "variable to one, and name it by --api-key-env"
            )
        return None
    key = environment.get(config.api_key_env)
    if not key:
        raise InputError(f"--api-key-env {config.api_key_env}: this variable is not set; set it to a key")
    if cannot_be_sent(key) or key != key.strip():
        raise InputError(
            f"--api-key-env {config.api_key_env}: expected a key of ASCII characters in one line, nothing "
            "around it, came one that no request can carry"
        )
    return key


def _refuse_settings(config: ServeConfig) -> None:
    for name in _WITHOUT_EFFECT:
        if getattr(config, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')}: a server keeps no books, so this has no effect; limit the "
                "key of the model's endpoint instead"
            )


def _named(argument: str) -> tuple[str, str]:
    """The name and the alignment that an argument gives."""
    name, equals, alignment = argument.partition("=")
    if not equals or Path(argument).exists():
        path = Path(argument)
        name, alignment = path.resolve().name if path.is_dir() else path.stem, argument
    if not alignment or not name or not name.isprintable() or len(name) > _LONGEST_NAME or " " in name:
        raise InputError(
            f"{argument}: expected ALIGNMENT or NAME=ALIGNMENT, the name without blanks and of at most "
            f"{_LONGEST_NAME} characters"
        )
    return name, alignment


def _add(plans: dict[str, UsePlan], name: str, plan: UsePlan) -> None:
    if name in plans:
        raise InputError(f"{name}: two models of this name; give one of them another: NAME=ALIGNMENT")
    plans[name] = plan
