"""`replace_all_batch_norm_modules_`: batch norms without running statistics, which are state."""

from __future__ import annotations

from typing import Any


def replace_all_batch_norm_modules_(root: Any) -> Any:
    """Makes the batch norms among the parts of a module keep no running statistics; gives it
    back.
    """
    from lazygrad.nn.normalization import _BatchNorm
    for module in root.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root
