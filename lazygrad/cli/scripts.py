"""What commands that run a script have in common: arguments, running it under a watch."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lazygrad.cli import UsageError
from lazygrad.cli.dump import run_script

if TYPE_CHECKING:
    from lazygrad.explain.watch import Watch


def add_script(parser: argparse.ArgumentParser, what: str = "a Python file") -> None:
    """The SCRIPT argument; everything that is not ours goes to the script."""
    parser.add_argument("script", metavar="SCRIPT", help=what)
    parser.set_defaults(takes_script_arguments=True)


def check_script(options: argparse.Namespace) -> None:
    """UsageError where there is no such file."""
    if not Path(options.script).is_file():
        raise UsageError(f"{options.script}: there is no such file")


def run_watched(options: argparse.Namespace, watch: Watch) -> bool:
    """Runs the script, what it prints going to standard error.  False where it failed."""
    check_script(options)
    with watch, contextlib.redirect_stdout(sys.stderr):
        return run_script(str(options.script), options.script_arguments)


def write_text(path: str, text: str) -> None:
    """Writes a file that the command line names."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def no_program(command: str) -> None:
    """Says why there is nothing to show."""
    print(f"lazygrad {command}: no program was compiled: the script never looked at a value "
          "(print, .item(), .numpy(), optimizer.step())", file=sys.stderr)
