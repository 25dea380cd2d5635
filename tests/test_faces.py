"""Decoding, detection and boxes over time, on synthetic heads."""

import io
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dfil.faces import boxes as B
from dfil.faces import frame as F
from dfil.faces import video as V
from dfil.faces.detect import detector, finder
from dfil.faces.kept import People, watch
from dfil.faces.preprocess import Settings
from dfil.synthetic import SETTINGS, render_target
from dfil.system.errors import DataError


def write_mp4(path: Path, frames_thwc: np.ndarray, **options: str) -> Path:
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream(
            "libx264",
            rate=25,
            options={"crf": "18", "preset": "veryfast", "threads": "1", "g": "8"},
        )
        stream.height, stream.width, stream.pix_fmt = *frames_thwc.shape[1:3], "yuv420p"
        for frame_hwc in frames_thwc:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_hwc, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def head(target: int, frames: int) -> np.ndarray:
    return next(
        iter(render_target(target, target + 1, SETTINGS["ff-like"], methods=(), frames=frames))
    ).frames_thwc


def people_in(path: Path, detector: str = "dlib", **settings) -> People:
    settings = Settings(size=64, detector=detector, **settings)
    with watch(V.decode(path), finder(detector), settings) as people:
        return people


def largest(path: Path, **settings) -> tuple[np.ndarray, np.ndarray]:
    track = max(people_in(path, **settings).tracks, key=lambda t: t.area)
    return track.boxes_n4, track.valid_n


@pytest.fixture(scope="module")
def heads():
    """Two persons, 20 frames each: (2, 20, 320, 320, 3)."""
    return np.stack([head(0, 20), head(1, 20)])


# ---- video


def test_frames_in_order(heads, tmp_path):
    path = write_mp4(tmp_path / "a.mp4", heads[0])
    notes = []
    frames = list(V.read_frames(path, notes))
    assert (len(frames), notes, V.count_frames(path)) == (20, [], 20)
    assert all(
        f.shape == (320, 320, 3) and f.dtype == np.uint8 and f.flags.c_contiguous for f in frames
    )
    error = [[np.abs(f.astype(int) - g).mean() for g in heads[0]] for f in frames]
    assert np.argmin(error, 1).tolist() == list(range(20)) and np.diag(error).max() < 4


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("size", "pixels"),
    [
        ((320, 240), "yuv420p"),
        ((320, 240), "yuv422p"),
        ((321, 239), "yuv444p"),
        ((321, 239), "yuv420p"),
        ((96, 64), "yuv420p10le"),
    ],
)
def test_a_part_of_a_frame_has_the_pixels_of_the_whole(turns, size, pixels):
    rng = np.random.default_rng(turns)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (size[1], size[0], 3), np.uint8), (0, 0), 2)
    decoded = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
    whole = np.rot90(decoded.to_ndarray(format="rgb24"), turns)
    frame = F.Frame(decoded, turns)
    assert (frame.height, frame.width) == whole.shape[:2] and np.array_equal(frame.rgb(), whole)
    luma = whole @ [0.299, 0.587, 0.114]
    assert np.corrcoef(frame.luma_hw.ravel(), luma.ravel())[0, 1] > 0.98
    for _ in range(30):
        (x0, x1), (y0, y1) = (
            np.sort(rng.choice(n + 1, 2, replace=False)) for n in (frame.width, frame.height)
        )
        part = frame.rgb(int(x0), int(y0), int(x1), int(y1))
        assert np.array_equal(part, whole[y0:y1, x0:x1])


def test_truncated_keeps_what_is_intact(heads, tmp_path):
    whole, half = tmp_path / "whole.mp4", tmp_path / "half.mp4"
    content = write_mp4(whole, heads[0], movflags="faststart").read_bytes()
    half.write_bytes(content[: len(content) * 6 // 10])
    notes = []
    frames = list(V.read_frames(half, notes))
    assert 4 <= len(frames) < 20
    assert np.array_equal(
        frames, list(V.read_frames(whole))[: len(frames)]
    )  # no concealed damage among them
    assert len(notes) == 1 and f"truncated after {len(frames)} frames" in notes[0]


def test_unreadable(heads, tmp_path):
    content = write_mp4(
        tmp_path / "whole.mp4", heads[0]
    ).read_bytes()  # the table of contents (moov) lies at the end
    audio = io.BytesIO()
    with av.open(audio, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    for name, data in {
        "no moov": content[: len(content) // 2],
        "empty": b"",
        "text": b"hello" * 99,
        "audio": audio.getvalue(),
    }.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data)
        with pytest.raises(V.VideoError, match=f"{name}.mp4"):
            list(V.read_frames(path))
    with pytest.raises(V.VideoError, match="nothing.mp4"):
        list(V.read_frames(tmp_path / "nothing.mp4"))
    with pytest.raises(V.VideoError, match="empty.mp4"):
        V.count_frames(tmp_path / "empty.mp4")


def test_rotation(heads, tmp_path):
    frames = heads[0, :4, :240]  # 320 wide, 240 high
    content = bytearray(write_mp4(tmp_path / "plain.mp4", frames).read_bytes())
    matrix = (
        content.index(b"tkhd") + 4 + 40
    )  # full box header, times, track, reserved, duration, layer, volume
    assert struct.unpack_from(">9i", content, matrix) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    struct.pack_into(
        ">9i", content, matrix, 0, 65536, 0, -65536, 0, 0, 240 << 16, 0, 1 << 30
    )  # as phones do: show it turned right
    (tmp_path / "turned.mp4").write_bytes(content)
    plain, turned = (
        np.stack(list(V.read_frames(tmp_path / f"{name}.mp4"))) for name in ("plain", "turned")
    )
    assert turned.shape == (4, 320, 240, 3)
    assert np.array_equal(turned, np.rot90(plain, -1, axes=(1, 2)))  # a quarter turn clockwise


# ---- detectors


@pytest.mark.parametrize("name", ["dlib", "mtcnn"])
def test_detector_finds_every_head(heads, name):
    blank = np.full_like(heads[0, 0], 90)
    found = detector(name)([*heads[0, ::7], blank, *heads[1, ::7]])
    assert [len(f) for f in found] == [1, 1, 1, 0, 1, 1, 1]
    assert all(f.shape == (len(f), 5) and f.dtype == np.float32 for f in found)
    assert [len(f) for f in detector(name)([blank, blank])] == [0, 0]
    for x0, y0, x1, y1, _ in np.concatenate(found):
        assert 60 < x0 < 160 < x1 < 260 and 60 < y0 < 160 < y1 < 280


def test_dlib_and_mtcnn_agree(heads):
    frames = heads[:, ::10].reshape(-1, 320, 320, 3)
    squares = []
    for name in ("dlib", "mtcnn"):
        squares.append([B.window_squares(f[:, :4], 1)[0] for f in detector(name)(frames)])
    overlap = np.diag(B.iou(*np.array(squares)))
    assert overlap.min() > 0.5, overlap


@pytest.mark.parametrize("scale", [0.62, 1.0, 2.5])  # faces of about 75, 125 and 310 pixels
def test_1080p(heads, scale):
    frame = np.full((1080, 1920, 3), 90, np.uint8)
    small = cv2.resize(
        heads[0, 0],
        None,
        fx=scale,
        fy=scale,
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    frame[200 : 200 + len(small), 900 : 900 + len(small)] = small
    find = detector("dlib")
    (alone,), (found,) = find([heads[0, 0]]), find([frame])
    expected = alone[:, :4] * scale + [900, 200, 900, 200]
    assert len(found) == 1
    assert (
        B.iou(expected, found[:, :4])[0, 0] > 0.6
    )  # sizes go in steps of 6/5, which at the same centre is an IoU of 0.69


def test_unknown_detector():
    with pytest.raises(DataError, match="dlib, mtcnn"):
        detector("retinaface")


@pytest.mark.parametrize("larger_left", [True, False])
def test_two_faces_the_larger_is_kept(heads, tmp_path, larger_left):
    small = np.stack(
        [
            cv2.copyMakeBorder(cv2.resize(f, (240, 240)), 40, 40, 40, 40, cv2.BORDER_REPLICATE)
            for f in heads[1]
        ]
    )
    both = np.concatenate([heads[0], small] if larger_left else [small, heads[0]], axis=2)
    path = write_mp4(tmp_path / "two.mp4", both)
    boxes, valid = largest(path)
    centre = (boxes[:, 0] + boxes[:, 2]) / 2
    assert valid.all() and ((centre < 320) == larger_left).all()


def test_no_face(tmp_path):
    path = write_mp4(tmp_path / "wall.mp4", np.full((6, 240, 320, 3), 90, np.uint8))
    people = people_in(path)
    assert people.tracks == [] and (people.count, people.source) == (6, (320, 240))


def test_last_frame_gets_a_detection(heads, tmp_path):
    path = write_mp4(tmp_path / "a.mp4", heads[0][:19])
    for every in (1, 4, 12):
        boxes, valid = largest(path, every=every)
        assert valid.tolist() == [True] * 19 and (boxes[:, 2] - boxes[:, 0] > 60).all()


# ---- boxes


def random_boxes(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 50, (n, 2)), rng.uniform(5, 40, (n, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def test_iou_against_counting_pixels():
    a, b = random_boxes(8, 1).round(), random_boxes(6, 2).round()

    def drawn(box):
        picture = np.zeros((100, 100), bool)
        x0, y0, x1, y1 = box.astype(int)
        picture[y0:y1, x0:x1] = True
        return picture

    slow = [[(drawn(p) & drawn(q)).sum() / (drawn(p) | drawn(q)).sum() for q in b] for p in a]
    assert np.allclose(B.iou(a, b), slow, atol=1e-6)


def test_square_union():
    boxes = np.array([[10, 20, 30, 30], [20, 22, 60, 40.0]])
    x0, y0, side = B.square_union(boxes, 1.2)
    assert (x0 + side / 2, y0 + side / 2, side) == pytest.approx((35, 30, 60))
    assert np.allclose(
        B.window_squares(random_boxes(9), 4, 1.3)[5],
        corners(B.square_union(random_boxes(9)[5:9], 1.3)),
        atol=1e-4,
    )
    assert B.window_squares(random_boxes(9), 4).shape == (6, 4)


def corners(square):
    x0, y0, side = square
    return x0, y0, x0 + side, y0 + side


def test_runs():
    assert B.runs(np.array([3, 4, 5, 9, 11, 12])) == [(0, 3), (3, 1), (4, 2)]
    assert B.runs(np.array([], int)) == []


def test_a_detector_that_takes_many_moments_at_a_time_loses_no_frame(tmp_path):
    """Boxes of frames whose detection still waits for others to be asked about must not be taken
    for final.
    """

    class Late:
        batch = 4

        def everywhere(self, frame, smallest=None):
            return np.array([[40, 30, 90, 80, 1]], np.float32)

        def near(self, places):
            return [self.everywhere(frame) for frame, _, _ in places]

    noise_hwc = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    path = write_mp4(tmp_path / "still.mp4", np.stack([noise_hwc] * 40))
    with watch(V.decode(path), Late(), Settings(size=32, every=8)) as people:
        assert [track.valid_n.all() for track in people.tracks] == [True]
