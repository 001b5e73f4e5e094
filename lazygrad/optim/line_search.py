"""Line search for the strong Wolfe conditions (Nocedal and Wright, Numerical Optimization, 2nd ed.,
algorithms 3.5 and 3.6), with cubic interpolation (equation 3.59).

All is done on Python numbers; only evaluating a point computes with tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Trial:
    """A point on the line: how far along, the loss there, its gradient, the slope."""

    step: float
    loss: float
    gradient: Any
    slope: float


def cubic_minimum(a: Trial, b: Trial, least: float, most: float) -> float:
    """Where the cubic through two points with their slopes is lowest, kept within bounds."""
    if a.step > b.step:
        a, b = b, a
    mean = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.step - b.step)
    square = mean * mean - a.slope * b.slope
    if not square >= 0:
        return (least + most) / 2
    root = math.sqrt(square)
    divisor = b.slope - a.slope + 2 * root
    if divisor == 0:
        return (least + most) / 2
    position = b.step - (b.step - a.step) * ((b.slope + root - mean) / divisor)
    return min(max(position, least), most)


def strong_wolfe(evaluate: Callable[[float], Trial], start: Trial, step: float, size: float,
                 most: int, *, decrease: float = 1e-4, curvature: float = 0.9,
                 tolerance: float = 1e-9) -> tuple[Trial, int]:
    """A point whose loss is low and whose slope is small enough, and how many were evaluated.

    start: the point at step 0.  step: the first one tried.  size: the largest element of the
    direction.  most: evaluations after the first.  decrease, curvature: the conditions' constants.
    """
    previous, trial = start, evaluate(step)
    evaluations, rounds = 1, 0
    bracket: tuple[Trial, Trial] | None = None
    while rounds < most:
        if trial.loss > start.loss + decrease * trial.step * start.slope or (
                rounds > 1 and trial.loss >= previous.loss):
            bracket = (previous, trial)
            break
        if abs(trial.slope) <= -curvature * start.slope:
            return trial, evaluations
        if trial.slope >= 0:
            bracket = (previous, trial)
            break
        least = trial.step + 0.01 * (trial.step - previous.step)
        following = cubic_minimum(previous, trial, least, trial.step * 10)
        previous, trial = trial, evaluate(following)
        evaluations += 1
        rounds += 1
    if bracket is None:
        bracket = (start, trial)
    low, high = sorted(bracket, key=lambda point: point.loss)
    stuck = False
    while rounds < most:
        left, right = sorted((low.step, high.step))
        if (right - left) * size < tolerance:
            break
        position = cubic_minimum(low, high, left, right)
        # A point close to an end of the bracket hardly shrinks it: the second time in a row, or on
        # the end itself, go a tenth of the bracket inside.
        margin = 0.1 * (right - left)
        if min(right - position, position - left) < margin:
            if stuck or position >= right or position <= left:
                near_right = abs(position - right) < abs(position - left)
                position = right - margin if near_right else left + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        trial = evaluate(position)
        evaluations += 1
        rounds += 1
        if trial.loss > start.loss + decrease * trial.step * start.slope or trial.loss >= low.loss:
            low, high = sorted((low, trial), key=lambda point: point.loss)
            continue
        if abs(trial.slope) <= -curvature * start.slope:
            return trial, evaluations
        if trial.slope * (high.step - low.step) >= 0:
            high = low
        low = trial
    return low, evaluations
