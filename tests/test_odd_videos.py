"""Videos as phones, archives and accidents make them: each is handled, or is a row that says why
not.
"""

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dfil.datasets.records import VideoRecord
from dfil.faces import video as V
from dfil.faces.crops import Crops
from dfil.faces.preprocess import Settings, process_video
from dfil.synthetic import SETTINGS, render_target


@pytest.fixture(scope="module")
def head():
    return next(iter(render_target(0, 1, SETTINGS["ff-like"], methods=(), frames=12))).frames_thwc


def write(
    path: Path, frames_thwc, pixels="yuv420p", codec="libx264", times=None, sound=False
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=25, options={"crf": "16", "threads": "1"} if codec == "libx264" else {}
        )
        stream.height, stream.width, stream.pix_fmt = *frames_thwc.shape[1:3], pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for n, frame_hwc in enumerate(frames_thwc):
            frame = av.VideoFrame.from_ndarray(frame_hwc, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = times[n] if times else 40 * n, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def row(path: Path, folder: Path, **settings) -> dict:
    return process_video(
        VideoRecord("own", "v", 0, "", "", "", path), folder, Settings(size=48, **settings)
    )


def crops(folder: Path) -> Crops:
    return Crops(folder / "crops/v.npy")


def test_variable_frame_rate_takes_every_frame_once_in_order(head, tmp_path):
    times = [0, 10, 20, 200, 210, 400, 403, 800, 1000, 1001, 1500, 3000]
    path = write(tmp_path / "vfr.mp4", head, times=times)
    found = row(path, tmp_path)
    assert (found["status"], found["frames"], found["faces"]) == ("ok", 12, 12)
    frames = list(V.read_frames(path))
    error = [[np.abs(f.astype(int) - g).mean() for g in head] for f in frames]
    assert np.argmin(error, 1).tolist() == list(range(12))


@pytest.mark.parametrize(
    ("pixels", "codec"),
    [
        ("yuv420p10le", "libx264"),
        ("yuv444p", "libx264"),
        ("yuvj422p", "mjpeg"),
        ("yuv420p", "mpeg4"),
    ],
)
def test_other_pixel_formats_give_about_the_same_crops(head, tmp_path, pixels, codec):
    (tmp_path / "plain").mkdir()
    plain = row(write(tmp_path / "plain.mkv", head), tmp_path / "plain")
    other = row(write(tmp_path / "other.mkv", head, pixels, codec), tmp_path)
    assert (other["status"], other["faces"], other["reason"]) == ("ok", 12, "") and plain[
        "status"
    ] == "ok"
    a, b = crops(tmp_path / "plain"), crops(tmp_path)
    assert np.abs(a.boxes / a.scale - b.boxes / b.scale).max() < 20
    x0, y0, side = (int(v / b.scale) for v in b.square(0, 4))
    shown = cv2.resize(
        head[1, y0 : y0 + side, x0 : x0 + side], (40, 40), interpolation=cv2.INTER_AREA
    )
    assert np.abs(b.snippet(0, 4, 40)[1].astype(int) - shown).mean() < 8


@pytest.mark.parametrize(("pixels", "codec"), [("yuv420p", "ffv1"), ("yuv444p", "libx264")])
def test_odd_sizes(head, tmp_path, pixels, codec):
    odd = np.stack([cv2.copyMakeBorder(f, 0, 0, 0, 1, cv2.BORDER_REPLICATE)[41:280] for f in head])
    assert odd.shape[1:3] == (239, 321)
    found = row(write(tmp_path / "odd.mkv", odd, pixels, codec), tmp_path)
    assert (found["status"], found["frames"], found["reason"]) == ("ok", 12, "")
    assert crops(tmp_path).source == (321, 239)
    assert all(f.shape == (239, 321, 3) for f in V.read_frames(tmp_path / "odd.mkv"))


@pytest.mark.parametrize(
    ("turn", "matrix"),
    [
        (1, (0, -65536, 0, 65536, 0, 0)),
        (2, (-65536, 0, 0, 0, -65536, 0)),
        (3, (0, 65536, 0, -65536, 0, 0)),
    ],
)
def test_a_turned_phone(head, tmp_path, turn, matrix):
    """Stored lying on its side, with the matrix that puts it upright: the face is found and the
    crop stands.
    """
    upright = head[:, :, 20:300]  # 280 wide, 320 high
    stored = np.ascontiguousarray(np.rot90(upright, -turn, axes=(1, 2)))
    content = bytearray(write(tmp_path / "phone.mp4", stored).read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    struct.pack_into(">9i", content, at, *matrix, 0, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(content)
    found = row(tmp_path / "phone.mp4", tmp_path)
    assert (found["status"], found["faces"]) == ("ok", 12), found["reason"]
    cut = crops(tmp_path)
    assert cut.source == (280, 320)
    shown = next(V.read_frames(tmp_path / "phone.mp4"))
    assert np.abs(shown.astype(int) - upright[0]).mean() < 6


def test_files_that_cannot_be_used_say_why(head, tmp_path):
    (tmp_path / "zero.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    whole = write(tmp_path / "whole.mp4", head).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its table of contents is gone
    for name, why in {
        "zero": "fetch the file again",
        "audio": "no video stream",
        "cut": "fetch the file again",
        "none": "no such file",
    }.items():
        for settings in ({}, {"stretches": (2, 4)}):
            found = row(tmp_path / f"{name}.mp4", tmp_path, **settings)
            assert (
                found["status"] == "unreadable"
                and f"{name}.mp4" in found["reason"]
                and why in found["reason"]
            ), found
            assert (found["tracks"], found["crops"]) == (0, "") and not (
                tmp_path / "crops/v.npy"
            ).exists()


def test_a_file_cut_short_keeps_its_beginning(head, tmp_path):
    stream = write(tmp_path / "whole.mkv", np.concatenate([head, head[::-1], head])).read_bytes()
    (tmp_path / "short.mkv").write_bytes(stream[: len(stream) * 6 // 10])
    found = row(tmp_path / "short.mkv", tmp_path)
    assert (
        found["status"] == "ok"
        and 8 <= found["frames"] < 36
        and found["faces"] == crops(tmp_path).count == found["frames"]
    )


def test_frames_of_another_size_count_and_are_named(head, tmp_path):
    half = np.stack([frame_hwc[::2, ::2] for frame_hwc in head])
    parts = [write(tmp_path / f"{n}.ts", each) for n, each in enumerate((head, half, head))]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    notes = []
    frames = list(V.decode(path, notes))
    assert len({(frame.width, frame.height) for frame in frames}) == 1
    assert len(frames) == 36 and sum(frame.lost for frame in frames) >= 12  # and at the joints
    assert "of 36 frames have another size than the first and were left out" in notes[0]


def test_a_video_without_a_face(tmp_path):
    found = row(write(tmp_path / "wall.mp4", np.full((9, 240, 320, 3), 90, np.uint8)), tmp_path)
    assert (found["status"], found["frames"]) == ("no face", 9)
    assert found["reason"] == (
        "no face in 9 frames: dlib sees none of 70 pixels or more; try --detector mtcnn, or enlarge"
        " the video"
    )
