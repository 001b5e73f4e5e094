"""`lazygrad cache`: what the compile cache holds, how it was used, where it is, and emptying it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from lazygrad.cli import FINDING, OK, SCHEMA_VERSION, human_age, human_bytes

DESCRIPTION = """\
Compiled programs are kept on disk, so that a script that runs again does not compile again.

  ls       the programs: key, size, age, kernels, compile seconds, the lines they came from
  stats    how often programs were found (hits), not found (misses), written (stores), and found
           damaged (rejects), over all processes so far; bytes on disk
  clear    deletes all of them (nothing is asked; --dry-run only says what would go)
  path     where they are
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "cache", help="list, measure or empty the cache of compiled programs",
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", metavar="ls|stats|clear|path", required=True)
    for name, action, help_text in (
        ("ls", list_entries, "list the programs"), ("stats", show_stats, "show the counters"),
        ("clear", clear, "delete everything"), ("path", show_path, "print the folder"),
    ):
        sub = actions.add_parser(name, help=help_text, allow_abbrev=False)
        sub.add_argument("--json", action="store_true",
                         help=f"as JSON (schema_version {SCHEMA_VERSION})")
        if name == "clear":
            sub.add_argument("--dry-run", action="store_true", help="only say what would go")
        sub.set_defaults(run=action)


def print_json(values: dict[str, Any]) -> None:
    print(json.dumps({"schema_version": SCHEMA_VERSION, **values}, indent=1))


def _unusable(stats: dict[str, Any]) -> bool:
    """Says why there is nothing to see.  True where that is something wrong."""
    if stats["enabled"]:
        return False
    if os.environ.get("LAZYGRAD_CACHE", "").strip() == "0":
        print("the compile cache is switched off (LAZYGRAD_CACHE=0)", file=sys.stderr)
        return False
    print(f"the compile cache {stats['path']} cannot be used; "
          "`lazygrad doctor` says more", file=sys.stderr)
    return True


# ---- ls


def described_entries() -> list[dict[str, Any]]:
    """The entries, newest first, as plain values."""
    from lazygrad_runtime.cache import CompileCache
    cache = CompileCache()
    now = time.time()
    found = []
    for entry in cache.entries():
        try:
            written = os.stat(cache.path / "entries" / f"{entry.key}.json").st_mtime
        except OSError:  # gone meanwhile
            continue
        launches = entry.manifest["meta"].get("launches", [])
        lines = sorted({(file, line) for _, _, where in launches for file, line in where})
        found.append({
            "key": entry.key,
            "bytes": sum(record["size"] for record in entry.manifest["blobs"].values()),
            "age_seconds": max(round(now - written, 3), 0.0),
            "kernels": len({kernel for kernel, _, _ in launches}),
            "launches": len(launches),
            "compute": [about for _, about, _ in launches],
            "lines": [f"{file}:{line}" for file, line in lines],
            "compile_seconds": round(entry.manifest["meta"].get("seconds", 0.0), 6),
        })
    return sorted(found, key=lambda each: (each["age_seconds"], each["key"]))


def list_entries(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    entries = described_entries()
    stats = CompileCache().stats()
    if options.json:
        print_json({"path": stats["path"], "entries": entries})
    elif not entries:
        if stats["enabled"]:
            print(f"no programs in {stats['path']}", file=sys.stderr)
    else:
        print(f"{'key':12}  {'size':>10}  {'age':>6}  {'kernels':>7}  {'compile':>9}  lines")
        for entry in entries:
            print(f"{entry['key'][:12]}  {human_bytes(entry['bytes']):>10}  "
                  f"{human_age(entry['age_seconds']):>6}  {entry['kernels']:>7}  "
                  f"{entry['compile_seconds']:>7.3f} s  {short_lines(entry['lines'])}")
    return FINDING if _unusable(stats) else OK


def short_lines(lines: list[str], most: int = 3) -> str:
    """File names and line numbers: train.py:12,14,20 and 3 more."""
    by_file: dict[str, list[str]] = {}
    for line in lines[:most]:
        file, _, number = os.path.basename(line).rpartition(":")
        by_file.setdefault(file, []).append(number)
    text = ", ".join(f"{file}:{','.join(numbers)}" for file, numbers in by_file.items())
    return text + (f" and {len(lines) - most} more" if len(lines) > most else "")


# ---- stats, clear, path


def show_stats(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    stats = CompileCache().stats()
    if options.json:
        print_json(stats)
    else:
        for name, value in stats.items():
            if name == "bytes":
                value = f"{value} ({human_bytes(value)})"
            elif name == "enabled":
                value = "yes" if value else "no"
            print(f"{name:8}  {value}")
    return FINDING if _unusable(stats) else OK


def clear(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    cache = CompileCache()
    stats = cache.stats()
    count, size = stats["entries"], stats["bytes"]
    if not options.dry_run:
        count = cache.clear()
    left = cache.stats()["entries"] if not options.dry_run else 0
    if options.json:
        print_json({"path": stats["path"], "entries": count, "bytes": size,
                    "dry_run": options.dry_run})
    else:
        verb = "would delete" if options.dry_run else "deleted"
        programs = f"{count} program{'s' * (count != 1)}"
        print(f"{verb} {programs}, {human_bytes(size)}, in {stats['path']}")
    return FINDING if _unusable(stats) or left else OK


def show_path(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import default_folder
    path = str(default_folder())
    if options.json:
        print_json({"path": path})
    else:
        print(path)
    return OK
