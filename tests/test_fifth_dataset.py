"""A fifth dataset from a package of a user's own goes the whole way, from its tree to a table."""

import dataclasses
import json
import shutil
from pathlib import Path

import fifth_dataset
import numpy as np
import pytest
from PIL import Image
from test_other_datasets import by_id, touch

from dfil import cli, datasets, paper, profiles
from dfil.datasets import REAL, VideoRecord, load_records, splits
from dfil.datasets.adapter import Filters
from dfil.faces.preprocess import preprocess
from dfil.results import tables
from dfil.system.errors import DataError
from dfil.train import data, experiments
from dfil.train.runs import RunStore


@pytest.fixture
def fifth(tmp_path, monkeypatch):
    """A package of a user's own, installed as far as Python can tell: its entry point is all."""
    site = touch(
        tmp_path / "site",
        "fifth-1.0.dist-info/METADATA",
        content="Metadata-Version: 2.1\nName: fifth\nVersion: 1.0\n",
    )
    points = "[dfil.datasets]\nfifth = fifth_dataset:Fifth\n"
    touch(site, "fifth-1.0.dist-info/entry_points.txt", content=points)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(datasets, "_adapters", dict(datasets._adapters))
    return site


def fifth_tree(root: Path, tiny_tree: Path) -> Path:
    """Eight people of the built-in benchmark, real and forged, two of them for testing."""
    for record in load_records("ffpp", tiny_tree):
        kind = "fake" if record.label else "real"
        clip = root / f"people/{record.target}/{kind}/0.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record.path, clip)
    shutil.copy(tiny_tree / "synthetic.json", root)
    return touch(root, "test.txt", content="006 007")


def test_from_its_tree_to_a_table(fifth, tiny_tree, tmp_path, monkeypatch, capsys):
    quick = dataclasses.replace(profiles.SMOKE, within_starts=False)
    monkeypatch.setitem(profiles.PROFILES, "smoke", quick)
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "outputs"))
    root = fifth_tree(tmp_path / "tree", tiny_tree)
    where = ["--root", str(root)]
    assert cli.main(["data", "check", "fifth", *where]) == 0
    assert cli.main(["preprocess", "fifth", *where, "--size", "32", "--jobs", "1"]) == 0
    assert "16 synthetic videos: 16 ok." in capsys.readouterr().out
    assert cli.main(["train", "resnet50", "--profile", "smoke", "--dataset", "fifth", *where]) == 0
    assert "on the validation videos" in capsys.readouterr().out

    store = data.crops(quick, root, "fifth")
    assert store.meta["detector"] == "dlib" and set(store.index["split"]) == {
        "train",
        "val",
        "test",
    }
    videos = paper.Videos("fifth")
    table = paper.Table(
        key="table2",
        title="The fifth dataset",
        caption="Real or forged?",
        metric=paper.ACCURACY,
        columns=(paper.Column("Fifth", videos, videos),),
        rows=(paper.Row("resnet50", "ResNet-50", (None,), method="resnet50"),),
    )
    runs = RunStore(tmp_path / "outputs/smoke/runs", quick)
    assert all(
        runs.is_trained(s, store) for c in table.cells() for s in experiments.specs(c, quick, store)
    )
    results, reasons = experiments.fill(table, runs, {"fifth": store}, ["resnet50"])
    df = tables.build(table, results, reasons, synthetic=True)
    (line,) = df.to_dict("records")
    assert line["n_videos"] == 4 and 0 <= line["ours"] <= 1 and not reasons
    tables.save(df, tmp_path, "fifth", table.title)
    assert "ResNet-50" in (tmp_path / "fifth.md").read_text()


def test_what_is_wrong_with_its_tree_is_named(fifth, tmp_path, capsys):
    clips = [f"people/{person}/{kind}/0.mp4" for person in "abcd" for kind in ("real", "fake")]
    tree = touch(touch(tmp_path / "tree", *clips), "test.txt", content="d")
    found = by_id("fifth", tree, share=0.4)
    assert len(splits.groups(found.values(), "val")) == 1 and found["d/fake/0"].split == "test"
    assert cli.main(["data", "check", "fifth", "--root", str(tree)]) == 0
    said = capsys.readouterr().out
    assert "test    fake   FifthSwap       -                 1" in said and "4 people." in said
    touch(tree, "test.txt", content="d e")
    (tree / "people/a/real/0.mp4").write_bytes(b"")
    (tree / "people/d/fake/0.mp4").write_text("people/b/fake/0.mp4")
    assert cli.main(["data", "check", "fifth", "--root", str(tree), "--json"]) == 1
    wrong = json.loads(capsys.readouterr().out)
    assert wrong["missing"] == ["people/e"]
    assert wrong["unreadable"] == [f"{tree / 'people/a/real/0.mp4'} is empty"]
    assert wrong["leaks"] == [
        f"{tree / 'people/d/fake/0.mp4'} (test) is the same file as {tree / 'people/b/fake/0.mp4'}"
    ]
    store = preprocess(
        load_records("fifth", tree), tmp_path / "store", 32, "dlib", jobs=1, progress=False
    )
    assert list(store.index.status) == ["unreadable"] * 8  # files of a few letters are rows too
    (tree / "test.txt").unlink()
    assert cli.main(["data", "check", "fifth", "--root", str(tree)]) == 1
    assert "test.txt is not there" in capsys.readouterr().err


def test_a_package_that_cannot_be_loaded_is_named(fifth):
    touch(fifth, "fifth-1.0.dist-info/entry_points.txt", content="[dfil.datasets]\nx = no_such:X\n")
    with pytest.raises(DataError, match="The dataset x of fifth cannot be loaded .*uninstall"):
        datasets.available()


def test_a_name_belongs_to_one_dataset(monkeypatch):
    monkeypatch.setattr(datasets, "_adapters", dict(datasets._adapters))
    mine = datasets.register(fifth_dataset.Fifth())
    assert datasets.get("fifth") is mine and datasets.register(fifth_dataset.Fifth()) is not mine
    other = type("Other", (fifth_dataset.Fifth,), {"name": "ffpp"})
    with pytest.raises(DataError, match="Two datasets are called 'ffpp'"):
        datasets.register(other())
    with pytest.raises(DataError, match="is no dfil.datasets.Adapter"):
        datasets.register(other)


@pytest.mark.parametrize(
    "odd, said",
    [
        ({"manipulation": "Fifthswap"}, "has no manipulation 'Fifthswap'; it has 'real', 'FifthS"),
        ({"split": "validation"}, "has no split 'validation'; it has 'train', 'val', 'test', ''"),
        ({"split": "val"}, "a validation video, though .* set `carved = False`"),
    ],
)
def test_what_would_be_passed_over_without_a_word_is_named(fifth, tiny_tree, tmp_path, odd, said):
    root = fifth_tree(tmp_path / "tree", tiny_tree)
    adapter = datasets.get("fifth")
    videos = list(adapter.videos(root, Filters()))
    fake = next(n for n, video in enumerate(videos) if video.label == 1)
    videos[fake] = dataclasses.replace(videos[fake], **odd)
    adapter.videos = lambda root, wanted: videos
    with pytest.raises(DataError, match=said):
        adapter.records(root, Filters())


def test_folders_of_pictures_are_face_crops_only_where_the_adapter_says_so(fifth, tmp_path):
    adapter = datasets.get("fifth")
    videos = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(6):
            picture = np.random.default_rng(number).integers(0, 255, (40, 60, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{number:04d}.png")
        videos.append(VideoRecord("fifth", name, 0, REAL, "", "train", tmp_path / name))
    how = {"jobs": 1, "progress": False}
    with pytest.raises(DataError, match="a: a folder of pictures.*`crops = True`, else give the"):
        preprocess(videos, tmp_path / "s", 32, "dlib", **how)
    adapter.crops = True
    assert set(preprocess(videos, tmp_path / "s", 32, "dlib", **how).index.status) == {"ok"}


@pytest.mark.parametrize("label", [0, 2])
def test_a_label_that_contradicts_the_manipulation_is_named(fifth, tiny_tree, tmp_path, label):
    root = fifth_tree(tmp_path / "tree", tiny_tree)
    adapter = datasets.get("fifth")
    videos = list(adapter.videos(root, Filters()))
    odd = next(n for n, video in enumerate(videos) if video.label == 1)
    videos[odd] = dataclasses.replace(videos[odd], label=label)
    adapter.videos = lambda root, wanted: videos
    with pytest.raises(DataError, match=f"its label is {label} and its manipulation"):
        adapter.records(root, Filters())
