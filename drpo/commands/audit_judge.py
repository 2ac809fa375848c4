"""drpo audit-judge"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.api import environment
from drpo.commands.measuring import run_measuring, say_where
from drpo.commands.measuring_text import print_summary
from drpo.config_judging import AuditConfig
from drpo.errors import GateRefused
from drpo.judging.audit import questions
from drpo.measured import SUMMARY_NAME
from drpo.measuring.auditing import run_audit
from drpo.measuring.plan import audit_plan
from drpo.measuring.results import ITEMS_NAME
from drpo.options import settings_flags
from drpo.settings import resolve


@click.command("audit-judge", epilog="Every flag is also a variable: --judge is DRPO_JUDGE.")
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="DRPO_CONFIG", help="TOML file with settings."
)
@click.option("--json", "as_json", is_flag=True, envvar="DRPO_JSON", help="Print one JSON document.")
@click.option("--quiet", is_flag=True, envvar="DRPO_QUIET", help="No progress on stderr.")
@settings_flags(AuditConfig)
def command(config: Path | None, as_json: bool, quiet: bool, **flags: Any) -> None:
    """Find out whether a judge can be trusted: does its verdict follow the order, the length, or what a
    response asks for; does it agree with itself, and with known better answers?

    Exit code 4 where a check is beyond its limit.
    """
    env = environment()
    plan = audit_plan(resolve(AuditConfig, flags, env, config), env)
    asked = len(questions(plan.cases))
    result = run_measuring(plan, asked, lambda hooks, shown: run_audit(plan, env, hooks, shown), quiet=quiet)
    print_summary(result.as_dict(), as_json=as_json)
    say_where(plan, f"{SUMMARY_NAME}, {ITEMS_NAME}", result.sent, quiet=quiet)
    if result.audit.flagged:
        raise GateRefused(f"the judge {plan.models['judge'].identity} is flagged: {result.audit.sentence}")
