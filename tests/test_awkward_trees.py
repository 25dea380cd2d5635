"""Trees and lists as people have them: incomplete, oddly spelled, read-only, hostile."""

import gzip
import json
import os
import re
import tarfile
from pathlib import Path

import pytest
from fuzz import member, packed
from test_ffpp import tree as ffpp_tree
from test_other_datasets import by_id, celeb_tree, dfdc_tree, preview_tree, touch, wild_tree

from dfil.datasets import get, lists, load_records, sequences
from dfil.datasets.check import check
from dfil.system.errors import DataError, MachineError


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))


# ---- FaceForensics++


def test_ffpp_with_c23_only_lacks_nothing(tmp_path):
    found = check("ffpp", ffpp_tree(tmp_path))
    assert found["missing"] == [] and {row["compression"] for row in found["counts"]} == {"c23"}


@pytest.mark.parametrize("gone", ["manipulated_sequences/FaceSwap", "original_sequences/youtube"])
def test_ffpp_without_some_test_files_says_which(tmp_path, gone):
    root = ffpp_tree(tmp_path)
    lost = sorted((root / gone / "c23/videos").glob("00[45]*.mp4"))
    for path in lost:
        path.unlink()
    found = check("ffpp", root)
    assert found["missing"] == [str(path.relative_to(root)) for path in lost] and len(lost) == 2


def test_sets_beside_the_paper_are_named_and_read_when_they_are_asked_for(tmp_path):
    root = ffpp_tree(tmp_path)
    top = "manipulated_sequences"
    touch(root, f"{top}/FaceShifter/c23/videos/004_005.mp4")
    touch(root, f"{top}/DeepFakeDetection/c23/videos/01_02__walking__ABC.mp4")
    touch(root, "original_sequences/actors/c23/videos/01__walking.mp4")
    notes = check("ffpp", root)["notes"]
    assert sum("no part of the paper and not read unless it is named" in n for n in notes) == 2
    assert not [n for n in notes if "no folder of this name" in n]
    touch(root, f"{top}/Mine/c23/videos/004_005.mp4")
    touch(root, "original_sequences/youtube/C40/videos/004.mp4")
    notes = [n for n in check("ffpp", root)["notes"] if "no folder of this name" in n]
    assert [n.split(" is ")[0].rpartition("/")[2] for n in notes] == ["Mine", "C40"]
    assert not {r.manipulation for r in load_records("ffpp", root)} & {*get("ffpp").further}
    shifted = by_id("ffpp", root, manipulations=["FaceShifter"])["c23/FaceShifter/004_005"]
    assert (shifted.split, shifted.person) == ("test", "004_005")
    played = by_id("ffpp", root, manipulations=["DeepFakeDetection"])
    assert set(played) == {"c23/real/01__walking", "c23/DeepFakeDetection/01_02__walking__ABC"}
    assert {r.split for r in played.values()} == {"test"} and {
        r.person for r in played.values()
    } == {"01"}
    assert played["c23/DeepFakeDetection/01_02__walking__ABC"].boxes_from == "c23/real/01__walking"
    assert check("ffpp", root, manipulations=["FaceShifter"])["missing"][:1] == [
        f"{top}/FaceShifter/c23/videos/000_003.mp4"
    ]


def test_an_id_in_two_pairs_of_a_split_is_an_error(tmp_path):
    root = ffpp_tree(tmp_path)
    (root / "splits/test.json").write_text('[["004", "005"], ["005", "006"]]')
    with pytest.raises(DataError, match="Video 005 is in .* one pair"):
        load_records("ffpp", root)


# ---- DFDC


@pytest.mark.parametrize(
    ("real", "fake"), [("0", "1"), (False, True), (0.0, 1.0), ("Real", "FAKE ")]
)
def test_dfdc_labels_of_any_spelling_mean_the_same(tmp_path, real, fake):
    root = dfdc_tree(tmp_path, "none")
    entries = {"one.mp4": {"is_fake": fake}, "two.mp4": {"is_fake": real}}
    touch(root, "test/metadata.json", content=json.dumps(entries))
    found = by_id("dfdc", root)
    assert (found["test/one"].label, found["test/two"].label) == (1, 0)


@pytest.mark.parametrize("label", ["maybe", "2", "", None, 0.5, [1]])
def test_a_label_of_an_unknown_spelling_is_an_error(tmp_path, label):
    root = dfdc_tree(tmp_path, "none")
    entries = {"one.mp4": {"is_fake": label}, "two.mp4": {"is_fake": 0}}
    touch(root, "test/metadata.json", content=json.dumps(entries))
    with pytest.raises(DataError, match="metadata.json gives one.mp4 the label .*owners' file"):
        load_records("dfdc", root)


def test_dfdc_labels_csv_with_capitals_and_floats(tmp_path):
    root = dfdc_tree(tmp_path)
    (root / "test/labels.csv").write_bytes(
        b"\xef\xbb\xbfFilename,Label\r\none.mp4,1.0\r\ntwo.mp4,0.0\r\n"
    )
    found = by_id("dfdc", root)
    assert (found["test/one"].label, found["test/two"].label) == (1, 0)


def test_kaggles_sample_is_read_and_its_unlabelled_videos_are_counted(tmp_path):
    entries = {"a.mp4": {"label": "FAKE", "original": "b.mp4"}, "b.mp4": {"label": "REAL"}}
    root = touch(tmp_path, "train_sample_videos/a.mp4", "train_sample_videos/b.mp4")
    touch(root, "train_sample_videos/metadata.json", content=json.dumps(entries))
    touch(root, "test_videos/x.mp4", "test_videos/y.mp4")
    found = by_id("dfdc", root)
    assert set(found) == {"train_sample_videos/a", "train_sample_videos/b"}
    assert found["train_sample_videos/a"].boxes_from == "train_sample_videos/b"
    report = check("dfdc", root)
    assert report["missing"] == []
    assert any(note.startswith("2 videos of") and "no list" in note for note in report["notes"])


@pytest.mark.parametrize("inside", ["", "train/"])
def test_dfdc_parts_with_leading_zeros_or_below_train(tmp_path, inside):
    dfdc_tree(tmp_path / "plain")
    for part in (0, 2, 10):
        old = tmp_path / "plain" / f"dfdc_train_part_{part}"
        new = tmp_path / "plain" / inside / f"dfdc_train_part_{part:02d}"
        new.parent.mkdir(exist_ok=True)
        old.rename(new)
    found = by_id("dfdc", tmp_path / "plain")
    assert len(found) == 3 * 9 + 2 and f"{inside}dfdc_train_part_02/real20" in found
    absent = check("dfdc", tmp_path / "plain")["missing"]
    assert len(absent) == 47 and "dfdc_train_part_0" not in absent


def test_a_suffix_in_capitals_is_a_video(tmp_path):
    root = dfdc_tree(tmp_path)
    (root / "test/one.mp4").rename(root / "test/one.MP4")
    assert by_id("dfdc", root)["test/one"].path.name == "one.MP4"
    assert "test/one.mp4" not in check("dfdc", root)["missing"]


# ---- lists

BROKEN = {
    "Latin-1": (b'{"Zo\xeb.mp4": {}}', "not UTF-8 text, see byte 4"),
    "twice": (b'{"a.mp4": {}, "a.mp4": {}}', "'a.mp4' is given twice"),
    "twice in two spellings": (b'{"a.mp4": {}, "./a.mp4": {}}', "names a.mp4 again, as './a.mp4'"),
    "huge": (b'{"a.mp4": {"n": ' + b"9" * 9999 + b"}}", "no JSON"),
    "NaN": (b'{"a.mp4": {"n": NaN}}', "NaN is no number"),
    "deep": (b"[" * 10**5, "nested too deeply"),
    "a list": (b"[1, 2]", "no table"),
    "a text inside": (b'{"a.mp4": "FAKE"}', "entry 'a.mp4' is no table"),
    "empty": (b"", "no JSON"),
    "a web page": (b"<html>Sign in</html>", "no JSON"),
    "outside": (b'{"../a.mp4": {}}', "no file below it"),
}


@pytest.mark.parametrize(("content", "sentence"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("dataset", ["dfdc", "dfdc-preview"])
def test_a_damaged_json_list_is_one_sentence_with_its_name(tmp_path, dataset, content, sentence):
    root, name = {
        "dfdc": (dfdc_tree, "dfdc_train_part_2/metadata.json"),
        "dfdc-preview": (preview_tree, "dataset.json"),
    }[dataset]
    root = root(tmp_path)
    (root / name).write_bytes(content)
    with pytest.raises(DataError) as raised:
        load_records(dataset, root)
    said = str(raised.value)
    assert str(root / name) in said and sentence in said and "\n" not in said
    assert said.endswith("take the owners' file.")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("filename,label\none.mp4,1\none.mp4,0\n", "line 3 names one.mp4 again"),
        ("filename,label\none.mp4,1,7\n", "line 2 has 3 values"),
        ("filename;label\none.mp4;1\n", 'not one column "filename"'),
        ("filename,label,label\none.mp4,1,0\n", 'not one column "label"'),
        ("filename,label\n", "no rows"),
        ("", 'not one column "filename"'),
        (f"filename,label\n{'x' * 200_000},1\n", "no CSV"),
        ('filename,label\n"one.mp4,1\n', "no CSV"),
        ("filename,label\n/one.mp4,1\n", "no file below it"),
    ],
)
def test_a_damaged_csv_list_is_one_sentence_with_its_name(tmp_path, content, sentence):
    root = touch(dfdc_tree(tmp_path), "test/labels.csv", content=content)
    with pytest.raises(DataError) as raised:
        load_records("dfdc", root)
    assert str(root / "test/labels.csv") in str(raised.value) and sentence in str(raised.value)


def test_a_byte_order_mark_changes_nothing(tmp_path):
    root = preview_tree(tmp_path)
    before = load_records("dfdc-preview", root)
    list_ = root / "dataset.json"
    list_.write_bytes(b"\xef\xbb\xbf" + list_.read_bytes())
    assert load_records("dfdc-preview", root) == before


def test_celebdf_list_that_names_a_video_twice(tmp_path):
    line = "1 Celeb-real/id0_0009.mp4"
    with pytest.raises(DataError, match="line 2: .* names a video again"):
        load_records("celebdf", celeb_tree(tmp_path, [line, line]))


def test_a_list_of_absurd_size_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "LARGEST", 99)
    with pytest.raises(DataError, match="dataset.json cannot be read: it has more than 99 bytes"):
        load_records("dfdc-preview", preview_tree(tmp_path))


# ---- archives


def refused(tmp_path: Path, content: bytes) -> str:
    root = wild_tree(tmp_path / "tree")
    (root / "real_train/1.tar.gz").write_bytes(content)
    (reason,) = check("wilddeepfake", root)["unreadable"]
    others = [i for i in by_id("wilddeepfake", root) if i != "real_train/1"]
    assert len(others) == 11 * 2 and str(root / "real_train/1.tar.gz") in reason
    return reason


def test_a_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "ROOM", 2**20)
    good = packed([member("./1/real/2/3.png")])
    assert "unpacks to more than" in refused(tmp_path, gzip.compress(good + bytes(2**26)))


def test_an_archive_of_too_many_entries_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "MEMBERS", 7)
    root = wild_tree(tmp_path / "tree")  # eight each
    assert all("more than 7 entries" in r for r in check("wilddeepfake", root)["unreadable"])


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (member("./1/real/2/9.png", 10**15), "unpacks to more|has 10{15} bytes"),
        (member("./1/real/2/9.png", 10**9, tarfile.XHDTYPE), "unpacks to more"),
        (member("./1/real/2/9.png", 10**4, tarfile.GNUTYPE_SPARSE), "link or a device|to its end"),
        (member("./1/real/2/a\nb.png"), "cannot be printed"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, bad, sentence):
    assert re.search(sentence, refused(tmp_path, packed([member("./1/real/2/3.png"), bad])))


# ---- what may not be written or read


def test_a_tree_and_a_data_folder_that_may_not_be_written_are_read_and_checked(
    tmp_path, monkeypatch
):
    root = wild_tree(tmp_path / "tree")
    before = load_records("wilddeepfake", root)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "file/below"))  # nobody can write there
    assert load_records("wilddeepfake", root) == before
    assert check("wilddeepfake", root)["unreadable"] == []


def test_a_listing_of_archives_that_was_damaged_is_made_again(tmp_path):
    root = wild_tree(tmp_path / "tree")
    before = load_records("wilddeepfake", root)
    (kept,) = (tmp_path / "data/listings").iterdir()
    for content in (kept.read_text().replace('"0/real/2"', '"0/real/3"'), "", "[]", "{}", "\0"):
        kept.write_text(content)
        assert load_records("wilddeepfake", root) == before


def test_a_folder_that_may_not_be_read_is_said_and_not_taken_for_empty(tmp_path, monkeypatch):
    root, list_folder = celeb_tree(tmp_path), os.listdir

    def shut(path):
        if Path(path).name == "YouTube-real":
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "listdir", shut)
    with pytest.raises(MachineError, match="YouTube-real: not permitted"):
        load_records("celebdf", root)


def test_a_name_that_cannot_be_printed_is_an_error(tmp_path):
    root = celeb_tree(tmp_path)
    (root / "YouTube-real" / os.fsdecode(b"\xff.mp4")).touch()
    with pytest.raises(DataError, match=r"\\udcff.mp4': this name cannot be printed"):
        load_records("celebdf", root)


def test_a_name_with_the_spaces_that_macos_writes_is_accepted(tmp_path):
    root = celeb_tree(tmp_path)
    name = "Recording 10.15.02\u202fAM \u3000\u200d.mp4"
    touch(root, f"YouTube-real/{name}")
    assert root / "YouTube-real" / name in {r.path for r in load_records("celebdf", root)}
    entries = json.loads((preview_tree(tmp_path / "preview") / "dataset.json").read_text())
    added = {f"original_videos/100/{name}": {"label": "real", "set": "test"}}
    touch(tmp_path / "preview", *added)
    touch(tmp_path / "preview", "dataset.json", content=json.dumps(entries | added))
    assert f"original_videos/100/{name}"[:-4] in by_id("dfdc-preview", tmp_path / "preview")
    assert sequences.is_picture("3.png") and not sequences._harm(member(f"./1/real/2/{name}"), 1)


@pytest.mark.parametrize("name", [b"tr\xffee", b"tr\nee", "tr\u2028ee".encode()])
def test_a_tree_below_a_name_that_cannot_be_printed_is_refused_before_it_is_read(tmp_path, name):
    root = wild_tree(tmp_path / os.fsdecode(name))
    with pytest.raises(DataError, match="cannot be printed; rename the file or folder") as raised:
        load_records("wilddeepfake", root)
    assert "\n" not in str(raised.value) and not (tmp_path / "data").exists()
