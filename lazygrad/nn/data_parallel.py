"""`DataParallel` on one device: the module itself, under the name `module`."""

from __future__ import annotations

from typing import Any

from lazygrad.nn.module import Module


class DataParallel(Module):
    """Calls `module`; PyTorch would split the batch over several GPUs."""

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None,
                 dim: int = 0) -> None:
        super().__init__()
        self.module = module
        self.device_ids: list[Any] = []
        self.dim = dim

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
