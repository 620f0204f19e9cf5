"""``apstream skymap``, ``warp``, ``coadd`` and ``template`` on calexps over the border of two tracts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import sky_field as field
from helpers.reading import bytes_read
from helpers.sky_field import DEC, RA, SIDE, STEP, calexp
from typer.testing import CliRunner

from apstream.cli.main import app, register
from apstream.errors import BadSettings, Conflict, DatasetNotFound, NoTemplateOverlap
from apstream.model.exposures import CalExp
from apstream.model.mask import MaskPlane
from apstream.repo.repository import Repository
from apstream.service.skymap import require_skymap

register()

WIDTHS = {1: 3.2, 2: 3.6, 3: 3.4, 4: 6.5}
SCIENCE = 9


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calexps of four visits with two detectors, two tracts whose border crosses the western detector."""
    folder = tmp_path_factory.mktemp("sky") / "repo"
    repository = Repository.create(folder, camera="simcam")
    for visit, fwhm in WIDTHS.items():
        for detector in (0, 1):
            made = calexp(visit, detector, fwhm=fwhm, dither=3.3 * visit, rotation=2.0 * visit)
            repository.put(made, "calexp", visit=visit, detector=detector, band="r")
    science = calexp(SCIENCE, 0, fwhm=4.0, dither=-6.0, rotation=-5.0)
    repository.put(science, "calexp", visit=SCIENCE, detector=0, band="r")
    west, east = (RA + k * STEP / np.cos(np.deg2rad(DEC)) for k in (-2.0, 1.0))
    tracts = ["--tract", f"{west},{DEC},0.055", "--tract", f"{east},{DEC},0.055"]
    said = run("skymap", folder, "discrete", *tracts, "--patch-size", 300, "--border", 20)
    assert "made a sky map: discrete, 2 tracts" in said
    return folder


@pytest.fixture(scope="module")
def coadds(root: Path) -> Repository:
    """Coadds of all patches of three visits."""
    run("coadd", root, "--id", "visit=1..3 filter=r", "--rerun", "coadds")
    return Repository(root / "rerun" / "coadds")


def test_tracts_and_patches_are_listed(root: Path):
    lines = run("skymap", root, "--id", f"visit={SCIENCE}").splitlines()[1:]
    listed = {(int(words[0]), int(words[1])) for words in (line.split("\t") for line in lines)}
    science: CalExp = Repository(root).get("calexp", visit=SCIENCE, detector=0)
    assert listed == set(require_skymap(Repository(root)).patches_under(science.wcs, science.box))
    assert {tract for tract, _ in listed} == {0, 1}
    first = run("skymap", root, "ls", "--at", f"{RA},{DEC}").splitlines()[1].split("\t")
    assert (int(first[0]), int(first[1])) == tuple(int(v[0]) for v in require_skymap(Repository(root)).place(RA, DEC))


def test_another_sky_map_is_refused_where_things_were_made(root: Path, coadds: Repository):
    assert "there is a sky map" in run("skymap", root, "discrete", *_same_tracts(root))
    with pytest.raises(Conflict, match="another sky map: discrete, 2 tracts"):
        run("skymap", root, "rings", "--num-rings", 60)
    with pytest.raises(Conflict, match=r"deepCoadd lie on the present sky map \(take another rerun, with --replace\)"):
        run("skymap", root, "rings", "--num-rings", 60, "--rerun", "coadds", "--replace")
    run("skymap", root, "healpix", "--nside", 128, "--rerun", "other", "--replace")
    assert require_skymap(Repository(root / "rerun" / "other")).kind == "healpix"
    with pytest.raises(BadSettings, match="power of two"):
        run("skymap", root, "healpix", "--nside", 100, "--rerun", "third")


def _same_tracts(root: Path) -> list[object]:
    tracts = require_skymap(Repository(root)).tiling.tracts
    return [
        *(word for t in tracts for word in ("--tract", f"{t.ra!r},{t.dec},0.055")),
        *("--patch-size", 300, "--border", 20),
    ]


def test_coadds_have_their_products(coadds: Repository):
    patches = coadds.find("deepCoadd")
    assert {entry.data_id["tract"] for entry in patches} == {0, 1}
    for entry in patches:
        ids = {key: entry.data_id[key] for key in ("band", "tract", "patch")}
        coadd: CalExp = coadds.get("deepCoadd", **ids)
        count, which = coadds.get("deepCoadd_nImage", **ids), coadds.get("deepCoadd_inputMap", **ids)
        table = coadds.get("deepCoadd_inputs", **ids)
        assert count.shape == coadd.image.shape == which.shape[1:]
        np.testing.assert_array_equal(count, np.bitwise_count(which).sum(axis=0))
        used = table.filter(np.array(table["bit"]) >= 0)
        assert used["bit"].to_pylist() == list(range(len(used)))
        assert {one.type for one in coadds.precursors("deepCoadd_inputs", **ids)} == {"calexp", "skymap"}
        for row in used.to_pylist():
            seen = ((which[row["bit"] // 32] >> np.uint32(row["bit"] % 32)) & 1).astype(bool)
            y, x = np.nonzero(seen)
            if len(y):
                assert row["y0"] <= y.min() + coadd.box.y0
                assert x.max() + coadd.box.x0 < row["x1"]
            assert row["noise"] == pytest.approx(field.NOISE, rel=0.02)
            assert row["psf_fwhm"] == pytest.approx(WIDTHS[row["visit"]] * field.SCALE, rel=0.03)
            assert row["scale"] == 1
        assert coadds.get("deepCoadd_psf", **ids).fwhm() == pytest.approx(1.05 * 3.6, rel=0.02)


def test_only_named_patches_are_made(root: Path):
    run("coadd", root, "--id", "tract=1 patch=4^5 filter=r", "--select-id", "visit=1..2", "--rerun", "named")
    made = Repository(root / "rerun" / "named").find("deepCoadd")
    assert [(e.data_id["tract"], e.data_id["patch"]) for e in made] == [(1, 4), (1, 5)]
    visits = Repository(root / "rerun" / "named").get("deepCoadd_inputs", tract=1, patch=4, band="r")["visit"]
    assert set(visits.to_pylist()) <= {1, 2}
    with pytest.raises(BadSettings, match="visit names no patch"):
        run("coadd", root, "--id", "visit=1", "--select-id", "visit=1..2", "--rerun", "named")
    with pytest.raises(NoTemplateOverlap, match=r"none of 4 exposures lies on tract=7 \(apstream skymap REPO ls"):
        run("coadd", root, "--id", "tract=7", "--select-id", "visit=1..2", "--rerun", "named")


def test_what_would_be_combined_is_shown_and_nothing_made(root: Path):
    words = ("coadd", root, "--id", "tract=1 patch=4", "--select-id", "visit=1..2 detector=1", "--show", "data")
    shown = run(*words)
    assert bytes_read(lambda: run(*words)) < 12 * SIDE**2  # less than the pixels of one
    assert shown.startswith("band=r tract=1 patch=4: ")
    assert "simcam" in shown
    assert not Repository(root).find("deepCoadd")


def test_settings_are_shown_and_nothing_made(root: Path):
    for command in ("coadd", "warp"):
        words = (command, root, "--show", "config", "--best", 3, "-c", "match.margin=1.2", "--rerun", "shown")
        settings = yaml.safe_load(run(*words))
        assert (settings["select"]["best"], settings["match"]["margin"]) == (3, 1.2)
        assert settings["stages"]["isr"]["bias"] is True
        assert ("warp_types" in settings) == (command == "warp")
        with pytest.raises(BadSettings, match=r"--show: cannot show 'schema' .data or config"):
            run(command, root, "--show", "schema")
    assert not (root / "rerun" / "shown").exists()


def test_what_would_be_warped_is_what_would_be_combined(root: Path):
    words = (root, "--id", "tract=1", "--select-id", "visit=1..3", "--show", "data")
    assert run("warp", *words) == run("coadd", *words) != ""


def test_help_keeps_the_brackets_of_settings():
    assert "-c warp_types=[direct]" in " ".join(run("warp", "--help").split())


def test_exposures_are_chosen_by_their_psf_and_the_others_are_named(root: Path):
    shown = run("coadd", root, "--id", "visit=1..4", "--show", "data", "-c", "select.max_fwhm_arcsec=1.75")
    assert shown.count("wider than 1.75") == 4
    shown = run("coadd", root, "--id", "visit=1..4", "--show", "data", "-c", "select.seeing_quantile=0.5")
    assert {line.split(":")[0] for line in shown.splitlines() if line.startswith("left out")} == {"left out"}
    assert shown.count("is number 3 of 4") == shown.count("is number 4 of 4") == 2
    shown = run("coadd", root, "--id", "visit=1..4", "--show", "data")
    assert shown.count("too wide for the common one") == 2


def test_when_no_exposure_is_good_enough_each_is_named_with_the_reason(root: Path):
    words = ("coadd", root, "--id", "visit=1..2 detector=1", "--rerun", "none", "-c", "select.max_fwhm_arcsec=0.1")
    for more in ((), ("--show", "data")):
        with pytest.raises(NoTemplateOverlap, match=r"(?s)none of 2 .* is good enough.*select\.max_fwhm") as failed:
            run(*words, *more)
        assert str(failed.value).count("is wider than 0.10") == 2


def test_a_command_that_made_nothing_may_be_run_again_with_other_settings(root: Path):
    words = ("coadd", root, "--id", "tract=1 patch=4 filter=r", "--select-id", "visit=1..2", "--rerun", "again")
    with pytest.raises(NoTemplateOverlap, match="wider"):
        run(*words, "-c", "match.target_fwhm_arcsec=0.2")
    run(*words, "-c", "match.target_fwhm_arcsec=2.0")
    with pytest.raises(Conflict, match=r"match\.target_fwhm_arcsec: 2\.0 -> 2\.1"):
        run(*words, "-c", "match.target_fwhm_arcsec=2.1")


def test_warps_are_kept_and_make_the_same_coadd(root: Path, coadds: Repository):
    said = run("warp", root, "--id", "tract=1 filter=r", "--select-id", "visit=1..3", "--rerun", "warps")
    warps = Repository(root / "rerun" / "warps")
    assert len(warps.find("directWarp")) == len(warps.find("psfMatchedWarp")) == said.count("\npsfMatchedWarp visit=")
    one = warps.find("psfMatchedWarp")[0].data_id
    assert one.keys() == {"visit", "tract", "patch", "band"}
    assert warps.get("psfMatchedWarp.psf", **one).fwhm() == pytest.approx(1.05 * 3.6, rel=0.02)
    assert warps.get("directWarp.psf", **one).fwhm() == pytest.approx(WIDTHS[one["visit"]], rel=0.02)
    assert {"calexp", "skymap"} == {used.type for used in warps.precursors("directWarp", **one)}
    words = ("coadd", root, "--id", "tract=1 filter=r", "--select-id", "visit=1..3", "--from", "warp")
    planned = run(*words, "--rerun", "warps", "--show", "data").splitlines()
    assert sum(line.count("visit=") for line in planned) == len(warps.find("psfMatchedWarp"))
    assert not warps.own.registry.find("deepCoadd")
    made = run(*words, "--rerun", "warps")
    assert all(f"deepCoadd {line.split(':')[0]}: " in made for line in planned)
    compared = 0
    for entry in warps.find("deepCoadd"):
        ids = {key: entry.data_id[key] for key in ("band", "tract", "patch")}
        from_warps, from_calexps = warps.get("deepCoadd", **ids), coadds.get("deepCoadd", **ids)
        assert {one.type for one in warps.precursors("deepCoadd", **ids)} == {"psfMatchedWarp", "skymap"}
        both = ~(from_warps.image.flagged(~0) | from_calexps.image.flagged(~0))
        compared += int(both.sum())
        apart = np.abs(from_warps.image.image - from_calexps.image.image)[both]
        assert (apart < 0.1 * np.sqrt(from_calexps.image.variance[both])).all()
    assert compared > SIDE**2 / 2


def test_a_visit_without_a_usable_pixel_is_left_out_with_the_reason(root: Path, tmp_path: Path):
    broken = calexp(5, 0)
    gone = broken.image.with_image(np.full(broken.image.shape, np.nan, np.float32))
    child = Repository.create(tmp_path / "out", parents=[root])
    child.put(replace(broken, image=gone), "calexp", visit=5, detector=0, band="r")
    words = ("--select-id", "visit=1^5", "-c", "warp_types=[direct]", "--output", tmp_path / "out")
    said = run("warp", root, "--id", "tract=0", *words)
    assert "left out: directWarp visit=5 band=r tract=0" in said
    assert "it has no good pixel on the patch" in said
    assert {entry.data_id["visit"] for entry in child.find("directWarp")} == {1}
    assert not child.find("psfMatchedWarp")


def first_by_time(stack, variance, use, weights, mid_mjd_tai, seeing):
    assert seeing == [WIDTHS[int(time - 60000)] for time in mid_mjd_tai]
    return stack[np.argmin(mid_mjd_tai)], variance[0]


def test_a_statistic_of_ones_own_takes_what_is_known_of_the_exposures(root: Path, tmp_path: Path):
    child = Repository.create(tmp_path / "out", parents=[root])
    for visit in (2, 1):
        made = calexp(visit, 0, fwhm=WIDTHS[visit])
        made = replace(made, metrics={"weather.seeing": WIDTHS[visit]})
        child.put(made, "calexp", visit=visit, detector=0, band="r")
    own = "{kind: function, function: '" + __name__ + ":first_by_time', inputs: [%s]}"
    words = ["coadd", root, "--id", "visit=1..2 detector=0", "-c", "warp_type=direct", "--output", child.root]
    words += ["-c", "assemble.artifacts=null"]
    run(*words, "-c", "assemble.statistic=" + own % "mid_mjd_tai, seeing")
    assert child.find("deepCoadd")
    with pytest.raises(BadSettings, match=r"airmass is known of simcam.*exposure_s.*seeing"):
        run(*words, "-c", "assemble.statistic=" + own % "airmass", "--replace-run")


@pytest.mark.parametrize("name", ["bright_r.reg", "bright_stars_r.csv", "bright.parquet"])
def test_bright_objects_are_taken_in_and_masked(root: Path, tmp_path: Path, name: str):
    given, child = tmp_path / name, Repository.create(tmp_path / "out", parents=[root])
    columns = {"ra": [RA], "dec": [DEC], "radius_arcsec": [6.0]}
    if name.endswith("reg"):
        given.write_text(f'icrs\ncircle({RA},{DEC},6")\n')
    else:
        table = pa.table(columns)
        pa.csv.write_csv(table, given) if name.endswith("csv") else pq.write_table(table, given)
    assert "1 brightObjectMask" in run("repo", "ingest", child.root, given)
    tract, patch = (int(v[0]) for v in require_skymap(child).place(np.array([RA]), np.array([DEC])))
    words = ("--id", f"tract={tract} patch={patch}", "--select-id", "visit=1..2", "-c", "warp_type=direct")
    run("coadd", root, *words, "--output", child.root)
    made: CalExp = child.get("deepCoadd", band="r", tract=tract, patch=patch)
    y, x = np.nonzero(made.image.flagged(MaskPlane.BRIGHT_OBJECT))
    here = made.wcs.sky_to_pixel(np.array([RA]), np.array([DEC]))
    away = np.hypot(y + made.box.y0 - here[0], x + made.box.x0 - here[1]) * made.wcs.pixel_scale_arcsec
    assert away.max() <= 6.0
    assert len(y) > 100
    assert CliRunner().invoke(app, ["repo", "ingest", str(child.root), str(_renamed(given))]).exit_code == 1


def _renamed(given: Path) -> Path:
    """A copy whose name tells no band."""
    other = given.with_name("bright-r-new" + given.suffix)
    other.write_bytes(given.read_bytes())
    return other


@pytest.mark.parametrize("origin", ["calexp", "warp"])
def test_mask_spans_are_taken_in_and_change_what_is_combined(root: Path, tmp_path: Path, origin: str):
    child = Repository.create(tmp_path / "out", parents=[root])
    skymap = require_skymap(child)
    ra = RA + 0.3 * STEP / np.cos(np.deg2rad(DEC))  # on the eastern detector
    tract, patch = (int(v[0]) for v in skymap.place(np.array([ra]), np.array([DEC])))
    y, x = (round(float(v)) for v in skymap.tract(tract).wcs.sky_to_pixel(ra, DEC))
    given = tmp_path / f"mask_spans_r_{tract}.csv"
    given.write_text(f"visit,plane,y0,x0,y1,x1\n1,BAD,{y},{x},{y + 5},{x + 8}\n77,BAD,0,0,9,9\n")
    assert "1 altMaskSpans" in run("repo", "ingest", child.root, given)
    words = ("--id", f"tract={tract} patch={patch}", "--select-id", "visit=1..2", "--output", child.root)
    if origin == "warp":
        run("warp", root, *words, "-c", "warp_types=[direct]")
    run("coadd", root, *words, "--from", origin, "-c", "warp_type=direct", "-c", "assemble.artifacts=null")
    ids = {"band": "r", "tract": tract, "patch": patch}
    count, box = child.get("deepCoadd_nImage", **ids), child.get("deepCoadd.box", **ids)
    here = np.s_[y - box.y0 : y - box.y0 + 5, x - box.x0 : x - box.x0 + 8]
    rejected = child.get("deepCoadd.mask", **ids) & MaskPlane.REJECTED != 0
    assert rejected[here].all()
    assert rejected.sum() == 40
    assert (count[here] == 1).all()


def test_templates_cross_the_border_of_tracts_without_a_seam(root: Path, coadds: Repository):
    """What is left of a template after the true sky is subtracted is the same noise at the border and away from it."""
    shown = run("template", root, "--visit", SCIENCE, "--show", "--rerun", "coadds")
    assert {"deepCoadd", "tract=0", "tract=1"} <= set(shown.split())
    assert float(shown.split("\t")[-1]) == pytest.approx(1.0, abs=0.02)
    said = run("template", root, "--visit", SCIENCE, "--rerun", "coadds")
    named = [[line.split("\t")[1] for line in text.splitlines()[1:-1]] for text in (shown, said)]
    assert all(name.startswith("deepCoadd tract=") and "patch=" in name for name in named[1])
    assert sorted(named[0]) == sorted(named[1])
    template: CalExp = coadds.get("deepDiff_templateExp", visit=SCIENCE, detector=0)
    assert coadds.locate("deepDiff_templateExp", visit=SCIENCE, detector=0) in said
    assert {"calexp", "deepCoadd"} == {
        one.type for one in coadds.precursors("deepDiff_templateExp", visit=SCIENCE, detector=0)
    }
    left = template.image.image - field.rendered(template.wcs, template.psf.fwhm(), template.box)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    ra, dec = template.wcs.pixel_to_sky(y.ravel(), x.ravel())
    owner = require_skymap(coadds).owner(ra, dec).reshape(SIDE, SIDE)
    assert set(np.unique(owner)) == {0, 1}
    border = np.zeros(owner.shape, bool)
    border[:, 6:-6] = owner[:, 12:] != owner[:, :-12]
    good = ~template.image.flagged(~0)
    at, away = left[border & good], left[~border & good]
    assert min(at.size, away.size) > 500
    assert np.std(at) < 1.3 * np.std(away)
    assert abs(np.median(at) - np.median(away)) < 0.2 * np.std(away)
    assert np.median(template.image.variance[border & good]) == pytest.approx(
        np.median(template.image.variance[~border & good]), rel=0.15
    )


def test_calexps_serve_as_templates_too(root: Path):
    words = ("--visit", SCIENCE, "--template-id", "visit=2", "-C", "@calexp-template")
    shown = run("template", root, *words, "--show")
    assert "calexp" in shown
    assert "visit=2 detector=0" in shown
    said = run("template", root, *words, "--rerun", "calexp-template")
    assert "deepDiff_templateExp" in said or "_template.fits" in said
    made = Repository(root / "rerun" / "calexp-template").get("deepDiff_templateExp", visit=SCIENCE, detector=0)
    assert made.psf.fwhm() == pytest.approx(3.6, rel=0.02)
    refused = CliRunner().invoke(app, ["template", str(root), "--visit", str(SCIENCE), "--template-id", "visit=77"])
    assert refused.exit_code == 1
    assert "no location for calexp that covers" in refused.output


def test_calexps_that_are_not_there_are_missed(root: Path):
    with pytest.raises(DatasetNotFound, match="no location for calexp with visit=77"):
        run("coadd", root, "--id", "visit=77", "--from", "calexp")
    with pytest.raises(DatasetNotFound, match="no location for psfMatchedWarp"):
        run("coadd", root, "--id", "visit=1", "--from", "warp")
    with pytest.raises(BadSettings, match="not made from 'sky'"):
        run("coadd", root, "--from", "sky")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rings", "--pixel-scale", "0"], "--pixel-scale: Input should be greater than 0"),
        (["rings", "--pixel-scale", "-1", "--replace"], "--pixel-scale: "),
        (["rings", "--patch-size", "3"], "--patch-size: "),
        (["discrete", "--tract", "10,20,-3"], "the radius must be positive"),
        (["discrete", "--tract", "10,20,0"], "the radius must be positive"),
        (["discrete", "--tract", "10,20,nan"], "the radius must be positive"),
        (["ls", "--at", "500,2"], "the right ascension must be 0..360"),
        (["ls", "--at", "150,200"], "the declination must be -90..90"),
    ],
)
def test_impossible_numbers_of_a_sky_map_are_refused_in_words(root: Path, words: list[str], said: str) -> None:
    with pytest.raises(BadSettings, match=said) as caught:
        run("skymap", root, *words, *(["--rerun", "none"] if words[0] != "ls" else []))
    assert "Tract(" not in str(caught.value)


def test_what_a_parent_made_on_its_sky_map_is_named_for_a_rerun(tmp_path: Path) -> None:
    parent = Repository.create(tmp_path / "parent", camera="simcam")
    run("skymap", parent.root, "discrete", "--tract", f"{RA},{DEC},0.05")
    made = calexp(1, 0, fwhm=3.0, dither=0.0, rotation=0.0)
    parent.put(made, "deepCoadd", tract=0, patch=0, band="r")
    with pytest.raises(Conflict, match=r"\(they are of .*parent, which is read through here: take another repository"):
        run("skymap", parent.root, "rings", "--num-rings", 60, "--rerun", "own", "--replace")
    parent.close()
