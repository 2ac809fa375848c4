"""drpo rewrite"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from drpo.commands.dry_run_rewriting import look_ahead_rewrite, unkept
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.measuring import run_measuring
from drpo.commands.running import run_with_signals
from drpo.commands.terminal import line_of, safe
from drpo.config_use import RewriteConfig
from drpo.jsonl import plain_lines
from drpo.measuring.progress import Counting
from drpo.plan import run_path
from drpo.rewriting.contract import REASONS, Rewrite
from drpo.run import Hooks
from drpo.settings import environment, resolve
from drpo.use.rewording import Reworded, RewritePlan, rewrite_plan, run_rewrite

_LONGEST_NOTE = 160


@click.command("rewrite", epilog="Every flag is also a variable: --rewriter is DRPO_REWRITER.")
@click.argument("query", nargs=-1)
@run_flags(RewriteConfig, as_json="Print a JSON line per query.")
@click.option("--in", "given_in", metavar="FILE", help="The same as --queries.")
def command(
    query: tuple[str, ...],
    config: Path | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
    given_in: str | None,
    **flags: Any,
) -> None:
    """Put each QUERY, or each of a file, in words that a model serves better.

    --rewriter bpo/PATH asks a trained model, bpo-prompt/MODEL any model by instruction, align-pro/MODEL a
    prompter, of which --samples N draws N rewrites and weighs them by the reward of the base model's answers.
    What a rewriter spoils (it answers, loses the query, writes nothing) gives the query back. Of a file the
    same command run again resumes. Key: DRPO_REWRITER_API_KEY for a model named by @URL.
    """
    env = environment()
    if given_in is not None:
        flags["queries"] = given_in
    settings = resolve(RewriteConfig, flags, env, config)
    if dry_run:
        is_kept = any(value is not None for value in (settings.queries, settings.run_dir, settings.name))
        plan = rewrite_plan(settings if is_kept else unkept(settings), query, env)
        print_dry_run(look_ahead_rewrite(plan, env, flags, config, is_kept=is_kept), as_json=as_json)
        return
    if settings.queries is not None:
        plan = rewrite_plan(settings, query, env)
        found = run_measuring(
            plan,
            plan.source,
            len(plan.items),
            lambda hooks, count: run_rewrite(plan, env, hooks, count),
            quiet=quiet,
        )
        if as_json:
            click.echo(plain_lines(found.lines()), nl=False)
        if not quiet:
            _tell(found)
        return
    found = _at_once(settings, query, env, quiet=quiet)
    if as_json:
        click.echo(plain_lines(found.lines()), nl=False)
    else:
        _print(found, quiet=quiet)
    if settings.out is not None and not quiet:
        click.echo(safe(f"written: {found.out} ({len(found.items)} queries)"), err=True)


def _at_once(
    settings: RewriteConfig, queries: tuple[str, ...], env: Mapping[str, str], *, quiet: bool
) -> Reworded:
    """A few queries leave no run behind, unless one is asked for."""
    if settings.run_dir is not None or settings.name is not None:
        return _run(rewrite_plan(settings, queries, env), env, quiet=quiet)
    with tempfile.TemporaryDirectory(prefix="drpo-") as folder:
        inside = settings.model_copy(update={"run_dir": Path(folder) / "run"})
        return _run(rewrite_plan(inside, queries, env), env, quiet=quiet)


def _run(plan: RewritePlan, env: Mapping[str, str], *, quiet: bool) -> Reworded:
    counting = Counting(plan, run_path(plan), len(plan.items))
    return run_with_signals(
        counting, Hooks(), lambda hooks: run_rewrite(plan, env, hooks, counting), quiet=quiet
    )


def _print(found: Reworded, *, quiet: bool) -> None:
    """Each rewrite as it is; on stderr, unless quiet, why a query stands, and of weighed ones all."""
    for item, rewrites in zip(found.items, found.rewrites, strict=True):
        first = rewrites[0]
        click.echo(safe(first.text))
        if quiet:
            continue
        if len(rewrites) > 1 or first.reward is not None:
            click.echo(f"{line_of(item.query)}: the rewrites weighed, the chosen one first", err=True)
            for one in rewrites:
                reward = "-" if one.reward is None else f"{one.reward:.3f}"
                click.echo(f"  {one.weight:.3f}  reward {reward}  {line_of(one.text)}", err=True)
        elif first.kept:
            click.echo(f"(as it was: {_why(first)})", err=True)
        for number, text in enumerate(first.rounds[:-1], 1):
            click.echo(f"  round {number}: {line_of(text)}", err=True)


def _why(rewrite: Rewrite) -> str:
    said = REASONS[rewrite.kept]
    note = line_of(rewrite.note)
    return f"{said}: {note if len(note) <= _LONGEST_NOTE else note[:_LONGEST_NOTE] + ' …'}" if note else said


def _tell(found: Reworded) -> None:
    firsts = [rewrites[0] for rewrites in found.rewrites]
    kept = [one for one in firsts if one.kept]
    said = f"rewritten: {sum(one.is_changed for one in firsts)} of {len(firsts)}"
    if kept:
        whys = {why: sum(one.kept == why for one in kept) for why in REASONS}
        said += "; as they were: " + ", ".join(f"{REASONS[why]} {n}" for why, n in whys.items() if n)
    click.echo(said, err=True)
    if not found.sent:
        click.echo("All of it was recorded; nothing was sent.", err=True)
    click.echo(safe(f"written: {found.out} ({len(firsts)} queries)"), err=True)
