"""docs/dump-ir.md shows what `lazygrad dump-ir` prints: its commands are run and compared.

Left out are LLVM text, assembly and PTX, which are the processor's and change with the emitters,
and stage loops on processors with other vectors than the document's.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lazygrad_compiler.target import host
from tests.lazygrad.processes import lazygrad

DOCUMENT = (Path(__file__).parents[2] / "docs" / "dump-ir.md").read_text(encoding="utf-8")
SCRIPT = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
BLOCKS = re.findall(r"```\n\$ (lazygrad dump-ir .*?)\n(.*?)\n?```", DOCUMENT, re.DOTALL)
CHECKED = [block for block in BLOCKS
           if not re.search("--stage (llvm|asm|ptx)", block[0])]


def normal(text: str) -> list[str]:
    """Lines without what differs from run to run or machine to machine."""
    text = re.sub(r"k_[0-9a-f]{16}", "k_", text)
    text = re.sub(r"[\d.]+ ms\b", "0 ms", text)
    text = re.sub(r"\d+ from the compile cache", "n from the compile cache", text)
    text = re.sub(r'("triple"|"cpu"): ".*?"', r'\1: ""', text)
    return [line.rstrip() for line in text.splitlines()]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compile cache of all commands."""
    return tmp_path_factory.mktemp("warm") / "cache"


def test_the_document_has_commands_to_check() -> None:
    assert SCRIPT is not None and len(CHECKED) >= 9 and len(BLOCKS) > len(CHECKED)


@pytest.mark.parametrize(("command", "expected"), CHECKED, ids=[block[0] for block in CHECKED])
def test_what_the_document_shows_is_what_is_printed(
        command: str, expected: str, tmp_path: Path, warm: Path) -> None:
    """In a process of its own, as a user runs it: what lives in this one would be in the dump."""
    assert SCRIPT is not None
    if "loops kernel" in expected and host().simd_bytes != 64:
        pytest.skip("another processor has other schedules")
    (tmp_path / "small.py").write_text(SCRIPT[1])
    first, *after = re.split(r" *; *| > ", command)
    done = lazygrad(*shlex.split(first)[1:], folder=tmp_path,
                    changes={"LAZYGRAD_CACHE_DIR": str(warm)})
    code = done.returncode
    printed = done.stderr if " > " in command else done.stdout + done.stderr
    if "find dump -type f | sort" in after:
        printed += "".join(f"{path.relative_to(tmp_path)}\n" for path in sorted(
            path for path in (tmp_path / "dump").rglob("*") if path.is_file()))
    elif "echo $?" in after:
        printed += f"{code}\n"
    got = normal(printed)
    for part in "\n".join(normal(expected)).split("\n..."):
        lines = part.removeprefix("...\n").strip("\n").splitlines()
        if lines:
            assert any(matches(lines, got[at:]) for at in range(len(got))), (lines, got)


def matches(lines: list[str], got: list[str]) -> bool:
    """Whether the lines are the next ones; one that ends in ... was cut off."""
    return len(lines) <= len(got) and all(
        has.startswith(line[:-3]) if line.endswith("...") and len(line) > 60 else has == line
        for line, has in zip(lines, got, strict=False))
