"""The FaceForensics++ adapter on trees of empty files; no video is opened."""

import json
import os
from pathlib import Path

import pytest

from dfil.datasets import (
    REAL,
    Filters,
    available,
    ffpp,
    get,
    is_synthetic,
    load_records,
    synthetic_setting,
)
from dfil.datasets.check import check
from dfil.system.errors import DataError

PAIRS = {"train": [["000", "003"]], "val": [["001", "002"]], "test": [["004", "005"]]}


def tree(
    root: Path, compressions=("c23",), manipulations=ffpp.MANIPULATIONS, splits="splits", masks=True
) -> Path:
    for split, pairs in PAIRS.items():
        path = root / splits / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(pairs))
        for a, b in pairs:
            for compression in compressions:
                touch(root / "original_sequences/youtube" / compression / "videos", a, b)
                for manipulation in manipulations:
                    touch(
                        root / "manipulated_sequences" / manipulation / compression / "videos",
                        f"{a}_{b}",
                        f"{b}_{a}",
                    )
            for manipulation in manipulations if masks else ():
                touch(
                    root / "manipulated_sequences" / manipulation / "masks/videos",
                    f"{a}_{b}",
                    f"{b}_{a}",
                )
    return root


def missing(root: Path, **filters) -> list[Path]:
    return list(get("ffpp").missing(root, Filters(**filters)))


def touch(folder: Path, *stems: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        (folder / f"{stem}.mp4").touch()


def test_whole_tree(tmp_path):
    found = load_records("ffpp", tree(tmp_path, ("c23", "c40")))
    assert len(found) == 2 * (6 + 4 * 6)
    assert len({r.video_id for r in found}) == len(
        found
    )  # the manipulations' files share their names
    by_id = {r.video_id: r for r in found}
    fake, real = by_id["c40/FaceSwap/003_000"], by_id["c40/real/003"]
    assert (fake.label, fake.manipulation, fake.compression, fake.split, fake.target) == (
        1,
        "FaceSwap",
        "c40",
        "train",
        "003",
    )
    assert fake.boxes_from == real.video_id
    assert fake.masks == tmp_path / "manipulated_sequences/FaceSwap/masks/videos/003_000.mp4"
    assert (real.label, real.manipulation, real.target, real.boxes_from, real.masks) == (
        0,
        REAL,
        "003",
        "",
        None,
    )
    assert [r.label for r in found] == sorted(r.label for r in found)
    assert {r.split for r in found if r.target in ("004", "005")} == {"test"}
    assert missing(tmp_path) == []


def test_splits_at_the_root(tmp_path):
    assert load_records("ffpp", tree(tmp_path, splits=".")) == load_records("ffpp", tmp_path)
    assert ffpp.read_splits(tmp_path)["val"] == [("001", "002")]
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/val.json").write_bytes((tmp_path / "val.json").read_bytes())
    assert ffpp.read_splits(tmp_path)["val"] == [("001", "002")]
    (tmp_path / "splits/val.json").write_text('[["004", "005"]]')
    with pytest.raises(DataError, match="splits/val.json and .*val.json differ"):
        ffpp.read_splits(tmp_path)


def test_only_c23_and_two_manipulations(tmp_path):
    found = load_records(
        "ffpp", tree(tmp_path, manipulations=("Face2Face", "NeuralTextures"), masks=False)
    )
    assert {r.compression for r in found} == {"c23"}
    assert {r.manipulation for r in found} == {REAL, "Face2Face", "NeuralTextures"}
    assert {r.masks for r in found} == {None}
    gone = missing(tmp_path)  # c40 is not asked for, absent manipulations are named once each
    assert gone == [
        Path(f"manipulated_sequences/{m}/c23/videos") for m in ("Deepfakes", "FaceSwap")
    ]
    assert Path("original_sequences/youtube/c40/videos") in missing(tmp_path, compressions=["c40"])


def test_missing_files(tmp_path):
    tree(tmp_path)
    gone = [
        Path("manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"),
        Path("original_sequences/youtube/c23/videos/001.mp4"),
    ]
    for path in gone:
        (tmp_path / path).unlink()
    by_id = {r.video_id: r for r in load_records("ffpp", tmp_path)}
    assert "c23/Deepfakes/000_003" not in by_id
    assert by_id["c23/Deepfakes/001_002"].boxes_from == ""  # its real is not there
    assert sorted(missing(tmp_path)) == gone
    assert missing(tmp_path, splits=["val"]) == gone[1:]
    assert missing(tmp_path, manipulations=["FaceSwap"]) == gone[1:]


def test_other_folders_and_unlisted_files(tmp_path):
    tree(tmp_path)
    touch(tmp_path / "manipulated_sequences/FaceShifter/c23/videos", "000_003")
    touch(tmp_path / "manipulated_sequences/DeepFakeDetection/c23/videos", "01_02__talking__ABC")
    touch(tmp_path / "original_sequences/actors/c23/videos", "01__talking")
    touch(tmp_path / "original_sequences/youtube/c23/videos", "._003", "999")
    found = load_records("ffpp", tmp_path)
    assert {r.manipulation for r in found} == {REAL, *ffpp.MANIPULATIONS}
    assert [r.video_id for r in found if r.split == ""] == [
        "c23/real/999"
    ]  # kept, and marked as in no split
    assert "999" not in {r.target for r in load_records("ffpp", tmp_path, splits=ffpp.SPLITS)}


def test_filters(tmp_path):
    tree(tmp_path, ("c23", "c40"))
    found = load_records(
        "ffpp", tmp_path, compressions=["c40"], manipulations=["Deepfakes"], splits=["test"]
    )
    assert [r.video_id for r in found] == [
        "c40/real/004",
        "c40/real/005",
        "c40/Deepfakes/004_005",
        "c40/Deepfakes/005_004",
    ]
    for wrong in (
        {"compressions": ["c32"]},
        {"manipulations": ["deepfakes"]},
        {"splits": ["dev"]},
        {"splits": "test"},
    ):
        with pytest.raises(DataError, match="FaceForensics"):
            load_records("ffpp", tmp_path, **wrong)
    with pytest.raises(DataError, match="raw"):
        load_records("ffpp", tmp_path, compressions=["raw"])


def test_ids_stay_strings(tmp_path):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/train.json").write_text('[["7", "012"]]')
    touch(tmp_path / "original_sequences/youtube/c23/videos", "7", "012")
    assert [(r.target, r.split) for r in load_records("ffpp", tmp_path)] == [
        ("012", "train"),
        ("7", "train"),
    ]


def test_broken_trees(tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        load_records("ffpp", tmp_path / "nowhere")
    with pytest.raises(DataError, match="No split file"):
        load_records("ffpp", tmp_path)
    (tmp_path / "train.json").write_text('[["000", "003"]]')
    with pytest.raises(DataError, match="no FaceForensics"):
        load_records("ffpp", tmp_path)
    (tmp_path / "test.json").write_text('[["003", "004"]]')
    with pytest.raises(DataError, match="003 is in the splits train and test"):
        load_records("ffpp", tmp_path)
    (tmp_path / "test.json").write_text('["003"]')
    with pytest.raises(DataError, match="test.json is not a list"):
        load_records("ffpp", tmp_path)
    with pytest.raises(DataError, match=", ".join(sorted(available()))):
        load_records("ff++", tmp_path)


def test_synthetic_mark(tmp_path):
    path = load_records("ffpp", tree(tmp_path))[-1].path
    assert not is_synthetic(tmp_path) and synthetic_setting(path) is None
    (tmp_path / "synthetic.json").write_text('{"tau": 0.8}')
    assert is_synthetic(tmp_path) and synthetic_setting(path) == {"tau": 0.8}


def test_a_pair_of_the_split_is_one_person_in_every_quality_and_manipulation(tmp_path):
    root = tree(tmp_path, ("c23", "c40"))
    touch(root / "original_sequences/youtube/c23/videos", "777")  # in no split
    people = {r.person for r in load_records("ffpp", root)}
    assert people == {"000_003", "001_002", "004_005", "777"}
    shared = {r.person for r in load_records("ffpp", root) if r.split == "test"}
    assert shared == {"004_005"}


PLACES = {
    "a link": (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
    "a folder": (Path.mkdir, "is a folder without a picture"),
    "a pipe": (os.mkfifo, "is no file"),
}
STARTS = {
    "empty": (b"", "is empty"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><title>Sign in</title>", "is a web page"),
    "archive": (b"PK\x03\x04" + bytes(600), "is an archive; unpack it"),
    "picture": (b"\x89PNG\r\n", "is a picture"),
    "answer": (b'{"error": "quota"}', "is JSON"),
    "zeros": (bytes(4096), "begins with zeros only"),
}
PLACES |= {
    name: (lambda path, start=start: path.write_bytes(start), said)
    for name, (start, said) in STARTS.items()
}


@pytest.mark.parametrize(("put", "said"), PLACES.values(), ids=PLACES)
def test_check_names_what_lies_in_a_videos_place(tmp_path, put, said):
    root = tree(tmp_path)
    for path in root.rglob("*.mp4"):
        path.write_bytes(b"\0\0\0\x18ftypmp42" + str(path).encode())
    assert check("ffpp", root)["unreadable"] == []
    path = root / "original_sequences/youtube/c23/videos/003.mp4"
    path.unlink()
    put(path)
    (found,) = check("ffpp", root)["unreadable"]
    assert found.startswith(f"{path} ") and said in found


def test_check_names_files_that_would_be_one_video(tmp_path):
    root = tree(tmp_path)
    (root / "original_sequences/youtube/c23/videos/003.MP4").touch()
    said = check("ffpp", root)["unreadable"][-1]
    assert "003.MP4 and" in said and "would both be video c23/real/003; remove one" in said


def test_absent_and_empty_lists_of_splits_are_faults(tmp_path):
    root = tree(tmp_path)
    (root / "splits/val.json").unlink()
    (root / "splits/test.json").write_text("[]")
    found = check("ffpp", root)
    assert found["missing"] == ["splits/val.json"]
    assert f"{root / 'splits/test.json'} names no pair" in found["unreadable"][-1]
    assert missing(root, splits=["train"]) == []
    (root / "synthetic.json").write_text("{}")  # there none may have been wanted
    assert not any("no pair" in said for said in check("ffpp", root)["unreadable"])
