"""drpo show"""

from __future__ import annotations

from pathlib import Path

import click

from drpo.alignment import read_alignment
from drpo.commands.result_text import explain_end as explain_end
from drpo.commands.result_text import print_alignment as print_alignment
from drpo.commands.result_text import summary as summary
from drpo.commands.where import find_run, is_only_a_result, open_run
from drpo.errors import InputError
from drpo.measured import SUMMARY_NAME, is_measurement, read_summary


@click.command("show")
@click.argument("run_or_file", type=click.Path(path_type=Path))
@click.option("--node", type=int, help="Print one node: prompt, change, query, response, scores.")
@click.option("--path", "winning_path", is_flag=True, help="Print the path from the start to the result.")
@click.option("--aspects", is_flag=True, help="Print the aspects, those with the lowest mean score first.")
@click.option("--example", type=int, help="Of an optimize-examples run: which example, from 1 on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    run_or_file: Path,
    node: int | None,
    winning_path: bool,
    aspects: bool,
    example: int | None,
    as_json: bool,
) -> None:
    """Print the result of a run (a directory, or a name inside the runs folder) or of an alignment file.

    Of a run that has not finished: its state, the best so far, and how to go on. Texts are shown with control
    characters made visible; --json gives them as they are.
    """
    given = {"--node": node is not None, "--path": winning_path, "--aspects": aspects}
    asked = [name for name, is_given in given.items() if is_given]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)}: each shows something else; give one of them")
    found = find_run(run_or_file)
    if is_only_a_result(found):
        if asked or example is not None:
            option = [*asked, "--example"][0]
            raise InputError(f"{option} is for runs: {found} holds a result alone; name its run directory")
        print_alignment(read_alignment(found), as_json=as_json)
        return
    if is_measurement(found):
        if asked or example is not None:
            raise InputError(f"{[*asked, '--example'][0]} is for searches: {found} is a measurement")
        from drpo.commands.measuring_text import print_summary

        try:
            print_summary(read_summary(found), as_json=as_json)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(
                f"{found / SUMMARY_NAME}: expected the summary of a measurement, {error!r}; run its command "
                "again"
            ) from None
        return
    view = open_run(found)
    # Here, since commands that only print a result import this module too.
    from drpo.commands.show_aspects import print_aspects
    from drpo.commands.show_node import print_example, print_node, print_path
    from drpo.commands.show_run import print_run

    if aspects:
        print_aspects(view, example, as_json)
    elif node is not None:
        print_node(view, example, node, as_json)
    elif winning_path:
        print_path(view, example, as_json)
    elif example is not None:
        print_example(view, example, as_json)
    else:
        print_run(view, as_json)
