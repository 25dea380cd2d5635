"""Several people in a video: which tracks are stored, the rule for its score, fakes that reuse
them, and one's own videos.
"""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfil.datasets.records import VideoRecord
from dfil.faces import one_video
from dfil.faces import preprocess as P
from dfil.faces import store as S
from dfil.faces.grid import to_grid
from dfil.faces.video import decode, read_frames
from dfil.synthetic import SETTINGS, render_target
from dfil.synthetic.codec import encode
from dfil.system.errors import DataError

FRAMES = 24


@pytest.fixture(scope="module")
def heads():
    return [
        next(
            iter(render_target(k, k + 1, SETTINGS["ff-like"], methods=(), frames=FRAMES))
        ).frames_thwc
        for k in range(2)
    ]


@pytest.fixture(scope="module")
def pair(heads):
    """A larger face on the left, a smaller one on the right: (T, 320, 640, 3)."""
    small = [
        cv2.copyMakeBorder(cv2.resize(f, (250, 250)), 35, 35, 35, 35, cv2.BORDER_REPLICATE)
        for f in heads[1]
    ]
    return np.concatenate([heads[0], np.stack(small)], axis=2)


def write(path: Path, frames_thwc: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(frames_thwc, 20))
    return path


def record(path: Path, video_id: str = "a", **fields) -> VideoRecord:
    return VideoRecord("made-up", video_id, fields.pop("label", 0), "real", "", "", path, **fields)


def run(records: list[VideoRecord], folder: Path, **settings) -> S.CropStore:
    return P.preprocess(records, folder, 48, jobs=1, progress=False, **settings)


def test_all_tracks_are_stored_the_largest_first(pair, tmp_path):
    store = run([record(write(tmp_path / "two.mp4", pair))], tmp_path / "all", tracks="all")
    row = store.index.iloc[0]
    assert (row["tracks"], row["rule"], row["faces"], row["frames"], store.meta["tracks"]) == (
        2,
        "max",
        FRAMES,
        FRAMES,
        "all",
    )
    left, right = store.open("a"), store.open("a", track=1)
    assert left.path.name == "a.npy" and right.path.name == "a@1.npy" and left.scale < right.scale
    assert (left.boxes[:, 2] / left.scale < 330).all() and (
        right.boxes[:, 0] / right.scale > 320
    ).all()
    whole = [
        to_grid(f, (0, 0), right.source, right.scale)[0] for f in read_frames(tmp_path / "two.mp4")
    ]
    x0, y0, side = right.square(5, 4)
    assert np.array_equal(
        right.snippet(5, 4, side), [f[y0 : y0 + side, x0 : x0 + side] for f in whole[5:9]]
    )
    with pytest.raises(DataError, match="tracks 0 to 1"):
        store.open("a", track=2)


def test_only_the_largest(pair, tmp_path):
    video = record(write(tmp_path / "two.mp4", pair))
    store = run([video], tmp_path / "largest")
    assert (store.index["tracks"][0], store.index["rule"][0], store.meta["tracks"]) == (
        1,
        "largest",
        "largest",
    )
    assert not list((tmp_path / "largest/crops").glob("*@*"))
    everybody = run([video], tmp_path / "all", tracks="all")
    assert np.array_equal(store.open("a").patches, everybody.open("a").patches)
    with pytest.raises(DataError, match=r"tracks 'largest' \(now 'all'\)"):
        run([video], tmp_path / "largest", tracks="all")
    with pytest.raises(DataError, match="choose one of: largest, all"):
        run([video], tmp_path / "other", tracks="two")


def test_files_of_tracks_that_are_no_more_go_and_missing_ones_come_back(pair, tmp_path):
    path = write(tmp_path / "two.mp4", pair)
    store = run([record(path)], tmp_path / "s", tracks="all")
    first = (tmp_path / "s/crops/a@1.npy").read_bytes()
    (tmp_path / "s/crops/a@1.npy").unlink()
    run([record(path)], tmp_path / "s", tracks="all")
    assert (tmp_path / "s/crops/a@1.npy").read_bytes() == first
    write(path, pair[:, :, :320])
    changed = run([record(path)], tmp_path / "s", tracks="all")
    assert changed.index["tracks"][0] == 1 and not list((tmp_path / "s/crops").glob("*@*"))
    assert changed.index["checksum"][0] != store.index["checksum"][0]
    path.write_bytes(b"")
    gone = run([record(path)], tmp_path / "s", tracks="all")
    assert (gone.index["tracks"][0], gone.index["status"][0]) == (0, "unreadable")
    assert [p.name for p in (tmp_path / "s/crops").iterdir()] == ["a.json"]


def test_a_fake_takes_over_all_tracks_of_its_real(pair, tmp_path):
    real = record(write(tmp_path / "two.mp4", pair), "real")
    blurred = np.stack([cv2.GaussianBlur(f, (0, 0), 6) for f in pair])
    fake = record(write(tmp_path / "fake.mp4", blurred), "fake", label=1, boxes_from="real")
    store = run([real, fake], tmp_path / "s", tracks="all")
    assert store.index["tracks"].tolist() == [2, 2] and set(store.index["reason"]) == {""}
    for track in range(2):
        a, b = store.open("real", track), store.open("fake", track)
        assert (
            a.scale == b.scale
            and np.allclose(a.boxes, b.boxes, atol=1e-3)
            and a.patches.shape == b.patches.shape
        )
        assert not np.array_equal(a.patches, b.patches)


def test_somebody_passing_by_is_dropped_with_a_sentence(heads, tmp_path):
    turns = np.r_[np.arange(FRAMES), np.arange(FRAMES)[::-1], np.arange(12)]
    canvas = np.full((60, 320, 560, 3), 90, np.uint8)
    canvas[:, :, :320] = heads[0][turns]
    canvas[:9, 60:280, 340:] = np.stack(
        [cv2.resize(f, (220, 220), interpolation=cv2.INTER_AREA) for f in heads[1][:9]]
    )
    path = write(tmp_path / "by.mp4", canvas)
    store = run([record(path)], tmp_path / "s", tracks="all", every=4)
    assert (store.index["status"][0], store.index["tracks"][0]) == ("ok", 1)
    assert (
        store.index["reason"][0] == "1 more face too short or too small to be people of this video"
    )
    both = run(
        [record(write(tmp_path / "both.mp4", canvas[:9]))], tmp_path / "t", tracks="all", every=4
    )
    assert (
        both.index["tracks"][0] == 2
    )  # where nobody is there for longer, the same face is a person


def test_a_mask_on_a_further_track(pair, tmp_path):
    mask = np.zeros((*pair.shape[:3], 3), np.uint8)
    mask[:, 100:220, 430:530] = 255  # the right face
    video = record(write(tmp_path / "two.mp4", pair), masks=write(tmp_path / "mask.mp4", mask))
    store = run([video], tmp_path / "s", tracks="all")
    assert (
        store.mask_snippets("a", [3], 4, 32, track=0).mean()
        < 0.05
        < 0.2
        < store.mask_snippets("a", [3], 4, 32, track=1).mean()
    )


def test_an_id_with_the_mark_of_a_track_is_refused(pair, tmp_path):
    with pytest.raises(DataError, match="has an @"):
        run([record(tmp_path / "x.mp4", "a@1")], tmp_path / "s")


def test_stretches_keep_the_same_people(pair, tmp_path):
    store = run(
        [record(write(tmp_path / "two.mp4", pair))], tmp_path / "s", tracks="all", stretches=(2, 6)
    )
    assert [store.open("a", k).runs for k in range(2)] == [[(0, 6), (18, 6)]] * 2


def test_who_is_seen_only_between_the_stretches_is_said(pair, tmp_path, monkeypatch):
    alone = pair[:, :, :320].copy()
    alone[:6], alone[-6:] = 127, 127
    how = {"tracks": "all", "stretches": (2, 4), "every": 2}
    said = "between the stretches that are kept; `dfil preprocess --whole` keeps all"
    store = run([record(write(tmp_path / "alone.mp4", alone))], tmp_path / "alone", **how)
    row = store.index.iloc[0]
    assert (row["status"], row["reason"]) == ("too short", f"a face only {said}")
    choose = one_video.choose

    def with_another(*arguments):
        (first, *others) = choose(*arguments)
        unseen = np.zeros_like(first.stored_n)
        return [first, *others, dataclasses.replace(first, stored_n=unseen)]

    monkeypatch.setattr(one_video, "choose", with_another)
    store = run([record(write(tmp_path / "two.mp4", pair))], tmp_path / "two", **how)
    row = store.index.iloc[0]
    assert row["status"] == "ok" and row["tracks"] == 2
    assert row["reason"].endswith(f"1 more person seen only {said}")


# ---- one's own videos


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model that calls a crop forged the brighter it is."""
    import torch

    class Bright(torch.nn.Module):
        any_number = True

        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(1))

        def snippet_logits(self, x):
            return self.gain * x.mean((2, 3, 4, 5))

        def forward(self, x):
            return self.snippet_logits(x).mean(1)

    config = {
        "sampling": {"size": 32, "snippets": 2, "frames": 4, "stride": 1, "detector": "dlib"},
        "trained_on": "x",
        "synthetic": True,
    }
    return Bright().eval(), config


def test_a_videos_score_is_that_of_its_most_suspicious_person(pair, tmp_path, weights, monkeypatch):
    from dfil.train import own_video

    monkeypatch.setattr(own_video, "load_weights", lambda path: weights)
    bright = pair.copy()
    bright[:, :, 320:] = np.clip(bright[:, :, 320:].astype(int) + 40, 0, 255)
    paths = [
        write(tmp_path / "bright.mp4", bright),
        write(tmp_path / "left.mp4", pair[:, :, :320]),
        tmp_path / "none.mp4",
    ]
    two, one, none = own_video.score_videos(paths, tmp_path / "w")
    scores = [person["score"] for person in two["people"]]
    assert len(scores) == 2 and scores[1] > scores[0] and two["score"] == scores[1]
    assert (
        two["snippets"] == two["people"][1]["snippets"]
        and two["frames_with_face"] == two["people"][1]["frames_with_face"]
    )
    assert len(one["people"]) == 1 and one["score"] == one["people"][0]["score"]
    assert (none["status"], none["score"], none["people"]) == (
        "unreadable",
        None,
        [],
    ) and "none.mp4" in none["reason"]
    json.dumps([two, one, none])


def test_people_seen_too_briefly_are_not_scored(pair, tmp_path, weights, monkeypatch):
    from dfil.train import own_video

    model, config = weights
    longer = {**config, "sampling": {**config["sampling"], "frames": 40}}
    monkeypatch.setattr(own_video, "load_weights", lambda path: (model, longer))
    (result,) = own_video.score_videos([write(tmp_path / "two.mp4", pair)], tmp_path / "w")
    assert (result["status"], result["score"]) == (
        "too short",
        None,
    ) and "2 people seen for less than 40 frames" in result["reason"]


def test_where_no_pixels_are_kept_fewer_frames_wait_and_the_boxes_are_the_same(
    pair, tmp_path, monkeypatch
):
    from dfil.faces import kept
    from dfil.faces.one_video import finder
    from dfil.faces.settings import Settings

    held = []

    class Counting(kept.Follower):
        def add(self, frame):
            super().add(frame)
            held.append(len(self.frames))

    monkeypatch.setattr(kept, "Follower", Counting)
    turns = np.r_[np.arange(FRAMES), np.arange(FRAMES)[::-1]]
    path, settings = write(tmp_path / "long.mp4", pair[np.r_[turns, turns, turns]]), Settings(40)
    most, boxes = [], []
    for keep_n in (None, np.zeros(0, bool)):
        held.clear()
        with kept.watch(decode(path), finder("dlib"), settings, keep_n) as people:
            boxes.append([track.boxes_n4 for track in people.tracks])
            most.append(max(held))
    assert most[1] <= 34 < most[0]
    assert len(boxes[0]) == len(boxes[1]) == 2 and np.array_equal(*map(np.stack, boxes))


def test_every_person_gets_a_snippet_a_second_none_twice_and_the_share_is_said(
    pair, tmp_path, weights, monkeypatch
):
    from dfil.train import own_video

    monkeypatch.setattr(own_video, "load_weights", lambda path: weights)
    turns = np.r_[np.arange(FRAMES), np.arange(FRAMES)[::-1]]
    long = pair[np.r_[turns, turns, turns]]  # 144 frames at 25 a second: six seconds
    (result,) = own_video.score_videos([write(tmp_path / "long.mp4", long)], tmp_path / "w")
    assert (result["status"], len(result["people"])) == ("ok", 2)
    for person in result["people"]:
        starts = [s["first_frame"] for s in person["snippets"]]
        assert len(starts) == len(set(starts)) >= 6 and person["frames_with_face"] == 144
        gaps = np.diff([0, *sorted(starts), 144])
        assert gaps.max() <= 25 and person["examined"] == pytest.approx(4 * len(starts) / 144)
    assert 0 < result["examined"] <= 2 * result["people"][0]["examined"]
    short = write(tmp_path / "short.mp4", pair[:6])
    (result,) = own_video.score_videos([short], tmp_path / "w", snippets=8)
    assert [s["first_frame"] for s in result["snippets"]] == [0, 1, 2]


def test_snippets_cut_while_decoding_have_the_pixels_of_the_store(pair, tmp_path):
    from dfil.faces.stream import stream_snippets

    path = write(tmp_path / "two.mp4", pair)
    store = run([record(path)], tmp_path / "s", tracks="all")
    wanted, tracks = {}, [store.open("a", k) for k in range(2)]
    for k, crops in enumerate(tracks):
        wanted[k] = crops.boxes / np.float32(crops.scale), crops.scale, [0, 2, 9, 19 - 4 * k]
    for T, stride in ((4, 1), (3, 2)):
        found = list(stream_snippets(decode(path), wanted, T, stride, 40))
        assert len(found) == 8
        for person, start, clip_thwc in found:
            expected = tracks[person].snippet(start, T, 40, stride=stride)
            assert np.array_equal(clip_thwc, expected)
    wanted = {k: (boxes, scale, [1]) for k, (boxes, scale, _) in wanted.items()}
    for person, _, clip_thwc in stream_snippets(decode(path), wanted, 17, 1, 40):
        expected = tracks[person].snippet(1, 17, 40, box="exact")  # longer than the store's reach
        np.testing.assert_allclose(clip_thwc, expected, atol=1)  # grey levels, by rounding
    for person, _, clip_thwc in stream_snippets(decode(path), wanted, 17, 1, 16):  # shrunk first
        expected = tracks[person].snippet(1, 17, 16, box="exact")
        rounded = tracks[person].snippet(1, 17, 16, box="frame")
        off, further = (np.abs(clip_thwc - other.astype(float)) for other in (expected, rounded))
        assert off.mean() < further.mean()


def test_videos_in_a_folder_are_scored_and_a_folder_of_pictures_is_refused(
    pair, tmp_path, weights, monkeypatch
):
    from dfil.train import own_video

    monkeypatch.setattr(own_video, "load_weights", lambda path: weights)
    write(tmp_path / "many/b.mp4", pair[:8])
    write(tmp_path / "many/deeper/a.MKV", pair[:8, :, :320])
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures/1.png"), pair[0])
    folders = [tmp_path / "many", tmp_path / "pictures"]
    results = list(own_video.score_videos(folders, tmp_path / "w"))
    assert [Path(r["video"]).name for r in results] == ["b.mp4", "a.MKV", "pictures"]
    assert [r["status"] for r in results] == ["ok", "ok", "unreadable"]
    assert "pictures and no video" in results[2]["reason"] and results[2]["score"] is None


def test_a_face_that_only_mtcnn_sees_is_mentioned(pair, tmp_path, weights, monkeypatch):
    from dfil.train import own_video

    monkeypatch.setattr(own_video, "load_weights", lambda path: weights)
    turned = pair.copy()
    turned[:, :, 320:] = np.rot90(turned[:, :, 320:], axes=(1, 2))  # dlib sees upright faces
    box_n5 = np.array([[400, 80, 540, 240, 1.0]], np.float32)
    monkeypatch.setattr(own_video, "_mtcnn", lambda: lambda frames: [box_n5 for _ in frames])
    (result,) = own_video.score_videos([write(tmp_path / "hat.mp4", turned)], tmp_path / "w")
    assert (result["status"], len(result["people"])) == ("ok", 1)
    assert "MTCNN sees a face that dlib does not" in result["reason"]
