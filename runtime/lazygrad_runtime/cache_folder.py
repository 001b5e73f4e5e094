"""A folder that native code may be loaded from, and file operations that cannot be led astray.

In: a path.  Out: a `TrustedFolder`, whose methods read, write and rename relative to directory
descriptors. The folder belongs to this user and nobody else can write to it; both were checked on
the open descriptor, so replacing the path afterwards changes nothing. No operation follows a link.

A file appears under its name complete or not at all: it is written to `temporary/`, synced,
renamed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

SUBFOLDERS = ("entries", "blobs", "notes", "quarantine", "temporary", "counters")
TEMPORARY = "temporary"
LOCKS = "counters"  # where lock files lie
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_FILE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class UntrustedFolder(Exception):
    """Somebody else could put code into the folder. The message says how to fix it."""


def _open_checked(path: str | os.PathLike[str], shown: Path, parent: int | None = None) -> int:
    """Opens a folder without following a link and checks on the descriptor whose it is."""
    try:
        descriptor = os.open(path, _FOLDER_FLAGS, dir_fd=parent)
    except OSError as error:
        if shown.is_symlink():
            raise UntrustedFolder(
                f"{shown} is a symbolic link; name its target in LAZYGRAD_CACHE_DIR instead"
            ) from None
        raise error
    status = os.fstat(descriptor)
    problem = None
    if status.st_uid != os.geteuid():
        problem = f"{shown} belongs to user {status.st_uid}, not to user {os.geteuid()}; "
        problem += "name a folder of your own in LAZYGRAD_CACHE_DIR"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"{shown} can be written by others (mode {stat.S_IMODE(status.st_mode):04o}); "
        problem += f"run: chmod go-w {shown}"
    if problem is not None:
        os.close(descriptor)
        raise UntrustedFolder(problem)
    return descriptor


class TrustedFolder:
    """Files in named subfolders of one checked folder.

    Raises UntrustedFolder or OSError on opening; the methods raise OSError.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptors: dict[str, int] = {}
        if os.open not in os.supports_dir_fd:
            raise UntrustedFolder("this system has no directory descriptors; set LAZYGRAD_CACHE=0")
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        root = _open_checked(path, path)
        try:
            for name in SUBFOLDERS:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=root)
                self._descriptors[name] = _open_checked(name, path / name, root)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(root)

    def close(self) -> None:
        """Closes the descriptors; the folder cannot be used afterwards."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def exists(self) -> bool:
        """Whether the folder is still in the file system; it may have been deleted meanwhile."""
        return all(os.fstat(descriptor).st_nlink > 0 for descriptor in self._descriptors.values())

    def names(self, subfolder: str) -> list[str]:
        """File names in a subfolder, sorted."""
        return sorted(os.listdir(self._descriptors[subfolder]))

    def read(self, subfolder: str, name: str, expected_size: int | None = None) -> bytes:
        """A regular file's bytes. Raises OSError, also when the size is not the expected one."""
        descriptor = os.open(
            name,
            os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FILE_FLAGS,
            dir_fd=self._descriptors[subfolder],
        )
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{name} is not a regular file")
            if expected_size is not None and status.st_size != expected_size:
                raise OSError(f"{name} has {status.st_size} bytes instead of {expected_size}")
            return file.read()

    def size(self, subfolder: str, name: str) -> int:
        """Bytes of a file; 0 when it has gone."""
        try:
            status = os.stat(name, dir_fd=self._descriptors[subfolder], follow_symlinks=False)
        except FileNotFoundError:
            return 0
        return status.st_size

    def write(self, subfolder: str, name: str, content: bytes) -> None:
        """Puts a file in place, whole and synced, replacing one of that name."""
        temporary = f"{os.getpid()}-{secrets.token_hex(8)}"
        folder = self._descriptors[TEMPORARY]
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE_FLAGS
        descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=self._descriptors[subfolder])
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise

    def append(self, subfolder: str, name: str, record: bytes) -> int:
        """Adds a record to a file in one write; returns the file's size afterwards."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _FILE_FLAGS
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptors[subfolder])
        try:
            os.write(descriptor, record)
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def move(self, subfolder: str, name: str, to_subfolder: str, to_name: str) -> bool:
        """Moves a file; False when it was not there, because another process moved it first."""
        source, target = self._descriptors[subfolder], self._descriptors[to_subfolder]
        try:
            os.rename(name, to_name, src_dir_fd=source, dst_dir_fd=target)
        except FileNotFoundError:
            return False
        return True

    def remove(self, subfolder: str, name: str) -> bool:
        """Deletes a file; False when it was not there."""
        try:
            os.unlink(name, dir_fd=self._descriptors[subfolder])
        except FileNotFoundError:
            return False
        return True

    def age(self, subfolder: str, name: str) -> float:
        """Seconds since the file's last change; 0 when it has gone."""
        try:
            status = os.stat(name, dir_fd=self._descriptors[subfolder], follow_symlinks=False)
        except FileNotFoundError:
            return 0.0
        return time.time() - status.st_mtime

    def modified(self, subfolder: str, name: str) -> float:
        """When a file was last changed or touched, in seconds since 1970; 0 when it has gone."""
        try:
            status = os.stat(name, dir_fd=self._descriptors[subfolder], follow_symlinks=False)
        except FileNotFoundError:
            return 0.0
        return status.st_mtime

    def touch(self, subfolder: str, name: str) -> None:
        """Notes that a file was used just now."""
        os.utime(name, dir_fd=self._descriptors[subfolder], follow_symlinks=False)

    def overwrite(self, subfolder: str, name: str, content: bytes) -> None:
        """Writes a small file of fixed size in place, in one write, without syncing."""
        flags = os.O_WRONLY | os.O_CREAT | _FILE_FLAGS
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptors[subfolder])
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def lock(self, name: str, exclusive: bool, seconds: float) -> Iterator[bool]:
        """A lock that dies with its process, waited for at most so long; yields whether it was had.

        Where the file system has no locks a shared one counts as had, an exclusive one never does.
        Raises OSError where the lock file cannot be made.
        """
        try:
            import fcntl
        except ImportError:
            yield not exclusive
            return
        flags = os.O_RDWR | os.O_CREAT | _FILE_FLAGS
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptors[LOCKS])
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        deadline = time.monotonic() + seconds
        had = False
        try:
            while True:
                try:
                    fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                    had = True
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        break
                    time.sleep(0.001)
                except OSError:  # no locks here
                    had = not exclusive
                    break
            yield had
        finally:
            if had:  # closing alone leaves it to a child that was forked meanwhile
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
