"""The command line: `lazygrad COMMAND ...`, or `python -m lazygrad COMMAND ...`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lazygrad.cli import (
    FINDING,
    INTERRUPTED,
    READER_GONE,
    USAGE,
    ReaderGone,
    UsageError,
    bisect,
    cache,
    doctor,
    dump,
    explain,
    opt,
    profile,
    reduce,
    repro,
    roofline,
    run,
    tune,
    verify,
)

DESCRIPTION = """\
lazygrad records tensor operations, compiles them to native code, and runs them.
These commands show what it does.
"""

EPILOG = """\
`lazygrad COMMAND --help` says more about a command.
Exit codes: 0 all is well, 1 something is wrong, 2 the command line is wrong.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lazygrad", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="store_true", help="show the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in (dump, explain, roofline, profile, tune, opt, run, verify, bisect, reduce, repro,
                   cache, doctor):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; gives its exit code instead of ending the process.

    A reader that goes away (`| head`) ends the command quietly, as other tools end.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _outcome(given)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        return code
    except (BrokenPipeError, ReaderGone):
        _give_up_closed_streams()
        return READER_GONE
    except OSError as error:  # a full disk under standard output, a file that went away
        where = error.filename or "output"
        print(f"lazygrad: {where}: {error.strerror or error}", file=sys.stderr)
        _give_up_closed_streams()
        return FINDING
    except KeyboardInterrupt:
        print("lazygrad: interrupted", file=sys.stderr)
        return INTERRUPTED


def _outcome(given: list[str]) -> int:
    """The exit code of a command line."""
    try:
        return _run(make_parser(), given)
    except UsageError as error:
        print(f"lazygrad: {error}", file=sys.stderr)
        return USAGE
    except ReaderGone:
        raise
    except SystemExit as end:  # argparse: 0 after --help, 2 for a wrong command line
        return end.code if isinstance(end.code, int) else USAGE


def _give_up_closed_streams() -> None:
    """What a stream that cannot be written still holds goes nowhere, or Python would complain about
    it when the process ends.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _run(parser: argparse.ArgumentParser, given: list[str]) -> int:
    ours, theirs = given, []
    if "--" in given:
        cut = given.index("--")
        ours, theirs = given[:cut], given[cut + 1:]
    options, unknown = parser.parse_known_args(ours)
    if options.version:
        print(f"lazygrad {doctor.lazygrad_version()}")
        return 0
    if options.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    if getattr(options, "takes_script_arguments", False):
        ahead = ours[: ours.index(options.script)]
        wrong = [word for word in unknown if word in ahead]
        options.script_arguments = [*unknown, *theirs]
    else:
        wrong = [*unknown, *theirs]
    if wrong:
        action = getattr(options, "action", None)
        named = f"{options.command} {action}" if action else options.command
        raise UsageError(f"{named} does not take {wrong[0]}; see `lazygrad {named} --help`")
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
