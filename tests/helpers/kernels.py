"""Which compiled kernels a process has; to be asked in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from numba.core.dispatcher import Dispatcher

from apstream.model.products import KnownObjects
from apstream.service.batch import BatchJob
from apstream.service.pixel_job import process_raw
from apstream.service.pixel_settings import PixelSettings
from apstream.service.warm import warm_up


def loaded() -> set[str]:
    """Return name and types of every kernel that was compiled or taken from the cache in this process."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("apstream.")]
    kernels = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
    return {f"{kernel.__module__}.{kernel.__name__}{types}" for kernel in kernels for types in kernel.signatures}


def load() -> set[str]:
    """Warm up and return what that brought."""
    warm_up()
    return loaded()


def load_more(jobs: Sequence[BatchJob], repository: Path, known: KnownObjects) -> set[str]:
    """Do the work of exposures and return all that is there after it."""
    settings = PixelSettings.model_validate({"repository": {"root": str(repository)}})
    for job in jobs:
        process_raw(job.path, job.id.detector, known, settings)
    return loaded()
