"""Cosmic rays are found, and stars left alone, as well in an undersampled image as in any other."""

from __future__ import annotations

import pytest

from apstream.tasks.characterize import characterize
from benchmarks.characterize import expose, ray_mask
from benchmarks.ray_truth import RayScore, score
from benchmarks.star_fields import FieldConfig


def judged(fwhm: float, seed: int) -> RayScore:
    shot = expose(FieldConfig(size=640, fwhm=fwhm, density=600.0, seed=seed), rays_per_mpx=400)
    return score(ray_mask(characterize(shot.exposure)), shot.field, shot.rays)


@pytest.mark.parametrize(("fwhm", "found", "charge"), [(4.0, (0.95, 0.95), 0.9), (1.6, (0.3, 0.85), 0.6)])
def test_rays_are_found_and_cores_of_stars_kept(fwhm: float, found: tuple[float, float], charge: float) -> None:
    result = judged(fwhm, 3)
    assert min(result.rays) > 10
    assert result.found[1] >= found[0]  # the highest pixel at 10 to 20 sigma
    assert min(result.found[2:]) >= found[1]  # above
    assert min(result.charge[2:]) >= charge
    assert result.stars > 40
    assert result.cores == 0
    assert result.false_pixels < 20
