"""`njit` of numba, without the import of all of scipy.linalg that comes with the first kernel.

numba imports scipy.linalg to see whether there is a BLAS, a sixth of a second in every process. There is one, for scipy
is a dependency; kernels that multiply matrices still find it when they are compiled and called.
"""

from __future__ import annotations

from numba import njit
from numba.np import linalg

__all__ = ["njit"]


def _trust_blas() -> None:
    # numba.np.arraymath asks once, while it is imported
    ask = getattr(linalg, "ensure_blas", None)
    linalg.ensure_blas = _there
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        linalg.ensure_blas = ask


def _there() -> None:
    """Stand for a question whose answer is known."""


_trust_blas()
