"""The one place that looks at the clock for the pipeline."""

from __future__ import annotations

import time

__all__ = ["now_mjd_tai"]


def now_mjd_tai() -> float:
    """Return the time now, MJD TAI in days."""
    from astropy.time import Time

    return float(Time(time.time(), format="unix").tai.mjd)
