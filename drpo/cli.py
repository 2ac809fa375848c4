"""The command line. Each command is loaded when it is called, so that help is quick."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import click

from drpo.commands.streams import Output, ReaderLeft, outputs
from drpo.errors import DrpoError, Interrupted, StorageError

COMMANDS = {
    "optimize": "Search for the system prompt that aligns a frozen model.",
    "optimize-examples": "Improve the responses of the in-context examples.",
    "evaluate": "Score an alignment's responses with a judge, as just-eval does.",
    "compare": "Let a judge say which of two alignments is preferred.",
    "bpo": "Black-Box Prompt Optimization: build its data from preferences, train a rewriter.",
    "study": "Make the paper's tables: one command runs what each of them takes.",
    "audit-judge": "Find out whether a judge can be trusted.",
    "chat": "Talk to the aligned model in the terminal.",
    "serve": "Serve the aligned model to whatever speaks OpenAI's interface.",
    "generate": "Answer many queries with an alignment.",
    "align-pro": "Align-Pro: estimate the best prompter before a frozen model, or train one.",
    "rewrite": "Put users' queries in words that a model serves better.",
    "export": "Write an alignment for another tool: vLLM, Ollama, promptfoo and others.",
    "push": "Upload an alignment to a Hugging Face repository.",
    "pull": "Fetch an alignment that was shared.",
    "replay": "Run a recorded run again, offline, and say whether it came out identical.",
    "watch": "Show where a run of another process stands.",
    "show": "Print a run: its result, its path, one node, or its aspects.",
    "diff": "Compare the results of two runs.",
    "runs": "List the runs: model, state, best reward, gain, cost, age.",
    "report": "Write a run's report.html anew, and open it.",
    "doctor": "Check keys, endpoints, embedder, vLLM, GPU and disk before a run.",
    "models": "List the model names that drpo knows.",
}
EXIT_CODES = """\b
Exit codes: 0 done; 1 a bug of drpo; 2 bad input or usage; 3 a provider refused
(key, model, quota); 4 a check said no (nothing is surely better, a judge is flagged, too much is
unreadable, a replay misses calls or differs);
5 a provider or server is down; 6 the run directory is in use or belongs to other settings;
7 the record is damaged; 8 the disk refused; 9 the budget is spent;
130 interrupted. After 1, 3, 5, 8, 9 and 130 the same command resumes.
"""


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM}
_INTERRUPTED = "interrupted; run the same command again to resume"


class _Commands(click.Group):
    """A group whose commands live in `drpo.commands`, one module each."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click does it, but that click must not turn these into exit code 1 or an empty line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted(_INTERRUPTED) from None
        except BrokenPipeError as error:
            if isinstance(error, ReaderLeft):
                raise
            raise RuntimeError(f"a pipe that is no output: {error}") from error

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
    with outputs() as (out, _):
        code = _run(arguments, out)
    sys.exit(code)


def _run(arguments: list[str] | None, out: Output) -> int:
    """The exit code of a command, which has said what there is to say."""
    try:
        # With click 8.2 and later, a non-standalone call returns the code of an early exit such as --help.
        code: Any = cli.main(args=arguments, prog_name="drpo", standalone_mode=False)
        out.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        _say(f"{error.format_message()} ({context.command_path if context else 'drpo'} --help says more)")
        return 2
    except DrpoError as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        _say(_INTERRUPTED)
        return Interrupted.exit_code
    except ReaderLeft as left:
        out.discard()
        return _told_by(left)
    except Exception as error:  # the last line of defence: a bug is one line, not a traceback
        code = _unexpected(error, out)
        if code == 1 and os.environ.get("DRPO_TRACEBACK"):
            raise
    return code if isinstance(code, int) else 0


def _told_by(left: ReaderLeft) -> int:
    """0, or what the command was about to end with when nobody read what it printed before that."""
    about: BaseException | None = left
    while about is not None:
        if isinstance(about, DrpoError):
            _say(str(about))
            return about.exit_code
        about = about.__context__
    return 0


def _unexpected(error: Exception, out: Output) -> int:
    """The exit code of what no room has foreseen: a disk that refuses our output, else a bug."""
    if isinstance(error, OSError) and error.errno in _DISK:
        if error.filename:
            _say(f"{error.filename}: cannot be read or written: {error.strerror}. Free or unlock the disk")
        else:
            _say(f"the output: cannot be written: {error.strerror}. Free the disk, or send it elsewhere")
        out.discard()
        return StorageError.exit_code
    _say(f"a bug of drpo: {type(error).__name__}: {error} (DRPO_TRACEBACK=1 shows where; please report it)")
    return 1


def _say(message: str) -> None:
    click.echo(f"drpo: {' '.join(message.split())}", err=True)
