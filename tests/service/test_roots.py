"""Event URIs name files inside the configured roots, local or in an object store, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from apstream.errors import FileMissing, ForbiddenUri
from apstream.repo.store import open_store
from apstream.service.roots import find_file, local_file, resolve_uri


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "raws").mkdir()
    (tmp_path / "raws" / "a.fits").write_text("a")
    (tmp_path / "secret.fits").write_text("secret")
    return tmp_path / "raws"


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_files_inside_a_root_are_found(root: Path, form: str) -> None:
    assert find_file([form.format(root / "a.fits")], [root]) == str(root / "a.fits")


@pytest.mark.parametrize("uri", ["{}/../secret.fits", "raws/a.fits", "http://x/a.fits", "s3://other/a.fits", "file://x{}"])
def test_what_leaves_the_roots_is_forbidden(root: Path, uri: str) -> None:
    with pytest.raises(ForbiddenUri):
        resolve_uri(uri.format(root), [root, "s3://bucket/raws"])


def test_a_link_out_of_the_roots_is_forbidden(root: Path) -> None:
    (root / "link.fits").symlink_to(root.parent / "secret.fits")
    with pytest.raises(ForbiddenUri):
        find_file([str(root / "link.fits")], [root])


def test_the_first_that_is_there_counts(root: Path) -> None:
    assert find_file([str(root / "b.fits"), str(root / "a.fits")], [root]).endswith("a.fits")
    with pytest.raises(FileMissing):
        find_file([str(root / "b.fits")], [root])


def test_objects_of_a_store_are_read_like_files(root: Path, s3_url: str) -> None:
    store = open_store(f"{s3_url}/night")
    assert store.link("r/a.fits", root / "a.fits")
    location = find_file([f"{s3_url}/night/r/b.fits", f"{s3_url}/night/r/a.fits"], [f"{s3_url}/night"])
    with local_file(location) as path:
        assert path.read_text() == "a"
    with local_file(root / "a.fits") as path:
        assert path == root / "a.fits"
    for uri in (f"{s3_url}/nightmare/a.fits", f"{s3_url}/night/../secret"):
        with pytest.raises(ForbiddenUri):
            find_file([uri], [f"{s3_url}/night"])
