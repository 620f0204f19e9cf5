from __future__ import annotations

from pathlib import Path

import numpy as np

from apstream.repo.repository import FileRepository

MINE = """
weather:
  description: All-sky camera, once per visit
  template: weather/{visit}/{band}.fits
  format: array
"""


def test_a_user_adds_a_dataset_type_by_a_few_lines(tmp_path: Path) -> None:
    FileRepository.create(tmp_path, camera="simcam").close()
    (tmp_path / "policy.yaml").write_text(MINE)
    sky = np.arange(12, dtype=np.float32).reshape(3, 4)
    FileRepository(tmp_path).put(sky, "weather", visit=5, band="r")
    again = FileRepository(tmp_path)
    np.testing.assert_array_equal(again.get("weather", visit=5, band="r"), sky)
    assert (tmp_path / "weather" / "5" / "r.fits").is_file()
    assert again.locate("weather", visit=6, band="r") is None
    assert again.locate("calexp", visit=5, detector=0) is None  # the types that ship are still there
