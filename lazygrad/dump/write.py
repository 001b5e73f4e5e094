"""Where dumps go: a stream, or files in a folder.

A writer takes programs one by one and has `finish`, called once at the end: text is written as it
comes, so that a script that dies shows what there was; JSON, SVG and HTML are one document, written
when all is known.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from lazygrad.dump.describe import json_text
from lazygrad.dump.dot import dot_of
from lazygrad.dump.options import PICTURED, Options
from lazygrad.dump.picture import Picture, picture_of
from lazygrad.dump.report import html_text
from lazygrad.dump.stages import DumpedProgram, heading
from lazygrad.dump.svg import stacked, svg_of
from lazygrad_compiler.pipeline import STAGES

Write = Callable[[DumpedProgram], None]


def pictures(program: DumpedProgram) -> list[tuple[str, Picture]]:
    """The pictures of the program's stages that have one, by stage."""
    return [(stage, picture_of(program.stages, stage, program.kernels))
            for stage in PICTURED if stage in program.texts]


def as_text(programs: list[DumpedProgram], format: str) -> str:
    """Programs in one document of a format."""
    if format == "json":
        return json_text(programs)
    if format == "html":
        return html_text(programs)
    named = [(f"program {program.number:03} {stage}", picture)
             for program in programs for stage, picture in pictures(program)]
    if format == "dot":
        return "\n".join(dot_of(picture, name) for name, picture in named)
    if format == "svg":
        return stacked(named) + "\n"
    return "".join(program.text() for program in programs)


class StreamWriter:
    """Prints programs.  `gone`: the reader has gone away (`| head`), so nothing is printed."""

    def __init__(self, stream: TextIO, format: str = "text") -> None:
        self.stream = stream
        self.format = format
        self.waiting: list[DumpedProgram] = []
        self.gone = False

    def __call__(self, program: DumpedProgram) -> None:
        if self.format in ("text", "dot"):
            self._print(as_text([program], self.format))
        else:
            self.waiting.append(program)

    def finish(self) -> None:
        if self.format not in ("text", "dot"):
            self._print(as_text(self.waiting, self.format))

    def _print(self, text: str) -> None:
        if not self.gone:
            try:
                self.stream.write(text)
                self.stream.flush()
            except BrokenPipeError:
                self.gone = True


OURS = re.compile(rf"(?:{'|'.join((*STAGES, 'ptx'))})\.(?:txt|dot|svg)|program\.json"
                  r"|changes/(?:\d\d-[\w-]+\.(?:diff|txt)|times\.txt)")
"""Files that a dump writes into a program's folder."""


class FolderWriter:
    """Writes folder/000-about/stage.txt and so on; of HTML the one file folder/index.html.

    The folder's older dumps are deleted, and only these.
    """

    gone = False

    def __init__(self, folder: Path, format: str = "text") -> None:
        self.folder = folder
        self.format = format
        self.waiting: list[DumpedProgram] = []
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.iterdir()):
            if re.match(r"\d{3,}-", old.name) and old.is_dir() and not old.is_symlink():
                _clear(old)

    def __call__(self, program: DumpedProgram) -> None:
        if self.format == "html":
            self.waiting.append(program)
            return
        target = self.folder / program.name
        target.mkdir(exist_ok=True)
        for name, text in _files(program, self.format).items():
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).write_text(text, encoding="utf-8")

    def finish(self) -> None:
        if self.format == "html":
            (self.folder / "index.html").write_text(html_text(self.waiting), encoding="utf-8")


def _files(program: DumpedProgram, format: str) -> dict[str, str]:
    """A program's files by name."""
    if format == "json":
        return {"program.json": json_text([program])}
    if format == "svg":
        return {f"{stage}.svg": svg_of(picture) + "\n" for stage, picture in pictures(program)}
    if format == "dot":
        return {f"{stage}.dot": dot_of(picture, f"{program.name} {stage}")
                for stage, picture in pictures(program)}
    files = {f"{stage}.txt": f"{heading(stage)}\n{text.rstrip()}\n"
             for stage, text in program.texts.items()}
    for change in program.changes:
        if change.changed:
            name = f"changes/{change.file_name}"
            if program.as_diffs:
                files[f"{name}.diff"] = change.diff()
            else:
                files[f"{name}.txt"] = change.after
    if program.changes:  # apart: the times are all that differs between two runs
        files["changes/times.txt"] = "".join(f"{c.heading()}\n" for c in program.changes)
    return files


def _clear(folder: Path) -> None:
    inside = folder / "changes"
    below = sorted(inside.iterdir()) if inside.is_dir() and not inside.is_symlink() else []
    for path in [*below, *folder.iterdir()]:
        if OURS.fullmatch(path.relative_to(folder).as_posix()) and path.is_file():
            path.unlink()
    for each in (inside, folder):
        if each.is_dir() and not each.is_symlink() and not any(each.iterdir()):
            each.rmdir()


def finished(write: StreamWriter | FolderWriter, who: str) -> bool:
    """Writes what was kept for the end.  False, with a line on standard error, where that failed:
    the script has run, and its own output is not to end in a traceback of ours.
    """
    try:
        write.finish()
    except Exception as error:
        what = getattr(error, "filename", None) or f"the {write.format} of the dump"
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        print(f"{who}: {what} cannot be written: {' '.join(why.split())}", file=sys.stderr)
        return False
    return True


def writer(options: Options, stream: TextIO) -> StreamWriter | FolderWriter:
    """The writer that the options want.  OSError where the folder cannot be made."""
    if options.output == "-":
        return StreamWriter(stream, options.format)
    return FolderWriter(Path(options.output), options.format)
