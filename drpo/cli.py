"""The command line. Each command is loaded when it is called, so that help is quick."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from drpo.errors import DrpoError

COMMANDS = {
    "optimize": "Search for the system prompt that aligns a frozen model.",
    "optimize-examples": "Improve the responses of the in-context examples.",
    "replay": "Run a recorded run again, offline, and say whether it came out identical.",
    "show": "Print the result of a run or of an alignment file.",
    "models": "List the model names that drpo knows.",
}
EXIT_CODES = """\b
Exit codes: 0 done; 1 a bug of drpo; 2 bad input or usage; 3 a provider refused
(key, model, quota); 4 a check said no (a replay misses calls or differs);
5 a provider is down; 6 the run directory is in use or belongs to other settings;
7 the record is damaged; 8 the disk refused; 9 the budget is spent;
130 interrupted. After 1, 3, 5, 8, 9 and 130 the same command resumes.
"""


class _Commands(click.Group):
    """A group whose commands live in `drpo.commands`, one module each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"drpo.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drpo", message="%(prog)s %(version)s")
def cli() -> None:
    """Search for the system prompt and the in-context examples that align a frozen language model.

    Try it without a key, a GPU or a network: drpo optimize --model demo
    """


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code; an error is one line on stderr."""
    try:
        # With click 8.2 and later, a non-standalone call returns the code of an early exit such as --help.
        code: Any = cli.main(args=arguments, prog_name="drpo", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        _say(f"{error.format_message()} (drpo --help lists commands and flags)")
        code = 2
    except click.exceptions.Abort:
        code = 130
    except DrpoError as error:
        _say(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; run the same command again to resume")
        code = 130
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is one line, not a traceback
        _say(f"a bug of drpo: {type(error).__name__}: {error} (DRPO_TRACEBACK=1 shows where; please report it)")
        if os.environ.get("DRPO_TRACEBACK"):
            raise
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _say(message: str) -> None:
    click.echo(f"drpo: {' '.join(message.split())}", err=True)
