"""From a profile to its tree and its crops."""

import dataclasses

import pytest

from dfil import data, paths
from dfil.datasets import load_records
from dfil.errors import DataError
from dfil.faces.preprocess import preprocess
from dfil.profiles import PAPER, SMOKE


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DFIL_FFPP", raising=False)
    monkeypatch.setattr(paths, "project", lambda: tmp_path)


def test_the_paper_profile_says_what_it_needs_and_finds_it_by_each_way(tmp_path, tiny_tree, monkeypatch):
    with pytest.raises(DataError, match="DFIL_FFPP.*dfil.toml"):
        data.tree(PAPER)
    assert data.tree(PAPER, root=tiny_tree) == tiny_tree
    (tmp_path / "dfil.toml").write_text(f'[roots]\nffpp = "{tiny_tree}"\n')
    assert data.tree(PAPER) == tiny_tree
    monkeypatch.setenv("DFIL_FFPP", str(tmp_path / "gone"))  # the variable counts more than the file
    with pytest.raises(DataError, match="gone.*DFIL_FFPP"):
        data.tree(PAPER)
    (tmp_path / "dfil.toml").write_text("[roots")
    monkeypatch.delenv("DFIL_FFPP")
    with pytest.raises(DataError, match="dfil.toml.*TOML"):
        data.tree(PAPER)
    with pytest.raises(DataError, match="no such folder"):
        data.tree(SMOKE, root=tmp_path / "gone")


def test_a_profile_with_built_in_data_writes_its_tree_once(tiny_tree):
    small = {"train": 2, "val": 2, "test": 2, "frames": 8, "qualities": ("c23",), "manipulations": ("Deepfakes",), "jobs": 1}
    profile = dataclasses.replace(SMOKE, trees={"temporal-only": small})
    tree = data.tree(profile, setting="temporal-only")
    written = {path: path.stat().st_mtime_ns for path in tree.rglob("*.mp4")}
    assert len(written) == 6 * 2 + 6  # reals, fakes, masks
    assert data.tree(profile, setting="temporal-only") == tree
    assert written == {path: path.stat().st_mtime_ns for path in tree.rglob("*.mp4")}


def test_a_store_made_by_hand_keeps_its_settings(tiny_tree):
    folder = data.store_folder("ffpp", tiny_tree, SMOKE.size)
    made = preprocess(load_records("ffpp", tiny_tree), folder, SMOKE.size, every=8, jobs=1, progress=False, stretches=(2, 8))
    found = data.crops(SMOKE, tiny_tree, jobs=1)
    assert found.folder == made.folder and found.meta["stretches"] == [2, 8] and found.meta["digest"] == made.meta["digest"]
    assert found.index["faces"].max() == 16
