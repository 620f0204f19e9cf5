from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from apstream.cameras import load_camera
from apstream.cameras.companions import CompanionSpec, CompanionsSpec, MaskSpec
from apstream.model.mask import MaskPlane

PLACE = {"replace": ("_ooi_", "_oow_")}


def instcal_mask() -> MaskSpec:
    mask = load_camera("decam-instcal").companions.mask
    assert mask is not None
    return mask


def test_the_sibling_is_named_after_the_image() -> None:
    spec = CompanionSpec(replace=("_ooi_", "_oow_"))
    assert spec.sibling("c4d_171113_060340_ooi_r_ls9.fits.fz") == "c4d_171113_060340_oow_r_ls9.fits.fz"
    assert spec.sibling("other.fits") is None


@pytest.mark.parametrize("version", ["V3.5.0", "V4.8.2a", "V5.3", "V10.1"])
def test_codes_become_planes_and_unknown_ones_are_bad(version: str) -> None:
    planes = instcal_mask().decode(np.array([[0, 1, 2, 3], [4, 5, 7, 9]]), {"PLVER": version})
    p = MaskPlane
    assert planes.tolist() == [[0, p.BAD, p.NO_DATA, p.SAT], [p.SAT, p.CR, 0, p.BAD]]
    assert planes.dtype == np.int32


@pytest.mark.parametrize("version", ["V3.4.1", "V2.0", "V1.8.5"])
def test_older_masks_hold_bits(version: str) -> None:
    planes = instcal_mask().decode(np.array([[0, 3, 128, 4 + 16, 512]]), {"PLVER": version})
    p = MaskPlane
    assert planes.tolist() == [[0, p.BAD | p.SAT, 0, p.INTRP | p.CR, p.BAD]]


def test_without_a_meaning_everything_is_bad() -> None:
    planes = MaskSpec(replace=("i", "m")).decode(np.array([[0, 1, 7]]), {})
    assert planes.tolist() == [[0, MaskPlane.BAD, MaskPlane.BAD]]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({**PLACE, "bits": {3: "BAD"}}, "power of two"),
        ({**PLACE, "codes": {1: "BROKEN"}}, "no mask plane BROKEN"),
        ({**PLACE, "codes": {1: "BAD"}, "bits": {1: "BAD"}}, "bits_where"),
        ({**PLACE, "codes": {1: "BAD"}, "bits": {1: "BAD"}, "bits_where": {"keyword": "V", "match": "("}}, "regular"),
        ({"replace": ("a", "a")}, "something else"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MaskSpec.model_validate(spec)


def test_weight_and_variance_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="not both"):
        CompanionsSpec.model_validate({"weight": PLACE, "variance": PLACE})
