"""The SAAO bulge field: 75 real frames without WCS become one light curve of the variable, by commands alone."""

from __future__ import annotations

import importlib.util
import sqlite3
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from apstream.repo.repository import Repository

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The script that the docs show."""
    spec = importlib.util.spec_from_file_location("saao_bulge", ROOT / "docs" / "saao_bulge.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def out(example: ModuleType, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the docs' commands."""
    folder = tmp_path_factory.mktemp("saao")
    example.process(shared_data / "saao_bulge", folder)
    return folder


@pytest.fixture(scope="module")
def variable(example: ModuleType, out: Path) -> int:
    found = example.objects_near(out, *example.variable_position(out), 1.0)
    assert len(found) == 1, "the variable must be one object"
    return found[0]


def test_frames_are_registered_and_subtracted(example, out):
    ended = example.outcomes(out)
    good = [visit for visit, (outcome, _) in ended.items() if outcome == "processed"]
    assert len(ended) == 75
    assert len(good) >= 70
    repository = Repository(out / "repo")
    metrics = [repository.get("calexp", visit=visit, detector=0).metrics for visit in good]
    assert np.median([m["register.rms_pixels"] for m in metrics]) < 0.2
    assert min(m["register.n_matched"] for m in metrics) > 50


def test_subtractions_are_clean(example, out):
    sources = np.array([n for _, n in example.outcomes(out).values()])
    assert np.median(sources) < 60
    assert sources.max() < 250


def test_the_variable_is_one_object_with_a_smooth_light_curve(example, out, variable):
    curve = example.light_curve(out, variable)
    assert len(curve.flux) >= 65
    assert len(np.unique(curve.visit)) == len(curve.visit)
    assert np.isfinite(curve.flux).all()
    assert curve.chi2_of_constant() > 50
    assert curve.roughness() < 0.1


def test_known_objects_have_forced_photometry_in_every_later_frame(out, variable):
    with sqlite3.connect(out / "apdb.sqlite") as database:
        rows = database.execute(
            "SELECT visit, psfFlux, psfFluxErr FROM DiaForcedSource WHERE diaObjectId = ?", [variable]
        ).fetchall()
        detected = dict(
            database.execute("SELECT visit, psfFlux FROM DiaSource WHERE diaObjectId = ? ORDER BY visit", [variable])
        )
        later = database.execute("SELECT count(*) FROM Ledger WHERE visit > ?", [min(detected)]).fetchone()[0]
    database.close()
    assert len(rows) == later
    assert len(detected) >= 50
    pulls = [(flux - detected[visit]) / error for visit, flux, error in rows if visit in detected]
    assert np.abs(np.median(pulls)) < 0.5
    assert np.percentile(np.abs(pulls), 90) < 1


def test_pictures_show_it(example, out, variable, tmp_path):
    example.draw_light_curve(example.light_curve(out, variable), tmp_path / "curve.png")
    title = example.draw_triplet(out, variable, tmp_path / "triplet.png")
    assert "S/N" in title
    assert all(1000 < path.stat().st_size < 200_000 for path in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == 2
