"""docs/cache.md shows what happens: its sessions are run, one after the other, by a new user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from lazygrad.__main__ import make_parser
from lazygrad_compiler.target import host
from tests.lazygrad.processes import ROOT, STUCK, environment, install_commands

DOCUMENT = ROOT / "docs" / "cache.md"


def sessions(text: str) -> list[tuple[str, str]]:
    """(command, what it prints) of all `console` blocks, in order."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def general(output: str, home: Path) -> list[str]:
    """Lines without what differs between machines and runs: keys, times, sizes, counts."""
    lines = []
    for line in output.replace(f"{home}/", "/home/").replace(host().cpu, "CPU").splitlines():
        line = re.sub(r"\b(k_)?[0-9a-f]{12,64}\b", "KEY", line).replace("znver5", "CPU")
        line = re.sub(r"input \d+", "input N", line)
        if " -> " not in line and "dim " not in line and "found," not in line:
            line = re.sub(r"\d+(\.\d+)?( (B|KiB|MiB|GiB|s|min|h)\b)?", "N", line)
        line = re.sub(r"lacks .*", "lacks FEATURES", line)
        line = re.sub(r"^  (features|triple) .*", r"  \1", line)
        line = re.sub(r"^\s+N KEY\s.*", "  a kernel call", line)
        lines.append(" ".join(line.split()))
    return lines


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether the lines are the same; `...` stands for any number of them."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(matches(shown[1:], printed[skip:]) for skip in range(len(printed) + 1))
    return bool(printed) and shown[0] == printed[0] and matches(shown[1:], printed[1:])


def test_sessions_are_real(tmp_path: Path) -> None:
    home = tmp_path / "home"
    project = home / "me" / "project"
    project.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "examples" / "train_digits.py", project)
    shutil.copytree(ROOT / "docs" / "examples" / "data", project / "data")
    settings = environment({"HOME": str(home / "me"), "XDG_CACHE_HOME": None})
    programs = tmp_path / "bin"
    programs.mkdir()
    install_commands(programs)
    settings["PATH"] = f"{programs}{os.pathsep}{settings['PATH']}"
    keys: dict[str, str] = {}  # the document's first digits of keys, and those of this machine
    checked = 0
    for command, shown in sessions(DOCUMENT.read_text()):
        for theirs, ours in keys.items():
            command = command.replace(theirs, ours)
        command = command.replace("/tmp/", f"{tmp_path}/")
        done = subprocess.run(command, shell=True, cwd=project, env=settings, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STUCK)
        assert matches(general(shown, home), general(done.stdout, home)), \
            f"$ {command}\n{done.stdout}\nthe document shows\n{shown}"
        if command == "lazygrad cache ls":
            keys = dict(zip(re.findall(r"^[0-9a-f]{12}", shown, re.M),
                            re.findall(r"^[0-9a-f]{12}", done.stdout, re.M), strict=True))
        checked += 1
    assert checked > 12


def test_every_action_and_variable_is_documented() -> None:
    text = DOCUMENT.read_text()
    (commands,) = [action for action in make_parser()._actions if action.dest == "command"]
    cache = commands.choices["cache"]  # type: ignore[index, call-overload]
    (actions,) = [action for action in cache._actions if action.dest == "action"]
    assert set(actions.choices) == {"path", "ls", "show", "stats", "verify", "explain", "prune",
                                    "clear", "export", "import"}
    for name, parser in actions.choices.items():
        assert f"cache {name}" in text or f"`{name}`" in text
        assert "--json" in parser.format_help()
        for variable in ("LAZYGRAD_CACHE_DIR", "LAZYGRAD_CACHE=0", "LAZYGRAD_CACHE_MAX_BYTES",
                         "LAZYGRAD_CACHE_MAX_ENTRIES"):
            assert variable in parser.format_help() and variable in text
    for name in ("clear", "prune", "import"):
        assert "--dry-run" in actions.choices[name].format_help()
