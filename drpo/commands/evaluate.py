"""drpo evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.commands.dry_run_measuring import look_ahead_measuring
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.measuring import run_measuring, say_where
from drpo.commands.measuring_text import print_summary
from drpo.config import flag
from drpo.config_judging import EvaluateConfig
from drpo.errors import GateRefused, InputError
from drpo.judging.scores import Policy, read_just_eval
from drpo.measured import SUMMARY_NAME
from drpo.measuring.evaluating import run_evaluate
from drpo.measuring.plan import evaluate_plan
from drpo.measuring.results import ITEMS_NAME, doubt, part_of
from drpo.settings import environment, resolve
from drpo.statistics import LEVEL


@click.command("evaluate", epilog="Every flag is also a variable: --judge is DRPO_JUDGE.")
@run_flags(EvaluateConfig)
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    help="Only add up scores that are there: a result file of just-eval, or an items.jsonl.",
)
def command(
    config: Path | None, as_json: bool, quiet: bool, dry_run: bool, scores: Path | None, **flags: Any
) -> None:
    """Score the responses of an alignment with a judge, as just-eval does it: helpfulness, clarity,
    factuality, depth and engagement on general queries, safety on safety ones, 1 to 5.

    The base model answers greedily, the judge is asked once per response. The same command run again resumes,
    or prints the result of a finished one without asking anybody. Key of the judge: OPENAI_API_KEY, or
    DRPO_JUDGE_API_KEY for an endpoint named by @URL.
    """
    if scores is not None:
        print_summary(_added_up(scores, flags), as_json=as_json)
        return
    env = environment()
    plan = evaluate_plan(resolve(EvaluateConfig, flags, env, config), env)
    if dry_run:
        print_dry_run(look_ahead_measuring(plan, env, flags, config), as_json=as_json)
        return
    result = run_measuring(
        plan,
        plan.source,
        len(plan.items),
        lambda hooks, count: run_evaluate(plan, env, hooks, count),
        quiet=quiet,
    )
    print_summary(result.as_dict(), as_json=as_json)
    say_where(plan, f"{SUMMARY_NAME}, {ITEMS_NAME}", result.sent, quiet=quiet)
    if (why := doubt(result)) is not None:
        raise GateRefused(f"{why}. The figures are of the others only")


def _added_up(file: Path, flags: dict[str, Any]) -> dict[str, Any]:
    """The summary of scores that somebody has given."""
    useless = [name for name, value in flags.items() if value is not None and name not in ("na", "level")]
    if useless:
        raise InputError(f"{flag(useless[0])} is of no use with --scores, which only adds up; leave it out")
    items = read_just_eval(file)
    aspects = list(dict.fromkeys(score.aspect for item in items for score in item.scores))
    na: Policy = flags["na"] or "leave-out"
    level: float = flags["level"] or LEVEL
    return {
        "command": "evaluate",
        "simulated": False,
        "alignment": str(file),
        "shots": 0,
        "models": {},
        "na": na,
        "general": part_of("general", items, aspects, na, level, 0).as_dict(),
        "reward": None,
    }
