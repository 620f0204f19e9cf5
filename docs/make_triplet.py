"""Draw docs/images/triplet.png: a simulated supernova on a galaxy, from the alerts of the demonstration.

apstream demo --size 512 --visits 2 --out demo-night
python docs/make_triplet.py demo-night
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits

from apstream.alerts.codec import records_of_ocf

mpl.use("Agg")
from matplotlib import pyplot as plt

TARGET = Path(__file__).parent / "images" / "triplet.png"
MATCH_DEG = 1.0 / 3600
HOST_REACH_PIXELS = 7
SHOWN = ("Science", "Template", "Difference")


def supernovae_on_galaxies(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the alerts of supernovae whose host is a galaxy."""
    truth = pq.read_table(folder / "night" / "truth" / "sources.parquet").to_pylist()
    true = [row for row in truth if row["kind"] == "supernova" and row["host"] == "galaxy"]
    for path in sorted((folder / "alerts").rglob("*.avro")):
        for alert in records_of_ocf(path.read_bytes()):
            if any(is_same(alert["diaSource"], row) for row in true):
                yield alert


def is_same(source: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a source is the true one of this visit."""
    if source["visit"] != row["visit"]:
        return False
    east = (source["ra"] - row["ra"]) * np.cos(np.deg2rad(row["dec"]))
    return bool(np.hypot(east, source["dec"] - row["dec"]) < MATCH_DEG)


def pixels(alert: Mapping[str, Any], name: str) -> np.ndarray:
    """Return the image of a cutout."""
    with fits.open(io.BytesIO(alert["cutout" + name])) as hdus:
        return np.asarray(hdus[0].data, float)


def host_stands_out(alert: Mapping[str, Any]) -> bool:
    """Whether the brightest thing on the template is beside the supernova: no bright star in the picture."""
    template = pixels(alert, "Template")
    if not np.isfinite(template).all():
        return False
    peak = np.unravel_index(np.argmax(template), template.shape)
    return bool(np.hypot(*(np.array(peak) - np.array(template.shape) // 2)) < HOST_REACH_PIXELS)


def draw(alert: Mapping[str, Any], target: Path) -> None:
    """Draw the three cutouts; science and template share one stretch."""
    images = {name: pixels(alert, name) for name in SHOWN}
    low, high = np.nanpercentile(np.stack([images["Science"], images["Template"]]), [2, 99.8])
    reach = np.nanpercentile(np.abs(images["Difference"]), 99.8)
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.65), constrained_layout=True)
    for axis, (name, image) in zip(axes, images.items(), strict=True):
        if name == "Difference":
            axis.imshow(image, origin="lower", cmap="gray", vmin=-reach, vmax=reach)
        else:
            scaled = np.sqrt(np.clip((image - low) / (high - low), 0, 1))
            axis.imshow(scaled, origin="lower", cmap="gray", vmin=0, vmax=1)
        axis.set_title(name.lower(), fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=110, metadata={"Software": None})


def main(folder: Path) -> None:
    """Take the supernova with the largest signal-to-noise ratio of those whose host stands out."""
    found = [alert for alert in supernovae_on_galaxies(folder) if host_stands_out(alert)]
    draw(max(found, key=lambda alert: alert["diaSource"]["snr"]), TARGET)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
