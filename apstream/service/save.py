"""Save: the images of one exposure go into the repository, in the child process."""

from __future__ import annotations

from typing import Any

from apstream.pipeline.pixels import PixelResult
from apstream.repo.repository import Repository

__all__ = ["save_result"]


def save_result(repository: Repository, result: PixelResult, products: frozenset[str]) -> None:
    """Store the wanted products (``calexp``, ``deepDiff_differenceExp``, ``deepDiff_diaSrc``) of one exposure."""
    info = result.calexp.info
    data_id: dict[str, Any] = {"visit": info.id.visit, "detector": info.id.detector, "band": info.band}
    values = {
        "calexp": result.calexp,
        "deepDiff_differenceExp": result.pair.difference,
        "deepDiff_diaSrc": result.pair.dia_sources,
    }
    for name in sorted(products & values.keys()):
        repository.put(values[name], name, **data_id)
