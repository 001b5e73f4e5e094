"""`lazygrad cache`: what the compile cache holds, how it was used, and keeping it in order.

This file is the list of its actions; each is in a `cache_*.py` of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from lazygrad.cli import (
    SCHEMA_VERSION,
    cache_check,
    cache_clean,
    cache_exchange,
    cache_explain,
    cache_list,
    cache_show,
)
from lazygrad.cli.cache_list import print_json, short_lines

__all__ = ["add_parser", "print_json", "short_lines"]

DESCRIPTION = """\
Compiled programs are kept on disk, so that a script that runs again does not compile again.

  path      where they are
  ls        the programs: key, size, hits, age, seconds saved, kernels, the lines they came from
  show      one program: what it was made from, and what was made, from graph to assembly
  stats     hits, misses, stores, rejects, evictions, seconds saved, over all processes so far
  verify    checks every sum and graph; with --recompile also that compiling gives the same bytes
  explain   why a script's programs were compiled anew, or in what two programs differ
  prune     deletes what was unused longest, and what belongs to no program
  clear     deletes everything
  export    writes programs into one file, for another machine
  import    takes programs from such a file
"""

EPILOG = """\
Environment:
  LAZYGRAD_CACHE=0             no cache: nothing is read or written
  LAZYGRAD_CACHE_DIR           the folder (default: $XDG_CACHE_HOME/lazygrad, ~/.cache/lazygrad)
  LAZYGRAD_CACHE_MAX_BYTES     500M, 2G, or none (default 2G); beyond, what was unused longest goes
  LAZYGRAD_CACHE_MAX_ENTRIES   a number of programs, or none (default 50000)
Exit codes: 0 all is well, 1 there is something to look at, 2 the command line is wrong.
A KEY may be shortened to the digits that tell it from the others.
"""

Action = Callable[[argparse.Namespace], int]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "cache", help="look into, check, share or empty the cache of compiled programs",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, run: Action, help_text: str,
            arguments: Callable[[argparse.ArgumentParser], None] | None = None) -> None:
        sub = actions.add_parser(name, help=help_text, description=help_text.capitalize() + ".",
                                 epilog=EPILOG, allow_abbrev=False,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.add_argument("--json", action="store_true",
                         help=f"as JSON (schema_version {SCHEMA_VERSION})")
        if arguments is not None:
            arguments(sub)
        sub.set_defaults(run=run)

    add("path", cache_list.show_path, "print the folder")
    add("ls", cache_list.list_entries, "list the programs", cache_list.add_arguments)
    add("show", cache_show.show, "show one program in full", cache_show.add_arguments)
    add("stats", cache_list.show_stats, "show the counters of all processes so far")
    add("verify", cache_check.verify, "check that nothing is damaged", cache_check.add_arguments)
    add("explain", cache_explain.explain, "say why programs were compiled anew, by field",
        cache_explain.add_arguments)
    add("prune", cache_clean.prune, "delete what was unused longest", cache_clean.add_arguments)
    add("clear", cache_clean.clear, "delete everything", cache_clean.add_dry_run)
    add("export", cache_exchange.export, "write programs into a file",
        cache_exchange.add_export_arguments)
    add("import", cache_exchange.import_, "take programs from a file",
        cache_exchange.add_import_arguments)
