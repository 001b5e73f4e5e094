"""Index expressions: where an element lies, as a function of loop variables.

An `Affine` is a constant plus terms with whole-number coefficients.  A term is a loop variable
(`Var`), a quotient or remainder by a constant (`Div`, `Mod`) that range analysis could not resolve,
or a number read at run time (`Dyn`, from a gather). Movement ops become substitutions on these
expressions; `divide` and `modulo` simplify by the ranges of the variables, so that a reshape of
whole axes leaves no division behind.  Division rounds down; divisors are positive.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Var:
    """A loop variable running from 0 to extent - 1."""

    name: str
    extent: int
    high: int = field(init=False, compare=False, repr=False)
    low: ClassVar[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "high", max(self.extent - 1, 0))

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Dyn:
    """A number computed by the kernel's value of that id; known to lie in 0..extent-1."""

    value: int
    extent: int
    high: int = field(init=False, compare=False, repr=False)
    low: ClassVar[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "high", max(self.extent - 1, 0))

    def __str__(self) -> str:
        return f"[%{self.value}]"


@dataclass(frozen=True, slots=True)
class Div:
    inner: Affine
    divisor: int

    @property
    def low(self) -> int:
        return self.inner.low // self.divisor

    @property
    def high(self) -> int:
        return self.inner.high // self.divisor

    def __str__(self) -> str:
        return f"({self.inner})//{self.divisor}"


@dataclass(frozen=True, slots=True)
class Mod:
    inner: Affine
    divisor: int
    low: ClassVar[int] = 0

    @property
    def high(self) -> int:
        return self.divisor - 1

    def __str__(self) -> str:
        return f"({self.inner})%{self.divisor}"


Term = Var | Dyn | Div | Mod


class Affine:
    """constant + sum of coefficient * term; terms are distinct, sorted by their text, coefficients
    not 0.  low, high: the bounds that follow.  A value: nobody changes one.

    Written out, since a step of a ResNet-18 makes 50,000 and compares ten times as many.
    """

    __slots__ = ("_hash", "constant", "high", "low", "terms")

    def __init__(self, constant: int, terms: tuple[tuple[Term, int], ...] = ()) -> None:
        low = high = constant
        for term, coefficient in terms:
            if coefficient > 0:
                low += term.low * coefficient
                high += term.high * coefficient
            else:
                low += term.high * coefficient
                high += term.low * coefficient
        self.constant = constant
        self.terms = terms
        self.low = low
        self.high = high
        self._hash = hash((constant, terms))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Affine)
            and self._hash == other._hash
            and self.constant == other.constant
            and self.terms == other.terms
        )

    def __repr__(self) -> str:
        return f"Affine({self.constant!r}, {self.terms!r})"

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.constant + other, self.terms) if other else self
        if not other.terms:
            return self + other.constant
        if not self.terms:
            return other + self.constant
        return combine(self.constant + other.constant, (*self.terms, *other.terms))

    def __mul__(self, factor: int) -> Affine:
        if factor == 1:
            return self
        if factor == 0:
            return ZERO
        return Affine(self.constant * factor, tuple((term, c * factor) for term, c in self.terms))

    def coefficient(self, term: Term) -> int:
        for ours, c in self.terms:
            if ours == term:
                return c
        return 0

    def variables(self) -> set[Term]:
        """Every Var and Dyn met, those inside quotients and remainders too."""
        found: set[Term] = set()
        for term, _ in self.terms:
            if isinstance(term, (Div, Mod)):
                found |= term.inner.variables()
            else:
                found.add(term)
        return found

    def __str__(self) -> str:
        parts = [f"{c}*{term}" if c != 1 else str(term) for term, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts)


ZERO = Affine(0)
REMEMBERED = 1 << 14
"""Sums, quotients and remainders kept: a kernel is lowered several times while groups are formed.
Of a ResNet-18 training step 98 % are found; lowering it takes a quarter less CPU time for that.
"""


def variable(term: Term) -> Affine:
    """The expression that is just this term; a variable of extent 1 is 0."""
    return ZERO if term.low == term.high == 0 else Affine(0, ((term, 1),))


def combine(constant: int, terms: Iterable[tuple[Term, int]]) -> Affine:
    return _combined(constant, tuple(terms))


@functools.lru_cache(REMEMBERED)
def _combined(constant: int, terms: tuple[tuple[Term, int], ...]) -> Affine:
    total: dict[Term, int] = {}
    for term, c in terms:
        total[term] = total.get(term, 0) + c
    _rejoin(total)
    kept = [(term, c) for term, c in total.items() if c]
    kept.sort(key=lambda item: str(item[0]))
    return Affine(constant, tuple(kept))


def _rejoin(total: dict[Term, int]) -> None:
    """Puts quotient and remainder of one number together again: d * (x // d) + x % d is x."""
    again = True
    while again:
        again = False
        for term, c in list(total.items()):
            if not isinstance(term, Mod) or not c:
                continue
            quotient = divide(term.inner, term.divisor)
            if len(quotient.terms) != 1 or quotient.constant or quotient.terms[0][1] != 1:
                continue
            other = quotient.terms[0][0]
            upper = next(
                (
                    t
                    for t, factor in total.items()
                    if isinstance(t, Mod) and t.inner == quotient and factor == c * term.divisor
                ),
                None,
            )
            if upper is not None:
                # d * ((x // d) % e) + x % d is x % (d * e)
                del total[term], total[upper]
                for inner, factor in modulo(term.inner, term.divisor * upper.divisor).terms:
                    total[inner] = total.get(inner, 0) + factor * c
                again = True
                break
            if total.get(other, 0) == c * term.divisor and not term.inner.constant:
                del total[term], total[other]
                for inner, factor in term.inner.terms:
                    total[inner] = total.get(inner, 0) + factor * c
                again = True
                break


def _split(value: Affine, divisor: int) -> tuple[Affine, Affine]:
    """(whole, rest) with value == divisor * whole + rest, as much as possible in `whole`."""
    whole: list[tuple[Term, int]] = []
    rest: list[tuple[Term, int]] = []
    for term, c in value.terms:
        if c % divisor == 0:
            whole.append((term, c // divisor))
        else:
            rest.append((term, c))
    low_rest = Affine(0, tuple(rest))
    # put as much of the constant into the whole part as keeps the rest from turning negative
    constant = value.constant
    quotient = (constant + low_rest.low) // divisor if rest else constant // divisor
    return Affine(quotient, tuple(whole)), Affine(constant - quotient * divisor, tuple(rest))


def _factor(rest: Affine, divisor: int) -> tuple[int, Affine, Affine] | None:
    """(g, multiple, small): rest == g * multiple + small, g divides the divisor, small lies in
    0..g-1.
    """
    for g in sorted(
        {abs(c) for _, c in rest.terms if abs(c) > 1 and divisor % abs(c) == 0}, reverse=True
    ):
        multiple, small = _split(rest, g)
        if small.low >= 0 and small.high < g:
            return g, multiple, small
    return None


@functools.lru_cache(REMEMBERED)
def divide(value: Affine, divisor: int) -> Affine:
    """value // divisor, rounded down."""
    if divisor == 1:
        return value
    whole, rest = _split(value, divisor)
    low, high = rest.low // divisor, rest.high // divisor
    if low == high:
        return whole + low
    if len(rest.terms) == 1 and rest.constant == 0:
        term, c = rest.terms[0]
        if c == 1 and isinstance(term, Div):
            return whole + divide(term.inner, term.divisor * divisor)
    factored = _factor(rest, divisor)
    if factored is not None:
        g, multiple, _ = factored
        return whole + divide(multiple, divisor // g)
    return whole + variable(Div(rest, divisor))


@functools.lru_cache(REMEMBERED)
def modulo(value: Affine, divisor: int) -> Affine:
    """value modulo divisor, in 0..divisor-1."""
    if divisor == 1:
        return ZERO
    _, rest = _split(value, divisor)
    if rest.low >= 0 and rest.high < divisor:
        return rest
    if rest.low // divisor == rest.high // divisor:
        return rest + -(rest.low // divisor) * divisor
    if len(rest.terms) == 1 and rest.constant == 0:
        term, c = rest.terms[0]
        if c == 1 and isinstance(term, Mod) and term.divisor % divisor == 0:
            return modulo(term.inner, divisor)
    factored = _factor(rest, divisor)
    if factored is not None:
        g, multiple, small = factored
        return modulo(multiple, divisor // g) * g + small
    return Affine(0, ((Mod(rest, divisor), 1),))


def substitute(value: Affine, mapping: Mapping[Term, Affine]) -> Affine:
    """The expression with variables replaced, simplified anew."""
    result = Affine(value.constant)
    for term, c in value.terms:
        if isinstance(term, Div):
            new = divide(substitute(term.inner, mapping), term.divisor)
        elif isinstance(term, Mod):
            new = modulo(substitute(term.inner, mapping), term.divisor)
        else:
            new = mapping[term] if term in mapping else variable(term)
        result = result + new * c
    return result


def strides_of(shape: Sequence[int]) -> list[int]:
    """Row-major strides in elements."""
    strides, running = [], 1
    for size in reversed(shape):
        strides.append(running)
        running *= size
    return strides[::-1]


def linearize(indices: Sequence[Affine], shape: Sequence[int]) -> Affine:
    """Row-major position."""
    return _linearized(tuple(indices), tuple(shape))


@functools.lru_cache(REMEMBERED)
def _linearized(indices: tuple[Affine, ...], shape: tuple[int, ...]) -> Affine:
    result = ZERO
    for index, stride, size in zip(indices, strides_of(shape), shape, strict=True):
        if size != 1:
            result = result + index * stride
    return result


def delinearize(position: Affine, shape: Sequence[int]) -> tuple[Affine, ...]:
    """The indices of a row-major position, which lies in the array wherever it is used: the
    outermost axis needs no remainder.
    """
    return _delinearized(position, tuple(shape))


@functools.lru_cache(REMEMBERED)
def _delinearized(position: Affine, shape: tuple[int, ...]) -> tuple[Affine, ...]:
    result, outermost = [], True
    for stride, size in zip(strides_of(shape), shape, strict=True):
        if size == 1:
            result.append(ZERO)
            continue
        quotient = divide(position, stride)
        result.append(quotient if outermost else modulo(quotient, size))
        outermost = False
    return tuple(result)


@functools.lru_cache(REMEMBERED)
def reindex(
    indices: tuple[Affine, ...], old: tuple[int, ...], new: tuple[int, ...]
) -> tuple[Affine, ...]:
    """The indices in an array of the shape `old` as those in its reshape to `new`.

    Axes that the reshape keeps apart stay apart, so that an index which runs over into padding
    leaves the others alone: no quotient or remainder stands where axes are only merged.
    """
    result: list[Affine] = []
    for old_axes, new_axes in aligned_axes(old, new):
        position = linearize(indices[old_axes], old[old_axes])
        result += delinearize(position, new[new_axes])
    return tuple(result)


def aligned_axes(old: Sequence[int], new: Sequence[int]) -> list[tuple[slice, slice]]:
    """The shortest runs of axes of two shapes of one size that hold equally many elements."""
    if 0 in old:
        return [(slice(0, len(old)), slice(0, len(new)))]
    runs, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first, second, left, right = i, j, 1, 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        runs.append((slice(first, i), slice(second, j)))
    return runs


def split_points(values: Iterable[Affine]) -> dict[Var, set[int]]:
    """For each variable, the strides at which quotients and remainders of it alone cut it."""
    points: dict[Var, set[int]] = {}
    for value in values:
        for term, _ in value.terms:
            if isinstance(term, (Div, Mod)):
                inner = term.inner
                if len(inner.terms) == 1 and inner.terms[0][1] == 1 and inner.constant == 0:
                    base = inner.terms[0][0]
                    if isinstance(base, Var):
                        points.setdefault(base, set()).add(term.divisor)
                    elif isinstance(base, Div) and len(base.inner.terms) == 1:
                        root, c = base.inner.terms[0]
                        if isinstance(root, Var) and c == 1 and base.inner.constant == 0:
                            points.setdefault(root, set()).update(
                                (base.divisor, base.divisor * term.divisor)
                            )
                            continue
                nested = split_points([inner])
                for var, more in nested.items():
                    points.setdefault(var, set()).update(more)
    return points


def digits(extent: int, points: Iterable[int]) -> list[int] | None:
    """Sizes (outermost first) into which a variable splits at those strides; None where they do not
    nest.
    """
    chain, previous = [], 1
    for point in sorted(set(points)):
        if point <= 1 or point >= extent:
            continue
        if point % previous:
            return None
        chain.append(point // previous)
        previous = point
    if extent % previous:
        return None
    chain.append(extent // previous)
    return chain[::-1]
