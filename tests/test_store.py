"""The crop store: what it serves, and how preprocessing fills it from a synthetic tree."""

import errno
import io
import json
import os
import pickle
import shutil
import tarfile
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from dfil.datasets import load_records
from dfil.faces import one_video
from dfil.faces import preprocess as P
from dfil.faces import store as S
from dfil.faces.boxes import square_union
from dfil.faces.crops import Crops
from dfil.faces.grid import LIMITS, Limits, blocks, plan_scale
from dfil.faces.video import decode, read_frames
from dfil.faces.write import write_crops
from dfil.profiles import PAPER
from dfil.synthetic import write_ffpp
from dfil.synthetic.codec import encode
from dfil.system.errors import DataError, MachineError, RunError
from dfil.train.data import contents
from dfil.train.spec import missing, select

FRAMES = 20


# ---- what the store serves, against a slow reference


def moving(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n noise pictures (n, 120, 160, 3) and the boxes (n, 4) of something that walks out of them
    on the left.
    """
    rng = np.random.default_rng(seed)
    centre = np.stack([np.linspace(70, 8, n), 60 + 8 * np.sin(np.arange(n) / 3)], 1) + rng.normal(
        0, 2, (n, 2)
    )
    half = rng.uniform(10, 26, (n, 2))
    return rng.integers(0, 256, (n, 120, 160, 3), np.uint8), np.concatenate(
        [centre - half, centre + half], 1
    ).astype(np.float32)


def reference(frames_thwc, boxes_n4, size, margin):
    """Cut the square union of the boxes from padded pictures, one after the other."""
    x0, y0, side = (int(np.floor(v + 0.5)) for v in square_union(boxes_n4, margin))
    crops = []
    for frame_hwc in frames_thwc:
        padded = np.pad(frame_hwc, ((200, 200), (200, 200), (0, 0)), mode="edge")
        cut = padded[y0 + 200 : y0 + 200 + side, x0 + 200 : x0 + 200 + side]
        crops.append(
            cv2.resize(
                cut,
                (size, size),
                interpolation=cv2.INTER_AREA if side > 2 * size else cv2.INTER_LINEAR,
            )
        )
    return np.stack(crops), side


def on_grid(frame_hwc, scale):
    """A whole frame at a scale p / q, its edge repeated up to whole blocks of q pixels."""
    k = int(1 / scale)
    p, q = Fraction(scale * k).limit_denominator(100).as_integer_ratio()
    height, width = (-(-n // (q * k)) for n in frame_hwc.shape[:2])
    padded = np.pad(
        frame_hwc,
        [(0, h * q * k - n) for h, n in zip((height, width), frame_hwc.shape, strict=False)]
        + [(0, 0)],
        mode="edge",
    )
    shrunk = cv2.resize(padded, (width * q, height * q), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width * p, height * p), interpolation=cv2.INTER_LINEAR)


def written(folder: Path, frames, boxes, valid=None, scale=1.0, limits=LIMITS) -> Crops:
    valid = np.ones(len(frames), bool) if valid is None else valid
    row = write_crops(folder, "a/b", iter(frames), [(boxes, valid, scale)], limits)
    return Crops(folder / row["crops"], limits)


@pytest.mark.parametrize("margin", [1.0, 1.3, 1.5])
def test_every_window_at_full_scale_has_the_pixels_of_the_video(tmp_path, margin):
    frames, boxes = moving(30)
    crops = written(tmp_path, frames, boxes)
    assert crops.patches.shape[1] < 160  # a part of the picture, not all of it
    for T in (1, 2, 4, 9, 16):
        for first in range(30 - T + 1):
            x0, y0, side = crops.square(first, T, margin)
            expected, expected_side = reference(
                frames[first : first + T], boxes[first : first + T], side, margin
            )
            assert side == expected_side
            assert np.array_equal(crops.snippet(first, T, side, margin), expected)
            inside = max(x0, 0), max(y0, 0)
            pixel = frames[first, inside[1], inside[0]]
            assert np.array_equal(
                crops.snippet(first, T, side, margin)[0, inside[1] - y0, inside[0] - x0], pixel
            )


@pytest.mark.parametrize("place", [np.s_[:, :], np.s_[:, 20:110], np.s_[10:90, 30:90]])
def test_nothing_outside_the_picture_is_kept(tmp_path, place):
    """WildDeepfake's pictures are crops themselves, smaller than most of their squares."""
    frames, boxes = moving(20)
    frames = frames[(slice(None), *place)]
    boxes = boxes * 1.5 - np.float32([place[1].start or 0, place[0].start or 0] * 2)
    crops = written(tmp_path, frames, boxes)
    assert crops.patches.shape[1] <= max(frames.shape[1:3])
    assert (crops.origins >= np.minimum(np.array(crops.grid) - crops.patches.shape[1], 0)).all()
    for T, margin in ((1, 1.0), (4, 1.3), (16, 1.5)):
        for first in range(20 - T + 1):
            here = slice(first, first + T)
            side = crops.square(first, T, margin)[2]
            expected, _ = reference(frames[here], boxes[here], side, margin)
            assert np.array_equal(crops.snippet(first, T, side, margin), expected)


@pytest.mark.parametrize("size", [24, 48, 90])
def test_scaled_store_resizes_each_frame_once_on_one_grid(tmp_path, size):
    frames, boxes = moving(20, seed=1)
    crops = written(tmp_path, frames, boxes, scale=0.64)
    assert crops.grid == (112, 80) and crops.source == (160, 120)
    small = [on_grid(f, 0.64) for f in frames]
    for first in (0, 3, 16):
        expected, _ = reference(
            small[first : first + 4], boxes[first : first + 4] * np.float32(0.64), size, 1.3
        )
        assert np.array_equal(crops.snippet(first, 4, size), expected)


def test_stride_and_a_box_per_frame(tmp_path):
    frames, boxes = moving(20, seed=2)
    crops = written(tmp_path, frames, boxes)
    expected, _ = reference(
        frames[3:13:3], boxes[3:13], 32, 1.3
    )  # the frames in between count for the box
    assert np.array_equal(crops.snippet(3, 4, 32, stride=3), expected)
    expected = [
        reference(frames[t : t + 1], boxes[t : t + 1], 32, 1.3)[0][0] for t in range(3, 13, 3)
    ]
    assert np.array_equal(crops.snippet(3, 4, 32, stride=3, box="frame"), expected)
    assert crops.snippet(0, 4, 32, box="frame").shape == (4, 32, 32, 3)


@pytest.mark.parametrize("scale, size", [(1.0, 31), (1.0, 60), (0.64, 20), (1.0, 12)])
def test_an_exact_box_lies_between_the_pixels(tmp_path, scale, size):
    """Against bilinear interpolation pixel by pixel, of means of k x k pixels where it shrinks by k
    or more; the picture is smooth, as OpenCV's places are multiples of 1/32."""
    frames, boxes = moving(20, seed=3)
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 6) for frame in frames])
    crops = written(tmp_path, frames, boxes, scale=scale)
    found = crops.snippet(4, 3, size, box="exact").astype(float)
    for crop_hwc, n in zip(found, range(4, 7), strict=True):
        x0, y0, side = square_union(crops.boxes[n : n + 1], 1.3)
        (x0, y0), k = (x0, y0) - crops.origins[n], max(1, int(side / size))
        patch = crops.patches[n].astype(float)
        high, wide = (length // k for length in patch.shape[:2])
        patch = patch[: high * k, : wide * k].reshape(high, k, wide, k, 3).mean((1, 3))
        for i, j in np.ndindex(size, size):
            y, x = ((at + (m + 0.5) * side / size) / k - 0.5 for at, m in ((y0, i), (x0, j)))
            y, x = np.clip(y, 0, high - 1), np.clip(x, 0, wide - 1)
            top, left = min(int(y), high - 2), min(int(x), wide - 2)
            dy, dx = y - top, x - left
            part = patch[top : top + 2, left : left + 2]
            rows = part[:, 0] * (1 - dx) + part[:, 1] * dx
            assert np.abs(rows[0] * (1 - dy) + rows[1] * dy - crop_hwc[i, j]).max() < 1.6


def test_an_exact_box_that_follows_a_face_holds_it_still(tmp_path):
    """A face that moves by fractions of a pixel: cut in whole pixels it trembles."""
    rows, columns = np.mgrid[0:120, 0:160]
    frames, boxes = [], []
    for n in range(16):
        x, y = 70 + 0.37 * n, 60 + 0.23 * n
        face = 128 + 90 * np.sin((columns + 0.5 - x) / 5) * np.cos((rows + 0.5 - y) / 5)
        frames.append(np.repeat(face[..., None], 3, -1).round().astype(np.uint8))
        boxes.append([x - 20, y - 20, x + 20, y + 20])
    crops = written(tmp_path, np.stack(frames), np.float32(boxes))
    still, trembling = (
        crops.snippet(0, 16, 52, box=box).astype(float).std(0).max() for box in ("exact", "frame")
    )
    assert still < 1 and trembling > 4


def test_a_snippet_never_crosses_a_gap(tmp_path):
    frames, boxes = moving(20)
    valid = np.ones(20, bool)
    valid[[0, 7, 8]] = False
    crops = written(tmp_path, frames, boxes, valid)
    assert crops.runs == [(1, 6), (9, 11)] and crops.patches.shape[0] == 17 and crops.count == 20
    assert np.array_equal(crops.snippet(9, 4, 32), reference(frames[9:13], boxes[9:13], 32, 1.3)[0])
    for first, T in ((0, 4), (4, 4), (7, 1), (6, 4), (17, 4), (-1, 4), (20, 1)):
        with pytest.raises(DataError, match="not all there"):
            crops.snippet(first, T, 32)


def test_what_the_store_cannot_serve(tmp_path):
    crops = written(tmp_path, *moving(30), limits=Limits(8, 1.4))
    assert crops.snippet(0, 8, 16, margin=1.4).shape == (8, 16, 16, 3)
    for asked, sentence in (
        ({"T": 9}, "larger reach"),
        ({"T": 4, "stride": 3}, "larger reach"),
        ({"T": 4, "margin": 1.5}, "larger store_margin"),
        ({"T": 4, "box": "video"}, "snippet, frame or exact"),
    ):
        with pytest.raises(DataError, match=sentence):
            crops.snippet(**{"first": 0, "size": 16, **asked})


def test_fewer_frames_than_boxes(tmp_path):
    frames, boxes = moving(20)
    crops = written(tmp_path, frames[:9], boxes, np.ones(20, bool))
    assert crops.runs == [(0, 9)] and crops.count == 9
    assert np.array_equal(crops.snippet(5, 4, 20), reference(frames[5:9], boxes[5:9], 20, 1.3)[0])


def test_scale_makes_the_typical_snippet_box_as_wide_as_asked():
    boxes = np.tile(np.array([10, 10, 110, 90], np.float32), (30, 1))
    valid = np.ones(30, bool)
    assert plan_scale(boxes, valid, 65) == pytest.approx(0.5)  # 100 x 1.3 = 130
    assert plan_scale(boxes, valid, 224) == 1.0  # never enlarged
    boxes[:5] *= 3
    assert plan_scale(boxes, valid, 65) == pytest.approx(0.5)  # the median, not the largest


def test_interrupted_write_leaves_nothing(tmp_path):
    frames, boxes = moving(10)

    def breaking():
        yield from frames[:4]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        write_crops(tmp_path, "a/b", breaking(), [(boxes, np.ones(10, bool), 1.0)])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


# ---- preprocessing a tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two persons, each with a real clip and two fakes."""
    root = tmp_path_factory.mktemp("tree")
    write_ffpp(
        root,
        "ff-like",
        train=2,
        val=0,
        test=0,
        frames=FRAMES,
        qualities=("c23",),
        manipulations=("Deepfakes", "NeuralTextures"),
        jobs=1,
        progress=False,
    )
    return root


@pytest.fixture(scope="module")
def store(tree, tmp_path_factory):
    return P.preprocess(
        load_records("ffpp", tree), tmp_path_factory.mktemp("store"), 64, jobs=1, progress=False
    )


@pytest.fixture
def own_tree(tree, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(tree, tmp_path / "tree")
    return tmp_path / "tree"


def run(root: Path, folder: Path, **options) -> pd.DataFrame:
    options = {"size": 64, "jobs": 1, "progress": False, **options}
    return P.preprocess(load_records("ffpp", root), folder, **options).index.set_index("video_id")


def test_index_and_meta(tree, store):
    index = store.index.set_index("video_id")
    assert list(store.index.columns) == S.COLUMNS and len(store) == 6
    assert set(index.status) == {"ok"} and set(index.frames) == set(index.faces) == {FRAMES}
    assert index.label.to_dict() == {
        video_id: int("/real/" not in video_id) for video_id in index.index
    }
    assert index.loc["c23/Deepfakes/000_001", ["split", "target", "boxes_from"]].tolist() == [
        "train",
        "000",
        "c23/real/000",
    ]
    assert all(Path(p).is_file() for p in index.path) and all(
        (store.folder / c).is_file() for c in index.crops
    )
    assert (
        store.meta["synthetic"] and store.meta["synthetic_setting"]["setting"]["name"] == "ff-like"
    )
    assert (store.meta["dataset"], store.meta["size"], store.meta["detector"]) == (
        "ffpp",
        64,
        "dlib",
    )
    assert len(store.meta["digest"]) == 64


def test_crops_are_those_of_the_decoded_video(store):
    for video_id in ("c23/real/000", "c23/NeuralTextures/001_000"):
        crops = store.open(video_id)
        path = store.index.set_index("video_id").path[video_id]
        grid = [on_grid(f, crops.scale) for f in read_frames(path)]
        for first in (0, 7, FRAMES - 4):
            expected, side = reference(
                grid[first : first + 4], crops.boxes[first : first + 4], 64, 1.3
            )
            assert np.array_equal(crops.snippet(first, 4, 64), expected)
            assert 50 < side < 85  # about the size asked for


def test_fakes_reuse_boxes_and_scale_of_their_real(store):
    for target, source in (("000", "001"), ("001", "000")):
        real = store.open(f"c23/real/{target}")
        for method in ("Deepfakes", "NeuralTextures"):
            fake = store.open(f"c23/{method}/{target}_{source}")
            assert fake.scale == real.scale and fake.grid == real.grid
            assert np.allclose(fake.boxes, real.boxes, atol=1e-3)
            assert not np.array_equal(fake.snippet(0, 4, 64), real.snippet(0, 4, 64))


def test_masks_lie_on_the_snippet(store):
    real, fake = store.open("c23/real/000"), store.open("c23/Deepfakes/000_001")
    mask = store.mask_snippets("c23/Deepfakes/000_001", [5], 4, 64)[0]
    assert mask.shape == (4, 64, 64) and mask.dtype == bool and 0.1 < mask.mean() < 0.9
    change = np.abs(fake.snippet(5, 4, 64).astype(int) - real.snippet(5, 4, 64)).mean(-1)
    assert change[mask].mean() > 3 * change[~mask].mean()
    path = store.index.set_index("video_id").masks["c23/Deepfakes/000_001"]
    grid = [on_grid(f, fake.scale) for f in read_frames(path)][5:9]
    assert np.array_equal(mask, reference(grid, fake.boxes[5:9], 64, 1.3)[0][..., 0] > 127)
    with pytest.raises(DataError, match="no mask"):
        store.mask_snippets("c23/real/000", [0], 4, 64)


def test_masks_of_several_snippets_take_one_decoding(store, monkeypatch, tmp_path):
    decoded = []
    monkeypatch.setattr(S, "decode", lambda path: decoded.append(path) or decode(path))
    name, starts = (
        "c23/NeuralTextures/001_000",
        [7, 0, 9, 7, FRAMES - 7],
    )  # out of order, overlapping, twice
    masks = store.mask_snippets(name, starts, 3, 32, margin=1.4, stride=3)
    path = store.index.set_index("video_id").masks[name]
    assert decoded == [path] and masks.shape == (5, 3, 32, 32) and masks.dtype == bool
    crops, frames = store.open(name), list(read_frames(path))
    for first, mask in zip(starts, masks, strict=True):
        grid = [on_grid(frames[n], crops.scale) for n in (first, first + 3, first + 6)]
        assert np.array_equal(
            mask, reference(grid, crops.boxes[first : first + 7], 32, 1.4)[0][..., 0] > 127
        )
        alone = store.mask_snippets(name, [first], 3, 32, margin=1.4, stride=3)
        assert np.array_equal(mask, alone[0])
    assert decoded == [path] * 6 and not np.array_equal(masks[0], masks[1])
    assert store.mask_snippets(name, [], 3, 32).shape == (0, 3, 32, 32)
    (tmp_path / "short.mp4").write_bytes(encode(np.zeros((10, 320, 320), np.uint8), 18))
    short = S.CropStore(store.folder)
    short.index["masks"] = str(tmp_path / "short.mp4")
    assert not short.mask_snippets(name, [2, 6], 4, 32).any()
    with pytest.raises(DataError, match="short.mp4 ends before frame 10"):
        short.mask_snippets(name, [7, 2], 4, 32)


def test_opening(store, monkeypatch):
    with pytest.raises(DataError, match="No video 'c23/real/777'"):
        store.open("c23/real/777")
    with pytest.raises(DataError, match="dfil preprocess"):
        S.CropStore(store.folder / "crops")
    monkeypatch.setattr(S, "OPEN_VIDEOS", 2)
    fresh = S.CropStore(store.folder)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for video_id in fresh.index.video_id:
        fresh.open(video_id).snippet(0, 4, 64)
    assert len(fresh._open) == 2
    assert before is None or len(os.listdir("/proc/self/fd")) <= before + 2
    video_id = fresh.index.video_id[0]
    copy = pickle.loads(pickle.dumps(fresh))
    assert len(pickle.dumps(fresh)) < 20_000  # no pixels travel to a worker
    assert np.array_equal(
        copy.open(video_id).snippet(2, 4, 64), store.open(video_id).snippet(2, 4, 64)
    )


def test_several_processes_write_the_same_store(tree, store, tmp_path):
    again = P.preprocess(load_records("ffpp", tree), tmp_path, 64, jobs=2, progress=False)
    assert again.meta["digest"] == store.meta["digest"]
    assert again.index.equals(store.index)


def test_an_executor_of_ones_own(tree, store, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        again = P.preprocess(
            load_records("ffpp", tree), tmp_path, 64, progress=False, executor=executor
        )
    assert again.meta["digest"] == store.meta["digest"]


def test_a_dead_worker_is_one_sentence(tree, tmp_path):
    class Dying(Executor):
        def submit(self, *_):
            future = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

    with pytest.raises(RunError, match="fewer jobs"):
        P.preprocess(load_records("ffpp", tree), tmp_path, 64, progress=False, executor=Dying())
    assert len(S.CropStore(tmp_path)) == 0


def test_forecast(tree, tmp_path, capsys):
    P.preprocess(load_records("ffpp", tree), tmp_path, 64, jobs=1)
    said = capsys.readouterr().out
    assert "Preprocessing 6 of 6 videos (0 done before) with dlib in 1 process." in said
    assert "The other 2 videos: about" in said and "GB" in said


def folders(own_tree: Path) -> dict[str, Path]:
    videos = {"real": own_tree / "original_sequences/youtube/c23/videos"}
    return videos | {
        m: own_tree / "manipulated_sequences" / m / "c23/videos"
        for m in ("Deepfakes", "NeuralTextures")
    }


def decoded(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path)))


def test_no_video_is_dropped_silently(own_tree, tmp_path):
    videos = folders(own_tree)
    fake = decoded(videos["Deepfakes"] / "000_001.mp4")
    (videos["Deepfakes"] / "000_001.mp4").write_bytes(
        encode(fake[:12], 23)
    )  # a fake shorter than its real
    (videos["Deepfakes"] / "001_000.mp4").write_bytes(
        encode(np.full_like(fake, 90), 23)
    )  # no face, but its real has one
    half = videos["NeuralTextures"] / "000_001.mp4"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])  # its table of contents is gone
    (videos["NeuralTextures"] / "001_000.mp4").write_bytes(
        encode(fake[:, :240, 40:280], 23)
    )  # cropped: another geometry
    (videos["real"] / "500.mp4").write_bytes(encode(np.full((8, 240, 320, 3), 90, np.uint8), 23))
    (videos["real"] / "501.mp4").write_bytes(encode(fake[:3], 23))
    (videos["real"] / "502.mp4").write_bytes(b"")
    index = run(own_tree, tmp_path / "store")
    assert index.status.to_dict() == {
        "c23/real/000": "ok",
        "c23/real/001": "ok",
        "c23/real/500": "no face",
        "c23/real/501": "too short",
        "c23/real/502": "unreadable",
        "c23/Deepfakes/000_001": "ok",
        "c23/Deepfakes/001_000": "ok",
        "c23/NeuralTextures/000_001": "unreadable",
        "c23/NeuralTextures/001_000": "ok",
    }
    assert (
        all(index.reason[index.status != "ok"].str.len() > 10)
        and str(half) in index.reason["c23/NeuralTextures/000_001"]
    )
    assert index.frames["c23/Deepfakes/000_001"] == 12 and index.frames["c23/real/501"] == 3
    assert (
        index.reason["c23/NeuralTextures/001_000"]
        == "own detection: 240x240, c23/real/001 has 320x320"
    )
    store = S.CropStore(tmp_path / "store")
    assert store.open("c23/Deepfakes/000_001").scale == store.open("c23/real/000").scale
    assert store.open("c23/NeuralTextures/001_000").source == (240, 240)
    with pytest.raises(DataError, match="no face"):
        store.open("c23/real/500")


def test_fake_detected_on_its_own(own_tree, tmp_path):
    videos = folders(own_tree)
    (videos["real"] / "000.mp4").unlink()  # the adapter then names no real
    (videos["real"] / "001.mp4").write_bytes(
        encode(decoded(videos["real"] / "001.mp4")[:8], 23)
    )  # shorter than its fakes
    index = run(own_tree, tmp_path / "store")
    assert set(index.status) == {"ok"} and len(index) == 5
    assert (
        index.boxes_from["c23/Deepfakes/000_001"] == ""
        and index.faces["c23/Deepfakes/000_001"] == FRAMES
    )
    assert (
        index.reason["c23/Deepfakes/001_000"]
        == f"own detection: {FRAMES} frames, c23/real/001 has 8"
    )
    assert index.faces["c23/Deepfakes/001_000"] == FRAMES


def state(folder: Path) -> dict[str, tuple]:
    return {
        str(p): (p.stat().st_mtime_ns, p.stat().st_ino)
        for p in sorted((folder / "crops").rglob("*.*"))
    }


def test_resuming_does_only_what_is_missing_or_changed(own_tree, tmp_path):
    folder = tmp_path / "store"
    run(own_tree, folder)
    before, digest = state(folder), S.CropStore(folder).meta["digest"]
    run(own_tree, folder)
    assert state(folder) == before

    leftover = folder / "crops/c23/real/000.npy.9999999.part"  # of a killed writer
    leftover.write_bytes(b"half")
    (folder / "crops/c23/Deepfakes/000_001.json").unlink()
    (folder / "crops/c23/real/000.json").unlink()
    run(own_tree, folder)
    after = state(folder)
    assert not leftover.exists() and after.keys() == before.keys()
    changed = {
        Path(p).relative_to(folder / "crops").with_suffix("").as_posix()
        for p in before
        if before[p] != after[p]
    }
    assert changed == {"c23/real/000", "c23/Deepfakes/000_001"}
    assert S.CropStore(folder).meta["digest"] == digest

    fake = folders(own_tree)["Deepfakes"] / "001_000.mp4"
    fake.write_bytes(encode(decoded(fake)[:15], 23))
    run(own_tree, folder)
    changed = {Path(p).stem for p in after if after[p] != state(folder)[p]}
    assert changed == {"001_000"}


def test_interrupted_by_the_keyboard(own_tree, tmp_path, monkeypatch):
    original, calls = P.process_video, []

    def interrupted(record, *rest):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(record.video_id)
        return original(record, *rest)

    monkeypatch.setattr(P, "process_video", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(own_tree, tmp_path / "store")
    partial = S.CropStore(tmp_path / "store")
    assert sorted(partial.index.video_id) == sorted(calls) and len(calls) == 3
    monkeypatch.setattr(P, "process_video", original)
    assert len(run(own_tree, tmp_path / "store")) == 6
    assert partial.meta["digest"] != S.CropStore(tmp_path / "store").meta["digest"]


def failing_at(monkeypatch, error: Exception) -> None:
    original = one_video.write_crops

    def failing(folder, video_id, *rest):
        if video_id == "c23/Deepfakes/000_001":
            raise error
        return original(folder, video_id, *rest)

    monkeypatch.setattr(one_video, "write_crops", failing)


def test_unexpected_failure_is_a_row_and_tried_again(own_tree, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        failing_at(patched, RuntimeError("no idea"))
        index = run(own_tree, tmp_path / "store")
    row = index.loc["c23/Deepfakes/000_001"]
    assert (row.status, row.reason) == ("failed", "RuntimeError: no idea")
    assert (index.status == "ok").sum() == 5
    assert set(run(own_tree, tmp_path / "store").status) == {"ok"}


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.npy"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "x.npy"), "not permitted"),
        (MemoryError("too big"), "memory"),
    ],
)
def test_a_fault_of_the_machine_is_no_property_of_a_video(
    own_tree, tmp_path, monkeypatch, error, why
):
    with monkeypatch.context() as patched:
        failing_at(patched, error)
        with pytest.raises(MachineError, match=why):
            run(own_tree, tmp_path / "store")
    index = S.CropStore(tmp_path / "store").index
    assert "c23/Deepfakes/000_001" not in set(index.video_id) and set(index.status) == {"ok"}
    assert set(run(own_tree, tmp_path / "store").status) == {"ok"}


def test_a_disk_that_is_too_small_is_said_before_the_first_video(own_tree, tmp_path, monkeypatch):
    monkeypatch.setattr(P.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(MachineError, match="crops of 6 videos need up to"):
        run(own_tree, tmp_path / "store")
    assert not (tmp_path / "store/crops").exists()


def test_a_tree_or_a_store_that_has_moved_is_found_again(own_tree, tmp_path, monkeypatch):
    run(own_tree, tmp_path / "store")
    before = state(tmp_path / "store")
    digest = S.CropStore(tmp_path / "store").meta["digest"]
    own_tree.rename(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").rglob("*.mp4"):
        os.utime(path, ns=(1, 1))
    (tmp_path / "store").rename(tmp_path / "moved")
    index = run(tmp_path / "elsewhere", tmp_path / "moved")
    after = state(tmp_path / "moved")
    unchanged = [p.replace("/store/", "/moved/") for p in before if not p.endswith(".json")]
    assert all(after[p] == before[p.replace("/moved/", "/store/")] for p in unchanged)
    assert all("elsewhere" in path for path in index.path)
    assert S.CropStore(tmp_path / "moved").meta["digest"] == digest


def test_the_notebooks_find_the_crops_of_a_moved_tree(own_tree, tmp_path, monkeypatch, capsys):
    from dfil.train import data

    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    folder = data.store_folder("ffpp", own_tree, 64)
    run(own_tree, folder)
    moved = tmp_path / "mnt" / own_tree.name
    shutil.copytree(own_tree, moved)
    assert data.store_folder("ffpp", moved, 64) == folder and str(folder) in capsys.readouterr().out
    for video in moved.rglob("*.mp4"):
        video.write_bytes(video.read_bytes()[:-1] + b"x")  # other videos of the same sizes
    assert data.store_folder("ffpp", moved, 64) != folder


def test_the_crops_of_a_few_copied_videos_are_not_those_of_the_whole_tree(
    own_tree, tmp_path, monkeypatch
):
    """Whoever has tried other settings on them does not want these for everything."""
    from dfil.train import data

    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    few = tmp_path / "few" / own_tree.name
    shutil.copytree(own_tree, few)
    for folder in {path.parent for path in few.rglob("*.mp4")}:
        for video in sorted(folder.glob("*.mp4"))[1:]:
            video.unlink()
    store = data.store_folder("ffpp", few, 64)
    run(few, store)
    assert data.store_folder("ffpp", own_tree, 64) != store
    assert data.store_folder("ffpp", shutil.move(few, tmp_path / own_tree.name), 64) == store


def test_two_calls_on_one_store_give_what_one_gives(tree, store, tmp_path):
    found = load_records("ffpp", tree)
    halves = [
        [r for r in found if r.manipulation in ("real", m)] for m in ("Deepfakes", "NeuralTextures")
    ]
    with ThreadPoolExecutor(2) as threads:
        calls = [
            threads.submit(P.preprocess, half, tmp_path, 64, jobs=1, progress=False)
            for half in halves
        ]
        for call in calls:
            call.result()
    both = S.CropStore(tmp_path)
    assert both.meta["digest"] == store.meta["digest"] and set(both.index.status) == {"ok"}


def test_unfinished_files_of_a_living_process_stay(own_tree, tmp_path):
    place = tmp_path / "store/crops/c23/real"
    place.mkdir(parents=True)
    living = place / f"000.npy.{os.getppid()}.part"
    living.write_bytes(b"half")
    run(own_tree, tmp_path / "store")
    assert living.exists()


def test_what_the_record_says_now_is_in_the_index_without_cutting_anew(own_tree, tmp_path):
    found = load_records("ffpp", own_tree)
    P.preprocess(found, tmp_path / "s", 64, jobs=1, progress=False)
    before = {p: v for p, v in state(tmp_path / "s").items() if not p.endswith(".json")}
    renamed = [replace(r, person="somebody", split="val") for r in found]
    again = P.preprocess(renamed, tmp_path / "s", 64, jobs=1, progress=False)
    assert set(again.index.person) == {"somebody"} and set(again.index.split) == {"val"}
    assert {p: v for p, v in state(tmp_path / "s").items() if not p.endswith(".json")} == before


def test_frames_seen_are_told_from_frames_kept(tree, tmp_path):
    found = [r for r in load_records("ffpp", tree) if r.manipulation != "NeuralTextures"]
    index = P.preprocess(found, tmp_path, 64, jobs=1, progress=False, stretches=(2, 4)).index
    assert set(index.seen) == {FRAMES} and set(index.faces) == {8}
    assert set(index.reason) == {f"crops of 8 of {FRAMES} frames, a face in {FRAMES}"}


def test_one_store_has_one_setting(tree, store, tmp_path):
    with pytest.raises(DataError, match=r"size 64 \(now 48\)"):
        P.preprocess(load_records("ffpp", tree), store.folder, 48, jobs=1, progress=False)
    with pytest.raises(DataError, match=r"detector 'dlib' \(now 'mtcnn'\)"):
        P.preprocess(
            load_records("ffpp", tree), store.folder, 64, detector="mtcnn", jobs=1, progress=False
        )
    found = load_records("ffpp", tree)
    with pytest.raises(DataError, match="video id 'c23/real/000'"):
        P.preprocess([*found, found[0]], tmp_path, 64)
    with pytest.raises(DataError, match="outside the store"):
        P.preprocess([replace(found[0], video_id="../000")], tmp_path, 64)
    with pytest.raises(DataError, match="no video"):
        P.preprocess([], tmp_path, 64)
    with pytest.raises(DataError, match="retina"):
        P.preprocess(found, tmp_path, 64, detector="retina")
    assert list(tmp_path.iterdir()) == []


def test_stretches(tree, tmp_path):
    found = load_records("ffpp", tree, manipulations=["Deepfakes"])
    small = P.preprocess(found, tmp_path, 64, jobs=1, progress=False, stretches=(2, 6))
    assert {tuple(small.open(video_id).runs) for video_id in small.index.video_id} == {
        ((0, 6), (14, 6))
    }
    assert small.meta["stretches"] == [2, 6] and set(small.index.faces) == {12}


def test_a_fake_that_ends_before_its_reals_last_stretch_is_counted(own_tree, tmp_path):
    found = load_records("ffpp", own_tree, manipulations=["Deepfakes"])
    (fake, *_) = [r for r in found if r.label]
    fake.path.write_bytes(encode(np.stack(list(read_frames(fake.path))[:12]), 20))
    index = P.preprocess(
        found, tmp_path / "s", 64, jobs=1, progress=False, stretches=(4, 4), every=1
    ).index
    row = index.set_index("video_id").loc[fake.video_id]
    if "own detection" in row["reason"]:
        pytest.fail(row["reason"])
    assert row["status"] == "ok" and "of its real's stretches are beyond its end" in row["reason"]
    said = missing(index)
    assert "1 of 2 " in said and "are shorter than their real and have fewer stretches" in said


def test_the_actors_videos_go_with_their_own_forgeries(store, tmp_path):
    index = store.index
    (real, fake, *_) = index.sort_values("label").query("compression == 'c23'").to_dict("records")
    fake = next(r for r in index.to_dict("records") if r["label"])
    theirs = [
        real | {"video_id": "c23/real/01__talking", "split": "test", "target": "01__talking"},
        fake | {"video_id": "c23/DeepFakeDetection/01_02__talking__A", "split": "test",
                "manipulation": "DeepFakeDetection", "target": "01__talking"},
    ]  # fmt: skip
    grown = pd.concat([index, pd.DataFrame(theirs)], ignore_index=True)
    grown["split"] = "test"
    both = {"c23/real/01__talking", "c23/DeepFakeDetection/01_02__talking__A"}

    def chosen(*manipulations):
        return set(select(grown, "test", "c23", manipulations)["video_id"])

    assert not chosen("Deepfakes") & both and any("/real/" in name for name in chosen("Deepfakes"))
    assert chosen("DeepFakeDetection") == both and chosen() >= both
    assert chosen("Deepfakes", "DeepFakeDetection") >= both | chosen("Deepfakes")
    for name, rows in (("a", index), ("b", grown.assign(split=index["split"].iloc[0]))):
        for row in rows.to_dict("records"):
            file = tmp_path / name / "crops" / f"{row['video_id']}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(row | {"split": "test"}))
    meta = store.meta | {"synthetic": False}
    before, after = (S.write_index(tmp_path / name, meta).meta for name in "ab")
    which = PAPER, "c23", ("Deepfakes",)
    assert contents(before, *which) == contents(after, *which)
    assert contents(before, PAPER, "c23") != contents(after, PAPER, "c23")


def test_row_files_hold_the_rows(store):
    for row in store.index.to_dict("records"):
        saved = json.loads((store.folder / "crops" / f"{row['video_id']}.json").read_text())
        assert {name: saved[name] for name in S.COLUMNS} == row


def test_the_blocks_of_a_planned_scale_are_its_own():
    """A video's sidecar keeps the scale alone; the blocks found from it must be those that it
    came from.
    """
    for scale in np.random.default_rng(0).uniform(0.02, 1, 5000):
        p, q, k = of_scale = blocks(scale)
        assert blocks(p / (q * k)) == of_scale and p <= q <= 2 * p
        assert abs(p / (q * k) / scale - 1) < 0.5 / p + 0.02
    assert blocks(1.0)[:2] in ((16, 16), (8, 8)) and blocks(1.0)[2] == 1


def test_the_person_of_a_video_is_a_column_that_changes_no_digest(store, tmp_path):
    assert store.index.columns[-2] == "person"
    shutil.copytree(store.folder, tmp_path / "store")
    for path in (tmp_path / "store/crops").rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"person": path.stem[:3]}))
    named = S.write_index(tmp_path / "store", store.meta)
    assert set(named.index.person) == {"000", "001"}
    assert named.meta["digest"] == store.meta["digest"]
    for path in (tmp_path / "store/crops").rglob("*.json"):  # as earlier releases wrote it
        row = json.loads(path.read_text())
        del row["person"]
        path.write_text(json.dumps(row))
    assert set(S.write_index(tmp_path / "store", store.meta).index.person) == {""}
    named.index.drop(columns="person").to_parquet(tmp_path / "store/index.parquet")
    assert set(S.CropStore(tmp_path / "store").index.person) == {""}


# ---- the index holds what the tree holds now


def kinds(index: pd.DataFrame) -> dict:
    return index.groupby("manipulation").size().to_dict()


def test_videos_that_left_the_tree_leave_the_index_and_keep_their_files(own_tree, tmp_path, capsys):
    folder = tmp_path / "store"
    run(own_tree, folder)
    digest, away = S.CropStore(folder).meta["digest"], folders(own_tree)["Deepfakes"]
    away.rename(tmp_path / "away")
    assert kinds(run(own_tree, folder)) == {"NeuralTextures": 2, "real": 2}
    said = capsys.readouterr().err
    assert f"2 rows are of videos no longer under {own_tree}, left out" in said
    assert "c23/Deepfakes/000_001, c23/Deepfakes/001_000." in said
    assert (folder / "crops/c23/Deepfakes/000_001.npy").exists()
    before = state(folder)
    (tmp_path / "away").rename(away)
    run(own_tree, folder)
    assert S.CropStore(folder).meta["digest"] == digest and state(folder) == before


def test_a_sequence_that_went_from_training_to_test_is_not_in_both(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    root, rng = tmp_path / "wild", np.random.default_rng(0)

    def pack(category: str, shard: int, *sequences: int) -> Path:
        target = root / category / f"{shard}.tar.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:gz") as tar:
            for sequence in sequences:
                for n in range(6):
                    picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
                    content = cv2.imencode(".png", picture)[1].tobytes()
                    label = category.partition("_")[0]
                    entry = tarfile.TarInfo(f"./{shard}/{label}/{sequence}/{n}.png")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        return target

    def ids() -> list[str]:
        records = load_records("wilddeepfake", root)
        store = P.preprocess(records, tmp_path / "s", 32, jobs=1, progress=False)
        return list(store.index.video_id)

    moved = pack("real_train", 0, 56, 60)
    pack("fake_train", 0, 27, 29)
    pack("real_test", 3, 28)
    assert len(ids()) == 5
    moved.rename(root / "real_test/7.tar.gz")
    pack("fake_train", 0, 29)  # one of two sequences of an archive that is still there
    assert ids() == ["fake_train/0/29", "real_test/3/28", "real_test/7/0/56", "real_test/7/0/60"]
    assert "3 rows are of videos no longer under" in capsys.readouterr().err


def test_a_part_of_a_tree_adds_to_the_store_also_where_the_tree_has_moved(own_tree, tmp_path):
    def part(root: Path, *names: str) -> dict:
        records = load_records("ffpp", root, manipulations=names)
        return kinds(P.preprocess(records, tmp_path / "s", 64, jobs=1, progress=False).index)

    assert part(own_tree, "Deepfakes") == {"Deepfakes": 2, "real": 2}
    whole = {"Deepfakes": 2, "NeuralTextures": 2, "real": 2}
    assert part(own_tree, "NeuralTextures") == whole == part(own_tree)
    fakes = [r for r in load_records("ffpp", own_tree) if r.manipulation == "Deepfakes"]
    assert kinds(P.preprocess(fakes, tmp_path / "s", 64, jobs=1, progress=False).index) == whole
    own_tree.rename(tmp_path / "elsewhere")
    assert part(tmp_path / "elsewhere", "NeuralTextures") == whole


def test_rows_of_another_tree_are_left_out_and_named(own_tree, tmp_path, monkeypatch, capsys):
    from dfil.train import data

    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    other = tmp_path / "other" / own_tree.name
    shutil.copytree(own_tree, other)
    (folders(other)["Deepfakes"] / "000_001.mp4").unlink()
    store = data.store_folder("ffpp", own_tree, 64)
    run(own_tree, store)
    for _ in range(2):  # and stay out, although their files are there in the first tree
        assert "c23/Deepfakes/000_001" not in run(other, store).index
        assert f"1 row is of a video no longer under {other}" in capsys.readouterr().err
    shutil.rmtree(own_tree)
    last = tmp_path / "last" / own_tree.name
    last.parent.mkdir()
    other.rename(last)  # what was left out does not hide that this is the same tree
    assert data.store_folder("ffpp", last, 64) == store


@pytest.mark.parametrize("crops", [True, False])
def test_a_folder_whose_meta_json_is_something_elses_is_refused(tree, tmp_path, crops):
    found = load_records("ffpp", tree)
    meta = tmp_path / "meta.json"
    meta.write_text('{"name": "my album", "size": 3}')
    if crops:
        (tmp_path / "crops").mkdir()
    with pytest.raises(DataError, match="meta.json is no crop store's"):
        P.preprocess(found, tmp_path, 64, jobs=1, progress=False)
    assert meta.read_text() == '{"name": "my album", "size": 3}'
