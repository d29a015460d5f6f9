"""How the numeric kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop on first use, to run without the GIL; keep the machine code on disk where there is a place for it.

    NumPy's error model leaves out the test for zero before every division: painting turns away a tracer outside its
    window in 4 ns instead of 8.
    """
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return numba.njit(nogil=True, error_model="numpy")(function)
