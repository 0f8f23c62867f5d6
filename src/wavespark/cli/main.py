"""`wavespark VERB`: registers the verbs, runs one, and turns every error into one line with the way
out.

A verb is a module of this package with a function `command`, or with a typer group `app` that has
commands of its own. The modules import nothing heavy at their top, so that `wavespark --help` stays
fast; a verb checks its arguments before it imports torch, so that a mistake is answered in less
than a second.
"""

import os
import sys
from contextlib import nullcontext
from importlib import import_module
from keyword import iskeyword
from typing import Annotated, Any, NoReturn

import typer

from wavespark import __version__
from wavespark.cli.console import fail
from wavespark.cli.help import VerbCommand
from wavespark.errors import ExitCode, WavesparkError
from wavespark.quiet import quiet_process

VERBS = (
    "quickstart",
    "doctor",
    "list",
    "masks",
    "paint",
    "prepare",
    "inspect",
    "estimate",
    "pretrain",
    "report",
    "export",
    "import",
    "probe",
    "finetune",
    "predict",
    "evaluate",
    "bench",
)
"""Verbs in the order of a first use."""

app = typer.Typer(
    name="wavespark",
    help="Pre-train encoders on unlabelled 3-D head CT and MR, computing only the visible part of a scan. "
    "Start with: wavespark quickstart. Help for one command: wavespark COMMAND --help.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong command line or settings, 4 training stopped because the loss was not finite "
    "or the features collapsed, 5 out of memory, 75 stopped by a signal after saving (run the same command again to resume), "
    "130 stopped with Ctrl-C without saving.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"wavespark {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the full traceback of an error; also accepted after the command.")
    ] = False,
) -> None:
    pass


def _register(verb: str) -> None:
    # A verb that is a keyword of Python has an underscore behind its module's name.
    module = import_module(f"wavespark.cli.{verb}{'_' if iskeyword(verb) else ''}")
    if hasattr(module, "app"):
        for command in module.app.registered_commands:
            command.cls = VerbCommand
        app.add_typer(module.app, name=verb)
    else:
        app.command(verb, cls=VerbCommand, no_args_is_help=getattr(module, "NO_ARGS_IS_HELP", False))(module.command)


for _verb in VERBS:
    _register(_verb)


_UsageError: Any = typer.BadParameter.__base__
"""Exception of typer for a wrong command line; its own name has moved between versions."""


def _refuse(error: Any) -> NoReturn:
    """Say in one line what is wrong with the command line, and which help explains it."""
    context = error.ctx
    path = context.command_path if context is not None else "wavespark"
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help(), err=True)
        sys.exit(ExitCode.USAGE)
    sentence = " ".join(error.format_message().split()).rstrip(".")
    fail(f"{sentence}. See: {path} --help", ExitCode.USAGE)


def run(arguments: list[str] | None = None) -> None:
    """Run one command line and exit with its code (see CONTRACT: 0, 1, 2, 4, 5 or 75).

    No text of another library is shown, unless `--debug` asks for all there is.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    with nullcontext() if debug else quiet_process():
        _run(words, debug)


def _run(words: list[str], debug: bool) -> None:
    # Threads that spin while they wait take the cores from everybody on a busy machine; it is read
    # when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # Not standalone: typer would print a wrong option in several lines with its usage.
        code = app(args=[w for w in words if w != "--debug"], prog_name="wavespark", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)
    except _UsageError as error:
        _refuse(error)
    except BrokenPipeError:  # the reader has gone (`| head`): nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except typer.Abort:
        fail("stopped from the keyboard", 130)
    except WavesparkError as error:
        if debug:
            raise
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("stopped from the keyboard", 130)
    except MemoryError:
        if debug:
            raise
        fail("out of memory: use a smaller crop or batch, or fewer workers", ExitCode.OUT_OF_MEMORY)
    except Exception as error:
        if debug:
            raise
        # The text of a library's exception can quote file contents, so only its kind is shown.
        fail(
            f"an unexpected {type(error).__name__} happened, which is a bug of wavespark. Run again with --debug to see where, and report it",
            ExitCode.FAILED,
        )
