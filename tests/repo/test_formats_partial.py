"""One part or one box of a file is read without reading the rest, and is what the whole holds."""

from __future__ import annotations

import dataclasses
import gzip
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from helpers.nouns import SAMPLES, same

from apstream.errors import BadFile, WrongSize
from apstream.model.exposures import CalExp
from apstream.model.filters import FilterLabel
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.summary import CalExpSummary
from apstream.repo.formats.registry import FORMATS

EXPOSURES = ("exposure", "characterized", "calexp", "difference")
PIXELS = {"image", "mask", "matched_template", "pixels", "variance", "variance_sample"}
GOLDEN = Path(__file__).parents[1] / "golden"


class CountingFile(io.FileIO):
    """A file that counts the bytes it gives out."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self.count += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        got = super().readinto(buffer) or 0
        self.count += got
        return got


def expected(value: Any, name: str) -> Any:
    box = value.box
    corners = [[y, x] for y, x in ((box.y0, box.x0), (box.y0, box.x1), (box.y1, box.x1), (box.y1, box.x0))]
    derived: dict[str, Callable[[], Any]] = {
        "calib": lambda: value.photo_calib,
        "detector": lambda: value.info.id,
        "filter": lambda: FilterLabel(value.info.physical_filter, value.info.band),
        "mask": lambda: value.image.mask,
        "pixels": lambda: value.image.image,
        "polygon": lambda: np.array(corners) - 0.5,
        "summary": lambda: CalExpSummary.of(value),
        "variance": lambda: value.image.variance,
        "variance_sample": lambda: value.image.variance[
            :: max(1, min(box.shape) // 256), :: max(1, min(box.shape) // 256)
        ],
    }
    return derived[name]() if name in derived else getattr(value, name)


@pytest.fixture
def big(calexp: CalExp) -> CalExp:
    """A calexp of 512 x 512 pixels with 200 stars."""
    box = Box.from_shape((512, 512), 1000, 3000)
    rng = np.random.default_rng(11)
    image = MaskedImage.make(
        rng.normal(size=box.shape), rng.integers(0, 9, box.shape), rng.uniform(1, 2, box.shape), "nJy", box
    )
    stars = np.zeros(200, calexp.stars.dtype)
    stars["y"], stars["x"] = rng.uniform(1000, 1511, 200), rng.uniform(3000, 3511, 200)
    measured = np.zeros(200, [("kron_flux", "f8"), ("n_children", "i4")])
    measured["n_children"] = np.arange(200)
    return dataclasses.replace(calexp, image=image, stars=stars, measured=measured)


@pytest.mark.parametrize("kind", EXPOSURES)
def test_every_field_of_the_noun_is_a_component_and_equals_it(tmp_path: Path, kind: str):
    kept = FORMATS[kind]
    for seed in range(3):
        value = SAMPLES[kind](np.random.default_rng(seed))
        kept.write(tmp_path / "file", value)
        assert {field.name for field in dataclasses.fields(value)} <= set(kept.components)
        for name, read in kept.components.items():
            with (tmp_path / "file").open("rb") as file:
                assert same(read(file), expected(value, name)), name
                assert not file.closed


@pytest.mark.parametrize("name", sorted(set(FORMATS["calexp"].components) - PIXELS - {"stars"}))
def test_what_is_no_image_is_read_without_the_pixels(tmp_path: Path, big: CalExp, name: str):
    FORMATS["calexp"].write(tmp_path / "c.fits", big)
    with CountingFile(tmp_path / "c.fits") as file:
        FORMATS["calexp"].components[name](file)
        assert 0 < file.count < 0.01 * (tmp_path / "c.fits").stat().st_size


@pytest.mark.parametrize("name", ["pixels", "mask", "variance"])
def test_one_plane_is_read_without_the_others(tmp_path: Path, big: CalExp, name: str):
    FORMATS["calexp"].write(tmp_path / "c.fits", big)
    with CountingFile(tmp_path / "c.fits") as file:
        FORMATS["calexp"].components[name](file)
        assert file.count < 512 * 512 * 4 + 20_000


def test_a_sample_of_the_variance_is_read_without_the_rows_between(tmp_path: Path, big: CalExp):
    FORMATS["calexp"].write(tmp_path / "c.fits", big)
    with CountingFile(tmp_path / "c.fits") as file:
        found = FORMATS["calexp"].components["variance_sample"](file)
        assert file.count < 0.5 * 512 * 512 * 4 + 20_000
    np.testing.assert_array_equal(found, big.image.variance[::2, ::2])


@pytest.mark.parametrize("box", [Box(1100, 3200, 1110, 3300), Box(1000, 3000, 1512, 3512), Box(1511, 3511, 1512, 3512)])
def test_a_box_is_the_noun_cut_out_and_reads_only_its_rows(tmp_path: Path, big: CalExp, box: Box):
    FORMATS["calexp"].write(tmp_path / "c.fits", big)
    with CountingFile(tmp_path / "c.fits") as file:
        part = FORMATS["calexp"].read_box(file, box)
        assert file.count < box.shape[0] * 512 * 4 * 3 + 60_000
    inside = box.contains(big.stars["y"], big.stars["x"])
    stars, measured = big.stars[inside], big.measured[inside]
    assert same(part, dataclasses.replace(big, image=big.image.cutout(box), stars=stars, measured=measured))


@pytest.mark.parametrize("kind", EXPOSURES)
def test_a_box_of_any_exposure_keeps_its_frame(tmp_path: Path, kind: str):
    value = SAMPLES[kind](np.random.default_rng(8))
    FORMATS[kind].write(tmp_path / "file", value)
    box = Box(value.box.y0 + 2, value.box.x0 + 1, value.box.y0 + 5, value.box.x0 + 9)
    with (tmp_path / "file").open("rb") as file:
        part = FORMATS[kind].read_box(file, box)
    changed: dict[str, Any] = {"image": value.image.cutout(box)}
    if kind == "difference":
        changed["matched_template"] = value.matched_template[2:5, 1:9]
    if hasattr(value, "stars"):
        inside = box.contains(value.stars["y"], value.stars["x"])
        changed["stars"] = value.stars[inside]
        changed["measured"] = None if value.measured is None else value.measured[inside]
    assert same(part, dataclasses.replace(value, **changed))
    assert same(part.wcs, value.wcs)


def test_a_box_of_a_calibration_array(tmp_path: Path):
    pixels = np.arange(64 * 40, dtype=np.float32).reshape(64, 40)
    FORMATS["array"].write(tmp_path / "bias.fits", pixels)
    with CountingFile(tmp_path / "bias.fits") as file:
        np.testing.assert_array_equal(FORMATS["array"].read_box(file, Box(3, 5, 9, 8)), pixels[3:9, 5:8])
    with (tmp_path / "bias.fits").open("rb") as file, pytest.raises(WrongSize, match=r"bias\.fits"):
        FORMATS["array"].read_box(file, Box(60, 0, 65, 3))


@pytest.mark.parametrize("box", [Box(999, 3000, 1005, 3005), Box(1000, 3000, 1005, 3513), Box(0, 0, 5, 5)])
def test_a_box_outside_the_image_is_refused(tmp_path: Path, big: CalExp, box: Box):
    FORMATS["calexp"].write(tmp_path / "c.fits", big)
    with (tmp_path / "c.fits").open("rb") as file, pytest.raises(WrongSize, match=r"c\.fits.*not inside"):
        FORMATS["calexp"].read_box(file, box)


@pytest.mark.parametrize("kept", [0, 100, 2880, 5760, -2880, -1])
def test_no_part_of_a_truncated_file_is_given_out(tmp_path: Path, calexp: CalExp, kept: int):
    FORMATS["calexp"].write(tmp_path / "c.fits", calexp)
    (tmp_path / "cut.fits").write_bytes((tmp_path / "c.fits").read_bytes()[:kept])
    for read in [*FORMATS["calexp"].components.values(), lambda f: FORMATS["calexp"].read_box(f, Box(101, 0, 102, 1))]:
        with (tmp_path / "cut.fits").open("rb") as file, pytest.raises(BadFile, match=r"cut\.fits") as refused:
            read(file)
        assert refused.value.remedy


def test_no_part_of_a_foreign_or_newer_file_is_given_out(tmp_path: Path, calexp: CalExp):
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "other.fits")
    with (tmp_path / "other.fits").open("rb") as file, pytest.raises(BadFile, match="not a file of ours"):
        FORMATS["calexp"].components["wcs"](file)
    FORMATS["calexp"].write(tmp_path / "c.fits", calexp)
    fits.setval(tmp_path / "c.fits", "APSVERS", value=3)
    with (tmp_path / "c.fits").open("rb") as file, pytest.raises(BadFile, match="newer"):
        FORMATS["calexp"].components["psf"](file)


def test_a_part_is_read_from_memory_as_from_a_file(tmp_path: Path, calexp: CalExp):
    FORMATS["calexp"].write(tmp_path / "c.fits", calexp)
    file = io.BytesIO((tmp_path / "c.fits").read_bytes())
    assert same(FORMATS["calexp"].components["psf"](file), calexp.psf)


@pytest.mark.parametrize("kind", ["calexp", "difference"])
def test_files_of_the_first_layout_are_read_whole_and_in_parts(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
):
    value = request.getfixturevalue(kind)
    old = tmp_path / "old.fits"
    old.write_bytes(gzip.decompress((GOLDEN / f"{kind}-layout-1.fits.gz").read_bytes()))
    back = FORMATS[kind].read(old)
    assert (back.box, back.image.shape) == (Box(100, -20, 108, -10), (8, 10))
    assert same(back.info, value.info)
    assert same(back.metrics, value.metrics)
    y, x = np.mgrid[100:148:7, -20:44:9]
    np.testing.assert_allclose(back.wcs.pixel_to_sky(y, x), value.wcs.pixel_to_sky(y, x), rtol=0, atol=1e-11)
    for name, read in FORMATS[kind].components.items():
        with old.open("rb") as file:
            assert same(read(file), expected(back, name)), name


def median_s(action: Callable[[], Any], times: int = 7) -> float:
    durations = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        durations.append(time.perf_counter() - begin)
    return statistics.median(durations)


def bytes_read_by_process() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count bytes per process")
def test_the_wcs_of_a_large_calexp_costs_under_a_hundredth_of_its_bytes_and_a_twentieth_of_its_time(
    tmp_path: Path, calexp: CalExp
):
    box = Box.from_shape((4096, 4096))
    image = MaskedImage.make(np.ones(box.shape), np.zeros(box.shape), np.ones(box.shape), "nJy", box)
    path, kept = tmp_path / "c.fits", FORMATS["calexp"]
    kept.write(path, dataclasses.replace(calexp, image=image))

    def wcs() -> None:
        with path.open("rb") as file:
            kept.components["wcs"](file)

    before = bytes_read_by_process()
    wcs()
    assert bytes_read_by_process() - before < 0.01 * path.stat().st_size
    assert median_s(lambda: kept.read(path)) > 20 * median_s(wcs)
