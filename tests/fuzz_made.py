"""Kinds of damage to videos, and to what the package itself wrote: runs and crop stores.

GOOD names what each kind damages; it is made once per process. Heavy libraries are loaded there, so
that the kinds which need none do not wait for them.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import lru_cache
from pathlib import Path

from injuries import changed, injured, other_value, spoil

from dfil.system.errors import DfilError

FRAMES = 16
SMALL, LARGE = 0, 1  # which of two sizes a video stream has
ODD = (0, 1, 7, 8, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
INSIDE = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta"}  # hold others
TABLES = {b"stts", b"ctts", b"stsz", b"stsc", b"stco", b"stss", b"elst", b"stsd", b"hdlr"}
TABLES |= {b"mvhd", b"tkhd", b"mdhd"}
# Of Matroska: segment, seek head, tracks, cues, cluster; block, video, width, height, time, number
PARTS = "18538067 114d9b74 1654ae6b 1c53bb6b 1f43b675 a3 e0 b0 ba e7 d7 83 86 63a2".split()
STATUS = {"ok", "no face", "too short", "unreadable"}  # "failed" is for what nobody expected


@lru_cache
def shelter() -> Path:
    """A folder that is there as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="dfil-fuzz-good-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# ---- videos


def write_video(path: Path, streams: list, codec: str = "libx264", **options: str) -> bytes:
    """A video with the streams in this order: SMALL, LARGE, or "audio"."""
    import av
    import numpy as np

    with av.open(str(path), "w", options=options) as container:
        opened = []
        for what in streams:
            if what == "audio":
                opened.append(container.add_stream("aac", rate=8000, layout="mono"))
                continue
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = heads()[what].shape[1:3]
            stream.pix_fmt, stream.gop_size = "yuv420p", 6
            opened.append(stream)
        for what, stream in zip(streams, opened, strict=True):
            if what == "audio":
                noise = np.random.default_rng(0).uniform(-1, 1, (1, 1024)).astype(np.float32)
                sound = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
                sound.sample_rate = 8000
                container.mux(stream.encode(sound))
            for picture in [] if what == "audio" else heads()[what]:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path.read_bytes()


@lru_cache
def heads() -> tuple:
    """The same face in two sizes, each (FRAMES, H, W, 3) uint8."""
    import numpy as np

    from dfil.synthetic import SETTINGS, render_target

    clips = render_target(0, 1, SETTINGS["ff-like"], methods=(), frames=FRAMES)
    large_thwc = next(iter(clips)).frames_thwc[:, 40:280, 40:280]
    return np.ascontiguousarray(large_thwc[:, ::2, ::2]), np.ascontiguousarray(large_thwc)


@lru_cache
def good_videos() -> tuple[Path, dict, list[tuple[str, bytes]]]:
    """A good video, its row, and others to damage: suffix and content."""
    folder = shelter() / "videos"
    folder.mkdir()
    good, forms = folder / "good.mp4", []
    write_video(good, [LARGE])
    for suffix, codec, options in (
        ("mp4", "libx264", {}),
        ("mp4", "mpeg4", {"movflags": "faststart"}),
        ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("mkv", "libx264", {}),
        ("mkv", "ffv1", {}),
    ):
        file = folder / f"{len(forms)}.{suffix}"
        streams = [SMALL] if codec == "ffv1" else [LARGE]
        forms.append((suffix, write_video(file, streams, codec, **options)))
    row = preprocessed(folder / "crops", {"good": good}).loc["good"]
    assert row["status"] == "ok" and row["faces"] == FRAMES, row
    return good, told(row), forms


def told(row) -> dict:
    return {name: row[name] for name in "status frames faces seen patch checksum tracks".split()}


def preprocessed(folder: Path, files: dict[str, Path], boxes_from: str = "", **settings):
    """The index of the files' crops, by name. boxes_from: of whom the file "bad" is a fake."""
    from dfil.datasets.records import VideoRecord
    from dfil.faces.preprocess import preprocess

    records = [
        VideoRecord("own", name, 0, "", "", "", path, boxes_from=boxes_from * (name == "bad"))
        for name, path in files.items()
    ]
    store = preprocess(records, folder, 48, jobs=1, progress=False, **settings)
    for name in store.index.query("status == 'ok'")["video_id"]:
        crops = store.open(name)
        crops.snippet(crops.longest[0], 4, 32)
    return store.index.set_index("video_id")


def atoms(content: bytes, at: int = 0, stop: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """The atoms of an mp4 file, also those inside others: type, place, size."""
    stop = len(content) if stop is None else stop
    while at + 8 <= stop:
        size, name = struct.unpack_from(">I4s", content, at)
        yield name, at, size
        if name in INSIDE:
            yield from atoms(content, at + 8, at + size)
        at += max(8, size)


def odd_atoms(content: bytes, rng: random.Random) -> bytes:
    """Sizes and fields of the index, times among them, that cannot be."""
    changed, found = bytearray(content), list(atoms(content))
    tables = [(at, size) for name, at, size in found if name in TABLES]
    for _ in range(rng.randrange(1, 4)):
        value = rng.choice((*ODD, rng.randrange(2**32)))
        if rng.random() < 0.4 or not tables:
            place = rng.choice(found)[1]
        else:
            at, size = rng.choice(tables)
            place = at + 8 + 4 * rng.randrange(max(1, size // 4 - 2))
        struct.pack_into(">I", changed, min(place, len(changed) - 4), value)
    return bytes(changed)


def odd_elements(content: bytes, rng: random.Random) -> bytes:
    """Sizes, times and settings of Matroska's elements that cannot be."""
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        name = bytes.fromhex(rng.choice(PARTS))
        places = [n for n in range(len(content)) if content.startswith(name, n)] or [0]
        at = rng.choice(places) + len(name) + rng.randrange(4)
        noise = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(rng.randrange(1, 9))))
        changed[at : at + len(noise)] = noise
    return bytes(changed)


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Single bits of the beginning, the end or anywhere; the length stays."""
    changed, size = bytearray(content), len(content)
    low, high = rng.choice(((0, 200), (size - 900, size), (0, size)))
    for _ in range(rng.choice((1, 4, 40))):
        place = min(size - 1, max(0, rng.randrange(low, max(low + 1, high))))
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def videos(root: Path, rng: random.Random) -> Callable:
    """A video that is cut, flipped, or lies about sizes, times and streams."""
    good, row, forms = good_videos()
    root.mkdir()
    suffix, content = rng.choice(forms)
    if rng.random() < 0.25:
        suffix = rng.choice(("mp4", "mkv"))
        streams = [rng.choice((SMALL, LARGE, "audio")) for _ in range(rng.randrange(1, 4))]
        content = write_video(root / f"streams.{suffix}", streams)
    odd = odd_atoms if suffix == "mp4" else odd_elements
    options = (
        lambda: content[: rng.randrange(len(content) + 1)],
        lambda: flipped(content, rng),
        lambda: odd(content, rng),
        lambda: odd(flipped(content, rng), rng),
        lambda: injured(content, rng),
        lambda: content,
    )
    bad = root / f"bad.{rng.choice((suffix, suffix, 'mp4', 'avi'))}"
    bad.write_bytes(rng.choice(options)())
    files = [("bad", bad), ("good", good)]
    rng.shuffle(files)
    how = rng.choice(({}, {}, {"boxes_from": "good"}, {"tracks": "all"}, {"stretches": (2, 4)}))

    def use():
        try:
            index = preprocessed(root / "crops", dict(files), **how)
        except DfilError as error:  # it would stop the videos beside it
            raise AssertionError(f"no row: {error}") from error
        if "stretches" not in how:
            assert told(index.loc["good"]) == row, index.loc["good"]
        found = index.loc["bad"]
        assert found["status"] in STATUS, found["reason"]
        assert found["status"] == "ok" or len(found["reason"]) > 20, found
        found["reason"].encode()

    return use


# ---- what the package wrote


@lru_cache
def good_store() -> tuple[Path, list]:
    """A store of a tiny built-in tree, and the records it is made of."""
    from dfil.datasets import load_records
    from dfil.faces.preprocess import preprocess
    from dfil.synthetic import write_ffpp

    sizes = dict(train=2, val=2, test=2, frames=FRAMES, qualities=("c23",), jobs=1)
    root = shelter() / "tree"
    write_ffpp(root, "temporal-only", manipulations=("Deepfakes",), progress=False, **sizes)
    records = load_records("ffpp", root)
    preprocess(records, shelter() / "crops", 32, jobs=1, progress=False)
    return shelter() / "crops", records


@lru_cache
def good_run() -> tuple:
    """A trained run with its checkpoint: its profile, what it is, and its scores."""
    import dataclasses

    import torch

    from dfil.faces.store import CropStore
    from dfil.profiles import SMOKE, Training
    from dfil.train import repeat
    from dfil.train.runs import RunSpec, RunStore

    torch.set_num_threads(1)
    backbone = {"depth": (1, 1, 1, 1), "width": 4, "stem": "small"}
    how = Training(epochs=1, lr=1e-3, batch=4, paired=True)
    profile = dataclasses.replace(SMOKE, backbone=backbone, training=how)
    spec = RunSpec.of_table(profile, "table1", "dil", "ffpp", "c23", ("Deepfakes",))
    store, runs = CropStore(good_store()[0]), RunStore(shelter() / "runs", profile)
    saved, save = shelter() / "checkpoint.pt", repeat.save

    def save_and_keep(training, path: Path) -> None:
        save(training, path)
        shutil.copy(path, saved)

    repeat.save = save_and_keep
    try:
        run = runs.get(spec, store)
    finally:
        repeat.save = save
    scores = run.scores(store)
    shutil.copy(saved, run.folder)
    return profile, spec, scores


def spoil_file(path: Path, rng: random.Random) -> None:
    """Injure a file by what it is: JSON, a table, tensors, an archive of arrays, or bytes."""
    content = path.read_bytes()
    if path.suffix == ".json":
        spoil(path, rng)
    elif path.suffix == ".parquet" and rng.random() < 0.4:
        _other_table(path, rng)
    elif path.suffix == ".safetensors" and rng.random() < 0.4:
        size = int.from_bytes(content[:8], "little")
        header = json.dumps(changed(json.loads(content[8 : 8 + size]), rng)).encode()
        size = rng.choice((len(header), len(header), *ODD))
        path.write_bytes(size.to_bytes(8, "little") + header + content[8 + len(header) :])
    elif path.suffix in (".npz", ".npy") and rng.random() < 0.4:
        _other_arrays(path, rng)
    elif path.suffix == ".pt" and rng.random() < 0.4:
        _other_checkpoint(path, rng)
    else:
        path.write_bytes(rng.choice((injured, flipped))(content, rng))


def _other_table(path: Path, rng: random.Random) -> None:
    import pandas as pd

    df = pd.read_parquet(path)
    name = rng.choice(list(df.columns))
    with suppress(ValueError, TypeError, OverflowError):
        options = (
            lambda: df.drop(columns=name),
            lambda: df.rename(columns={name: f"{name} "}),
            lambda: df.assign(**{name: [str(other_value(rng))[:99]] * len(df)}),
            lambda: df.assign(**{name: None}),
            lambda: df.iloc[:0],
            lambda: pd.concat([df, df]),
        )
        rng.choice(options)().to_parquet(path, index=False)


def _other_arrays(path: Path, rng: random.Random) -> None:
    import numpy as np

    if path.suffix == ".npy":
        content = path.read_bytes()
        shape = rng.choice((b"(1", b"(9" + b"9" * rng.randrange(1, 12), b"(-1", b"((1"))
        path.write_bytes(content.replace(b"(16", shape, 1))
        return
    with np.load(path) as file:
        arrays = dict(file)
    name = rng.choice(list(arrays))
    array = arrays.pop(name)
    options = (None, array[:0] if array.ndim else array * 0, array.astype(str), array[None])
    other = rng.choice((*options, array.astype(float) * np.nan, array - 10**9))
    np.savez(path, **arrays, **({} if other is None else {name: other}))


def _other_checkpoint(path: Path, rng: random.Random) -> None:
    import torch

    state = torch.load(path, weights_only=True)
    name = rng.choice(list(state))
    others = (None, {}, [], 3, "x", torch.zeros(2), [{"epoch": "x"}])
    torch.save({**state, name: rng.choice(others)}, path)


def quietly(use: Callable) -> Callable:
    """Without what a user would be told on the way, in which a damaged file is named."""

    def silent():
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            use()

    return silent


def runs(root: Path, rng: random.Random) -> Callable:
    """A file of a run, of a trained one or of one that was stopped."""
    from dfil.faces.store import CropStore
    from dfil.train.runs import RunStore

    profile, spec, scores = good_run()
    shutil.copytree(shelter() / "runs", root / "runs")
    store, kept = CropStore(good_store()[0]), RunStore(root / "runs", profile)
    folder = kept.run(spec, store).folder
    if rng.random() < 0.25:  # stopped after its epoch
        (folder / "run.json").unlink()
        victims = [folder / "checkpoint.pt"]
    else:
        victims = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    spoil_file(rng.choice(victims), rng)

    def use():
        run = kept.get(spec, store)
        run.model()
        assert isinstance(run.at_chance, bool) and run.record["settings"]
        assert len(run.history.query("kept")) and run.history["val_auc"].dtype == float
        found = run.scores(store)
        assert list(found["video_id"]) == list(scores["video_id"])
        assert found["score"].between(0, 1).all()

    return quietly(use)


def stores(root: Path, rng: random.Random) -> Callable:
    """A file of a crop store, which is then read, or made whole by the same call again."""
    from dfil.faces.preprocess import preprocess
    from dfil.faces.store import CropStore

    good, records = good_store()
    shutil.copytree(good, root, copy_function=os.link)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    few = [path for path in files if path.parent == root]
    path = rng.choice(rng.choice((few, files)))
    shutil.copy(path, f"{path}.own")  # the others are links
    os.replace(f"{path}.own", path)
    spoil_file(path, rng)
    again = rng.random() < 0.5

    def use():
        if again:
            preprocess(records, root, 32, jobs=1, progress=False)
        store = CropStore(root)
        for name in store.index.query("status == 'ok'")["video_id"]:
            crops = store.open(name)
            crops.snippet(crops.longest[0], 4, 32)
        if again:
            names = ["video_id", "label", "split", "frames", "faces", "checksum"]
            assert store.index[names].equals(CropStore(good).index[names])

    return quietly(use)


GOOD = {"videos": good_videos, "runs": good_run, "stores": good_store}
