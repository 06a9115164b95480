"""The door: finds the verb, loads its module only then, and turns every failure into words and an exit status.

    0     done
    1     some inputs quarantined or refused, or verdict NG where asked
    2     wrong usage, recipe or bundle
    3     an unexpected failure
    130   interrupted; the run can be resumed

The list of verbs is answered here without loading a stage, a framework or even the command-line library: it is what
scripts and people ask for most.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from waferlens.cli.output import say
from waferlens.errors import UsageError, WaferlensError

if TYPE_CHECKING:
    import typer

VERBS: dict[str, tuple[str, str]] = {
    "simulate": ("waferlens.cli.simulate", "make images whose truth is known exactly"),
    "load": ("waferlens.cli.load", "read folders of images as one set; `check` names every problem"),
    "prepare": ("waferlens.cli.prepare", "split a set, and show the geometry training and inspection share"),
    "measure": ("waferlens.cli.measure", "level and measure height maps of instruments"),
    "train": ("waferlens.cli.train", "train the network of a recipe (needs the extra `train`)"),
    "evaluate": ("waferlens.cli.evaluate", "compare a bundle with truth and with baselines"),
    "export": ("waferlens.cli.export", "turn a training run into a bundle (needs the extra `train`)"),
    "inspect": ("waferlens.cli.inspect", "measure images with a bundle: maps, intervals, verdicts"),
    "report": ("waferlens.cli.report", "write one self-contained page of a run"),
    "recipes": ("waferlens.cli.recipes", "list, show and check recipes"),
    "demo": ("waferlens.cli.demo", "simulate, inspect, measure and report a small lot"),
    "bench": ("waferlens.cli.bench", "measure speed on this machine"),
    "reproduce": ("waferlens.cli.reproduce", "make a published table again, ours beside it"),
}
"""Verb -> (module, one line). The module's `app` is a `typer.Typer`; it is imported only when its verb is spoken."""

EXIT_USAGE = 2
EXIT_UNEXPECTED = 3
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the words after `waferlens`; the process's own by default.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except WaferlensError as error:
        say(f"waferlens: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        say("waferlens: interrupted; what is done is kept, the same command resumes the run")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:  # noqa: BLE001  the last door: nothing may leave it as status 1
        return _unexpected(error)
    return status


def help_text() -> str:
    """What `waferlens --help` prints."""
    width = max(map(len, (*VERBS, "--version")))
    lines = [
        "Usage: waferlens VERB [OPTIONS] …",
        "",
        "Calibrated measurements with uncertainty from single images of semiconductor surfaces.",
        "",
        "Verbs:",
        *(f"  {verb:<{width}}  {line}" for verb, (_, line) in VERBS.items()),
        "",
        "Options:",
        f"  {'--help':<{width}}  show this; `waferlens VERB --help` tells about a verb",
        f"  {'--version':<{width}}  show the version",
        "",
        "Exit status: 0 done; 1 inputs refused, or NG with --fail-on-ng; 2 wrong usage or recipe; 3 unexpected.",
    ]
    return "\n".join(lines)


def _dispatch(words: list[str]) -> int:
    # A terminal without UTF-8 shows µ as an escape instead of ending the run.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not words:
        say(help_text())
        return EXIT_USAGE
    verb, rest = words[0], words[1:]
    if verb in {"--help", "-h", "help"}:
        print(help_text())
        return 0
    if verb == "--version":
        from waferlens import __version__

        print(f"waferlens {__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(VERBS)}"
        raise UsageError(f"'{verb}' is no verb; {hint}")
    return _run(verb, rest)


def _run(verb: str, words: list[str]) -> int:
    import typer

    module = importlib.import_module(VERBS[verb][0])
    # `typer` may carry its own copy of click; its public error class leads to the one in use.
    wrong_usage: type[Exception] = next(
        base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
    )
    try:
        with _command(module.app).make_context(f"waferlens {verb}", words) as context:
            context.command.invoke(context)
    except typer.Exit as leave:
        return int(leave.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except wrong_usage as error:
        return _usage(error, verb)
    return 0


def _command(app: typer.Typer) -> Any:
    """The verb's command, with plain help (rich costs more time than the help it prints) and no shell completion."""
    import typer

    app.rich_markup_mode = None
    app._add_completion = False
    return typer.main.get_command(app)


def _usage(error: Any, verb: str) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else f"waferlens {verb}"
    message = error.format_message().replace("Value error, ", "")  # pydantic's word, which typer passes on
    if not message:  # a group without its subcommand: the help is the message
        say(context.get_help() if context is not None else help_text())
    elif message.startswith("Usage:"):
        say(message)
    else:
        say(f"{path}: {message}")
        say(f"see: {path} --help")
    return EXIT_USAGE


def _unexpected(error: Exception) -> int:
    import traceback

    say("".join(traceback.format_exception(error)).rstrip())
    said = str(error).strip().splitlines()
    say(
        f"waferlens: unexpected failure ({type(error).__name__}{': ' + said[0] if said else ''}); this is a bug of ours"
    )
    return EXIT_UNEXPECTED


def _reader_left() -> int:
    """The reader of a pipe (`| head`) has gone. Python would complain once more when it flushes at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a stdout without a file behind it needs no such care
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
