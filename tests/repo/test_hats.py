"""Reference catalogues in HATS layout: written, converted from what users have, and read near a region."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import structured_to_unstructured

from apstream.errors import ApstreamError, BadCatalog, Conflict, FileMissing
from apstream.model.products import SkyCircle
from apstream.model.wcs import separation
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.convert import convert_refcat, ingest_refcat
from apstream.repo.formats.hats import is_hats, open_hats
from apstream.repo.formats.hats_writer import MAX_ORDER, plan_partitions
from apstream.repo.formats.htm import is_htm_shards, is_trixel
from apstream.repo.formats.starcolumns import TableSchema, find_columns
from apstream.repo.repository import Repository
from apstream.repo.store import open_store
from apstream.service.gather import gather_reference

RADIAN = np.pi / 180


def sky(count: int = 20_000, seed: int = 3) -> dict[str, np.ndarray]:
    """Stars all over the sky, half of them in a cluster of 1.5 deg at RA 0."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, count), np.rad2deg(np.arcsin(rng.uniform(-1, 1, count)))
    half = count // 2
    ra[:half], dec[:half] = rng.normal(0, 0.5, half) % 360, rng.normal(20, 0.5, half)
    return {
        "id": np.arange(count),
        "ra": ra,
        "dec": dec,
        "pmra": rng.normal(0, 20, count),
        "pmdec": rng.normal(0, 20, count),
        "epoch": np.full(count, 2016.0),
        "g": rng.uniform(14, 21, count),
        "r": rng.uniform(14, 21, count),
        "r_err": rng.uniform(0.001, 0.1, count),
    }


def write_table(path: Path, columns: dict[str, np.ndarray]) -> Path:
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table(columns), path)
    else:
        Table(columns).write(path)
    return path


def write_shard(path: Path, columns: dict[str, np.ndarray], units: dict[str, str], version: int | None = None) -> Path:
    """Write a FITS table as LSST's pipelines do."""
    kinds = {"i": "K", "f": "D"}
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(n, kinds[v.dtype.kind], unit=units.get(n), array=v) for n, v in columns.items()]
    )
    hdu.header["AFW_TYPE"] = "SOURCE"
    if version is not None:
        hdu.header["HIERARCH REFCAT_FORMAT_VERSION"] = version
    hdu.writeto(path)
    return path


def shard_columns(stars: dict[str, np.ndarray], njy: bool) -> dict[str, np.ndarray]:
    flux = 10 ** ((31.4 - stars["r"]) / 2.5) * (1 if njy else 1e-9)
    return {
        "id": stars["id"],
        "coord_ra": stars["ra"] * RADIAN,
        "coord_dec": stars["dec"] * RADIAN,
        "r_flux": flux,
        "r_fluxErr" if njy else "r_fluxSigma": flux * stars["r_err"] / 1.0857362,
        "pm_ra": stars["pmra"] / 3.6e6 * RADIAN,
        "pm_dec": stars["pmdec"] / 3.6e6 * RADIAN,
        "epoch": np.full(len(flux), 57388.5),
    }


def partitions(path: Path) -> pa.Table:
    return pa.parquet.read_table([path / file for file in open_hats(path).files()], partitioning=None)


@pytest.fixture(scope="module")
def stars() -> dict[str, np.ndarray]:
    return sky()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, stars: dict[str, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("hats")
    convert_refcat([write_table(folder / "in.parquet", stars)], folder / "stars", rows_per_partition=400)
    return folder / "stars"


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_row_lies_in_the_partition_of_its_pixel(catalog: Path, stars: dict[str, np.ndarray]):
    hats = open_hats(catalog)
    assert hats.n_rows == len(stars["id"])
    found = []
    for order, pixel, path in zip(hats.orders, hats.pixels, hats.files(), strict=True):
        table = pa.parquet.read_table(catalog / path, partitioning=None)
        assert 0 < len(table) <= 400
        assert set(hpgeom.angle_to_pixel(1 << order, table["ra"].to_numpy(), table["dec"].to_numpy())) == {pixel}
        assert np.all(np.diff(table["_healpix_29"].to_numpy()) >= 0)
        found += table["id"].to_pylist()
    assert sorted(found) == stars["id"].tolist()
    assert len(set(hats.orders)) > 2  # the cluster is divided further than the field


@given(
    rows=st.dictionaries(st.integers(0, (12 << 2 * MAX_ORDER) - 1), st.integers(1, 500), min_size=1, max_size=30),
    limit=st.integers(1, 600),
)
@settings(max_examples=15)
def test_partitions_are_disjoint_and_small(rows: dict[int, int], limit: int):
    counts = np.zeros(12 << 2 * MAX_ORDER, np.int32)
    counts[list(rows)] = list(rows.values())
    planned = plan_partitions(counts, limit)
    assert sum(p.rows for p in planned) == sum(rows.values())
    assert all(p.rows <= limit or p.order == MAX_ORDER for p in planned)
    spans = [p.span for p in planned]
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


REGIONS = [SkyCircle(0.1, 20, 0.4), SkyCircle(359.9, 20, 0.4), SkyCircle(180, 89.5, 3), SkyCircle(77, -33, 25)]


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_a_region_gives_exactly_its_stars(catalog: Path, stars: dict[str, np.ndarray], region: SkyCircle):
    inside = separation(region.ra, region.dec, stars["ra"], stars["dec"]) <= region.radius
    found = read_refcat(catalog, band="r", region=region).stars
    order, expected = np.argsort(found["ra"]), np.argsort(stars["ra"][inside])
    assert inside.sum() > 3
    np.testing.assert_allclose(found["ra"][order], stars["ra"][inside][expected])
    np.testing.assert_allclose(found["mag"][order], stars["r"][inside][expected], rtol=1e-6)
    np.testing.assert_allclose(found["mag_err"][order], stars["r_err"][inside][expected], rtol=1e-6)
    np.testing.assert_allclose(found["pm_dec"][order], stars["pmdec"][inside][expected], rtol=1e-5)


def test_only_the_partitions_of_the_region_are_opened(catalog: Path, tmp_path: Path):
    region = SkyCircle(0.0, 20.0, 0.05)
    broken = shutil.copytree(catalog, tmp_path / "broken")
    wanted = open_hats(broken).files(region)
    for path in set(open_hats(broken).files()) - set(wanted):
        (broken / path).write_bytes(b"nobody reads this")
    assert len(wanted) <= 4
    assert len(read_refcat(broken, region=region).stars) == len(read_refcat(catalog, region=region).stars) > 0
    with pytest.raises(BadCatalog, match="Npix="):
        read_refcat(broken)


def bytes_read(path: Path, region: SkyCircle) -> int:
    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    read_refcat(path, band="r", region=region)
    before = so_far()
    read_refcat(path, band="r", region=region)
    return so_far() - before


def test_what_is_read_follows_the_region_and_not_the_catalogue(tmp_path: Path):
    if not Path("/proc/self/io").exists():
        pytest.skip("the system does not count bytes read")
    near = {name: values[:10_000] for name, values in sky().items()}
    convert_refcat([write_table(tmp_path / "near.parquet", near)], tmp_path / "small", rows_per_partition=1000)
    copies = []
    for shift in range(20):
        moved = near | {"ra": (near["ra"] + 10 * shift) % 360}
        copies.append(write_table(tmp_path / f"{shift}.parquet", moved))
    convert_refcat(copies, tmp_path / "large", rows_per_partition=1000)
    region = SkyCircle(0.0, 20.0, 0.1)
    small, large = (bytes_read(tmp_path / name, region) for name in ("small", "large"))
    size = sum(p.stat().st_size for p in (tmp_path / "large" / "dataset").rglob("*.parquet"))
    assert large < 1.3 * small + 10_000  # the list of partitions is longer
    assert large < size / 20


def test_the_same_stars_give_the_same_bytes(catalog: Path, stars: dict[str, np.ndarray], tmp_path: Path):
    again = tmp_path / "stars"
    convert_refcat([write_table(tmp_path / "in.parquet", stars)], again, rows_per_partition=400)
    assert content(again) == content(catalog)


@pytest.mark.parametrize("suffix", [".csv", ".fits"])
def test_every_format_converts_to_the_same_catalogue(
    catalog: Path, stars: dict[str, np.ndarray], tmp_path: Path, suffix: str
):
    convert_refcat([write_table(tmp_path / f"in{suffix}", stars)], tmp_path / "stars", rows_per_partition=400)
    assert content(tmp_path / "stars") == content(catalog)


@pytest.mark.parametrize("njy", [True, False], ids=["version 1", "version 0"])
@pytest.mark.parametrize("with_units", [True, False])
def test_shards_named_by_trixel_convert(tmp_path: Path, stars: dict[str, np.ndarray], njy: bool, with_units: bool):
    units = {"coord_ra": "rad", "coord_dec": "rad", "pm_ra": "rad/year", "pm_dec": "rad/year"} if with_units else {}
    if with_units and njy:
        units |= {"r_flux": "nJy", "r_fluxErr": "nJy"}
    columns = shard_columns(stars, njy)
    folder = tmp_path / "shards"
    folder.mkdir()
    for k, trixel in enumerate((628864, 628865, 628866)):
        part = {name: values[k::3] for name, values in columns.items()}
        write_shard(folder / f"{trixel}.fits", part, units, 1 if njy else None)
    write_shard(folder / "master_schema.fits", {n: v[:0] for n, v in columns.items()}, units)
    with tarfile.open(tmp_path / "shards.tar.gz", "w:gz") as archive:
        archive.add(folder, "some/where")
    assert is_htm_shards(folder)
    assert is_htm_shards(tmp_path / "shards.tar.gz")
    convert_refcat([tmp_path / "shards.tar.gz"], tmp_path / "tar")
    convert_refcat([folder], tmp_path / "folder")
    found = read_refcat(tmp_path / "tar", band="r").stars
    assert found.tobytes() == read_refcat(tmp_path / "folder", band="r").stars.tobytes()
    order, expected = np.argsort(found["ra"]), np.argsort(stars["ra"])
    for name, values in (("ra", "ra"), ("dec", "dec"), ("mag", "r"), ("pm_ra", "pmra"), ("mag_err", "r_err")):
        np.testing.assert_allclose(found[name][order], stars[values][expected], rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(found["epoch"], 2016.0, atol=1e-3)


def test_a_tar_writes_nothing_outside_its_scratch(tmp_path: Path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for name in ("../../16.fits", "/tmp/17.fits"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(ApstreamError):
        convert_refcat([tmp_path / "evil.tar"], tmp_path / "out" / "stars")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.tar", "out"]


def test_raw_frames_called_by_numbers_are_no_shards(tmp_path: Path):
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "628864.fits")
    assert not is_htm_shards(tmp_path)
    assert not is_htm_shards(tmp_path / "628864.fits")
    assert not is_htm_shards(tmp_path / "nothing")


def test_trixels_are_numbered_by_level():
    assert [n for n in range(200) if is_trixel(n)] == [*range(8, 16), *range(32, 64), *range(128, 200)]


def test_bad_rows_are_counted_and_bad_magnitudes_are_none(tmp_path: Path):
    path = tmp_path / "refcat.csv"
    path.write_text("ra,dec,g,r\n1,2,18,-999\n,2,18,18\n5,95,18,18\n-1,3,nan,19\n")
    converted = convert_refcat([path], tmp_path / "stars")
    assert (converted.rows, converted.skipped) == (2, 2)
    assert read_refcat(tmp_path / "stars", band="g").stars["ra"].tolist() == [1]
    assert read_refcat(tmp_path / "stars", band="r").stars["ra"].tolist() == [359]


def test_sources_of_different_bands_share_a_catalogue(tmp_path: Path):
    (tmp_path / "a.csv").write_text("id,ra,dec,g\n1,10,20,15\n")
    (tmp_path / "b.csv").write_text("id,ra,dec,i,e_i\nx7,11,20,16,0.01\n")
    converted = convert_refcat([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "stars")
    assert converted.columns == ("id", "ra", "dec", "mag_g", "mag_i", "mag_err_i")
    assert read_refcat(tmp_path / "stars", band="i").stars["ra"].tolist() == [11]
    table = partitions(tmp_path / "stars")
    assert table["id"].to_pylist() == ["1", "x7"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("bad.csv", "ra,dec\n1,2\n", "magnitude"),
        ("bad.csv", "alpha,delta,r\n1,2,3\n", "right ascension"),
        ("bad.csv", "ra,dec,r\n1,2,3\n1,2,faint\n", r"a magnitude; there are dec, ra"),
        ("bad.csv", "", "empty"),
        ("bad.parquet", "nonsense", "table"),
        ("bad.fits", "nonsense", "FITS"),
        ("bad.tar.gz", "nonsense", "tar"),
    ],
)
def test_a_bad_source_is_named_and_leaves_nothing(
    tmp_path: Path, stars: dict[str, np.ndarray], name: str, text: str, said: str
):
    good = write_table(tmp_path / "good.parquet", stars)
    (tmp_path / name).write_text(text)
    with pytest.raises(ApstreamError, match=rf"{name}.*{said}"):
        convert_refcat([good, tmp_path / name], tmp_path / "stars")
    assert {p.name for p in tmp_path.iterdir()} == {"good.parquet", name}


def test_a_catalogue_is_never_overwritten(catalog: Path, tmp_path: Path):
    before = content(catalog)
    for link in (True, False):
        with pytest.raises(Conflict, match="stars"):
            ingest_refcat([catalog], catalog, link=link)
    with pytest.raises(FileMissing, match=r"none\.csv"):
        convert_refcat([tmp_path / "none.csv"], tmp_path / "new")
    assert content(catalog) == before


@pytest.mark.parametrize("link", [True, False])
def test_a_hats_catalogue_is_linked_or_copied(catalog: Path, tmp_path: Path, link: bool):
    folder = tmp_path / "refcat" / "main"
    assert ingest_refcat([catalog], folder, link=link) == 20_000
    assert folder.is_symlink() == link
    assert content(folder) == content(catalog)


def test_a_table_is_converted_on_ingest(stars: dict[str, np.ndarray], tmp_path: Path):
    assert ingest_refcat([write_table(tmp_path / "r.csv", stars)], tmp_path / "refcat" / "main", link=True) == 20_000
    assert is_hats(tmp_path / "refcat" / "main")


def foreign(folder: Path, stars: dict[str, np.ndarray], layout: str) -> Path:
    """Lay stars out as other programs do."""
    primary = folder / "gaia" / "gaia" if layout == "collection" else folder / "gaia"
    properties = {"obs_collection": "gaia", "hats_col_ra": "RAgaia", "hats_col_dec": "DEgaia"}
    suffix = {"directories": "/", "suffix": ".parq"}.get(layout, ".parquet")
    properties["hats_npix_suffix"] = suffix
    pixels = hpgeom.angle_to_pixel(4, stars["ra"], stars["dec"])
    for pixel in np.unique(pixels):
        here = pixels == pixel
        columns = {"RAgaia": (stars["ra"][here] + 180) % 360 - 180, "DEgaia": stars["dec"][here]}
        columns |= {"phot_g_mean_mag": stars["g"][here].astype("f4"), "solution": np.ones(here.sum(), "i8")}
        place = primary / f"dataset/Norder=2/Dir=0/Npix={pixel}{suffix.rstrip('/')}"
        place = place / "part0.parquet" if layout == "directories" else place
        place.parent.mkdir(parents=True, exist_ok=True)
        pa.parquet.write_table(pa.table(columns), place)
    (primary / "properties").write_text("#HATS\n" + "".join(f"{k} = {v}\n" for k, v in properties.items()))
    if layout != "unlisted":
        listed = "".join(f"2,{p},0,9\n" for p in np.unique(pixels))
        (primary / "partition_info.csv").write_text("Norder,Npix,Dir,num_rows\n" + listed)
    if layout == "collection":
        (folder / "gaia" / "collection.properties").write_text("hats_primary_table_url=gaia\nall_margins=gaia_10arcs\n")
        margin = folder / "gaia" / "gaia_10arcs" / "dataset/Norder=2/Dir=0"
        margin.mkdir(parents=True)
        (margin / "Npix=1.parquet").write_bytes(b"nobody reads this")
    return folder / "gaia"


@pytest.mark.parametrize("layout", ["plain", "suffix", "directories", "unlisted", "collection"])
def test_catalogues_of_other_programs_are_read(tmp_path: Path, stars: dict[str, np.ndarray], layout: str):
    path = foreign(tmp_path, stars, layout)
    region = SkyCircle(359.9, 20.0, 0.5)
    inside = separation(region.ra, region.dec, stars["ra"], stars["dec"]) <= region.radius
    found = read_refcat(path, band="g", region=region).stars
    np.testing.assert_allclose(np.sort(found["mag"]), np.sort(stars["g"][inside]), rtol=1e-6)
    assert open_hats(path).n_rows == 20_000
    assert convert_refcat([path], tmp_path / "ours").rows == 20_000


def test_a_region_without_stars_gives_none(catalog: Path):
    assert len(read_refcat(catalog, region=SkyCircle(10.0, -70.0, 0.001)).stars) == 0


def test_a_broken_list_of_partitions_is_named(catalog: Path, tmp_path: Path):
    broken = shutil.copytree(catalog, tmp_path / "broken")
    for text in ("Norder,Npix\n1,what\n", "order,pixel\n1,2\n", "Norder,Npix\n"):
        (broken / "partition_info.csv").write_text(text)
        with pytest.raises(BadCatalog, match="broken"):
            read_refcat(broken)
    shutil.rmtree(broken / "dataset")
    (broken / "partition_info.csv").unlink()
    for name in ("dataset", "hats.properties", "properties"):
        with pytest.raises(ApstreamError, match="broken"):
            open_hats(broken)
        (broken / name).unlink(missing_ok=True)


def test_gathering_reads_the_catalogue_near_the_frame(
    catalog: Path, stars: dict[str, np.ndarray], tmp_path: Path
):
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    repository.ingest_refcat([catalog])
    detector = SimpleNamespace(shape=(400, 400), pixel_scale_arcsec=1.0)
    info = SimpleNamespace(ra=0.0, dec=20.0, band="r", physical_filter="r")
    raw = SimpleNamespace(wcs=None, info=info, detector=detector)
    found = gather_reference(repository, raw).stars
    reach = np.hypot(200, 200) / 3600 + 0.12
    assert len(found) == np.sum(separation(0.0, 20.0, stars["ra"], stars["dec"]) <= reach)


def test_the_shards_of_a_survey(shared_data: Path, tmp_path: Path):
    """PS1 (fluxes in Jy, motions in arcsec/yr, epochs in Unix seconds) and Gaia, as LSST sharded them in 2017."""
    archive = shared_data / "refcats" / "ps1_HiTS_2015.tar.gz"
    assert convert_refcat([archive], tmp_path / "ps1").rows == 14781
    assert convert_refcat([shared_data / "refcats" / "gaia_HiTS_2015.tar.gz"], tmp_path / "gaia").rows == 181
    with tarfile.open(archive) as tar:
        raw = fits.getdata(io.BytesIO(tar.extractfile("157216.fits").read()), 1)
    raw, ours = raw[np.argsort(raw["id"])], partitions(tmp_path / "ps1").sort_by("id")
    np.testing.assert_array_equal(ours["id"].to_numpy(), raw["id"])
    np.testing.assert_allclose(ours["ra"].to_numpy(), np.rad2deg(raw["coord_ra"]), atol=1e-11)
    expected = -2.5 * np.log10(raw["i_flux"] * 1e9) + 31.4
    np.testing.assert_allclose(ours["mag_i"].to_numpy(), expected, atol=1e-5)

    ps1, gaia = read_refcat(tmp_path / "ps1", band="r").stars, read_refcat(tmp_path / "gaia").stars
    apart = separation(gaia["ra"][:, None], gaia["dec"][:, None], ps1["ra"], ps1["dec"]) * 3600
    partner = np.argmin(apart, axis=1)
    near = apart[np.arange(len(gaia)), partner] < 0.5
    assert near.sum() > 150
    assert np.median(apart[near, partner[near]]) < 0.2
    assert abs(np.median(gaia["mag"][near] - ps1["mag"][partner[near]])) < 0.5
    matched = ps1[partner[near]]
    moved = structured_to_unstructured(matched[["pm_ra", "pm_dec"]]) * (2015 - matched["epoch"][:, None])
    cosine = np.cos(np.deg2rad(gaia["dec"][near]))
    offset = np.stack(
        [(gaia["ra"] - ps1["ra"][partner])[near] * cosine, (gaia["dec"] - ps1["dec"][partner])[near]], axis=1
    )
    fast = (np.abs(moved) > 5) & (np.abs(moved) < 40)  # mas: the unit of the motions is the right one
    assert 0.3 < np.sum((moved * offset * 3.6e6)[fast]) / np.sum(moved[fast] ** 2) < 3


def documented() -> list[tuple[str, str]]:
    page = (Path(__file__).parents[2] / "docs" / "refcats.md").read_text()
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| `") and line.count("|") == 4]
    return [(row[0].replace("`", "").strip(), name) for row in rows for name in re.findall(r"`([^`]+)`", row[2])]


@pytest.mark.parametrize(("column", "name"), documented(), ids=" ".join)
def test_the_page_names_columns_that_are_found(column: str, name: str):
    units = dict.fromkeys(["ra", "dec", name], "nJy" if name.endswith("lux") else "")
    if "err" in column:
        value = re.sub(r"^e_|_?err$|_error$|Err$|Sigma$|_flux_over_error$", "", name)
        units[value + ("_mag" if value.startswith("phot") else "")] = "nJy" if value.endswith("lux") else ""
    if column == "ra, dec":
        units.pop("dec" if name.lower().startswith("de") else "ra")
        units[name] = ""
    found = find_columns(TableSchema("page", units))
    places = [found.ra, found.dec, found.pm_ra, found.pm_dec, found.epoch, found.id]
    places += [found.parallax, found.pos_err, found.pm_err]
    places += [place for m in found.magnitudes for place in (m.column, m.error)]
    assert name in places


def test_a_folder_that_is_no_catalogue_is_named(tmp_path: Path):
    (tmp_path / "properties").write_text("obs_title = a HiPS survey\n")
    assert not is_hats(tmp_path)
    with pytest.raises(BadCatalog, match="no HATS catalogue"):
        read_refcat(tmp_path)


MEMORY = """
import resource, sys
from pathlib import Path
from apstream.repo.formats.convert import convert_refcat
convert_refcat([Path(sys.argv[1])] * int(sys.argv[2]), Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_follow_the_number_of_rows(tmp_path: Path):
    source = write_table(tmp_path / "in.parquet", sky(500_000))

    def peak(times: int) -> int:
        words = [sys.executable, "-c", MEMORY, str(source), str(times), str(tmp_path / f"out{times}")]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    assert peak(12) < 1.3 * peak(3)


@pytest.mark.s3
def test_a_catalogue_in_an_object_store_is_read_in_parts(catalog: Path, s3_url: str, tmp_path: Path):
    copy, region = shutil.copytree(catalog, tmp_path / "copy"), SkyCircle(0.0, 20.0, 0.05)
    store, wanted = open_store(f"{s3_url}/refcat/main"), open_hats(catalog).files(region)
    for path in content(copy):
        if path.endswith(".parquet") and path not in wanted:
            (copy / path).write_bytes(b"nobody reads this")
        store.create(path, copy / path)
    found = read_refcat(f"{s3_url}/refcat/main", band="r", region=region).stars
    assert found.tobytes() == read_refcat(catalog, band="r", region=region).stars.tobytes()
    table = tmp_path / "r.csv"
    table.write_text("ra,dec,r\n1,2,3\n")
    open_store(s3_url).create("refcat/r.csv", table)
    assert len(read_refcat(f"{s3_url}/refcat/r.csv").stars) == 1
