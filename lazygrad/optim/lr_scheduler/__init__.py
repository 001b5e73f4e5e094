"""Learning-rate schedules: they write `group["lr"]`, and the optimiser takes the new value at its
next step.
"""

from lazygrad.optim.lr_scheduler.base import LRScheduler, _LRScheduler
from lazygrad.optim.lr_scheduler.combined import ChainedScheduler, SequentialLR
from lazygrad.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from lazygrad.optim.lr_scheduler.cycles import CyclicLR, OneCycleLR
from lazygrad.optim.lr_scheduler.factors import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from lazygrad.optim.lr_scheduler.plateau import ReduceLROnPlateau

__all__ = ["ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
           "CyclicLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR",
           "MultiplicativeLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "SequentialLR",
           "StepLR", "_LRScheduler"]
