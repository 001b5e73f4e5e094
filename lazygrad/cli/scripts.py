"""What commands that run a script have in common: arguments, running it under a watch."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lazygrad.cli import ReaderGone, UsageError
from lazygrad.cli.running import run_script, why_no_program

if TYPE_CHECKING:
    from lazygrad.explain.watch import Watch


def add_script(parser: argparse.ArgumentParser, what: str = "a Python file") -> None:
    """The SCRIPT argument; everything that is not ours goes to the script."""
    parser.add_argument("script", metavar="SCRIPT", help=what)
    parser.set_defaults(takes_script_arguments=True)


def check_script(script: str) -> None:
    """UsageError where there is no such file, it may not be read, or it is no Python."""
    path = Path(script)
    if path.is_dir():
        raise UsageError(f"{script} is a folder; name a Python file in it")
    if not path.is_file():
        raise UsageError(f"{script}: there is no such file")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{script} cannot be read: {error.strerror}") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # they come when it runs
            compile(text, script, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise UsageError(f"{script}{line}: SyntaxError: {error.msg}") from None
    except ValueError as error:
        raise UsageError(f"{script} is not a Python file: {error}") from None


def check_writable(*paths: str | None) -> None:
    """UsageError where one of the files cannot be made: said before any work is done.  None and
    `-`, which is standard output, are no files.
    """
    for path in paths:
        if path not in (None, "-"):
            _check_file(str(path))


def _check_file(path: str) -> None:
    """Opens the file as writing it would, which changes none that is there and leaves none behind.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise UsageError(f"{path} is a folder; name a file")
        if not target.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no folder {target.parent}")
        there = os.path.lexists(target)
        if target.exists() and not target.is_file():
            return  # a device or a pipe: opening it may wait, or do something
        with open(target, "ab"):
            pass
        if not there:
            target.unlink()
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def check_folder(path: str) -> None:
    """UsageError where no files can be made in a folder of that name, which is made if need be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def whole_number(text: str) -> int:
    """The type of options that count something.  argparse shows the message."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def run_watched(options: argparse.Namespace, watch: Watch,
                passed: type[BaseException] = ReaderGone) -> bool:
    """Runs the script, what it prints going to standard error.  False where it failed.  passed: an
    exception of the script that is the caller's.
    """
    check_script(options.script)
    with watch, contextlib.redirect_stdout(sys.stderr):
        return run_script(str(options.script), options.script_arguments, passed)


def write_text(path: str, text: str) -> None:
    """Writes a file that the command line names, or to standard output for `-`."""
    if path == "-":
        print(text, end="")
        return
    with written(path):
        Path(path).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def written(path: str) -> Iterator[None]:
    """Around the writing of a file that the command line names: UsageError where it fails."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None


def no_program(command: str, succeeded: bool = True) -> None:
    """Says why there is nothing to show."""
    print(f"lazygrad {command}: {why_no_program(succeeded)}", file=sys.stderr)
