"""From a profile to its tree and its crops."""

import dataclasses
import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dfil import cli
from dfil.datasets import load_records
from dfil.faces.preprocess import preprocess
from dfil.profiles import PAPER, SMOKE
from dfil.system import paths
from dfil.system.errors import DataError
from dfil.train import data


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DFIL_FFPP", raising=False)
    monkeypatch.setattr(paths, "project", lambda: tmp_path)


def test_the_paper_profile_says_what_it_needs_and_finds_it_by_each_way(
    tmp_path, tiny_tree, monkeypatch
):
    with pytest.raises(DataError, match="DFIL_FFPP.*dfil.toml"):
        data.tree(PAPER)
    assert data.tree(PAPER, root=tiny_tree) == tiny_tree
    (tmp_path / "dfil.toml").write_text(f'[roots]\nffpp = "{tiny_tree}"\n')
    assert data.tree(PAPER) == tiny_tree
    monkeypatch.setenv(
        "DFIL_FFPP", str(tmp_path / "gone")
    )  # the variable counts more than the file
    with pytest.raises(DataError, match="gone.*DFIL_FFPP"):
        data.tree(PAPER)
    (tmp_path / "dfil.toml").write_text("[roots")
    monkeypatch.delenv("DFIL_FFPP")
    with pytest.raises(DataError, match="dfil.toml.*TOML"):
        data.tree(PAPER)
    with pytest.raises(DataError, match="no such folder"):
        data.tree(SMOKE, root=tmp_path / "gone")


@pytest.mark.parametrize(
    "text, said",
    [
        (b'roots = "/data"', "roots is a table, not '/data'"),
        (b'roots = ["/data"]', "roots is a table"),
        (b"[roots]\nffpp = 3", "ffpp is a path in quotes, not 3"),
        (b"[roots]\nffpp = {a = 1}", "ffpp is a path in quotes"),
        (b'[roots]\nFFPP = "/x"', "no dataset is called FFPP"),
        (b'[Roots]\nffpp = "/x"', "knows only [roots], not Roots"),
        (b'ffpp = "/x"', "knows only [roots], not ffpp"),
        ('[roots]\nffpp = "/données"'.encode("latin-1"), "not UTF-8"),
        (b"[" * 100_000, "not valid TOML"),
    ],
)
def test_a_settings_file_of_another_form_is_one_sentence(tmp_path, text, said):
    (tmp_path / "dfil.toml").write_bytes(text)
    with pytest.raises(DataError) as caught:
        paths.real_root("ffpp")
    assert str(tmp_path / "dfil.toml") in str(caught.value) and said in str(caught.value)


def test_a_settings_file_may_begin_with_a_mark_and_name_folders_beside_it(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "dfil.toml").write_bytes(b'\xef\xbb\xbf[roots]\nffpp = "tree"')
    assert paths.real_root("ffpp") == tmp_path / "tree"


def test_relative_variables_mean_the_folder_where_the_command_was_given(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFIL_OUTPUTS", "results")
    monkeypatch.setenv("DFIL_DATA", "../data")
    paths.fix()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert paths.published("demo") == tmp_path / "results" / "demo"
    assert paths.data().resolve() == tmp_path.parent / "data"


def test_without_a_usable_home_one_is_borrowed_for_the_time(tmp_path):
    code = """
import os, pathlib
from dfil.system import paths
paths.fix()
home = pathlib.Path.home()
(home / "x").write_text("")
print(home)
"""
    environment = {name: os.environ[name] for name in os.environ if name not in ("HOME", "USER")}
    run = [sys.executable, "-c", code]
    for home in ("/nonexistent", "/proc"):
        environment["HOME"] = home
        done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() != home and not Path(done.stdout.strip()).exists()


def test_a_user_id_without_a_name_and_home_is_no_error(monkeypatch):
    def unknown(*_):
        raise KeyError("getpwuid(): uid not found: 12345")

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", "x")  # both are put back after the test
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    paths.fix()
    assert getpass.getuser() == "nobody" and os.access(Path.home(), os.W_OK)


def test_the_project_is_the_checkout_that_holds_the_package(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real function
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "dfil").mkdir()
    monkeypatch.chdir(tmp_path)
    assert paths.project() == Path(paths.__file__).resolve().parents[2]
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "lib" / "dfil" / "system" / "paths.py"))
    assert paths.project() == tmp_path
    (tmp_path / "dfil" / "paper.py").touch()
    (tmp_path / "dfil" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "dfil" / "below")
    assert paths.project() == tmp_path


def test_a_profile_with_built_in_data_writes_its_tree_once(tiny_tree):
    small = {
        "train": 2,
        "val": 2,
        "test": 2,
        "frames": 8,
        "qualities": ("c23",),
        "manipulations": ("Deepfakes",),
        "jobs": 1,
    }
    profile = dataclasses.replace(SMOKE, trees={"temporal-only": small})
    tree = data.tree(profile, setting="temporal-only")
    written = {path: path.stat().st_mtime_ns for path in tree.rglob("*.mp4")}
    assert len(written) == 6 * 2 + 6  # reals, fakes, masks
    assert data.tree(profile, setting="temporal-only") == tree
    assert written == {path: path.stat().st_mtime_ns for path in tree.rglob("*.mp4")}


def test_a_store_made_by_hand_keeps_its_settings(tiny_tree):
    folder = data.store_folder("ffpp", tiny_tree, SMOKE.size)
    made = preprocess(
        load_records("ffpp", tiny_tree),
        folder,
        SMOKE.size,
        every=8,
        jobs=1,
        progress=False,
        stretches=(2, 8),
    )
    found = data.crops(SMOKE, tiny_tree, jobs=1)
    assert (
        found.folder == made.folder
        and found.meta["stretches"] == [2, 8]
        and found.meta["digest"] == made.meta["digest"]
    )
    assert found.index["faces"].max() == 16


def test_a_dfdc_root_is_the_preview_or_the_full_release(tmp_path, monkeypatch):
    full = tmp_path / "dfdc"
    full.mkdir()
    for name in ("CELEBDF", "DFDC_PREVIEW", "DFDC", "WILDDEEPFAKE"):
        monkeypatch.delenv(f"DFIL_{name}", raising=False)
    with pytest.raises(DataError, match="dfdc_root.*DFIL_DFDC_PREVIEW"):
        data.tree(PAPER, dataset="dfdc-preview")
    monkeypatch.setenv("DFIL_DFDC", str(full))
    assert (
        data.tree(PAPER, dataset="dfdc-preview") == full
        and data.release("dfdc-preview", full) == "dfdc"
    )
    (full / "dataset.json").write_text("{}")
    assert (
        data.release("dfdc-preview", full) == "dfdc-preview"
        and data.release("celebdf", full) == "celebdf"
    )


def test_real_and_synthetic_trees_are_not_mixed(tmp_path, tiny_tree, monkeypatch, capsys):
    """With one real tree the synthetic ones are left out, and every dataset that is left out is
    named.
    """
    monkeypatch.setattr(
        data,
        "absent",
        lambda profile, root, dataset: "" if dataset != "wilddeepfake" else "not there",
    )
    monkeypatch.setattr(data, "tree", lambda profile, root, dataset: dataset)

    class Store:
        def __init__(self, synthetic):
            self.meta = {"synthetic": synthetic}

    monkeypatch.setattr(
        data, "crops", lambda profile, root, dataset: Store(synthetic=dataset != "ffpp")
    )
    assert list(data.stores(PAPER, ["ffpp", "celebdf", "wilddeepfake"])) == ["ffpp"]
    said = capsys.readouterr().out
    assert "WildDeepfake: not there." in said and "Celeb-DF: only the synthetic one" in said
    assert list(data.stores(PAPER, ["celebdf", "dfdc-preview"])) == ["celebdf", "dfdc-preview"]


def test_a_carved_dataset_gets_the_profiles_share_and_all_people_where_the_protocol_asks_for_them(
    tmp_path, monkeypatch
):
    seen = {}
    monkeypatch.setattr(
        data, "load_records", lambda dataset, root, **given: seen.setdefault(dataset, given)
    )
    monkeypatch.setattr(
        data,
        "preprocess",
        lambda records, folder, size, jobs, executor, **settings: seen.update(settings=settings),
    )
    profile = dataclasses.replace(SMOKE, validation=0.3)
    data.crops(profile, tmp_path, "celebdf")
    assert seen["celebdf"] == {"share": 0.3} and seen["settings"] == {
        "detector": "mtcnn",
        "tracks": "largest",
        "store_margin": 1.3,  # as real data get it: stretches, because nobody has the disk for all
        "stretches": (4, 16),
    }
    data.crops(profile, tmp_path, "dfdc-preview")  # without dataset.json: the full release
    assert seen["dfdc"] == {"share": 0.3} and seen["settings"]["tracks"] == "all"
    data.crops(profile, tmp_path, "ffpp")
    assert seen["ffpp"] == {} and seen["settings"]["detector"] == "dlib"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("preprocess ffpp --root {tree} --size 32 --store {file}", "file: a file is in the way"),
        ("preprocess ffpp --root {tree} --size 32", "a file is in the way"),  # of $DFIL_DATA
        ("data make temporal-only --root {file}", "file: a file is in the way"),
        ("data check ffpp --root {long}", "a longer name than the disk takes"),
    ],
)
def test_a_place_that_cannot_be_a_folder_is_one_sentence(
    tiny_tree, tmp_path, monkeypatch, capsys, given, said
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "file"))
    names = {"tree": tiny_tree, "file": tmp_path / "file", "long": tmp_path / ("x" * 300)}
    assert cli.main(given.format(**names).split()) == 1
    found = capsys.readouterr().err
    assert said in found and found.count("\n") == 1 and "[Errno" not in found


def test_what_is_trained_on_is_what_the_tree_holds_now(tiny_tree, tmp_path, capsys):
    root = tmp_path / "tree"
    shutil.copytree(tiny_tree, root)
    before = data.crops(SMOKE, root, jobs=1)
    gone = before.index[before.index["label"] == 1].iloc[0]
    Path(gone["path"]).unlink()
    after = data.crops(SMOKE, root, jobs=1)
    assert set(before.index["video_id"]) - set(after.index["video_id"]) == {gone["video_id"]}
    assert f"no longer under {root}" in capsys.readouterr().err
    assert after.meta["digest"] != before.meta["digest"]
