"""What bad input gets from ``apstream subtract``: one line with the file, the cause and the remedy, and exit code 1.

What was written before stays as it was. How the service treats bad events, files, databases and brokers is shown
in tests/service/test_worker.py, what bad raw frames get in tests/e2e/test_bad_raws.py.
"""

from __future__ import annotations

import gzip
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from apstream.cli import main as command
from apstream.simulate.config import PairConfig
from apstream.simulate.pair import simulate_pair

Make = Callable[["Field", Path], Path]
SIZE = 320


class Field:
    """A good pair of images, and ways to spoil one."""

    def __init__(self, folder: Path) -> None:
        simulate_pair(folder, PairConfig(size=SIZE, seed=3))
        self.science, self.template = folder / "science.fits", folder / "template.fits"
        self.refcat = folder / "refcat.parquet"
        self.pixels, self.header = fits.getdata(self.science), fits.getheader(self.science)

    def save(self, path: Path, pixels: Any = None, hdus: list[Any] | None = None, **cards: Any) -> Path:
        """Write the science image with other pixels, more extensions or other cards; None removes a card."""
        header = self.header.copy()
        for key, value in cards.items():
            header.remove(key, ignore_missing=True)
            if value is not None:
                header[key] = value
        first = fits.PrimaryHDU(self.pixels if pixels is None else pixels, header)
        fits.HDUList([first, *(hdus or [])]).writeto(path)
        return path


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    return Field(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def apstream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command line in this process; returns its exit code and what it wrote to stderr."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["apstream", *map(str, words)])
        try:
            command.main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def digest(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cut(source: Path, target: Path, share: float) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def text(target: Path, content: bytes) -> Path:
    target.write_bytes(content)
    return target


def noise() -> np.ndarray:
    return np.random.default_rng(1).normal(300, 10, (SIZE, SIZE)).astype(np.float32)


def empty_image(target: Path) -> Path:
    cards = fits.Header([("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", 0), ("NAXIS2", 9), ("GAIN", 1.0)])
    return text(target, cards.tostring().encode())


BAD_IMAGES: dict[str, tuple[Make, str, str]] = {
    "truncated": (lambda f, p: cut(f.science, p, 0.6), "BadFile", "truncated"),
    "truncated header": (lambda f, p: cut(f.science, p, 0.002), "BadFile", "not a readable FITS file"),
    "truncated gzip": (lambda f, p: cut(text(p, gzip.compress(f.science.read_bytes())), p, 0.5), "BadFile", "copy"),
    "empty": (lambda f, p: text(p, b""), "BadFile", "empty"),
    "not FITS": (lambda f, p: text(p, b"hello world\n" * 500), "BadFile", "not a readable FITS file"),
    "missing": (lambda f, p: p, "FileMissing", "no such file"),
    "a folder": (lambda f, p: p.parent, "FileMissing", "not a plain file"),
    "no pixels": (lambda f, p: empty_image(p), "BadFile", "no pixels"),
    "one dimension": (lambda f, p: f.save(p, f.pixels[0], CTYPE1=None), "BadFile", "no 2-D image"),
    "three dimensions": (lambda f, p: f.save(p, np.stack([f.pixels] * 2)), "BadFile", "no 2-D image"),
    "all NaN": (lambda f, p: f.save(p, f.pixels * np.nan), "NoGoodPixels", "every pixel is not a number"),
    "all saturated": (lambda f, p: f.save(p, f.pixels * 0 + 1e6), "NoGoodPixels", "every pixel is saturated"),
    "all masked": (
        lambda f, p: f.save(p, hdus=[fits.ImageHDU(np.ones((SIZE, SIZE), np.int16), name="MASK")]),
        "NoGoodPixels",
        "flagged",
    ),
    "constant": (lambda f, p: f.save(p, f.pixels * 0 + 5), "NoGoodPixels", "no noise"),
    "star-free": (lambda f, p: f.save(p, noise()), "TooFewStars", "0 stars"),
    "twenty pixels": (lambda f, p: f.save(p, f.pixels[:20, :20]), "TooFewStars", "0 stars"),
    "one pixel": (lambda f, p: f.save(p, f.pixels[:1, :1]), "NoGoodPixels", "pixels can be used"),
    "mask of another size": (
        lambda f, p: f.save(p, hdus=[fits.ImageHDU(np.ones((9, 9), np.int16), name="MASK")]),
        "WrongSize",
        "(9, 9)",
    ),
    "no gain": (lambda f, p: f.save(p, GAIN=None), "BadHeader", "-c image.gain="),
    "negative gain": (lambda f, p: f.save(p, GAIN=-2.0), "BadHeader", "-c image.gain="),
    "gain in words": (lambda f, p: f.save(p, GAIN="two"), "BadHeader", "-c image.gain="),
    "WCS of text": (lambda f, p: f.save(p, CRVAL1="nan"), "BadHeader", "CRVAL1 = 'nan'"),
    "WCS beyond the pole": (lambda f, p: f.save(p, CRVAL2=190.0), "BadHeader", "no declination"),
    "WCS of no projection": (lambda f, p: f.save(p, CTYPE1="RA---XYZ", CTYPE2="DEC--XYZ"), "BadHeader", "XYZ"),
    "WCS without inverse": (
        lambda f, p: f.save(p, CD1_1=0.0, CD1_2=0.0, CD2_1=0.0, CD2_2=0.0),
        "BadHeader",
        "WCS cannot be used",
    ),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
@pytest.mark.parametrize("role", ["science", "template"])
def test_a_bad_image_is_named_with_cause_and_remedy(
    field: Field, apstream: Callable[..., tuple[int, str]], tmp_path: Path, name: str, role: str
) -> None:
    make, kind, cause = BAD_IMAGES[name]
    bad = make(field, tmp_path / "a bad ü image.fits")
    before = digest(earlier(tmp_path))
    pair = (bad, field.template) if role == "science" else (field.science, bad)
    refuses(apstream("subtract", *pair, "--out", tmp_path / "out"), kind, str(bad), cause)
    assert digest(tmp_path / "out") == before


def earlier(folder: Path) -> Path:
    """Put products of an earlier run into ``out``."""
    out = folder / "out"
    out.mkdir()
    for name in ("difference.fits", "dia_sources.parquet"):
        (out / name).write_text(f"an earlier {name}")
    return out


def refuses(ended: tuple[int, str], kind: str, where: str, cause: str) -> None:
    code, told = ended
    assert code == 1
    assert len(told.strip().splitlines()) == 1, told
    assert told.startswith(f"apstream: {kind}: {where}")
    assert cause in told
    assert told.rstrip().endswith(")"), f"no remedy: {told}"


def test_a_card_that_breaks_wcslib_does_no_harm(field: Field, tmp_path: Path) -> None:
    """``CD1-1`` for ``CD1_1`` made wcslib write beyond its memory: the process died."""
    path = field.save(tmp_path / "dash.fits", **{"CD1-1": 0.0, "PC1-1": 0.0, "PC2-2": 0.0})
    script = (
        "import sys; from astropy.io import fits; from apstream.model.wcs import SkyWcs\n"
        "for _ in range(300): assert SkyWcs.from_header(fits.getheader(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == 0


BAD_WORDS: dict[str, tuple[list[str], str, str]] = {
    "no key": (["-c", "nonsense"], "BadSettings", "not key=value"),
    "unknown key": (["-c", "detect.treshold_sigma=5"], "BadSettings", "did you mean detect.threshold_sigma"),
    "no YAML": (["-c", "detect.threshold_sigma=[5"], "BadSettings", "cannot read the value"),
    "infinite gain": (["-c", "image.gain=.inf"], "BadSettings", "finite"),
    "no such extension": (["-c", "image.hdu=7"], "BadFile", "extension 7"),
    "no such settings": (["-C", "/nowhere/s.yaml"], "BadSettings", "No such file"),
    "settings that are no text": (["-C", "{science}"], "BadSettings", "cannot read the settings"),
}


@pytest.mark.parametrize("name", BAD_WORDS)
def test_a_bad_option_is_named(
    field: Field, apstream: Callable[..., tuple[int, str]], tmp_path: Path, name: str
) -> None:
    words, kind, cause = BAD_WORDS[name]
    words = [word.format(science=field.science) for word in words]
    ended = apstream("subtract", field.science, field.template, "--out", tmp_path / "out", *words)
    refuses(ended, kind, "", cause)
    assert not (tmp_path / "out").exists()


ELSEWHERE = b"ra,dec,mag\n" + b"".join(b"%f,-49.5,18\n" % (300 + n / 200) for n in range(200))
BAD_CATALOGUES: dict[str, tuple[str, bytes, str, str]] = {
    "of another place": ("far.csv", ELSEWHERE, "CalibrationFailed", "0 catalogue stars"),
    "of one star": ("one.csv", b"ra,dec,mag\n150.1,2.2,18\n", "CalibrationFailed", "catalogue stars"),
    "without rows": ("none.csv", b"ra,dec,mag\n", "BadCatalog", "no rows"),
    "empty": ("empty.csv", b"", "BadCatalog", "not a readable table"),
    "of words": ("words.csv", b"ra,dec,mag\nx,y,z\n", "BadCatalog", "no column of numbers"),
    "not a table": ("noise.parquet", b"noise" * 99, "BadCatalog", "not a readable table"),
    "not FITS": ("noise.fits", b"noise" * 999, "BadFile", "not a readable FITS file"),
}


@pytest.mark.parametrize("name", BAD_CATALOGUES)
def test_a_bad_catalogue_is_named(
    field: Field, apstream: Callable[..., tuple[int, str]], tmp_path: Path, name: str
) -> None:
    file, content, kind, cause = BAD_CATALOGUES[name]
    catalogue = text(tmp_path / file, content)
    before = digest(earlier(tmp_path))
    ended = apstream("subtract", field.science, field.template, "--out", tmp_path / "out", "--refcat", catalogue)
    refuses(ended, kind, "", cause)
    assert str(catalogue) in ended[1]
    assert digest(tmp_path / "out") == before


def test_a_template_of_another_place_is_refused(
    field: Field, apstream: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    far = field.save(tmp_path / "far.fits", np.rot90(field.pixels, 2), CRVAL1=240.0)
    code, told = apstream("subtract", field.science, far, "--out", tmp_path / "out")
    assert code == 1
    assert "NoTemplateOverlap" in told or "SubtractionFailed" in told
    assert str(far) in told


@pytest.mark.parametrize("out", ["file", "file/below", "x" * 300])
def test_an_output_folder_that_cannot_be_is_named(
    field: Field, apstream: Callable[..., tuple[int, str]], tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = apstream("subtract", field.science, field.template, "--out", tmp_path / out)
    refuses(ended, "StorageUnavailable", str(tmp_path / out), "cannot write")
    assert digest(tmp_path) == {"file": b"in the way"}


def small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_a_full_disk_leaves_the_earlier_pair(field: Field, tmp_path: Path) -> None:
    before = digest(earlier(tmp_path))
    words = ["subtract", field.science, field.template, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "apstream", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_files_only,
    )
    refuses((done.returncode, done.stderr), "StorageUnavailable", str(tmp_path / "out" / "difference.fits"), "cannot")
    assert digest(tmp_path / "out") == before


GOOD_IMAGES: dict[str, Make] = {
    "NaN border": lambda f, p: f.save(p, np.pad(f.pixels[9:-9, 9:-9], 9, constant_values=np.nan)),
    "infinite pixels": lambda f, p: f.save(p, np.where(noise() > 330, np.inf, f.pixels).astype(np.float32)),
    "smaller": lambda f, p: f.save(p, f.pixels[:280, :300]),
    "integers": lambda f, p: f.save(p, f.pixels.astype(np.int32)),
    "exposure of nothing": lambda f, p: f.save(p, EXPTIME=0.0),
    "impossible date": lambda f, p: f.save(p, **{"MJD-OBS": None, "DATE-OBS": "32/13/2020"}),
    "bare header": lambda f, p: f.save(p, FILTER=None, INSTRUME=None, OBJECT=None, EXPTIME=None),
}


@pytest.mark.parametrize("name", GOOD_IMAGES)
def test_an_odd_image_gives_a_result(
    field: Field, apstream: Callable[..., tuple[int, str]], tmp_path: Path, name: str
) -> None:
    odd = GOOD_IMAGES[name](field, tmp_path / "ü odd.fits")
    assert apstream("subtract", odd, field.template, "--out", tmp_path / "out") == (0, "")
    assert sorted(digest(tmp_path / "out")) == ["dia_sources.parquet", "difference.fits"]
