"""`lazygrad cache prune|clear`: deleting some of the programs, or all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lazygrad.cli import FINDING, OK, UsageError, human_bytes
from lazygrad.cli.cache_list import parse_age, print_json, unusable

if TYPE_CHECKING:
    from lazygrad_runtime.cache_entry import CacheEntry
    from lazygrad_runtime.cache_limits import Limits


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-bytes", metavar="SIZE", help="500M, 2G (default: the usual limit)")
    parser.add_argument("--max-entries", metavar="N", help="(default: the usual limit)")
    parser.add_argument("--unused-for", metavar="AGE",
                        help="also those that nobody used for so long: 12h, 30d")
    parser.add_argument("--other-compilers", action="store_true",
                        help="also those that another version of lazygrad or LLVM made")
    add_dry_run(parser)


def _limits(options: argparse.Namespace, usual: Limits) -> Limits:
    from lazygrad_runtime.cache_limits import Limits, parse_count, parse_size
    size, count = usual.bytes, usual.entries
    try:
        if options.max_bytes is not None:
            size = parse_size(options.max_bytes)
        if options.max_entries is not None:
            count = parse_count(options.max_entries)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Limits(size, count)


def _unwanted(options: argparse.Namespace) -> Callable[[CacheEntry, float], bool] | None:
    from lazygrad_runtime.cache_limits import older_than
    from lazygrad_runtime.cache_verify import made_by_this_compiler
    tests: list[Callable[[CacheEntry, float], bool]] = []
    if options.unused_for:
        tests.append(older_than(parse_age(options.unused_for)))
    if options.other_compilers:
        tests.append(lambda entry, used: bool(made_by_this_compiler(entry)))
    if not tests:
        return None
    return lambda entry, used: any(test(entry, used) for test in tests)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def prune(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    cache = CompileCache()
    limits, unwanted = _limits(options, cache.limits), _unwanted(options)
    pruned = cache.prune(limits, unwanted, options.dry_run)
    if options.json:
        print_json({"path": str(cache.path), "dry_run": options.dry_run,
                    "evicted": pruned.evicted, "bytes": pruned.bytes,
                    "unclaimed_blobs": pruned.unclaimed, "temporary_files": pruned.temporaries,
                    "quarantined_files": pruned.quarantined, "busy": pruned.busy,
                    "entries_left": pruned.entries_left, "bytes_left": pruned.bytes_left})
    elif cache.opened() is not None and not pruned.busy:
        verb = "would delete" if options.dry_run else "deleted"
        print(f"{verb} {_counted(len(pruned.evicted), 'program')}, {human_bytes(pruned.bytes)}, "
              f"in {cache.path}; {_counted(pruned.entries_left, 'program')}, "
              f"{human_bytes(pruned.bytes_left)}, stay")
    if pruned.busy:
        print("others were writing all the time; nothing was deleted", file=sys.stderr)
    return FINDING if unusable(cache) or pruned.busy else OK


def clear(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    cache = CompileCache()
    stats = cache.stats()
    count, size = stats["entries"], stats["bytes"]
    if not options.dry_run:
        count = cache.clear()
    left = cache.stats()["entries"] if not options.dry_run else 0
    values: dict[str, Any] = {"path": stats["path"], "entries": count, "bytes": size,
                              "dry_run": options.dry_run}
    if options.json:
        print_json(values)
    else:
        verb = "would delete" if options.dry_run else "deleted"
        print(f"{verb} {_counted(count, 'program')}, {human_bytes(size)}, in {stats['path']}")
    return FINDING if unusable(cache) or left else OK
