"""torch.backends' questions and switches, as far as programs ask before they choose a device."""

from __future__ import annotations


class _Absent:
    """A backend that is not there; its switches can be set and do nothing."""

    benchmark = deterministic = enabled = allow_tf32 = False

    @staticmethod
    def is_available() -> bool:
        return False

    @staticmethod
    def is_built() -> bool:
        return False


mps, cudnn, cuda = _Absent(), _Absent(), _Absent()
