"""Names of files from any text."""

import pytest

from nextlat_viz import io


@pytest.mark.parametrize(
    "name", ["CON", "nul.txt", "com1", "COM¹", "lpt².h5ad", "a.", "a ", "../a", "a/b", "..", "/", "", "a\nb"]
)
def test_file_names_refused_by_some_system_are_changed(name: str) -> None:
    assert io.file_name(name) != name
    assert io.inside(io.Path("folder"), io.file_name(name))
