"""drpo audit-judge"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.commands.dry_run_measuring import look_ahead_measuring
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.measuring import run_measuring, say_where
from drpo.commands.measuring_text import print_summary
from drpo.config_judging import AuditConfig
from drpo.errors import GateRefused
from drpo.judging.audit import questions
from drpo.measured import SUMMARY_NAME
from drpo.measuring.auditing import run_audit
from drpo.measuring.plan import audit_plan
from drpo.measuring.results import ITEMS_NAME
from drpo.settings import environment, resolve


@click.command("audit-judge", epilog="Every flag is also a variable: --judge is DRPO_JUDGE.")
@run_flags(AuditConfig)
def command(config: Path | None, as_json: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Find out whether a judge can be trusted: does its verdict follow the order, the length, or what a
    response asks for; does it agree with itself, and with known better answers?

    Exit code 4 where a check is beyond its limit.
    """
    env = environment()
    plan = audit_plan(resolve(AuditConfig, flags, env, config), env)
    if dry_run:
        print_dry_run(look_ahead_measuring(plan, env, flags, config), as_json=as_json)
        return
    asked = len(questions(plan.cases))
    result = run_measuring(
        plan, plan.source, asked, lambda hooks, count: run_audit(plan, env, hooks, count), quiet=quiet
    )
    print_summary(result.as_dict(), as_json=as_json)
    say_where(plan, f"{SUMMARY_NAME}, {ITEMS_NAME}", result.sent, quiet=quiet)
    if result.audit.flagged:
        raise GateRefused(f"the judge {plan.models['judge'].identity} is flagged: {result.audit.sentence}")
