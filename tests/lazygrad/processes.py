"""Processes for tests: `python SCRIPT` and `lazygrad COMMAND`, as a user starts them.

Importing takes longer than what most of them do.  So a server that has imported lazygrad waits
for requests, and each is a fork of it: a process with files, folder, environment and arguments of
its own, which ends as any other does.  It has imported and nothing more: no program is compiled, no
thread started, no setting read.  What counts from the first line of an interpreter on (PYTHON…,
options of Python, LAZYGRAD_DUMP) gets a new one.

One server serves all tests of a pytest process, and ends with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT), str(ROOT / "compiler"), str(ROOT / "runtime")]
STUCK = 900.0
"""Seconds after which a process hangs for certain, on the slowest machine there is."""

IMPORTED = (
    "lazygrad", "lazygrad.cli.bisect", "lazygrad.cli.cache",
    "lazygrad.cli.doctor", "lazygrad.cli.dump", "lazygrad.cli.explain", "lazygrad.dump.listen",
    "lazygrad.dump.write", "lazygrad.explain.bisect", "lazygrad.explain.fusion",
    "lazygrad.explain.memory", "lazygrad.explain.recompile", "lazygrad.explain.roofline",
    "lazygrad_compiler.llvm.backend", "lazygrad_compiler.ir.interpret",
    "lazygrad_runtime.cache_verify", "lazygrad_runtime.timed",
)


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This process's without settings of lazygrad, with the changes; None takes one away."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAZYGRAD")}
    kept |= {"PYTHONPATH": os.pathsep.join(PATHS)}
    for name, value in (changes or {}).items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return kept


def python(*arguments: object, folder: Path, changes: Mapping[str, str | None] | None = None,
           fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in a folder, and what it printed.  fresh: in a new interpreter."""
    words = [str(argument) for argument in arguments]
    settings = environment(changes)
    if fresh or _needs_interpreter(words, changes or {}):
        return subprocess.run([sys.executable, *words], cwd=folder, env=settings, text=True,
                              capture_output=True, timeout=STUCK, check=False)
    with _captured() as files:
        code = request(server(), words, folder, settings, [file.fileno() for file in files])
        for file in files:
            file.seek(0)
        return subprocess.CompletedProcess(words, code, files[1].read(), files[2].read())


def lazygrad(*arguments: object, folder: Path, changes: Mapping[str, str | None] | None = None
             ) -> subprocess.CompletedProcess[str]:
    """`lazygrad ARGUMENTS` in a folder."""
    return python("-m", "lazygrad", *arguments, folder=folder, changes=changes)


def install_commands(folder: Path) -> None:
    """Writes the commands `python` and `lazygrad`, for scripts of a shell."""
    for name, words in (("python", ""), ("lazygrad", "-m lazygrad ")):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" ask "{server()}" '
                        f'{words}"$@"\n')
        path.chmod(0o755)


def _needs_interpreter(words: Sequence[str], changes: Mapping[str, str | None]) -> bool:
    options = words[0].startswith("-") and words[:2] != ["-m", "lazygrad"]
    settings = any(name.startswith("PYTHON") or name == "LAZYGRAD_DUMP" for name in changes)
    return options or settings or not hasattr(os, "fork")


@contextlib.contextmanager
def _captured() -> Iterator[list[Any]]:
    """Standard input, output and error of a process, as files."""
    with open(os.devnull, encoding="utf-8") as nothing, \
            tempfile.TemporaryFile("w+", encoding="utf-8") as output, \
            tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        yield [nothing, output, errors]


# ---- asking


_server = ""


def server() -> str:
    """The address of the server, which is started if there is none."""
    global _server
    if not _server:
        folder = tempfile.mkdtemp(prefix="lazygrad-tests-")
        address = f"{folder}/server"
        started = subprocess.Popen([sys.executable, __file__, "serve", address], env=environment(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n", "the server of processes does not start"
        atexit.register(_end, started, address)
        _server = address
    return _server


def _end(started: subprocess.Popen[bytes], address: str) -> None:
    started.terminate()
    started.wait()
    with contextlib.suppress(OSError):
        os.unlink(address)
        os.rmdir(os.path.dirname(address))


def request(address: str, words: Sequence[str], folder: Path | str, settings: Mapping[str, str],
            descriptors: Sequence[int]) -> int:
    """The exit code of `python WORDS` with these three files; negative for a signal."""
    said = json.dumps({"words": list(words), "folder": str(folder), "settings": dict(settings)})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"+"], list(descriptors))
        connection.sendall(said.encode() + b"\n")
        connection.settimeout(STUCK)
        return int(connection.makefile().readline())


# ---- serving


def serve(address: str) -> dict[str, Any]:
    """Forks for each request; the fork comes back with what it was asked."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a fork does not go through what is here, which would copy it
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen(16)
        print("ready", flush=True)
        while os.getppid() == parent:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not select.select([listening], [], [], 1.0)[0]:
                continue
            connection, _ = listening.accept()
            if os.fork() == 0:  # this one waits for the process and says how it ended
                listening.close()
                asked = _answer(connection)
                if asked is not None:
                    return asked
                os._exit(0)
            connection.close()
    sys.exit()


def _answer(connection: socket.socket) -> dict[str, Any] | None:
    """Says how the process ended; in the process itself: what it is to do."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    asked = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        connection.close()
        return asked
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(f"{code}\n".encode())
    return None


def become(asked: dict[str, Any]) -> None:
    """What `python WORDS` does from here on."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["settings"])
    words = asked["words"]
    if words[:2] == ["-m", "lazygrad"]:
        sys.argv = ["lazygrad", *words[2:]]
        sys.path[0] = asked["folder"]
        runpy.run_module("lazygrad", run_name="__main__", alter_sys=True)
    else:
        path = os.path.abspath(words[0])
        sys.argv, sys.path[0] = words, os.path.dirname(path)
        script = types.ModuleType("__main__")
        script.__file__ = path
        sys.modules["__main__"] = script
        exec(compile(Path(path).read_bytes(), path, "exec"), vars(script))


def main(action: str, address: str, *words: str) -> None:
    if action == "ask":
        sys.exit(request(address, words, os.getcwd(), os.environ, (0, 1, 2)))
    asked = serve(address)
    code: object = 0
    try:
        become(asked)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__):
            trace = trace.tb_next
        sys.excepthook(type(error), error, trace)
        code = 1
    _leave(code)


def _leave(code: object) -> None:
    """Ends as an interpreter does, but for taking apart all modules, which takes longest."""
    if not isinstance(code, int):
        if code is not None:
            print(code, file=sys.stderr)
        code = int(code is not None)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main(*sys.argv[1:])
