"""Videos that went wrong without a word elsewhere: trimmed, with a cover, scratched, oddly
named.
"""

import json
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dfil.datasets.records import VideoRecord
from dfil.faces import kept, rows
from dfil.faces import video as V
from dfil.faces.clock import Clock
from dfil.faces.crops import Crops
from dfil.faces.detect import finder
from dfil.faces.preprocess import Settings, process_video
from dfil.synthetic import SETTINGS, render_target
from dfil.train import own_video


@pytest.fixture(scope="module")
def head():
    """(40, 224, 224, 3)"""
    frames = next(iter(render_target(0, 1, SETTINGS["ff-like"], methods=(), frames=40))).frames_thwc
    return np.stack([cv2.resize(f, (224, 224), interpolation=cv2.INTER_AREA) for f in frames])


def write(path: Path, frames_thwc, setup=lambda stream: None, codec="libx264", **options) -> Path:
    with av.open(f"file:{path}", "w") as container:
        options = {"crf": "20", "threads": "1", **options} if codec == "libx264" else options
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames_thwc.shape[1:3], "yuv420p"
        setup(stream)
        for n, frame_hwc in enumerate(frames_thwc):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_hwc), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def box_at(content: bytes, *names: bytes, start: int = 0, stop: int | None = None) -> int:
    """Where an MP4 box lies inside others."""
    while start < (stop or len(content)):
        size, name = struct.unpack_from(">I4s", content, start)
        if name == names[0]:
            inside = start + 8, start + size
            return (
                box_at(content, *names[1:], start=inside[0], stop=inside[1]) if names[1:] else start
            )
        start += size
    raise KeyError(names)


def row(path: Path, folder: Path, **settings) -> dict:
    record = VideoRecord("own", "v", 0, "", "", "", path)
    return process_video(record, folder, Settings(**{"size": 48, **settings}))


def test_of_a_trimmed_video_only_what_is_shown_counts(head, tmp_path):
    """A lossless trim stores all frames; the edit list shows the last 16."""
    plain = write(tmp_path / "shown.mp4", head[24:], bf="0", g="250")
    content = bytearray(write(tmp_path / "all.mp4", head, bf="0", g="250").read_bytes())
    entry = box_at(content, b"moov", b"trak", b"edts", b"elst") + 16
    movie, media = (
        struct.unpack_from(">I", content, box_at(content, *names) + at)[0]
        for names, at in (((b"moov", b"mvhd"), 20), ((b"moov", b"trak", b"mdia", b"mdhd"), 20))
    )
    struct.pack_into(">Ii", content, entry, 16 * movie // 25, 24 * media // 25)
    (tmp_path / "trimmed.mp4").write_bytes(content)
    for settings in ({}, {"stretches": (2, 6)}):
        trimmed = row(tmp_path / "trimmed.mp4", tmp_path / "a", **settings)
        shown = row(plain, tmp_path / "b", **settings)
        names = ("status", "frames", "faces", "reason")
        assert [trimmed[n] for n in names] == [shown[n] for n in names] and shown["frames"] == 16
        a, b = (Crops(tmp_path / name / "crops/v.npy") for name in "ab")
        assert a.runs == b.runs
    assert V.count_frames(tmp_path / "trimmed.mp4") == 16


def test_a_cover_picture_is_not_the_video(head, tmp_path):
    content = write(tmp_path / "plain.mp4", head[:12]).read_bytes()
    picture = cv2.imencode(".jpg", np.full((96, 64, 3), 90, np.uint8))[1].tobytes()

    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), name) + body

    cover = box(b"covr", box(b"data", struct.pack(">II", 13, 0) + picture))
    handler = box(b"hdlr", struct.pack(">II4s", 0, 0, b"mdir") + b"appl" + bytes(9))
    tags = box(b"udta", box(b"meta", bytes(4) + handler + box(b"ilst", cover)))
    at = box_at(content, b"moov")
    size = struct.unpack_from(">I", content, at)[0]
    moov = struct.pack(">I4s", size + len(tags), b"moov") + tags + content[at + 8 :]
    (tmp_path / "cover.mp4").write_bytes(content[:at] + moov)
    with av.open(str(tmp_path / "cover.mp4")) as container:
        assert container.streams.video[0].codec_context.codec.name == "mjpeg"
    found = row(tmp_path / "cover.mp4", tmp_path)
    assert (found["status"], found["frames"], found["reason"]) == ("ok", 12, "")


@pytest.mark.parametrize("pixel", [Fraction(2, 1), Fraction(1, 2)])
def test_pixels_that_are_not_square_are_made_so(head, tmp_path, pixel):
    stored = (112, 224) if pixel > 1 else (224, 112)
    small = np.stack([cv2.resize(f, stored, interpolation=cv2.INTER_AREA) for f in head[:12]])

    def stretched(stream):
        stream.codec_context.sample_aspect_ratio = pixel

    found = row(write(tmp_path / "pal.mkv", small, stretched), tmp_path)
    assert (found["status"], found["faces"]) == ("ok", 12)
    assert "shown as 224x224" in found["reason"]
    assert Crops(tmp_path / "crops/v.npy").source == (224, 224)


def test_after_damage_it_goes_on_at_the_next_key_frame(head, tmp_path):
    path = write(tmp_path / "scratched.mp4", head, g="8", bf="0")
    whole = list(V.read_frames(path))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        hit = [p.pos for p in container.demux(video=0) if p.size][18]
    content[hit + 4 : hit + 60] = bytes(56)
    path.write_bytes(content)
    notes: list[str] = []
    frames = list(V.decode(path, notes))
    lost = [n for n, frame in enumerate(frames) if frame.lost]
    assert len(frames) == 40 and lost == list(range(18, 24))
    assert notes == ["damaged in 1 place: 6 of 40 frames left out"]
    for n, frame in enumerate(frames):
        assert frame.lost or np.array_equal(frame.rgb(), whole[n])
    found = row(path, tmp_path)
    assert (found["status"], found["frames"], found["faces"]) == ("ok", 40, 34)
    assert "damaged in 1 place: 6 of 40 frames left out" in found["reason"]
    assert Crops(tmp_path / "crops/v.npy").runs == [(0, 18), (24, 16)]
    # And where nobody can be seen for a while, that is when it is.
    _, _, clock, _ = own_video._find(path, Settings(size=48, tracks="all"), [])
    assert [clock.at(n) for n in range(41)] == pytest.approx([n / 25 for n in range(41)], abs=2e-3)


def test_a_damaged_video_that_is_fetched_again_is_cut_again(head, tmp_path):
    """Also where the damage lies outside of the pieces that the checksum looks at."""
    path = write(tmp_path / "clip.mp4", head, g="8", bf="0")
    record, how = VideoRecord("own", "v", 0, "", "", "", path), Settings(size=48)
    process_video(record, tmp_path, how)
    row = rows.read(tmp_path, "v")
    damaged = row | {"reason": "damaged in 1 place: 6 of 40 frames left out"}
    file = rows.path_of(tmp_path, "v")
    assert rows.is_done(record, tmp_path, how)
    file.write_text(json.dumps(damaged))
    assert rows.is_done(record, tmp_path, how)
    os.utime(path, (1, 1))
    assert not rows.is_done(record, tmp_path, how)
    file.write_text(json.dumps(row))  # an intact one may be copied
    assert rows.is_done(record, tmp_path, how)


def test_a_fake_of_a_real_with_a_damaged_end_has_its_stretches(head, tmp_path):
    frames = np.concatenate([head, head])  # 80
    path = write(tmp_path / "real.mp4", frames, g="4", bf="0")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        last = [(p.pos, p.size) for p in container.demux(video=0) if p.size][76:]
    for at, size in last:  # from the last key frame on nothing is left
        content[at + 4 : at + size] = bytes(size - 4)
    path.write_bytes(content)
    how = Settings(size=48, stretches=(3, 16))
    real = VideoRecord("own", "real", 0, "", "", "", path)
    process_video(real, tmp_path, how)
    forged = write(tmp_path / "fake.mp4", frames)
    fake = VideoRecord("own", "fake", 1, "", "", "", forged, boxes_from="real")
    process_video(fake, tmp_path, how)
    own, taken = (Crops(tmp_path / f"crops/{name}.npy") for name in ("real", "fake"))
    assert own.count < 80 and own.runs[:2] == [(0, 16), (32, 16)]
    assert taken.runs == own.runs


def test_joined_streams_are_read_to_the_end_of_the_last(head, tmp_path):
    """The clock starts anew at the join, where the transport stream's packet count jumps, too."""
    parts = [
        write(tmp_path / f"{k}.ts", frames) for k, frames in enumerate((head, head[::-1], head))
    ]
    whole = [list(V.read_frames(path)) for path in parts]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(path.read_bytes() for path in parts))
    notes: list[str] = []
    frames, clock = list(V.decode(joined, notes)), Clock(25)
    assert len(frames) == 120 and not any("truncated" in note for note in notes)
    assert sum(frame.lost for frame in frames) < 12 and frames[-1].lost is False
    for n, frame in enumerate(frames):
        assert frame.lost or np.array_equal(frame.rgb(), whole[n // 40][n % 40])
        clock.add(frame.seconds)
    assert 4 < clock.length < 5


def test_a_damaged_fake_that_takes_its_reals_boxes_leaves_the_same_frames_out(head, tmp_path):
    real = VideoRecord("own", "real", 0, "", "", "", write(tmp_path / "real.mp4", head))
    process_video(real, tmp_path, Settings(size=48))
    path = write(tmp_path / "fake.mp4", head, g="8", bf="0")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        hit = [p.pos for p in container.demux(video=0) if p.size][18]
    content[hit + 4 : hit + 60] = bytes(56)
    path.write_bytes(content)
    fake = VideoRecord("own", "fake", 1, "", "", "", path, boxes_from="real")
    found = process_video(fake, tmp_path, Settings(size=48))
    assert (found["status"], found["faces"]) == ("ok", 34)
    a, b = (Crops(tmp_path / f"crops/{name}.npy") for name in ("real", "fake"))
    assert b.runs == [(0, 18), (24, 16)] and a.scale == b.scale
    assert np.array_equal(b.boxes[18:], a.boxes[24:]) and len(b.patches) == 34
    assert np.abs(a.snippet(30, 4, 48).astype(int) - b.snippet(30, 4, 48)).mean() < 3


def test_any_name_that_the_system_allows(head, tmp_path, monkeypatch):
    write(tmp_path / "12:30:05.mp4", head[:6])
    monkeypatch.chdir(tmp_path)
    for name in ("12:30:05.mp4", "./12:30:05.mp4", tmp_path / "12:30:05.mp4"):
        assert len(list(V.read_frames(name))) == V.count_frames(name) == 6


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("https://example.org/a.mp4", "is an address"),
        ("missing.mp4", "no such file"),
        ("folder", "is a folder"),
    ],
)
def test_what_is_no_file_is_said_as_what_it_is(tmp_path, monkeypatch, name, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for read in (V.count_frames, lambda path: list(V.decode(path))):
        with pytest.raises(V.VideoError, match=why):
            read(Path(name))


def test_interlaced_video_gets_a_note(head, tmp_path):
    woven = head[:12].copy()
    woven[:, 1::2] = np.roll(head[:12], 3, axis=2)[:, 1::2]

    def interlaced(stream):
        stream.codec_context.flags |= int(av.codec.context.Flags.interlaced_dct)

    path = write(tmp_path / "woven.mkv", woven, interlaced, "mpeg2video", b="2000000")
    notes: list[str] = []
    assert len(list(V.decode(path, notes))) == 12 and "deinterlace" in notes[0]


def test_frames_too_small_for_mtcnn_hold_no_face(head, tmp_path):
    tiny = np.stack([cv2.resize(f, (64, 48), interpolation=cv2.INTER_AREA) for f in head[:10]])
    found = row(write(tmp_path / "tiny.mp4", tiny), tmp_path, detector="mtcnn")
    assert found["status"] == "no face", found["reason"]


# ---- people


def scene(head, places, side=(480, 640)) -> np.ndarray:
    """A head on a still textured wall, its centre where `places` say."""
    wall = np.random.default_rng(0).integers(60, 160, (*side, 3)).astype(np.uint8)
    wall = cv2.GaussianBlur(wall, (0, 0), 3)
    frames = np.repeat(wall[None], len(places), 0)
    padded = np.pad(frames, ((0, 0), (300, 300), (300, 300), (0, 0)), mode="edge")
    for n, (x, y) in enumerate(places):
        face = head[min(n % 78, 78 - n % 78 - 1) if n % 78 >= 40 else n % 78]
        left, top = int(x) + 300 - 112, int(y) + 300 - 112
        padded[n, top : top + 224, left : left + 224] = face
    return padded[:, 300:-300, 300:-300]


def test_somebody_may_walk_out_of_the_picture(head, tmp_path):
    walk = scene(head, [(250 + 13 * n, 240) for n in range(44)])
    found = row(write(tmp_path / "leaving.mp4", walk), tmp_path, every=8)
    assert found["status"] == "ok" and 16 <= found["faces"] <= 34, found["reason"]


def test_a_box_beside_the_picture_is_looked_at_without_an_error(head):
    from dfil.faces.frame import Frame

    frame = Frame(av.VideoFrame.from_ndarray(np.full((240, 320, 3), 90, np.uint8), format="rgb24"))
    for name in ("dlib", "mtcnn"):
        for x, y in ((900, 100), (-700, 100), (100, 900), (100, -700), (400, 300)):
            (found,) = finder(name).near([(frame, np.array([x, y, x + 90, y + 90.0]), 1.6)])
            assert found.shape == (0, 5)


def test_a_picture_inside_the_picture_that_changes_is_no_cut(head, tmp_path):
    shaking = scene(head, [(180 + 40 * (n >= 20), 240) for n in range(40)])
    shaking[:20, :, 460:] = 20
    shaking[20:, :, 460:] = 230
    found = row(write(tmp_path / "inset.mp4", shaking), tmp_path, tracks="all")
    assert (found["tracks"], found["faces"]) == (1, 40), found["reason"]


def test_tracks_of_one_head_become_one():
    rng = np.random.default_rng(0)
    looks = [rng.standard_normal((24, 24)).astype(np.float32) for _ in range(2)]

    def track(first, stop, x, look):
        valid = np.zeros(100, bool)
        valid[first:stop] = True
        boxes = np.where(valid[:, None], np.float32([x, 50, x + 100, 150]), 0).astype(np.float32)
        return kept.Track(boxes, valid, valid.copy(), look)

    def spans(*tracks, cuts=()):
        found = kept.one_per_head(list(tracks), list(cuts))
        return [(int(t.valid_n.argmax()), int(t.valid_n.sum())) for t in found]

    a, b = looks
    assert spans(track(0, 60, 100, a), track(30, 49, 120, a)) == [(0, 60)]  # two at once
    assert spans(track(0, 60, 100, a), track(30, 49, 300, b)) == [(0, 60), (30, 19)]
    goes_on = track(0, 40, 100, a), track(44, 62, 110, a), track(64, 103, 120, a)
    assert spans(*goes_on) == [(0, 94)]
    assert spans(track(0, 40, 100, a), track(44, 62, 110, b)) == [(0, 40), (44, 18)]
    assert spans(track(0, 40, 100, a), track(44, 62, 110, a), cuts=[42]) == [(0, 40), (44, 18)]
