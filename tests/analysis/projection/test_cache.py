from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from nextlat_viz import paths
from nextlat_viz.analysis import ProjectionCache, default_cache
from nextlat_viz.analysis.projection.umap import Stored, alike, fingerprint, key_of

KEY = key_of({"method": "umap"})


@pytest.fixture
def stored() -> Stored:
    rng = np.random.default_rng(0)
    numbers = fingerprint(rng.normal(size=(20, 3)))
    return Stored(rng.normal(size=(20, 2)).astype(np.float32), 0.9, numbers)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_stored_projection_is_loaded(tmp_path: Path, stored: Stored) -> None:
    cache = ProjectionCache(user=tmp_path / "deep" / "folder")
    assert cache.load(KEY) is None
    cache.store(KEY, stored, {"label": "<NextLat>"})
    result = cache.load(KEY)
    assert result is not None
    np.testing.assert_array_equal(result.coordinates, stored.coordinates)
    np.testing.assert_array_equal(result.fingerprint, stored.fingerprint)
    assert result.trustworthiness == 0.9
    assert files(tmp_path / "deep" / "folder") == [f"{KEY}.safetensors"]


def test_the_shipped_folder_is_read_first_and_never_written(tmp_path: Path, stored: Stored) -> None:
    shipped, user = tmp_path / "shipped", tmp_path / "user"
    ProjectionCache(user=shipped).store(KEY, stored, {})
    cache = ProjectionCache((tmp_path / "absent", shipped), user)
    assert cache.load(KEY) is not None
    cache.store(KEY, stored._replace(trustworthiness=0.1), {})
    result = cache.load(KEY)
    assert result is not None
    assert result.trustworthiness == 0.9
    assert ProjectionCache(user=user).load(KEY).trustworthiness == 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another key"])
def test_a_corrupt_file_is_ignored_with_a_warning(tmp_path: Path, stored: Stored, damage: str) -> None:
    cache = ProjectionCache(user=tmp_path)
    cache.store(KEY, stored, {})
    path = tmp_path / f"{KEY}.safetensors"
    whole = path.read_bytes()
    key = KEY
    if damage == "another key":
        key = key_of({"method": "pca"})
        (tmp_path / f"{key}.safetensors").write_bytes(whole)
    else:
        path.write_bytes({"truncated": whole[:-7], "empty": b"", "text": b"<html>" * 40}[damage])
    with pytest.warns(UserWarning, match="ignored and computed again"):
        assert cache.load(key) is None
    cache.store(key, stored, {})
    assert cache.load(key) is not None


def test_every_changed_byte_is_noticed(tmp_path: Path, stored: Stored) -> None:
    cache = ProjectionCache(user=tmp_path)
    cache.store(KEY, stored, {"label": "NextLat"})
    path = tmp_path / f"{KEY}.safetensors"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.warns(UserWarning, match="ignored and computed again"):
            assert cache.load(KEY) is None, f"byte {at}"


def test_shipped_projections_are_sealed() -> None:
    shipped = sorted(paths.shipped_projections().glob("*.safetensors"))
    assert shipped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(default_cache().load(path.stem) for path in shipped)


def test_coordinates_that_are_not_numbers_are_refused(tmp_path: Path, stored: Stored) -> None:
    cache = ProjectionCache(user=tmp_path)
    cache.store(KEY, stored._replace(coordinates=np.full((4, 2), np.nan, np.float32)), {})
    with pytest.warns(UserWarning, match="not finite pairs"):
        assert cache.load(KEY) is None


def test_a_folder_that_cannot_be_written_warns_once(tmp_path: Path, stored: Stored) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ProjectionCache(user=tmp_path / "file" / "projections")
    with pytest.warns(UserWarning, match="cannot be cached"):
        cache.store(KEY, stored, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.store(KEY, stored, {})
        assert cache.load(KEY) is None


def test_a_failed_write_leaves_nothing(tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.warns(UserWarning, match="no space left"):
        ProjectionCache(user=tmp_path).store(KEY, stored, {})
    assert files(tmp_path) == []


def test_keys_depend_on_contents_not_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert len(KEY) == 64


def test_fingerprints_tolerate_rounding_only() -> None:
    X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert alike(fingerprint(X), fingerprint(X + 1e-6))
    assert not alike(fingerprint(X), fingerprint(X * 1.1))
    assert not alike(fingerprint(X), fingerprint(X[::-1]))
    assert not alike(fingerprint(X), fingerprint(X[:, :3]))


def test_default_cache_looks_in_both_folders() -> None:
    cache = default_cache()
    assert cache.shipped == (paths.shipped_projections(),)
    assert cache.user == paths.cache_dir() / "projections"


def test_a_single_folder_as_shipped_is_refused(tmp_path: Path) -> None:
    # Unwrapped, because the type checks of the tests would raise first.
    cache = object.__new__(ProjectionCache)
    object.__setattr__(cache, "shipped", tmp_path)
    with pytest.raises(TypeError, match=r"shipped must be several folders to read, got .*give ProjectionCache"):
        cache.__post_init__()
