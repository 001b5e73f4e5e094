"""`lazygrad cache path|ls|stats`, and what the other actions share: entries as plain values."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lazygrad.cli import FINDING, OK, SCHEMA_VERSION, UsageError, human_age, human_bytes
from lazygrad.cli.scripts import whole_number

if TYPE_CHECKING:
    from lazygrad_runtime.cache import CompileCache
    from lazygrad_runtime.cache_entry import CacheEntry


def print_json(values: dict[str, Any]) -> None:
    print(json.dumps({"schema_version": SCHEMA_VERSION, **values}, indent=1))


def unusable(cache: CompileCache) -> bool:
    """Says why there is nothing to see.  True where that is something wrong."""
    if cache.opened() is not None:
        return False
    if os.environ.get("LAZYGRAD_CACHE", "").strip() == "0":
        print("the compile cache is switched off (LAZYGRAD_CACHE=0)", file=sys.stderr)
        return False
    print(f"the compile cache {cache.path} cannot be used; "
          "`lazygrad doctor` says more", file=sys.stderr)
    return True


def parse_age(text: str) -> float:
    """"30d" in seconds; s, min, h and d are known.  UsageError else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not an age; write 45s, 10min, 12h or 30d")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[found[2]]


def lines_of(entry: CacheEntry) -> list[str]:
    """The user's lines of an entry, as file:line, in order."""
    launches = entry.meta.get("launches", [])
    lines = sorted({(file, line) for _, _, where in launches for file, line in where})
    return [f"{file}:{line}" for file, line in lines]


def find_entry(cache: CompileCache, prefix: str) -> CacheEntry:
    """The entry whose key begins so.  UsageError where there is none, or more than one."""
    found = [entry for entry in cache.entries() if entry.key.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"no program has the key {prefix}; `lazygrad cache ls` lists them")
    keys = ", ".join(entry.key[:16] for entry in found[:4])
    raise UsageError(f"{len(found)} programs have keys that begin with {prefix}: {keys}")


# ---- ls

SORT_KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "age": lambda each: each["age_seconds"],
    "used": lambda each: each["unused_seconds"],
    "size": lambda each: -each["bytes"],
    "hits": lambda each: -each["hits"],
    "saved": lambda each: -each["saved_seconds"],
    "compile": lambda each: -each["compile_seconds"],
    "kernels": lambda each: -each["kernels"],
    "key": lambda each: each["key"],
}
"""By newest, most recently used, largest, most often hit, ..."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sort", choices=list(SORT_KEYS), default="age",
                        help="newest first (age), or by last use, size, hits, ...")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument("--filter", metavar="RE", default="",
                        help="only entries with it in their key, kind, lines, target or kernels")
    parser.add_argument("--unused-for", metavar="AGE", help="only those unused so long: 12h, 30d")
    parser.add_argument("--limit", type=whole_number, metavar="N", help="only the first N")


def kind_of(entry: CacheEntry) -> str:
    """program, tuned program, schedule (what tuning found for a kernel), or machine code."""
    from lazygrad_runtime.cache_target import is_program, is_tuned
    from lazygrad_runtime.tuned_schedules import is_schedule
    if is_program(entry):
        return "tuned program" if is_tuned(entry) else "program"
    return "schedule" if is_schedule(entry) else "machine code"


def described(cache: CompileCache) -> list[dict[str, Any]]:
    """The entries as plain values."""
    now, totals = time.time(), cache.totals()
    found = []
    for entry in cache.entries():
        used = cache.last_used(entry)
        if not used:  # gone meanwhile
            continue
        launches = entry.meta.get("launches", [])
        hits = cache.hits_of(entry, totals)
        found.append({
            "key": entry.key,
            "kind": kind_of(entry),
            "bytes": entry.blob_bytes,
            "hits": hits,
            "age_seconds": max(round(now - (entry.created or used), 3), 0.0),
            "unused_seconds": max(round(now - used, 3), 0.0),
            "compile_seconds": round(entry.seconds, 6),
            "saved_seconds": round(hits * entry.seconds, 6),
            "target": f"{entry.fields.get('cpu') or entry.fields.get('arch', '?')} "
                      f"{entry.fields.get('triple') or entry.fields.get('kind', '?')}",
            "kernels": len({kernel for kernel, _, _ in launches}),
            "launches": len(launches),
            "compute": [about for _, about, _ in launches],
            "lines": lines_of(entry),
        })
    return found


def selected(entries: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Filtered, sorted and cut as the command line says."""
    try:
        pattern = re.compile(options.filter)
    except re.error as error:
        raise UsageError(f"--filter {options.filter}: {error}") from None
    least = parse_age(options.unused_for) if options.unused_for else 0.0
    chosen = [
        each for each in entries
        if each["unused_seconds"] >= least and any(
            pattern.search(text)
            for text in (each["key"], each["kind"], each["target"], *each["lines"],
                         *each["compute"]))
    ]
    chosen.sort(key=lambda each: each["key"])
    chosen.sort(key=SORT_KEYS[options.sort], reverse=options.reverse)
    return chosen if options.limit is None else chosen[:options.limit]


def list_entries(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    cache = CompileCache()
    entries = selected(described(cache), options)
    if options.json:
        print_json({"path": str(cache.path), "entries": entries})
    elif entries:
        print_table(entries)
    elif cache.opened() is not None:
        print(f"no programs in {cache.path}" if not cache.entries() else
              "no program is like that", file=sys.stderr)
    return FINDING if unusable(cache) else OK


def print_table(entries: list[dict[str, Any]]) -> None:
    print(f"{'key':12}  {'size':>10}  {'hits':>5}  {'age':>6}  {'saved':>9}  "
          f"{'kernels':>7}  {'target':10}  lines")
    for entry in entries:
        kind = [] if entry["kind"] == "program" else [entry["kind"]]
        where = short_lines(entry["lines"])
        print(f"{entry['key'][:12]}  {human_bytes(entry['bytes']):>10}  {entry['hits']:>5}  "
              f"{human_age(entry['age_seconds']):>6}  {entry['saved_seconds']:>7.3f} s  "
              f"{entry['kernels']:>7}  {entry['target'].split()[0]:10}  "
              f"{', '.join([*kind, where] if where else kind)}")


def short_lines(lines: list[str], most: int = 3) -> str:
    """File names and line numbers: train.py:12,14,20 and 3 more."""
    by_file: dict[str, list[str]] = {}
    for line in lines[:most]:
        file, _, number = os.path.basename(line).rpartition(":")
        by_file.setdefault(file, []).append(number)
    text = ", ".join(f"{file}:{','.join(numbers)}" for file, numbers in by_file.items())
    return text + (f" and {len(lines) - most} more" if len(lines) > most else "")


# ---- stats, path


def show_stats(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    cache = CompileCache()
    stats = cache.stats()
    if options.json:
        print_json(stats)
    else:
        for name, text in _shown(stats):
            print(f"{name:14} {text}")
    return FINDING if unusable(cache) else OK


def _shown(stats: dict[str, Any]) -> list[tuple[str, str]]:
    def of(limit: int | None, text: str) -> str:
        return "no limit" if limit is None else f"at most {text}"

    most_bytes = human_bytes(stats["max_bytes"] or 0)
    reasons = ", ".join(f"{why} {count}" for why, count in stats["rejects_by_reason"].items())
    return [
        ("path", stats["path"]),
        ("enabled", "yes" if stats["enabled"] else "no"),
        ("entries", f"{stats['entries']} ({of(stats['max_entries'], stats['max_entries'])})"),
        ("bytes", f"{stats['bytes']} ({human_bytes(stats['bytes'])}, "
                  f"{of(stats['max_bytes'], most_bytes)})"),
        ("hits", str(stats["hits"])),
        ("misses", str(stats["misses"])),
        ("stores", str(stats["stores"])),
        ("evictions", str(stats["evictions"])),
        ("rejects", str(stats["rejects"]) + (f" ({reasons})" if reasons else "")),
        ("seconds saved", f"{stats['seconds_saved']:.3f}"),
    ]


def show_path(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import default_folder
    path = str(default_folder())
    if options.json:
        print_json({"path": path})
    else:
        print(path)
    return OK
