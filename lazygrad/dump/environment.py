"""LAZYGRAD_DUMP: a dump of any process, with the words of `lazygrad dump-ir`."""

from __future__ import annotations

import atexit
import functools
import os
import sys
from dataclasses import replace

from lazygrad.dump.listen import Dump
from lazygrad.dump.options import OptionError, parse_words
from lazygrad.dump.write import finished, writer


@functools.cache
def install_from_environment() -> Dump | None:
    """Dumps this process's programs as LAZYGRAD_DUMP says; once.

    The variable has stages with commas between, or options of `lazygrad dump-ir`, or both.  The
    dump goes to standard error, or into the folder of -o (or LAZYGRAD_DUMP_DIR).  None where the
    variable is not set.  Raises OptionError for a word that does not exist.
    """
    wanted = os.environ.get("LAZYGRAD_DUMP", "").strip()
    if not wanted:
        return None
    try:
        options = parse_words(wanted)
        folder = os.environ.get("LAZYGRAD_DUMP_DIR")
        if folder and options.output == "-":
            options = replace(options, output=folder)
        write = writer(options, sys.stderr)
    except OptionError as error:
        raise type(error)(f"[LAZYGRAD_DUMP] {error}") from None
    except OSError as error:
        raise OptionError(
            f"[LAZYGRAD_DUMP] {options.output} cannot be written: {error.strerror}") from None
    atexit.register(finished, write, "LAZYGRAD_DUMP")
    return Dump(options, write).install()
