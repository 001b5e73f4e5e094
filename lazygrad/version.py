"""The version of this package, and of what it was built for: no CUDA, no HIP."""

from __future__ import annotations

__version__ = "0.1.0"
cuda = hip = git_version = None
debug = False
