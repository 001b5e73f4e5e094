"""Optimisers and learning-rate schedules, under PyTorch's names."""

from lazygrad.optim import lr_scheduler
from lazygrad.optim.adagrad import Adagrad
from lazygrad.optim.adam import Adam, AdamW
from lazygrad.optim.optimizer import Optimizer
from lazygrad.optim.rmsprop import RMSprop
from lazygrad.optim.sgd import SGD

__all__ = ["Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "SGD", "lr_scheduler"]
