"""docs/tools.md: every command in it gives what it shows."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest

from tests.lazygrad.processes import lazygrad

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"
MEASURED = ("roofline", "profile")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def files_of(text: str) -> dict[str, str]:
    """The files that the page shows: a block after a line that ends in "`name`:"."""
    return {name: content for name, content in
            re.findall(r"`(\w+\.\w+)`[^`\n]*:\n\n```\w*\n(.*?)^```$", text, re.M | re.S)}


def sessions(text: str) -> list[tuple[str, str]]:
    """Each command with the output below it."""
    found = []
    for _, block in FENCED.findall(text):
        if block.startswith("$ "):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, output = part.partition("\n")
                found.append((command, output))
    return found


def kernels_of(output: str) -> set[str]:
    """Of a measured table, the kernels: all else differs from run to run."""
    return set(re.findall(r"\S+ \(\w+\.py:\d+\)", output))


def rounded(output: str) -> str:
    """Long numbers to three places: the last bits depend on the processor."""
    return re.sub(r" *-?\d+\.\d{5,}", lambda found: f" {float(found[0]):.3f}", output)


def test_every_command_gives_what_the_page_shows(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for name, content in files_of(text).items():
        (tmp_path / name).write_text(content)
    assert len(list(tmp_path.iterdir())) == 4
    shown = sessions(text)
    assert len(shown) == 12
    problems = []
    for command, expected in shown:
        words = shlex.split(command)
        changes = dict(word.split("=", 1) for word in words[:words.index("lazygrad")])
        arguments = words[words.index("lazygrad") + 1:]
        done = lazygrad(*arguments, folder=tmp_path,
                        changes={"LAZYGRAD_CACHE_DIR": str(tmp_path / "cache"), **changes})
        got = done.stdout + done.stderr
        assert done.returncode in (0, 1), got
        if arguments[0] in MEASURED:
            right = kernels_of(expected) <= kernels_of(got) and kernels_of(expected)
        else:
            pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line + "\n")
                              for line in rounded(expected).splitlines())
            right = re.fullmatch(pattern, rounded(got))
        if not right:
            problems.append(f"$ {command}\n{got}")
    assert not problems, "\n".join(problems)


def test_sessions_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [block for kind, block in FENCED.findall(PAGE.read_text()) if kind == "pycon"]
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "tools", None, 0)
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=report.append)
    assert results.attempted == 4
    assert results.failed == 0, "".join(report)


def test_what_the_page_points_at_exists() -> None:
    text = PAGE.read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (PAGE.parent / link).exists(), link
    for mentioned in re.findall(r"`(\w+/\w+\.py)`", text):
        assert list(PAGE.parents[1].glob(f"compiler/lazygrad_compiler/{mentioned}")), mentioned
