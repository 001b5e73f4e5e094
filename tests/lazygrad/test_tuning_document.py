"""docs/tuning.md shows what happens: its sessions are run, but for the times and who wins."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.lazygrad.processes import ROOT, lazygrad
from tests.lazygrad.test_cache_document import general, matches, sessions
from tests.lazygrad.test_tools_document import files_of

DOCUMENT = ROOT / "docs" / "tuning.md"

TIMED = [
    (r" *(?:\d+\.\d+x|-) +[\d.]+ \w+(?: -> [\d.]+ \w+)? +(.*?\)): .*", r"kernel \1"),
    (r"(.* kernels tuned), \d+ with another schedule than the default(; all .*)?", r"\1"),
    (r"  (\w+Schedule)\(.*", r"  \1"),
    (r"  (?:tuned, .*|the default, the fastest of .*)", "  by the clock"),
    (r"schedule +(?:tuned|the default).*, of \d+ that were timed: .*", "schedule"),
    (r"  (\w+) +(?:[\[\d].*|\w+)", r"  \1"),
]
"""What differs between machines and runs, and what is left of it."""


def settled(output: str, home: Path) -> list[str]:
    lines = []
    for line in output.splitlines():
        for pattern, rest in TIMED:
            line = re.sub(f"^{pattern}$", rest, line)
        lines.append(line)
    return general("\n".join(lines), home)


def test_sessions_are_real(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    for name, content in files_of(text).items():
        (tmp_path / name).write_text(content)
    settings = {"LAZYGRAD_CACHE_DIR": str(tmp_path / "cache"), "LAZYGRAD_NUM_THREADS": "2"}
    keys: dict[str, str] = {}  # the document's first digits of keys, and those of this machine
    shown = sessions(text)
    assert len(shown) == 5
    for command, expected in shown:
        words = [keys.get(word, word) for word in shlex.split(command)]
        start = words.index("lazygrad")
        changes = dict(word.split("=", 1) for word in words[:start])
        done = lazygrad(*words[start + 1:], folder=tmp_path, changes={**settings, **changes})
        got = done.stderr + done.stdout
        assert done.returncode == 0 and matches(settled(expected, tmp_path),
                                                settled(got, tmp_path)), f"$ {command}\n{got}"
        if command.startswith("lazygrad cache ls"):
            ours, theirs = (re.findall(r"^[0-9a-f]{12}", each, re.M) for each in (got, expected))
            keys = dict(zip(theirs, ours, strict=True))
