from pathlib import Path

from apstream.model.columns_doc import columns_page

PAGE = Path(__file__).parent.parent.parent / "docs" / "columns.md"


def test_the_page_says_what_the_registry_says():
    assert PAGE.read_text() == columns_page(), "python -m apstream.model.columns_doc > docs/columns.md"
