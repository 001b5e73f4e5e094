"""The Python array API standard, 2024.12: `Tensor.__array_namespace__()` is this module.

Names, arguments and result dtypes are the standard's where they differ from PyTorch's; arrays are
ordinary `lazygrad.Tensor`s.  https://data-apis.org/array-api/2024.12

Where Tensor keeps PyTorch's meaning instead: `x.size` is a method (use `math.prod(x.shape)`), and
operators leave 0-d arrays out of type promotion (the functions here do not).
"""

from __future__ import annotations

import math as _math

from lazygrad.array_api import fft, linalg
from lazygrad.array_api._creation import *
from lazygrad.array_api._creation import __all__ as _creation
from lazygrad.array_api._elementwise import *
from lazygrad.array_api._elementwise import __all__ as _elementwise
from lazygrad.array_api._manipulation import *
from lazygrad.array_api._manipulation import __all__ as _manipulation
from lazygrad.array_api._searching import *
from lazygrad.array_api._searching import __all__ as _searching
from lazygrad.array_api._statistics import *
from lazygrad.array_api._statistics import __all__ as _statistics
from lazygrad.array_api._types import *
from lazygrad.array_api._types import __all__ as _types
from lazygrad.array_api.linalg import matmul, matrix_transpose, tensordot, vecdot

e, inf, nan, pi = _math.e, _math.inf, _math.nan, _math.pi
newaxis = None
__array_api_version__ = "2024.12"

__all__ = [*_creation, *_elementwise, *_manipulation, *_searching, *_statistics, *_types,
           "matmul", "matrix_transpose", "tensordot", "vecdot", "linalg", "fft",
           "e", "inf", "nan", "pi", "newaxis", "__array_api_version__"]
