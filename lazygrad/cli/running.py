"""Running a user's script as `python SCRIPT ARGS` would, and what is said where nothing came of it.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType

from lazygrad.cli import ReaderGone


def run_script(script: str, arguments: list[str],
               passed: type[BaseException] = ReaderGone) -> bool:
    """Runs a file as `__main__`.  False where it raised (the traceback is shown) or failed.
    passed: an exception that is the caller's.
    """
    path = os.path.abspath(script)  # as Python does it, so that cache and errors name it alike
    with _as_main(script, arguments):
        try:
            runpy.run_path(path, run_name="__main__")
        except (ReaderGone, passed):
            raise
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return end.code is None or end.code == 0
        except BaseException as error:
            traceback.print_exception(type(error), error, _own_part(error.__traceback__, path))
            return False
    return True


@contextlib.contextmanager
def _as_main(script: str, arguments: list[str]) -> Iterator[None]:
    """sys.argv and sys.path as the script would find them."""
    before = sys.argv, sys.path
    sys.argv = [script, *arguments]
    sys.path = [os.path.dirname(os.path.abspath(script)), *sys.path]
    try:
        yield
    finally:
        sys.argv, sys.path = before


def _own_part(trace: TracebackType | None, path: str) -> TracebackType | None:
    """The traceback from the script's own frame on, without those that ran it."""
    current = trace
    while current is not None:
        if current.tb_frame.f_code.co_filename == path:
            return current
        current = current.tb_next
    return None  # a syntax error: the script has no frame


def why_no_program(succeeded: bool) -> str:
    """Why a script had nothing compiled."""
    if not succeeded:
        return "no program was compiled before the script failed"
    return ("no program was compiled: the script never looked at a value "
            "(print, .item(), .numpy(), optimizer.step())")
