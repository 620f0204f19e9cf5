"""Kernels start without what they do not need, and find it where they do."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from apstream.arrays.compiled import njit

_FIRST_KERNEL = """
import sys
import numpy as np
from apstream.arrays.masks import clear_of

assert clear_of(np.zeros((2, 2), np.int32), 1).all()
assert "scipy.linalg" not in sys.modules
"""


def test_the_first_kernel_imports_no_linear_algebra() -> None:
    subprocess.run([sys.executable, "-c", _FIRST_KERNEL], check=True, timeout=60)


def test_a_kernel_may_multiply_matrices() -> None:
    @njit
    def product(a, b):  # type: ignore[no-untyped-def]
        return a @ b

    a, b = np.arange(6.0).reshape(2, 3), np.ones((3, 2))
    np.testing.assert_allclose(product(a, b), a @ b)
