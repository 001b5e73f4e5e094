"""sin, cos, tan, asin, acos, atan and atan2.

x = n pi/2 + r with |r| <= pi/4.  Up to 2**17 (f32) and 2**27 (f64), r comes from three fused steps
with pi/2 in three parts (Cody and Waite 1980).  Beyond, from the bits of 2/pi that matter for this
exponent, in integers (M. Payne and R. Hanek, "Radian reduction for trigonometric functions",
1983): that path is taken when any lane needs it.  Both give r as a pair.
"""

from __future__ import annotations

from lazygrad_compiler.llvm.builder import Value, const, vector_of
from lazygrad_compiler.llvm.elementary_coefficients import CONSTANTS, TWO_OVER_PI, TWO_OVER_PI_BITS
from lazygrad_compiler.llvm.elementary_lanes import (
    INFINITY,
    NAN,
    Lanes,
    constant_parts,
    fma,
    nearest,
    polynomial,
    product_of_pairs,
    select,
    sum_of_ordered,
    tiny,
)

LARGE = {"float": 2.0**17, "double": 2.0**27}
LEADING_ZEROS = 64  # zero bits before 2/pi in the table, for exponents below the first fraction bit
LOW_WORD = 0xFFFFFFFF


def reduce_quarter_turns(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """(n mod 4 in the low bits, r, low part of r) with x = n pi/2 + r."""
    function = x.function
    first, second, third = constant_parts("half_pi", x)
    turns = nearest(x, constant_parts("two_over_pi", x)[0])
    n, quadrant = turns.number, turns.integer
    exact = fma(n, -first, x)  # exact: a multiple of ulp(first) below 1
    r = exact - n * second
    # exact - r loses nothing: exact is a multiple of ulp(n * second), where Fast2Sum holds.
    low = fma(n, -third, fma(n, -second, exact - r))
    large = abs(x) > LARGE[x.element]
    some, join = function.new_block("large"), function.new_block("reduced")
    before = function.label
    function.branch_if(large.any(), some, join)
    function.start_block(some)
    reducer = _payne_hanek_f32 if x.element == "float" else _payne_hanek_f64
    common = (quadrant, r, low)
    chosen = [select(large, theirs, ours) for theirs, ours in zip(reducer(x), common)]
    after = function.label
    function.branch(join)
    function.start_block(join)
    merged = [Lanes(function, function.phi(ours.value.type,
                                           [(ours.value, before), (theirs.value, after)]))
              for ours, theirs in zip(common, chosen)]
    return merged[0], merged[1], merged[2]


def _window(x: Lanes, words: int) -> tuple[Lanes, list[Lanes]]:
    """(significand of |x|, 32-bit words of 2/pi, highest first) whose product counts quarter turns.

    The significand times the window, taken modulo 2**(32 words), has n mod 4 in its two top bits.
    """
    format_ = x.format
    function = x.function
    bits = x.bits()
    field = (bits >> format_.mantissa) & ((1 << (format_.width - format_.precision)) - 1)
    significand = (bits & ((1 << format_.mantissa) - 1)) | (1 << format_.mantissa)
    if format_.width == 32:
        field, significand = field.convert("zext", "i64"), significand.convert("zext", "i64")
    # |x| = significand * 2**k; bits of 2/pi before place k - 1 would only add whole turns.
    start = field - (format_.bias + format_.mantissa) + (LEADING_ZEROS - 2)
    start = select(start < 0, 0, start)  # lanes that are not large: any value will do
    index, shift = start >> 5, start & 31
    table = function.module.constant_table("lg.two_over_pi", "i64", _overlapping_words())
    return significand, [((_look_up(table, index + word) << shift) >> 32) for word in range(words)]


def _overlapping_words() -> list[int]:
    """Entry i holds 64 bits of 2/pi from place 32 i on, so that any 32 bits lie in one entry."""
    total = LEADING_ZEROS + TWO_OVER_PI_BITS
    return [(TWO_OVER_PI >> (total - 64 - place)) & ((1 << 64) - 1)
            for place in range(0, total - 63, 32)]


def _look_up(table: Value, index: Lanes) -> Lanes:
    function = index.function
    addresses = function.offset(table, index.value, "i64")
    if index.count == 1:
        return Lanes(function, function.load("i64", addresses, 8))
    mask = const(vector_of("i1", index.count), True)
    return Lanes(function, function.gather(index.value.type, addresses, 8, mask,
                                           const(index.value.type, 0)))


def _payne_hanek_f32(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    significand, words = _window(x, 3)
    turns = ((significand * words[0] << 32) + significand * words[1]
             + (significand * words[2] >> 32))  # units of 2**-62 quarter turns, modulo 4
    n = (turns + (1 << 61)) >> 62
    fraction = (turns - (n << 62)).convert("sitofp", "double")
    r = fraction * (CONSTANTS["half_pi", "double"][0] * 2.0**-62)
    high = r.convert("fptrunc", "float")
    low = (r - high.convert("fpext", "double")).convert("fptrunc", "float")
    return _with_sign(x, n.convert("trunc", "i32"), high, low)


def _payne_hanek_f64(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    significand, words = _window(x, 6)
    ascending = words[::-1]
    upper, lower = significand >> 32, significand & LOW_WORD
    products = [lower * word for word in ascending], [upper * word for word in ascending]
    # Words of the product from the second lowest up; what the lowest would carry is below 2**-150.
    carry: Lanes | None = None
    limbs: list[Lanes] = []
    for place in range(1, 6):
        total = ((products[0][place] & LOW_WORD) + (products[0][place - 1] >> 32)
                 + (products[1][place - 1] & LOW_WORD))
        if place > 1:
            total = total + (products[1][place - 2] >> 32)
        if carry is not None:
            total = total + carry
        limbs.append(total & LOW_WORD)
        carry = total >> 32
    top = limbs[4]
    n = (top + (1 << 29)) >> 30
    numbers = [(top - (n << 30)), limbs[3], limbs[2], limbs[1]]
    a, b, c, d = (number.convert("sitofp", "double") * 2.0 ** -(30 + 32 * place)
                  for place, number in enumerate(numbers))
    first = sum_of_ordered(a, b)
    fraction = sum_of_ordered(first[0], first[1] + (c + d))
    half_pi = CONSTANTS["half_pi", "double"]
    high, low = product_of_pairs(fraction, (x.constant(half_pi[0]), x.constant(half_pi[1])))
    return _with_sign(x, n & 3, high, low)


def _with_sign(x: Lanes, n: Lanes, high: Lanes, low: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """The reduction of x from that of |x|; infinity has none."""
    negative = x < 0.0
    high = select(abs(x).equals(INFINITY), NAN, high)
    return (select(negative, -n, n), select(negative, -high, high), select(negative, -low, low))


def _sin_kernel(r: Lanes, low: Lanes) -> Lanes:
    z = r * r
    return r + fma(r * z, polynomial("sin", z), fma(z * -0.5, low, low))


def _cos_kernel(r: Lanes, low: Lanes) -> Lanes:
    z = r * r
    high = fma(z, -0.5, 1.0)
    lost = fma(z, -0.5, 1.0 - high)
    return high + (fma(z * z, polynomial("cos", z), fma(-r, low, lost)))


def _rotated(quadrant: Lanes, r: Lanes, low: Lanes) -> Lanes:
    """sin(quadrant pi/2 + r + low)."""
    odd = (quadrant & 1).equals(1)
    result = select(odd, _cos_kernel(r, low), _sin_kernel(r, low))
    sign = (quadrant & 2) << (r.format.width - 2)
    return (result.bits() ^ sign).from_bits(r.element)


def sin(x: Lanes) -> Lanes:
    return select(tiny(x), x, _rotated(*reduce_quarter_turns(x)))


def cos(x: Lanes) -> Lanes:
    quadrant, r, low = reduce_quarter_turns(x)
    return _rotated(quadrant + 1, r, low)


def tan(x: Lanes) -> Lanes:
    quadrant, r, low = reduce_quarter_turns(x)
    z = r * r
    # tan' = 1 + tan**2, near enough for the low part of r.
    correction = fma(r * z, polynomial("tan", z), fma(z, low, low))
    high, rest = sum_of_ordered(r, correction)
    inverse = -1.0 / high
    # One Newton step on -1 / (high + rest).
    inverse = fma(inverse, fma(inverse, rest, fma(inverse, high, 1.0)), inverse)
    return select(tiny(x), x, select((quadrant & 1).equals(1), inverse, high))


def _asin_tail(x: Lanes, z: Lanes) -> Lanes:
    """asin(x) - x for |x| <= 1/2, z = x*x."""
    return x * z * polynomial("asin", z)


def asin(x: Lanes) -> Lanes:
    magnitude = abs(x)
    near_one = magnitude > 0.5
    z = select(near_one, fma(magnitude, -0.5, 0.5), x * x)
    root = select(near_one, z.sqrt(), magnitude)
    tail = _asin_tail(root, z)
    high, low, _ = constant_parts("half_pi", x)
    # asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2))
    exact = fma(root, -2.0, high)
    lost = fma(root, -2.0, high - exact)
    large = exact + (lost - fma(tail, 2.0, -low))
    return select(near_one, large, root + tail).with_sign_of(x)


def acos(x: Lanes) -> Lanes:
    magnitude = abs(x)
    near_one = magnitude > 0.5
    z = select(near_one, fma(magnitude, -0.5, 0.5), x * x)
    root = select(near_one, z.sqrt(), x)
    tail = _asin_tail(root, z)
    high, low, _ = constant_parts("half_pi", x)
    middle = high - (root + (tail - low))
    near = (root + tail) * 2.0
    opposite = fma(root, -2.0, 2.0 * high) - fma(tail, 2.0, -2.0 * low)
    return select(near_one, select(x < 0.0, opposite, near), middle)


def _atan_of_quotient(y: Lanes, x: Lanes, negative: Lanes | None) -> Lanes:
    """The angle of (x, y) for x, y >= 0, not both infinite; pi minus it where `negative` holds.

    The plane is turned by pi/4 or pi/2 first, so that the tangent is at most tan(pi/8); the
    quotient is a pair.
    """
    steep = y > x * 2.414213562373095
    middle = ~steep & (y > x * 0.41421356237309503)
    difference, total = y - x, y + x
    top = select(steep, -x, select(middle, difference, y))
    bottom = select(steep, y, select(middle, total, x))
    flat = ~middle
    larger_y = y > x
    top_low = select(larger_y, (y - difference) - x, y - (difference + x))
    total_low = select(larger_y, x - (total - y), y - (total - x))
    top_low = select(flat, 0.0, top_low)
    total_low = select(flat, 0.0, total_low)
    quotient = top / bottom
    residue = fma(-quotient, bottom, top) + fma(-quotient, total_low, top_low)
    quotient_low = residue / bottom
    z = quotient * quotient
    high, low, _ = constant_parts("half_pi", x)
    turn = select(steep, x.constant(high), select(middle, x.constant(high / 2), 0.0))
    turn_low = select(steep, x.constant(low), select(middle, x.constant(low / 2), 0.0))
    if negative is not None:
        # pi - turn is exact: both are multiples of high / 2.
        turn = select(negative, 2 * high - turn, turn)
        turn_low = select(negative, 2 * low - turn_low, turn_low)
        quotient = select(negative, -quotient, quotient)
        quotient_low = select(negative, -quotient_low, quotient_low)
    tail = fma(quotient * z, polynomial("atan", z), quotient_low + turn_low)
    exact = turn + quotient
    lost = quotient - (exact - turn)  # |turn| > |quotient| or turn = 0
    return exact + (lost + tail)


def atan(x: Lanes) -> Lanes:
    magnitude = abs(x)
    clamped = select(magnitude > 2.0 ** (x.format.precision + 4), 2.0 ** (x.format.precision + 4),
                     magnitude)
    result = _atan_of_quotient(clamped, x.constant(1.0), None)
    return select(tiny(x), x, result.with_sign_of(x))


def atan2(y: Lanes, x: Lanes) -> Lanes:
    """The angle of the point (x, y), with the signed zeros and infinities of C99 Annex F.9.1.4."""
    format_ = x.format
    height, width = abs(y), abs(x)
    negative = x.bits() < 0
    # Neither sums nor residues may leave the normal range: both coordinates are scaled alike.
    larger = select(height > width, height, width)
    factor = select(larger > 2.0 ** (format_.bias - 3), x.constant(2.0 ** -(format_.precision + 8)),
                    select(larger < 2.0 ** (2 * format_.precision - format_.bias),
                           x.constant(2.0 ** (2 * format_.precision)), 1.0))
    # Infinities become finite: (inf, inf) is the diagonal, else the other coordinate vanishes.
    infinite = larger.equals(INFINITY)
    height, width = (
        select(infinite, select(side.equals(INFINITY), x.constant(1.0), 0.0), side * factor)
        for side in (height, width))
    # (0, 0) is the positive or negative half axis.
    width = select(larger.equals(0.0), 1.0, width)
    result = _atan_of_quotient(height, width, negative).with_sign_of(y)
    return select(x.is_nan() | y.is_nan(), NAN, result)

