"""Celeb-DF, both DFDC and WildDeepfake on tiny trees that hold the known traps; videos are empty
files wherever nothing opens them.
"""

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfil import cli
from dfil.datasets import (
    Filters,
    VideoRecord,
    celebdf,
    get,
    load_records,
    sequences,
    splits,
    wilddeepfake,
)
from dfil.datasets.check import check
from dfil.faces import preprocess as P
from dfil.faces import store as S
from dfil.faces.video import VideoError, read_sequence
from dfil.system.errors import DataError


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))


def touch(root: Path, *names: str, content: str | None = None) -> Path:
    """Files of different contents, so that none passes for a copy of another."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name if content is None else content)
    return root


def missing(dataset: str, root: Path, **filters) -> list[Path]:
    return list(get(dataset).missing(root, Filters(**filters)))


def by_id(dataset: str, root: Path, **filters) -> dict[str, VideoRecord]:
    found = load_records(dataset, root, **filters)
    assert len({r.video_id for r in found}) == len(found)
    assert [r.label for r in found] == sorted(r.label for r in found)
    return {r.video_id: r for r in found}


# ---- splits


def made_up(split: str = "train", people: int = 20, mark: str = "") -> list[VideoRecord]:
    return [
        VideoRecord(
            "x", f"{person}/{label}", label, "", "", split, Path("x"), person=f"{mark}{person}"
        )
        for person in range(people)
        for label in ((0,) if person < 10 else (0, 1))
    ]


def test_validation_is_carved_by_groups_from_train_only():
    carved = splits.carve(made_up() + made_up("test", 3, mark="another "), share=0.2)
    val = [r for r in carved if r.split == "val"]
    assert [r.split for r in carved[-3:]] == ["test"] * 3
    assert (
        len({r.person for r in val if int(r.person) < 10})
        == len({r.person for r in val if int(r.person) >= 10})
        == 2
    )
    assert (
        len(val) == 2 + 2 * 2
    )  # whole groups, and the same share of people with and without fakes
    assert splits.groups(carved, "val") == sorted({r.person for r in val})


def test_validation_depends_on_seed_and_names_only():
    first = splits.carve(made_up())
    assert splits.carve(made_up()[::-1])[::-1] == first
    others = [splits.groups(splits.carve(made_up(), seed=s), "val") for s in range(6)]
    assert len({tuple(other) for other in others}) > 1
    # A fixed expectation: another Python, machine or version of this code must not move anybody.
    assert others[0] == [
        "14",
        "6",
    ]  # the first of 0..9 and of 10..19 by `printf '0 %s' N | sha256sum`


def test_split_errors():
    with pytest.raises(DataError, match="between 0 and 1"):
        splits.carve(made_up(), share=1.0)
    mixed = made_up("train", 2) + made_up("val", 1)
    with pytest.raises(DataError, match="in training and in validation"):
        splits.check_disjoint(mixed)
    assert splits.groups(splits.carve(made_up(people=1)), "val") == []  # alone, it trains


@pytest.mark.parametrize("dataset", ["celebdf", "dfdc-preview", "dfdc", "wilddeepfake"])
def test_filters_and_absent_trees(dataset, tmp_path):
    root = TREES[dataset](tmp_path / "tree")
    everything = load_records(dataset, root)
    assert {r.compression for r in everything} == {""} and {r.dataset for r in everything} == {
        dataset
    }
    assert {r.split for r in everything} == {"train", "val", "test"}
    for split in ("train", "val", "test"):
        assert load_records(dataset, root, splits=[split]) == [
            r for r in everything if r.split == split
        ]
    assert {r.label for r in load_records(dataset, root, manipulations=[])} == {0}
    adapter = get(dataset)
    for wrong in (
        {"compressions": ["c23"]},
        {"manipulations": ["Deepfakes"]},
        {"splits": ["dev"]},
        {"splits": "test"},
    ):
        for function in (load_records, check):
            with pytest.raises(DataError, match="has no"):
                function(dataset, root, **wrong)
    train, val = (set(splits.groups(everything, split)) for split in ("train", "val"))
    assert val and not train & val
    with pytest.raises(DataError, match="not a folder"):
        load_records(dataset, tmp_path / "nowhere")
    assert adapter.detector == "mtcnn"


# ---- Celeb-DF

CELEB_TEST = [
    "1 Celeb-real/id0_0009.mp4",
    "0 Celeb-synthesis/id0_id1_0009.mp4",
    "1 YouTube-real/00170.mp4",
]


def celeb_tree(root: Path, lines=CELEB_TEST) -> Path:
    touch(root, "List_of_testing_videos.txt", content="\r\n".join(lines) + "\r\n")
    touch(root, *(f"Celeb-real/id{person}_000{n}.mp4" for person in range(6) for n in (0, 9)))
    touch(
        root,
        *(
            f"Celeb-synthesis/id{a}_id{b}_000{n}.mp4"
            for a in range(6)
            for b in (0, 1, 12)
            for n in (0, 9)
            if a != b
        ),
    )
    return touch(root, *(f"YouTube-real/{n:05}.mp4" for n in (0, 1, 170)))


def test_celebdf_labels_go_by_ours_and_test_stays_out_of_train(tmp_path):
    root = celeb_tree(tmp_path)
    found = by_id("celebdf", root)
    assert {i for i, r in found.items() if r.split == "test"} == {line[2:-4] for line in CELEB_TEST}
    assert {r.label for i, r in found.items() if i.startswith("Celeb-synthesis")} == {1}
    assert (
        found["Celeb-real/id0_0009"].label == found["YouTube-real/00170"].label == 0
    )  # "1" in the owners' list
    fake = found["Celeb-synthesis/id0_id12_0009"]
    assert (fake.target, fake.boxes_from, fake.manipulation) == (
        "id0_0009",
        "Celeb-real/id0_0009",
        "Celeb-synthesis",
    )
    assert (
        found["Celeb-real/id0_0009"].target == "id0_0009"
        and found["Celeb-real/id0_0009"].manipulation == "real"
    )
    assert celebdf.read_test_list(root) == {line[2:-4]: int(line[0] == "0") for line in CELEB_TEST}


def test_celebdf_validation_by_target_identity(tmp_path):
    found = by_id("celebdf", celeb_tree(tmp_path), share=0.34)
    val = splits.groups(found.values(), "val")
    people = {v for v in val if v.startswith("id")}
    assert (
        len(people) == 2 and len(val) == 3
    )  # two of six identities, one of two videos of YouTube-real
    for record in found.values():
        if record.split != "test" and record.target.startswith("id"):
            assert (record.split == "val") == (record.target.split("_")[0] in people)


def test_celebdf_a_fake_without_its_real_and_a_stray_file(tmp_path):
    root = celeb_tree(tmp_path)
    (root / "Celeb-real/id2_0000.mp4").unlink()
    touch(root, "Celeb-real/copy of id2_0000.mp4", "Celeb-real/._id2_0000.mp4")
    found = by_id("celebdf", root)
    assert found["Celeb-synthesis/id2_id0_0000"].boxes_from == ""
    assert [i for i, r in found.items() if r.split == ""] == ["Celeb-real/copy of id2_0000"]
    assert "Videos in no split, which nothing uses: 1." in check("celebdf", root)["notes"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("1 Celeb-synthesis/id0_id1_0009.mp4", "line 1: .* 0 means fake and 1 real"),
        ("0 YouTube-real/00170.mp4", "0 means fake and 1 real"),
        ("Celeb-real/id0_0009.mp4", "not of the form"),
        ("1 Celeb-real/../../x.mp4", "not of the form"),
    ],
)
def test_celebdf_list_that_cannot_be_right(tmp_path, line, sentence):
    with pytest.raises(DataError, match=sentence):
        load_records("celebdf", celeb_tree(tmp_path, [line]))


def test_celebdf_without_list_or_videos(tmp_path):
    celeb_tree(tmp_path)
    (tmp_path / "List_of_testing_videos.txt").rename(tmp_path / "list.txt")
    with pytest.raises(DataError, match="test videos would be trained on"):
        load_records("celebdf", tmp_path)
    with pytest.raises(DataError, match="holds no Celeb-DF video"):
        load_records(
            "celebdf",
            touch(tmp_path / "empty", "List_of_testing_videos.txt", content=CELEB_TEST[0]),
        )


def test_celebdf_check_names_what_is_wrong(tmp_path, monkeypatch):
    root = celeb_tree(tmp_path)
    numbers = {
        ("train", "real"): 13,
        ("train", "fake"): 31,
        ("test", "real"): 2,
        ("test", "fake"): 1,
    }
    monkeypatch.setitem(celebdf.EXPECTED, "Celeb-DF v1", numbers)
    found = check("celebdf", root)
    assert [found[name] for name in ("missing", "unreadable", "leaks", "differences")] == [[]] * 4
    assert sum(row["videos"] for row in found["counts"]) == sum(numbers.values())
    assert (
        "1 of the 1 target identities of test" in found["notes"][0]
    )  # id0 has other videos in train
    (root / "Celeb-synthesis/id0_id1_0009.mp4").unlink()
    (root / "Celeb-real/id3_0000.mp4").write_bytes(b"")
    (root / "YouTube-real/00001.mp4").write_text(
        "YouTube-real/00170.mp4"
    )  # a test video under another name
    found = check("celebdf", root)
    assert found["missing"] == ["Celeb-synthesis/id0_id1_0009.mp4"]
    assert found["unreadable"] == [f"{root / 'Celeb-real/id3_0000.mp4'} is empty"]
    assert found["leaks"] == [
        f"{root / 'YouTube-real/00170.mp4'} (test) is the same file as "
        f"{root / 'YouTube-real/00001.mp4'}"
    ]
    assert found["differences"] == ["test fake: 0 videos, Celeb-DF v1 has 1"]
    assert check("celebdf", root, manipulations=[])["differences"] == []


def test_celebdf_release_is_told_by_its_list(tmp_path):
    many = [f"1 YouTube-real/{n:05}.mp4" for n in range(518)]
    assert get("celebdf").expected(celeb_tree(tmp_path / "2", many))[0] == "Celeb-DF v2"
    assert get("celebdf").expected(celeb_tree(tmp_path / "1", many[:100]))[0] == "Celeb-DF v1"
    assert sum(celebdf.EXPECTED["Celeb-DF v2"].values()) == 590 + 300 + 5639


# ---- DFDC preview


def preview_tree(root: Path, change=lambda entries: None) -> Path:
    entries = {}
    for actor, split in [(100, "test"), *((101 + n, "train") for n in range(5))]:
        entries[f"original_videos/{actor}/{actor}_A_001.mp4"] = {
            "label": "real",
            "set": split,
            "target_id": actor,
        }
        for method, other in (("method_A", 900), ("method_B", 901)):
            name = f"{method}/{actor}/{actor}_A/{other}_{actor}_A_001.mp4"
            # The person whose face is seen is the swapped one; it is not what the split goes by.
            entries[name] = {
                "label": "fake",
                "set": split,
                "target_id": actor,
                "swapped_id": other,
                "augmentations": [],
            }
    touch(root, *entries)
    change(entries)
    return touch(root, "dataset.json", content=json.dumps(entries))


def test_preview(tmp_path):
    found = by_id("dfdc-preview", preview_tree(tmp_path), share=0.4)
    fake = found["method_B/102/102_A/901_102_A_001"]
    assert (fake.label, fake.manipulation, fake.target, fake.boxes_from) == (
        1,
        "method_B",
        "102_A_001",
        "",
    )
    assert found["original_videos/102/102_A_001"].target == fake.target
    assert splits.groups(found.values(), "test") == ["100"]
    val = splits.groups(found.values(), "val")
    assert len(val) == 2 and sum(r.split == "val" for r in found.values()) == 6
    only = by_id("dfdc-preview", tmp_path, manipulations=["method_A"])
    assert {r.manipulation for r in only.values()} == {"real", "method_A"}


def test_preview_check(tmp_path, monkeypatch):
    root = preview_tree(tmp_path)
    found = check(
        "dfdc-preview", root
    )  # dataset.json is complete, so other numbers than the published ones only inform
    assert [found[name] for name in ("missing", "unreadable", "leaks", "differences")] == [[]] * 4
    assert found["notes"] == [
        "real: 6 videos, DFDC preview has 1131",
        "fake: 12 videos, DFDC preview has 4119",
    ]
    (root / "method_A/101/101_A/900_101_A_001.mp4").unlink()
    touch(root, "method_B/999/999_A/1_999_A_001.mp4")
    found = check("dfdc-preview", root)
    assert found["missing"] == ["method_A/101/101_A/900_101_A_001.mp4"]
    assert {
        "split": "",
        "label": 1,
        "manipulation": "method_B",
        "compression": "",
        "videos": 1,
    } in found["counts"]
    assert (
        missing("dfdc-preview", root, splits=["test"])
        == missing("dfdc-preview", root, manipulations=["method_B"])
        == []
    )


def test_preview_leak(tmp_path):
    def leak(entries):
        entries["method_B/101/101_A/901_101_A_001.mp4"]["set"] = "test"
        entries["method_B/101/101_A/901_101_A_002.mp4"] = {"label": "fake", "set": "train"}

    root = touch(preview_tree(tmp_path, leak), "method_B/101/101_A/901_101_A_002.mp4")
    found = check("dfdc-preview", root)
    assert found["leaks"] == [
        "The fakes of actor 101 with the face of 901 are in training and in test."
    ]
    assert any("1 of the 2 target actors" in note for note in found["notes"])


def test_preview_follows_the_link_of_an_actors_folder_but_none_back_up(tmp_path):
    root = preview_tree(tmp_path / "tree")
    before = set(by_id("dfdc-preview", root))
    (root / "method_A/101").rename(tmp_path / "elsewhere")
    (root / "method_A/101").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(root / "method_A")
    assert set(by_id("dfdc-preview", root)) == before
    assert check("dfdc-preview", root)["missing"] == []


def test_preview_list_that_puts_a_video_into_both_splits(tmp_path):
    again = {"original_videos/100/100_A_001": {"label": "real", "set": "train"}}
    with pytest.raises(DataError, match="100_A_001 into train and into test"):
        load_records("dfdc-preview", preview_tree(tmp_path, lambda entries: entries.update(again)))


@pytest.mark.parametrize(
    ("name", "entry", "sentence"),
    [
        ("method_A/1/1_A/2_1_1.mp4", {"label": "real", "set": "train"}, "which cannot be"),
        ("original_videos/1/1_A_1.mp4", {"label": "real", "set": "val"}, "which cannot be"),
        ("method_A/../../1.mp4", {"label": "fake", "set": "train"}, "no file below"),
        ("method_A/1/1_A/2_1_1.mp4", {"set": "train"}, "does not map"),
    ],
)
def test_preview_list_that_cannot_be_right(tmp_path, name, entry, sentence):
    with pytest.raises(DataError, match=sentence):
        load_records(
            "dfdc-preview", preview_tree(tmp_path, lambda entries: entries.update({name: entry}))
        )
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(DataError, match="dataset.json is not there"):
        load_records("dfdc-preview", tmp_path)


# ---- DFDC


def dfdc_tree(root: Path, labels: str = "csv") -> Path:
    for part in (0, 2, 10):
        listed = {
            f"real{part}{n}.mp4": {"label": "REAL", "split": "train", "original": None}
            for n in range(3)
        }
        for n in range(3):
            listed |= {
                f"fake{part}{n}{i}.mp4": {
                    "label": "FAKE",
                    "split": "train",
                    "original": f"real{part}{n}.mp4",
                }
                for i in range(2)
            }
        touch(root / f"dfdc_train_part_{part}", *listed)
        touch(root / f"dfdc_train_part_{part}", "metadata.json", content=json.dumps(listed))
    touch(root / "test", "one.mp4", "two.mp4")
    if labels == "csv":
        touch(root, "test/labels.csv", content="filename,label\none.mp4,1\ntwo.mp4,0\n")
    elif labels == "json":
        touch(
            root,
            "test/metadata.json",
            content=json.dumps({"one.mp4": {"is_fake": 1}, "two.mp4": {"is_fake": 0}}),
        )
    return root


@pytest.mark.parametrize("labels", ["csv", "json"])
def test_dfdc(tmp_path, labels):
    found = by_id("dfdc", dfdc_tree(tmp_path, labels), share=0.34)
    assert (found["test/one"].label, found["test/two"].label) == (1, 0)
    fake = found["dfdc_train_part_10/fake1021"]
    assert (fake.label, fake.manipulation, fake.target, fake.boxes_from) == (
        1,
        "DFDC",
        "real102",
        "dfdc_train_part_10/real102",
    )
    assert [i.split("/")[0] for i, r in found.items() if not r.label and r.split != "test"] == [
        f"dfdc_train_part_{n}" for n in (0, 0, 0, 2, 2, 2, 10, 10, 10)
    ]
    val = splits.groups(found.values(), "val")
    assert (
        len(val) == 3 and sum(r.split == "val" for r in found.values()) == 9
    )  # a source video goes with its two fakes


def test_dfdc_check(tmp_path):
    root = dfdc_tree(tmp_path)
    (root / "dfdc_train_part_0/real00.mp4").unlink()
    (root / "dfdc_train_part_2/real20.mp4").write_bytes(b"")
    touch(root, "dfdc_train_part_2/nobody.mp4", "dfdc_train_part_2/one.mp4", content="as long")
    touch(root, "test/fake001.mp4", content="other")
    touch(root, "test/labels.csv", content="filename,label\none.mp4,1\ntwo.mp4,0\nfake001.mp4,1\n")
    assert by_id("dfdc", root)["dfdc_train_part_0/fake000"].boxes_from == ""  # its original is gone
    found = check("dfdc", root)
    absent = [f"dfdc_train_part_{n}" for n in range(50) if n not in (0, 2, 10)]
    assert found["missing"] == [*absent, "dfdc_train_part_0/real00.mp4"]
    assert found["unreadable"] == [f"{root / 'dfdc_train_part_2/real20.mp4'} is empty"]
    assert found["leaks"] == ["test/fake001 (test) and dfdc_train_part_0/fake001 have one name."]
    assert sum("no list gives it a label" in note for note in found["notes"]) == 2
    assert missing("dfdc", root, splits=["test"]) == []


def test_dfdc_lists_that_cannot_be_right(tmp_path):
    with pytest.raises(DataError, match="neither labels.csv nor metadata.json"):
        load_records("dfdc", dfdc_tree(tmp_path, "none"))
    touch(tmp_path, "test/labels.csv", content="filename,label\none.mp4,perhaps\n")
    with pytest.raises(DataError, match="labels.csv gives one.mp4 the label 'perhaps'"):
        load_records("dfdc", tmp_path)
    touch(tmp_path, "test/labels.csv", content="filename,label\n../one.mp4,1\n")
    with pytest.raises(DataError, match="no file below it"):
        load_records("dfdc", tmp_path)
    touch(tmp_path, "dfdc_train_part_2/metadata.json", content='{"a.mp4": {"label": 2}}')
    with pytest.raises(DataError, match="the label .2."):
        load_records("dfdc", tmp_path)
    touch(tmp_path, "dfdc_train_part_2/metadata.json", content='{"a.mp4": ')
    with pytest.raises(DataError, match="cannot be read"):
        load_records("dfdc", tmp_path)
    (tmp_path / "dfdc_train_part_2/metadata.json").unlink()
    with pytest.raises(DataError, match="have no labels"):
        load_records("dfdc", tmp_path)


def test_dfdc_lists_that_contradict_each_other_are_an_error(tmp_path):
    root = dfdc_tree(tmp_path)
    before = load_records("dfdc", root)
    agreed = {"one.mp4": {"is_fake": 1}, "private.mp4": {"is_fake": 0}, "two.mp4": {"split": "t"}}
    touch(root, "test/metadata.json", content=json.dumps(agreed))
    assert load_records("dfdc", root) == before  # what labels.csv says counts, and no more
    touch(root, "metadata.json", content=json.dumps({"two.mp4": {"is_fake": 1}}))
    with pytest.raises(DataError, match="metadata.json gives two.mp4 another label"):
        load_records("dfdc", root)
    (root / "metadata.json").unlink()
    listed = {"real20.mp4": {"label": "FAKE"}, "real20.avi": {"label": "REAL"}}
    touch(root, "dfdc_train_part_2/metadata.json", content=json.dumps(listed))
    with pytest.raises(DataError, match="gives real20.avi another label .* than real20 has"):
        load_records("dfdc", root)


def test_dfdc_files_that_would_be_one_video_are_named(tmp_path):
    root = touch(dfdc_tree(tmp_path), "test/one.MP4")
    (said,) = check("dfdc", root)["unreadable"]
    assert "one.MP4 and" in said and "would both be video test/one; remove one" in said


# ---- WildDeepfake

NUMBERS = [
    8,
    9,
    10,
    11,
    12,
    100,
    101,
    102,
    103,
]  # sorted as text, 8 comes last; between 12 and 100 lies a gap


def picture(number: int, height: int = 224, width: int = 224) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def png(image_hwc: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR))[1].tobytes()


def pack(path: Path, files: dict[str, bytes], extra=(), mode: str = "w:gz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return path


def shard(
    number: int, label: str, sequences=(2, 10), content: bytes = b"x", numbers=(3, 4, 5, 6)
) -> dict[str, bytes]:
    return {f"./{number}/{label}/{s}/{n}.png": content for s in sequences for n in numbers}


def wild_tree(root: Path, space: bool = False) -> Path:
    for category in wilddeepfake.CATEGORIES:
        folder = root / (category.replace("_", " ") if space else category)
        for number in (0, 1, 10):
            pack(
                folder / f"{number}.tar.gz",
                shard(number, category.split("_")[0], content=f"{category}{number}".encode()),
            )
    return root


TREES = {
    "celebdf": celeb_tree,
    "dfdc-preview": preview_tree,
    "dfdc": dfdc_tree,
    "wilddeepfake": wild_tree,
}


def described(record: VideoRecord) -> tuple:
    return record.video_id, record.label, record.split, record.target


def unpack(tree: Path) -> Path:
    for archive in tree.rglob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(archive.parent, filter="data")
        archive.unlink()
    return tree


def test_wilddeepfake_packed_and_unpacked_are_the_same(tmp_path):
    packed = by_id("wilddeepfake", wild_tree(tmp_path / "packed"))
    assert (
        len(packed) == 4 * 3 * 2
    )  # shards and sequences of one number in all categories and shards
    assert list(packed)[:3] == ["real_train/0/2", "real_train/0/10", "real_train/1/2"]
    record = packed["fake_test/10/2"]
    assert (record.label, record.manipulation, record.split) == (1, "WildDeepfake", "test")
    assert packed["real_train/1/10"].label == 0 and packed["real_train/1/10"].manipulation == "real"
    assert record.path == tmp_path / "packed/fake_test/10.tar.gz/10/fake/2"
    for name, tree in {
        "unpacked": unpack(wild_tree(tmp_path / "unpacked")),
        "with spaces": wild_tree(tmp_path / "spaces", space=True),
        "inside": wild_tree(tmp_path / "inside/deepfake_in_the_wild").parent,
    }.items():
        same = by_id("wilddeepfake", tree)
        assert [described(r) for r in same.values()] == [described(r) for r in packed.values()], (
            name
        )
        assert all(
            sequences.read_pictures(same[i].path) == sequences.read_pictures(packed[i].path)
            for i in list(packed)[::5]
        )
    both = wild_tree(
        tmp_path / "unpacked"
    )  # packed again beside the folders: each sequence is there once, from the archive
    assert {r.path.parts[-4] for r in by_id("wilddeepfake", both).values()} == {
        "0.tar.gz",
        "1.tar.gz",
        "10.tar.gz",
    }


def test_wilddeepfake_validation_takes_whole_shards_of_both_labels(tmp_path):
    found = by_id("wilddeepfake", wild_tree(tmp_path))
    val = splits.groups(found.values(), "val")
    assert sorted(name.split("/")[0] for name in val) == ["fake_train", "real_train"]
    assert sum(r.split == "val" for r in found.values()) == 4


def test_wilddeepfake_frames_are_sorted_by_number(tmp_path):
    files = {f"./3/real/7/{n}.png": bytes([n]) for n in sorted(NUMBERS, key=str)} | {
        "./3/real/7/._8.png": b"?",
        "./3/real/70/1.png": b"?",
    }
    archive = pack(tmp_path / "3.tar.gz", files)
    assert list(sequences.read_pictures(archive / "3/real/7").items()) == [
        (n, bytes([n])) for n in NUMBERS
    ]
    plain = pack(tmp_path / "4.tar.gz", files, mode="w")  # called .tar.gz and not compressed
    assert sequences.read_pictures(plain / "3/real/7") == sequences.read_pictures(
        archive / "3/real/7"
    )
    with pytest.raises(DataError, match="no picture"):
        sequences.read_pictures(archive / "3/real/8")
    with pytest.raises(DataError, match="two pictures with the number 7"):
        sequences.read_pictures(touch(tmp_path / "twice", "7.png", "07.png"))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("files", "extra", "sentence"),
    [
        ({}, [link("./0/real/2/9.png", "/etc/passwd")], "is a link"),
        ({}, [link("./0/real/2/9.png", "3.png", tarfile.LNKTYPE)], "is a link"),
        ({}, [link("./0/real/2/9.png", "", tarfile.FIFOTYPE)], "is a link or a device"),
        ({"./0/real/../../../9.png": b"x"}, [], "leads out"),
        ({"/0/real/2/9.png": b"x"}, [], "leads out"),
        ({"C:\\9.png": b"x"}, [], "leads out"),
        ({"./0/fake/2/9.png": b"x"}, [], "not of the form shard/real/sequence"),
        ({"./9.png": b"x"}, [], "not of the form"),
    ],
)
def test_wilddeepfake_refuses_an_archive_that_is_not_harmless(tmp_path, files, extra, sentence):
    root = wild_tree(tmp_path / "tree")
    bad = pack(root / "real_train/1.tar.gz", shard(1, "real") | files, extra)
    before = sorted(tmp_path.parent.rglob("*"))
    found = by_id("wilddeepfake", root)
    assert found["real_train/1"].path == bad and not [
        i for i in found if i.startswith("real_train/1/")
    ]
    assert found["real_train/10/2"]  # the others are not lost for it
    reasons = check("wilddeepfake", root)["unreadable"]
    assert len(reasons) == 1 and sentence in reasons[0] and str(bad) in reasons[0]
    with pytest.raises(VideoError, match=str(bad)):
        read_sequence(bad)
    written = {
        p
        for p in set(tmp_path.parent.rglob("*")) - set(before)
        if tmp_path / "data" not in (p, *p.parents)
    }
    assert not written


def test_wilddeepfake_damaged_archives_and_empty_pictures(tmp_path):
    root = wild_tree(tmp_path / "tree")
    whole = pack(
        root / "real_train/0.tar.gz", shard(0, "real", content=png(picture(0)))
    ).read_bytes()
    (root / "real_train/0.tar.gz").write_bytes(whole[:-6])  # only the checksum at the end is cut
    (root / "real_train/1.tar.gz").write_bytes(whole[: len(whole) // 2])
    (root / "real_train/10.tar.gz").write_bytes(b"")
    pack(root / "fake_train/1.tar.gz", shard(1, "fake") | {"./1/fake/2/3.png": b""})
    found = check("wilddeepfake", root)
    assert (
        len(found["unreadable"]) == 4
        and f"{root / 'fake_train/1.tar.gz'}: 1/fake/2/3.png is empty" in found["unreadable"]
    )
    assert sum(row["videos"] for row in found["counts"]) == 3 * 3 * 2
    assert "train real: 0 videos, WildDeepfake has 3409" in found["differences"]
    unpack(wild_tree(tmp_path / "unpacked"))
    (tmp_path / "unpacked/real_test/0/real/2/4.png").write_bytes(b"")
    shard_0 = tmp_path / "unpacked/real_test/0"
    assert check("wilddeepfake", tmp_path / "unpacked")["unreadable"] == [
        f"{shard_0}: 0/real/2/4.png is empty"
    ]


def test_wilddeepfake_leak_and_missing_category(tmp_path):
    root = wild_tree(tmp_path)
    (root / "real_test/1.tar.gz").write_bytes((root / "real_train/0.tar.gz").read_bytes())
    for path in (root / "fake_test").iterdir():
        path.unlink()
    (root / "fake_test").rmdir()
    found = check("wilddeepfake", root)
    assert found["leaks"] == [
        f"{root / 'real_test/1.tar.gz'} (test) is the same file as {root / 'real_train/0.tar.gz'}"
    ]
    assert found["missing"] == ["fake_test"] and missing("wilddeepfake", root, splits=["val"]) == []
    assert "real_test/1/0/10" in by_id(
        "wilddeepfake", root
    )  # another shard's folder inside: the id says so and stays unique


def test_wilddeepfake_names_folders_without_sequences_and_entries_that_are_no_shards(tmp_path):
    root = wild_tree(tmp_path / "tree")
    top = root / "real_train"
    touch(top, "1/0/real/2/3.png", "2/fake/5/3.png", "4/real/2/3.png", "4/real/2/notes.txt")
    (top / "3").mkdir()
    touch(top, "13.zip", ".DS_Store")
    for name in ("3_1.tar.gz", "12 (1).tar.gz"):
        (top / name).write_bytes((top / "0.tar.gz").read_bytes())
    (top / "5.tar.gz").symlink_to("nowhere")
    (top / "1.tar.gz").unlink()
    found = check("wilddeepfake", root)
    reasons = ["holds no sequence", "cannot be read to its end"]
    reasons = ["'1/0/real' is not of the form", "'2/fake/5' is not of the form", *reasons]
    assert len(found["unreadable"]) == len(reasons)
    for name, why, said in zip(
        ("1", "2", "3", "5.tar.gz"), reasons, found["unreadable"], strict=True
    ):
        assert said.startswith(f"{top / name} ") and why in said
    (note,) = found["notes"]
    assert str(top) in note and "3 (12 (1).tar.gz, 3_1.tar.gz, 13.zip)" in note
    ids = by_id("wilddeepfake", root)
    assert "real_train/4/2" in ids and ids["real_train/1"].path == top / "1"
    assert sum(row["videos"] for row in found["counts"]) == 11 * 2 + 1
    (top / "4/real/2/5.png").symlink_to("nowhere")
    assert any("5.png' is no file" in said for said in check("wilddeepfake", root)["unreadable"])


@pytest.mark.parametrize("second", ["real train", "deepfake_in_the_wild/real_train"])
def test_wilddeepfake_refuses_a_category_that_is_there_twice(tmp_path, second):
    root = wild_tree(tmp_path)
    (root / second).mkdir(parents=True)
    with pytest.raises(DataError, match="are one category; put their shards into one folder"):
        load_records("wilddeepfake", root)


def test_wilddeepfake_lists_an_archive_once_until_it_changes(tmp_path, monkeypatch):
    root, listed = wild_tree(tmp_path / "tree"), []
    inner = wilddeepfake.list_archive
    monkeypatch.setattr(
        wilddeepfake, "list_archive", lambda archive: listed.append(archive) or inner(archive)
    )
    load_records("wilddeepfake", root)
    assert len(listed) == 12
    changed = pack(root / "fake_test/1.tar.gz", shard(1, "fake", sequences=(4,)))
    assert "fake_test/1/4" in by_id("wilddeepfake", root) and listed[12:] == [changed]
    assert not [
        p for p in root.rglob("*") if p.is_file() and not p.name.endswith(".tar.gz")
    ]  # nothing is left in the tree


# ---- from a sequence to the crop store


def sequence_store(
    tmp_path: Path, files: dict[str, bytes], size: int = 224, **settings
) -> S.CropStore:
    pack(tmp_path / "tree/real_train/3.tar.gz", files)
    records = load_records("wilddeepfake", tmp_path / "tree")
    return P.preprocess(
        records, tmp_path / f"store{size}", size, "mtcnn", jobs=1, progress=False, **settings
    )


def test_a_snippet_is_the_whole_picture_bit_for_bit(tmp_path):
    files = {f"./3/real/7/{n}.png": png(picture(n)) for n in sorted(NUMBERS, key=str)}
    store = sequence_store(tmp_path, files)
    crops = store.open("real_train/3/7")
    assert crops.runs == [(0, 5), (6, 4)] and crops.scale == pytest.approx(
        1
    )  # the gap is one missing frame number
    for first, numbers in ((0, NUMBERS[:4]), (1, NUMBERS[1:5]), (6, NUMBERS[5:])):
        expected = np.stack([picture(n) for n in numbers])
        for box in ("snippet", "frame"):
            assert np.array_equal(crops.snippet(first, 4, 224, margin=1.3, box=box), expected)
    with pytest.raises(DataError, match="not all there"):
        crops.snippet(4, 4, 224)
    row = store.index.iloc[0]
    assert (row["status"], row["frames"], row["faces"], row["reason"]) == (
        "ok",
        9,
        9,
        "1 gap in the pictures' numbers",
    )
    small = sequence_store(tmp_path, files, size=64).open("real_train/3/7")
    resized = np.stack(
        [cv2.resize(picture(n), (64, 64), interpolation=cv2.INTER_AREA) for n in NUMBERS[:4]]
    )
    assert np.array_equal(small.snippet(0, 4, 64), resized)


@pytest.mark.parametrize(
    ("height", "width"), [(224, 224), (225, 225), (37, 37), (200, 224), (256, 255)]
)
def test_the_box_of_a_whole_picture_whatever_its_size(tmp_path, height, width):
    files = {f"{n}.png": png(picture(n, height, width)) for n in range(5)}
    for name, content in files.items():
        path = tmp_path / "sequence" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    store = P.preprocess(
        [VideoRecord("x", "a", 0, "", "", "", tmp_path / "sequence")],
        tmp_path / "store",
        256,
        jobs=1,
        progress=False,
    )
    side = max(height, width)
    x0, y0, found = store.open("a").square(0, 4)
    assert found == side and (x0, y0) == ((width - side + 1) // 2, (height - side + 1) // 2)
    inside = store.open("a").snippet(0, 4, side)[:, -y0 : height - y0, -x0 : width - x0]
    assert np.array_equal(inside, [picture(n, height, width) for n in range(4)])


def test_every_second_frame_counts_as_a_neighbour(tmp_path):
    store = sequence_store(
        tmp_path, {f"./3/real/7/{n}.png": png(picture(n, 32, 32)) for n in range(2, 14, 2)}, size=32
    )
    assert store.open("real_train/3/7").runs == [(0, 6)]
    assert "neighbouring files count as neighbouring frames" in store.index["reason"][0]


def test_pictures_that_cannot_be_used(tmp_path):
    files = {f"./3/real/1/{n}.png": png(picture(n, 32, 32)) for n in range(12)}
    files |= {
        "./3/real/1/5.png": b"no picture",
        "./3/real/1/7.png": png(picture(7, 16, 16)),
        "./3/real/1/6.png": b"",
    }
    files |= {f"./3/real/2/{n}.png": b"no picture" for n in range(9)}
    files |= {f"./3/real/3/{n}.png": png(picture(n, 32, 32)) for n in range(3)}
    index = sequence_store(tmp_path, files, size=32).index.set_index("video_id")
    assert index.status.to_dict() == {
        "real_train/3/1": "ok",
        "real_train/3/2": "unreadable",
        "real_train/3/3": "too short",
    }
    assert (
        "3 of 12 pictures damaged or of another size, the first is 5"
        in index.reason["real_train/3/1"]
    )
    assert "at most 3 pictures in a row, 4 are needed" in index.reason["real_train/3/3"]


def test_a_changed_archive_is_cut_again_and_a_refused_one_is_a_row(tmp_path):
    files = {f"./3/real/7/{n}.png": png(picture(n, 32, 32)) for n in range(12)}
    first = sequence_store(tmp_path, files, size=32)
    assert first.open("real_train/3/7").count == 12
    again = sequence_store(tmp_path, dict(list(files.items())[:8]), size=32)
    assert again.open("real_train/3/7").count == 8
    root = wild_tree(tmp_path / "other")
    pack(root / "fake_test/0.tar.gz", shard(0, "fake"), [link("./0/fake/2/9.png", "/etc/passwd")])
    records = [r for r in load_records("wilddeepfake", root) if r.video_id == "fake_test/0"]
    row = P.preprocess(records, tmp_path / "rows", 32, "mtcnn", jobs=1, progress=False).index.iloc[
        0
    ]
    assert row["status"] == "unreadable" and "is a link" in row["reason"]


def test_stretches_of_a_sequence(tmp_path):
    files = {f"./3/real/7/{n}.png": png(picture(n, 32, 32)) for n in range(30)}
    store = sequence_store(tmp_path, files, size=32, stretches=(2, 5))
    assert store.open("real_train/3/7").runs == [(0, 5), (25, 5)]
    assert store.index["reason"][0] == "crops of 10 of 30 frames" and store.index["frames"][0] == 30


# ---- the command line


@pytest.mark.parametrize("dataset", ["celebdf", "dfdc-preview", "dfdc", "wilddeepfake"])
def test_check_on_the_command_line(dataset, tmp_path, capsys):
    tree = TREES[dataset](tmp_path / "tree")
    status = cli.main(["data", "check", dataset, "--root", str(tree)])
    said = capsys.readouterr().out
    assert f"{dataset} in {tree}: {len(load_records(dataset, tree))} videos" in said
    assert status == (
        0 if dataset == "dfdc-preview" else 1
    )  # the other tiny trees lack most of what is published
    assert ("Not the published numbers" in said) == (dataset in ("celebdf", "wilddeepfake"))
    touch(tree, "synthetic.json", content="{}")
    cli.main(["data", "check", dataset, "--root", str(tree), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["synthetic"] and found["differences"] == []


def test_celebdf_to_a_store_with_mtcnn_and_the_boxes_of_the_real(tmp_path, tiny_tree):
    clips = {r.video_id: r.path for r in load_records("ffpp", tiny_tree)}
    root = touch(
        tmp_path / "tree", "List_of_testing_videos.txt", content="1 Celeb-real/id9_0000.mp4"
    )
    for name, video_id in {
        "Celeb-real/id0_0007": "c23/real/000",
        "Celeb-synthesis/id0_id1_0007": "c23/Deepfakes/000_001",
    }.items():
        (root / name).parent.mkdir()
        (root / f"{name}.mp4").write_bytes(clips[video_id].read_bytes())
    (root / "synthetic.json").write_bytes((tiny_tree / "synthetic.json").read_bytes())
    store = P.preprocess(
        load_records("celebdf", root),
        tmp_path / "store",
        32,
        get("celebdf").detector,
        jobs=1,
        progress=False,
    )
    assert (
        list(store.index.status) == ["ok"] * 2
        and store.meta["detector"] == "mtcnn"
        and store.meta["synthetic"]
    )
    real, fake = store.open("Celeb-real/id0_0007"), store.open("Celeb-synthesis/id0_id1_0007")
    assert fake.scale == real.scale and np.allclose(fake.boxes, real.boxes, atol=1e-3)


def test_from_a_tree_of_archives_to_a_store(tmp_path, capsys):
    for category in wilddeepfake.CATEGORIES:
        label = category.split("_")[0]
        files = shard(0, label, sequences=(1,), content=png(picture(1, 32, 32)))
        pack(tmp_path / "tree" / category / "0.tar.gz", files)
    run = [
        "preprocess",
        "wilddeepfake",
        "--root",
        str(tmp_path / "tree"),
        "--size",
        "32",
        "--jobs",
        "1",
    ]
    assert cli.main([*run, "--store", str(tmp_path / "store")]) == 0
    assert "4 videos: 4 ok." in capsys.readouterr().out
    index = S.CropStore(tmp_path / "store").index
    assert dict(zip(index.video_id, index.label, strict=True))["fake_test/0/1"] == 1


def test_every_record_says_whom_it_shows_as_well_as_that_is_known(tmp_path):
    celeb = by_id("celebdf", celeb_tree(tmp_path / "celebdf"))
    assert celeb["Celeb-synthesis/id0_id12_0009"].person == "id0"
    assert celeb["YouTube-real/00170"].person == "YouTube-real/00170"
    wild = by_id("wilddeepfake", wild_tree(tmp_path / "wild"))
    assert wild["fake_test/10/2"].person == wild["fake_test/10/10"].person == "fake_test/10"
    preview = by_id("dfdc-preview", preview_tree(tmp_path / "preview"))
    assert {r.person for r in preview.values()} == {i.split("/")[1] for i in preview}
    full = by_id("dfdc", dfdc_tree(tmp_path / "dfdc"))
    for record in full.values():  # nobody says whom a test video shows
        assert record.person == ("" if record.split == "test" else record.target)
    for found in (celeb, wild, preview, full):
        val = {r.person for r in found.values() if r.split == "val"}
        assert val and not val & {r.person for r in found.values() if r.split == "train"}
