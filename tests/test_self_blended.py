"""Pseudo-forgeries change the inside of the face alone, by the dose that was asked for, and train a
model that has seen no forgery."""

import json
import shutil
from dataclasses import replace

import cv2
import dlib
import numpy as np
import pytest

from dfil import cli, profiles
from dfil.datasets import load_records
from dfil.explain import no_forgery
from dfil.faces.preprocess import preprocess
from dfil.synthetic import SETTINGS, render_target
from dfil.synthetic.codec import encode
from dfil.system.errors import DataError, RunError
from dfil.train import run as run_module
from dfil.train import self_blended
from dfil.train.runs import RunSpec, RunStore
from dfil.train.self_blended import (
    BEND,
    NAME,
    SelfBlended,
    SelfBlendedDataset,
    alterations,
    blend,
    with_fakes,
)
from dfil.train.snippets import SnippetDataset

MARGIN, SIDE = 1.3, 64


def picture(seed: int = 0) -> np.ndarray:
    """A smooth picture of middle colours, (SIDE, SIDE, 3) uint8."""
    coarse = np.random.default_rng(seed).uniform(70, 120, (9, 9, 3)).astype(np.float32)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def still(snippets: int = 2, frames: int = 4, seed: int = 0) -> np.ndarray:
    return np.broadcast_to(picture(seed), (snippets, frames, SIDE, SIDE, 3)).copy()


def blended(clip_uthwc: np.ndarray, jitter: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    clip_uthwc = clip_uthwc.copy()
    rng = np.random.default_rng(seed)
    return clip_uthwc, blend(clip_uthwc, rng, SelfBlended(jitter), MARGIN)


@pytest.mark.parametrize("jitter", [0, 0.5, 1])
def test_outside_the_hull_nothing_changes_and_inside_something_does(jitter):
    noise = np.random.default_rng(1).integers(0, 256, (2, 4, SIDE, SIDE, 3)).astype(np.uint8)
    across = np.linspace(-MARGIN, MARGIN, SIDE)
    outside_hw = (
        np.hypot(across, across[:, None]) > 1 + 2 * 2 * np.sqrt(2) * BEND + 2 / SIDE * MARGIN
    )
    for seed in range(5):
        fake, masks_uthw = blended(noise, jitter, seed)
        assert (masks_uthw[..., outside_hw] == 0).all() and 0.2 < masks_uthw.max() <= 1
        assert (fake[masks_uthw == 0] == noise[masks_uthw == 0]).all()
        assert (fake != noise).any(axis=(2, 3, 4)).all()


def test_without_jitter_the_differences_in_time_are_the_real_clips_scaled():
    clip = still()
    assert (blended(clip, 0)[0] == blended(clip, 0)[0][:1, :1]).all()  # a still clip stays still
    for t in range(4):  # one that grows brighter, by 16 grey levels a frame
        clip[:, t] += np.uint8(16 * t)
    for seed in range(5):
        fake, _ = blended(clip, 0, seed)
        gain_uthwc = np.diff(fake.astype(float), axis=1) / 16
        assert np.abs(gain_uthwc - gain_uthwc[:, :1]).max() <= 0.3  # but for rounding to levels
        assert 0.8 < gain_uthwc.min() and gain_uthwc.max() < 1.3


def test_jitter_is_a_dose_of_change_that_no_single_frame_shows():
    doses = (0, 0.25, 0.5, 1)
    clips = [np.stack([blended(still(1), j, s)[0] for s in range(40)]) for j in doses]
    trembles = [np.abs(np.diff(clip.astype(float), axis=2)).mean() for clip in clips]
    assert trembles[0] == 0 and (np.diff(trembles) > 0).all()
    for jitter in doses:
        rng = np.random.default_rng(0)
        z_nutk = np.stack([alterations(rng, 1, 2, jitter) for _ in range(400)])
        first, second = z_nutk[:, 0, 0].ravel(), z_nutk[:, 0, 1].ravel()
        assert abs(first.mean()) < 0.03 and abs(first.std() - 1) < 0.03
        assert abs(np.corrcoef(first, second)[0, 1] - (1 - jitter**2)) < 0.03


def test_the_same_seed_gives_the_same_clip_and_another_one_another():
    first, again, other = (blended(still(), 0.5, seed)[0] for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_what_cannot_be_is_refused():
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(RunError, match="between 0, rigid, and 1"):
            SelfBlended(wrong)
    with pytest.raises(RunError, match="ellipse or landmarks"):
        SelfBlended(hull="circle")


def test_landmarks_without_their_file_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv(self_blended.LANDMARKS, raising=False)
    assert self_blended.default_hull() == "ellipse"
    with pytest.raises(RunError, match="names no file .*unset it"):
        blend(still(), np.random.default_rng(0), SelfBlended(hull="landmarks"), MARGIN)
    (tmp_path / "points.dat").write_bytes(b"no predictor")
    monkeypatch.setenv(self_blended.LANDMARKS, str(tmp_path / "points.dat"))
    assert self_blended.default_hull() == "landmarks"
    with pytest.raises(RunError, match="points.dat: no shape predictor"):
        blend(still(), np.random.default_rng(0), SelfBlended(hull="landmarks"), MARGIN)


def test_the_hull_of_landmarks_is_theirs(monkeypatch):
    corners = np.array([[20, 20], [44, 20], [44, 40], [20, 40]], np.int32)
    monkeypatch.setattr(self_blended, "landmarks", lambda *_: np.resize(corners, (68, 2)))
    clip = still()
    masks_uthw = blend(clip, np.random.default_rng(0), SelfBlended(0, "landmarks"), MARGIN)
    rows, columns = np.nonzero(masks_uthw.max((0, 1)) > 0)
    assert 16 <= columns.min() and columns.max() <= 48 and 16 <= rows.min() and rows.max() <= 44


def test_the_landmarks_of_a_predictor_file_lie_where_it_was_taught(monkeypatch, tmp_path):
    edge = round(SIDE * (1 - 1 / MARGIN) / 2)
    box = dlib.rectangle(edge, edge, SIDE - 1 - edge, SIDE - 1 - edge)
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    circle = SIDE / 2 + 15 * np.stack([np.cos(angles), np.sin(angles)], 1)
    points = [dlib.point(round(x), round(y)) for x, y in circle]
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = 2, 2, 5
    options.oversampling_amount, options.feature_pool_size = 2, 50
    taught = [dlib.full_object_detection(box, points)]
    pictures = [picture(seed) for seed in range(4)]
    predictor = dlib.train_shape_predictor(pictures, [taught] * len(pictures), options)
    predictor.save(str(tmp_path / "points.dat"))
    monkeypatch.setenv(self_blended.LANDMARKS, str(tmp_path / "points.dat"))
    found = self_blended.landmarks(picture(9), MARGIN)
    assert found.shape == (68, 2) and np.abs(found - circle).max() < 3
    masks_uthw = blend(still(), np.random.default_rng(0), SelfBlended(0, "landmarks"), MARGIN)
    assert masks_uthw[..., 31, 31].min() > 0 and (masks_uthw[..., :10, :] == 0).all()


# ---- data, runs, command line


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder of real videos: two people in files, one in a sub-folder of two."""
    root = tmp_path_factory.mktemp("real") / "videos"
    (root / "Ann").mkdir(parents=True)
    for number, name in enumerate(("one.mp4", "two.MP4", "Ann/a.mp4", "Ann/b.mp4")):
        (clip,) = render_target(number, 9, SETTINGS["ff-like"], methods=[], frames=24)
        (root / name).write_bytes(encode(clip.frames_thwc, 23))
    (root / "notes.txt").write_text("not a video")
    return root


@pytest.fixture(scope="module")
def store(videos, tmp_path_factory):
    records = load_records("folder", videos, share=0.5)
    return preprocess(records, tmp_path_factory.mktemp("crops"), 32, "dlib", jobs=1, progress=False)


def test_a_folder_is_read_by_person(videos):
    found = {r.video_id: r for r in load_records("folder", videos, share=0.5)}
    assert set(found) == {"one.mp4", "two.MP4", "Ann/a.mp4", "Ann/b.mp4"}
    assert {r.label for r in found.values()} == {0}
    assert found["Ann/a.mp4"].person == found["Ann/b.mp4"].person == "Ann"
    assert found["Ann/a.mp4"].split == found["Ann/b.mp4"].split
    assert {r.split for r in found.values()} == {"train", "val"}


def test_links_are_followed_and_hidden_folders_are_not(videos, tmp_path):
    (tmp_path / "Ann").symlink_to(videos)
    (tmp_path / "Ben").mkdir()
    (tmp_path / "Ben" / "up").symlink_to(tmp_path)  # never ends
    (tmp_path / "Ben" / "one.mp4").symlink_to(videos / "one.mp4")
    (tmp_path / ".trash").symlink_to(videos)
    found = {r.video_id: r.person for r in load_records("folder", tmp_path)}
    below = {f"Ann/{name}": "Ann" for name in ("one.mp4", "two.MP4", "Ann/a.mp4", "Ann/b.mp4")}
    assert found == below | {"Ben/one.mp4": "Ben"}


@pytest.mark.parametrize(
    "name", ["manipulated_sequences/x", "Celeb-synthesis", "fake", "train_sample_videos"]
)
def test_a_folder_with_forgeries_is_refused(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    for root in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match="belongs to a dataset with forgeries"):
            load_records("folder", root)


def test_the_test_videos_of_dfdc_are_no_folder_of_real_ones(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test/a.mp4").touch()
    (tmp_path / "labels.csv").touch()
    with pytest.raises(DataError, match="labels.csv belongs to a dataset with forgeries"):
        load_records("folder", tmp_path / "test")
    (tmp_path / "labels.csv").rename(tmp_path / "test/labels.csv")
    for root in (tmp_path, tmp_path / "test"):
        with pytest.raises(DataError, match="labels.csv belongs to a dataset with forgeries"):
            load_records("folder", root)


def dataset(store, *, train=True, seed=0, epoch=0, **how):
    rows = with_fakes(store.index)
    how = dict(snippets=2, frames=4, size=32, train=train, seed=seed) | how
    made = SelfBlendedDataset(store, rows, fakes=SelfBlended(), **how)
    plain = SnippetDataset(store, store.index, **how)
    made.epoch = plain.epoch = epoch
    return made, plain


def test_a_real_clip_and_its_pseudo_forgery_share_their_frames(store):
    made, plain = dataset(store, paired=True)
    count = len(plain)
    x, labels, _ = made.__getitems__(range(2 * count))
    assert labels.tolist() == [0] * count + [1] * count
    reals, _, _ = plain.__getitems__(range(count))
    assert (x[:count] == reals).all()
    edge = (x[count:] == reals)[..., :2, :]  # the crop's upper edge lies outside the ellipse
    assert edge.all() and (x[count:] != reals).flatten(1).any(1).all()


def test_draws_follow_seed_and_epoch_in_training_and_the_seed_in_validation(store):
    item = [len(store.index)]
    clips = {}
    for train in (True, False):
        for seed in (0, 1):
            for epoch in (0, 1):
                made, _ = dataset(store, train=train, seed=seed, epoch=epoch)
                clips[train, seed, epoch] = made.__getitems__(item)[0].numpy()
                assert (made.__getitems__(item)[0].numpy() == clips[train, seed, epoch]).all()
    assert (clips[True, 0, 0] != clips[True, 0, 1]).any()
    assert (clips[False, 0, 0] == clips[False, 0, 1]).all()
    assert (clips[False, 0, 0] != clips[False, 1, 0]).any()


def test_a_run_without_pseudo_forgeries_keeps_its_key(store, tmp_path):
    profile = profiles.get("smoke")
    runs = RunStore(tmp_path, profile)
    plain = RunSpec.of_table(profile, "table1", "dil", "folder")
    keys = {None: runs.key(plain, store)}
    assert "fakes" not in runs.describe(plain, store)
    for jitter in (0.0, 0.5):
        spec = RunSpec.of_table(profile, "table1", "dil", "folder", fakes=SelfBlended(jitter))
        keys[jitter] = runs.key(spec, store)
        assert keys[jitter].startswith(f"dil-folder-{NAME}-")
        assert runs.describe(spec, store)["fakes"] == {"jitter": jitter, "hull": "ellipse"}
    assert len(set(keys.values())) == 3


def test_few_videos_are_trained_for_longer_and_the_plateau_waits_as_much_longer(store):
    spec = RunSpec.of_reals(profiles.get("paper"), "dil", "folder", fakes=SelfBlended())
    batches = -(-len(spec.select(store, "train")) // spec.training.batch)
    longer = spec.long_enough(store, 460)
    assert batches * longer.training.epochs >= 460 > batches * spec.training.epochs
    assert batches * (longer.training.epochs - spec.training.epochs) < 460
    times = longer.training.epochs / spec.training.epochs
    assert longer.training.patience == times * spec.training.patience
    assert spec.long_enough(store, batches * spec.training.epochs) == spec
    assert replace(longer, training=spec.training) == spec


def test_few_videos_and_a_training_without_result_are_said(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "outputs"))
    smoke = replace(profiles.SMOKE, least_updates=2)
    monkeypatch.setitem(profiles.PROFILES, "smoke", smoke)
    monkeypatch.setattr(run_module, "AT_CHANCE", 0.0)
    train = ["train", "resnet50", "--profile", "smoke", "--fakes", NAME, "--real", str(videos)]
    assert cli.main(train) == 0
    said = capsys.readouterr().out
    assert "real videos are few: 2 epochs, not 1." in said and "never left chance" in said


def test_from_a_folder_of_real_videos_to_a_score(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "outputs"))
    train = ["train", "dil", "--profile", "smoke", "--fakes", NAME, "--jitter", "1"]
    assert cli.main([*train, "--real", str(videos)]) == 0
    said = capsys.readouterr().out
    assert "jitter 1; the face is an ellipse" in said and f"dil-folder-{NAME}-" in said
    (weights,) = (tmp_path / "outputs").rglob("weights.safetensors")
    video = str(videos / "one.mp4")
    assert cli.main(["score", video, "--weights", str(weights), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["score"] < 1 and not told["synthetic_training"] and NAME in told["trained_on"]


def test_people_left_out_of_training_are_tested(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    profile = profiles.get("smoke")
    runs = RunStore(tmp_path / "runs", profile)
    with pytest.raises(DataError, match="faces of 3 people, of whom two in five"):
        no_forgery.real_people(runs, videos, ["resnet50"], epochs=2)
    people = shutil.copytree(videos, tmp_path / "people")
    (clip,) = render_target(4, 9, SETTINGS["ff-like"], methods=[], frames=24)
    (people / "four.mp4").write_bytes(encode(clip.frames_thwc, 23))
    results = no_forgery.real_people(runs, people, ["resnet50"], epochs=2)
    assert len(results) == len(no_forgery.JITTERS)
    assert "2 people were trained on, 2 left out are tested." in capsys.readouterr().out
    for (name, _), result in results.items():
        (scored,), (key,) = result.scores, result.runs
        assert name.startswith("resnet50, jitter") and scored["label"].mean() == 0.5
        told = json.loads((runs.folder / key / "run.json").read_text())
        assert told["settings"]["epochs"] == 2 and told["settings"]["keep"] == "last"
        left = {"one.mp4", "two.MP4", "four.mp4", "Ann"} - set(scored["person"])
        assert len(left) == 2, "two of four people are trained on"
        assert told["made"]["videos"]["train"] == 2 * sum(1 + (name == "Ann") for name in left)


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--real {videos}", "--fakes self-blended; give that too"),
        ("--jitter 1", "--fakes self-blended; give that too"),
        ("--fakes self-blended --real {videos} --root {videos}", "give one"),
        ("--fakes self-blended --real {videos} --test", "drop one of them"),
        ("--fakes self-blended --real nowhere", "nowhere: no such folder"),
        ("--fakes self-blended --jitter 2", "a jitter of 2.0: it must lie between 0"),
        ("--fakes self-blended --manipulations FaceSwap", "drop --manipulations"),
        ("--fakes self-blended --real {empty}", "holds no folder of real videos video"),
        ("--fakes self-blended --real {alone}", "videos of at least two people are needed"),
    ],
)
def test_bad_input_is_one_sentence(videos, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/one.mp4").symlink_to(videos / "one.mp4")
    places = dict(videos=videos, empty=tmp_path / "empty", alone=tmp_path / "alone")
    words = words.format(**places).split()
    assert cli.main(["train", "dil", "--profile", "smoke", *words]) == 1
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1
