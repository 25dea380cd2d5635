"""The synthetic counterparts of Celeb-DF, the DFDC preview and WildDeepfake: layouts, truth, and
what is drawn independently of labels.
"""

import json
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfil import cli, synthetic
from dfil.datasets import available, load_records, splits
from dfil.datasets.check import WRONG, check
from dfil.datasets.sequences import read_pictures
from dfil.datasets.truth import forged_frames, truth
from dfil.explain.inconsistency import difference_ratio
from dfil.synthetic import (
    DATASET_OF,
    METHODS,
    SETTINGS,
    celebdf_tree,
    dfdc_tree,
    places,
    wilddeepfake_tree,
)
from dfil.synthetic.camera import Camera
from dfil.synthetic.codec import decode
from dfil.synthetic.settings import PEOPLE, SIZE
from dfil.synthetic.tree import Job, deal, fill
from dfil.system.errors import DataError

SIZES = {
    "celebdf-like": dict(train=4, test=4, frames=6, seed=5),
    "dfdc-like": dict(train=4, test=2, frames=14, seed=5),
    "wild-like": dict(train=4, test=2, frames=14, seed=5),
}
REALS = {setting: sizes["train"] + sizes["test"] for setting, sizes in SIZES.items()}


@pytest.fixture(autouse=True)
def places_and_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))  # where WildDeepfake's listings go
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trees")
    return {
        setting: synthetic.write(setting, folder / setting, jobs=1, progress=False, **sizes)
        for setting, sizes in SIZES.items()
    }


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


# ---- every tree


@pytest.mark.parametrize("setting", SIZES)
def test_the_adapter_reads_the_tree_and_check_finds_nothing_wrong(setting, trees, capsys):
    dataset, root, sizes = DATASET_OF[setting], trees[setting], SIZES[setting]
    found = load_records(dataset, root)
    assert Counter(r.label for r in found) == {0: REALS[setting], 1: REALS[setting]}
    assert Counter(r.label for r in found if r.split == "test") == {
        0: sizes["test"],
        1: sizes["test"],
    }
    assert {r.split for r in found} == {"train", "val", "test"}
    assert all(r.path.exists() or "tar.gz" in str(r.path) for r in found)
    for seed in range(4):
        carved = load_records(dataset, root, seed=seed, share=0.4)
        train, val = (set(splits.groups(carved, split)) for split in ("train", "val"))
        assert val and train and not train & val
    result = check(dataset, root)
    assert [result[name] for name in WRONG] == [[]] * len(WRONG) and result["synthetic"]
    assert cli.main(["data", "check", dataset, "--root", str(root)]) == 0
    assert f"{2 * REALS[setting]} synthetic videos" in capsys.readouterr().out


def test_check_says_what_is_wrong_with_a_damaged_copy(trees, tmp_path, capsys):
    damages = {
        "celebdf-like": ("Celeb-synthesis/*.mp4", lambda path: path.unlink(), "Missing: 1"),
        "dfdc-like": ("method_B/*/*/*.mp4", lambda path: path.write_bytes(b""), "is empty"),
        "wild-like": (
            "real_test/*.tar.gz",
            lambda path: path.write_bytes(path.read_bytes()[:-9]),
            "cannot be read to its end",
        ),
    }
    for setting, (pattern, damage, sentence) in damages.items():
        dataset, root = DATASET_OF[setting], shutil.copytree(trees[setting], tmp_path / setting)
        on_test = [r.path for r in load_records(dataset, root, splits=["test"]) if r.label]
        damage(
            next(
                path
                for path in sorted(root.glob(pattern))
                if setting != "celebdf-like" or path in on_test
            )
        )
        assert cli.main(["data", "check", dataset, "--root", str(root)]) == 1
        assert sentence in capsys.readouterr().out


@pytest.mark.parametrize("setting", SIZES)
def test_resuming_in_two_processes_gives_the_same_bytes(setting, trees, tmp_path):
    """What is lost is drawn again by two processes, the rest is left alone: the files depend on
    neither.
    """
    before, root = files(trees[setting]), shutil.copytree(trees[setting], tmp_path / "tree")
    lost = [name for name in before if name.endswith((".mp4", ".tar.gz"))][1::7][:2]
    for name in lost:
        (root / name).unlink()
    times = {name: (root / name).stat().st_mtime_ns for name in before if name not in lost}
    synthetic.write(setting, root, jobs=2, progress=False, **SIZES[setting])
    assert files(root) == before
    clips = (".mp4", ".tar.gz", "synthetic.json")
    assert all(
        (root / name).stat().st_mtime_ns == time
        for name, time in times.items()
        if name.endswith(clips)
    )


@pytest.mark.parametrize("setting", SIZES)
def test_the_tree_says_what_it_is_and_refuses_to_become_another(setting, trees, tmp_path):
    facts = json.loads((trees[setting] / "synthetic.json").read_text())
    assert facts["synthetic"] is True and facts["setting"] == json.loads(
        json.dumps(SETTINGS[setting].as_dict())
    )
    assert (
        facts["frames"] == SIZES[setting]["frames"]
        and len(facts["shift"]) >= 3
        and all(isinstance(s, str) for s in facts["shift"])
    )
    for change in ({"seed": 6}, {"train": 6}, {"frames": 7}):
        with pytest.raises(DataError, match="other parameters"):
            synthetic.write(setting, trees[setting], progress=False, **{**SIZES[setting], **change})
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(DataError, match="not empty and not a synthetic tree"):
        synthetic.write(setting, tmp_path, progress=False)
    for wrong in (dict(train=-1), dict(train=0, test=0)):
        with pytest.raises(DataError, match="ask for at least one"):
            synthetic.write(setting, tmp_path / "new", progress=False, **wrong)
    assert not (tmp_path / "new").exists()


def test_the_dispatcher(tmp_path, capsys):
    assert set(DATASET_OF) == set(SETTINGS) == set(PEOPLE) and set(DATASET_OF.values()) <= set(
        available()
    )
    with pytest.raises(DataError, match="setting is called wild; there are .*wild-like"):
        synthetic.write("wild", tmp_path / "tree")
    with pytest.raises(DataError, match="celebdf-like has no val; its sizes are train, test"):
        synthetic.write("celebdf-like", tmp_path / "tree", val=2)
    make = "data make wild-like --train 1 --test 1 --frames 8 --jobs 1 --root".split()
    assert cli.main([*make, str(tmp_path / "tree")]) == 0
    assert "4 synthetic videos" in capsys.readouterr().out
    assert cli.main([*make, str(tmp_path / "other"), "--qualities", "c23"]) == 1
    assert "has no qualities" in capsys.readouterr().err
    assert (
        cli.main(
            "data make ff-like --train 2 --val 0 --test 0 --frames 2 --qualities c23".split()
            + ["--jobs", "1", "--root"]
            + [str(tmp_path / "ff")]
        )
        == 0
    )


def test_people_are_others_in_every_dataset(trees):
    faces = [synthetic.render.inner_identity(offset, 0).mouth_y for offset in set(PEOPLE.values())]
    assert len(set(faces)) == len(set(PEOPLE.values())) == 4


# ---- Celeb-DF


def test_celebdf_names_list_and_overlap(trees):
    found = {r.video_id: r for r in load_records("celebdf", trees["celebdf-like"])}
    fakes = [r for r in found.values() if r.label]
    assert Counter(i.split("/")[0] for i in found) == {
        "Celeb-real": 6,
        "YouTube-real": 2,
        "Celeb-synthesis": 8,
    }
    for fake in fakes:
        target, source, _ = fake.video_id.split("/")[1].split("_")
        assert target != source and found[fake.boxes_from].split.replace(
            "val", "train"
        ) == fake.split.replace("val", "train")
    assert {r.target for r in fakes} == {
        r.target for r in found.values() if r.video_id.startswith("Celeb-real")
    }
    lines = (trees["celebdf-like"] / "List_of_testing_videos.txt").read_text().splitlines()
    assert (
        all((line[0] == "0") == ("Celeb-synthesis" in line) for line in lines) and len(lines) == 8
    )
    assert (
        "target identities of test are in train"
        in check("celebdf", trees["celebdf-like"])["notes"][0]
    )


def test_celebdf_people_have_clips_in_training_and_some_in_test():
    common = Job(Path(), SETTINGS["celebdf-like"], 8, 0)
    plan = celebdf_tree._plan(common, 24, 16)
    stems = [f"{job.folder}/{job.stem}" for job in plan]
    assert (
        len(set(stems)) == len({job.clip for job in plan}) == 40
        and sum(len(job.sources) for job in plan) == 40
    )
    train, test = (
        {job.person for job in plan if job.test == test and job.sources} for test in (False, True)
    )
    assert 0 < len(train & test) < len(test) and len(train) == 9
    assert all(
        len(set(job.sources)) == len(job.sources) and job.person not in job.sources for job in plan
    )
    alone = [job for job in plan if not job.sources]
    assert (
        len(alone) == 10
        and len({job.person for job in alone}) == 10
        and not train & {job.person for job in alone}
    )


def test_celebdf_a_fake_shares_everything_with_its_real_but_the_face_and_trembles(trees):
    found = {r.video_id: r for r in load_records("celebdf", trees["celebdf-like"])}
    for fake in (r for r in found.values() if r.label):
        real_thwc, fake_thwc = decode(found[fake.boxes_from].path), decode(fake.path)
        assert real_thwc.shape == fake_thwc.shape == (6, 256, SIZE, 3)
        difference = np.abs(real_thwc.astype(int) - fake_thwc)
        assert difference[:, 200:, :40].mean() < 3 < difference[:, 100:180, 120:200].mean()
        ratios = [difference_ratio(clip[:, 70:190, 90:230]) for clip in (real_thwc, fake_thwc)]
        assert ratios[1] > ratios[0] + 0.05


def test_two_fakes_of_one_clip_tremble_differently(tmp_path):
    """Otherwise they would be one forgery with two faces."""
    common = Job(Path(), SETTINGS["celebdf-like"], 4, 0)
    twice = next(job for job in celebdf_tree._plan(common, 4, 0) if len(job.sources) == 2)
    fill(celebdf_tree.TREE.draw, replace(twice, root=tmp_path))
    _, one, two = (
        decode(path).astype(int) for path in replace(twice, root=tmp_path).files().values()
    )
    steps = [np.diff(clip[:, 60:200, 90:230].mean(-1), axis=0).ravel() for clip in (one, two)]
    assert np.corrcoef(*steps)[0, 1] < 0.9


# ---- DFDC


def dfdc_plan(count: int, frames: int = 40, split: str = "train") -> list:
    return dfdc_tree.plan_split(Job(Path(), SETTINGS["dfdc-like"], frames, 0), split, count, 0)


def test_dfdc_truth_is_what_the_renderer_did():
    for extent in ("short", "long"):
        job = next(
            j
            for j in dfdc_plan(6, 20)
            if j.people == 1 and (j.span[1] - j.span[0] < 13) == (extent == "short")
        )
        job = replace(job, frames=8, span=(2, 5))
        real, fake = dfdc_tree.render_pair(job)
        inside = np.isin(np.arange(8), (2, 3, 4))
        np.testing.assert_array_equal((real.frames_thwc != fake.frames_thwc).any((1, 2, 3)), inside)
        np.testing.assert_array_equal(fake.masks_thw.any((1, 2)), inside)
        np.testing.assert_array_equal(fake.forged_t, inside)


def test_dfdc_truth_file_records_and_masks_agree(trees):
    root = trees["dfdc-like"]
    found, told = {r.video_id: r for r in load_records("dfdc-preview", root)}, truth(root)
    assert set(told) == set(found) == set(forged_frames(root))
    for video_id, record in found.items():
        assert (
            told[video_id].forged_t.any()
            == bool(record.label)
            == (told[video_id].person is not None)
            == (record.masks is not None)
        )
        frames_thwc = decode(record.path)
        assert frames_thwc.shape == (14, SIZE, SIZE * told[video_id].people, 3)
        if record.label:
            masks = decode(record.masks, pixels="gray") > 127
            np.testing.assert_array_equal(masks.any((1, 2)), told[video_id].forged_t)
            halves = [
                masks[:, :, SIZE * n : SIZE * (n + 1)].any() for n in range(told[video_id].people)
            ]
            assert halves == [n == told[video_id].person for n in range(told[video_id].people)]
            real_thwc = decode(
                next(r for r in found.values() if not r.label and r.target == record.target).path
            )
            assert (
                np.abs(real_thwc.astype(int) - frames_thwc)[
                    ~np.repeat(masks[..., None], 3, -1)
                ].mean()
                < 6
            )
    assert {r.manipulation for r in found.values()} == {"real", "method_A", "method_B"}


def test_dfdc_two_people_of_whom_one_is_forged():
    for place in (0, 1):
        job = replace(
            next(j for j in dfdc_plan(6) if j.people == 2), frames=3, span=(0, 3), place=place
        )
        real, fake = dfdc_tree.render_pair(job)
        assert real.frames_thwc.shape == fake.frames_thwc.shape == (
            3,
            SIZE,
            2 * SIZE,
            3,
        ) and fake.masks_thw.shape == (3, SIZE, 2 * SIZE)
        changed = (real.frames_thwc != fake.frames_thwc).any((0, 1, 3))
        actor, other = (changed[SIZE * n : SIZE * (n + 1)] for n in (place, 1 - place))
        assert actor.any() and not other.any()


def test_dfdc_conditions_are_dealt_independently_and_cover_what_is_promised():
    plan = dfdc_plan(120)
    lengths = Counter(
        next(
            k
            for k, (a, b) in {"short": (8, 12), "long": (16, 24), "full": (40, 40)}.items()
            if a <= j.span[1] - j.span[0] <= b
        )
        for j in plan
    )
    assert lengths == {"short": 40, "long": 40, "full": 40}
    assert (
        all(0 <= j.span[0] < j.span[1] <= 40 for j in plan) and len({j.span[0] for j in plan}) > 15
    )
    columns = np.array(
        [
            [j.people, j.dark, j.noisy, j.manipulation == "method_A", j.span[1] - j.span[0]]
            for j in plan
        ],
        float,
    )
    assert np.abs(np.corrcoef(columns.T) - np.eye(5)).max() < 0.3
    assert columns.mean(0)[:4] == pytest.approx([4 / 3, 1 / 3, 1 / 3, 1 / 2])
    small = dfdc_plan(4, 24)  # as many as the smallest profile has
    assert {j.people for j in small} == {1, 2} and {j.dark for j in small} == {
        j.noisy for j in small
    } == {True, False}
    assert {j.manipulation for j in small} == {"method_A", "method_B"} and all(
        j.span[1] <= 24 for j in small
    )


def test_dfdc_darkness_and_noise_say_nothing_about_the_label(trees):
    root = trees["dfdc-like"]
    listed = json.loads((root / "dataset.json").read_text())
    assert set(listed) == {f"{i}.mp4" for i in truth(root)}
    seen = {"dark": [], "light": []}
    for real in load_records("dfdc-preview", root):
        if real.label:
            continue
        fake = next(
            r for r in load_records("dfdc-preview", root) if r.label and r.target == real.target
        )
        facts = [listed[f"{r.video_id}.mp4"] for r in (real, fake)]
        assert (
            facts[0]["augmentations"] == facts[1]["augmentations"]
            and facts[0]["set"] == facts[1]["set"]
        )
        assert (
            facts[1]["swapped_id"] not in (None, facts[1]["target_id"])
            and facts[0]["swapped_id"] is None
        )
        corner = [decode(r.path)[:, :40, :40].astype(int) for r in (real, fake)]  # no face there
        assert corner[0].mean() == pytest.approx(corner[1].mean(), abs=1)
        seen["dark" if "dark" in facts[0]["augmentations"] else "light"] += [
            clip.mean() for clip in corner
        ]
    assert max(seen["dark"]) < min(seen["light"])


def test_dfdc_actors_are_in_one_split_only():
    for train, test in ((1, 1), (5, 3), (24, 16)):
        common = Job(Path(), SETTINGS["dfdc-like"], 24, 0)
        jobs = [
            dfdc_tree.plan_split(common, *what)
            for what in (("train", train, 0), ("test", test, train))
        ]
        people = [{j.actor for j in part} | {j.swapped for j in part if train > 2} for part in jobs]
        assert not people[0] & people[1]
        assert all(j.actor != j.swapped for part in jobs for j in part)
        assert (
            len({j.fake for part in jobs for j in part})
            == len({j.clip for part in jobs for j in part})
            == train + test
        )


def test_truth_of_other_trees(trees, tmp_path):
    assert truth(trees["celebdf-like"]) == {} == forged_frames(tmp_path)
    for content in (
        "{",
        "[]",
        '{"a": {"frames": 4, "forged": [[2, 6]], "people": 1, "person": 0}}',
        '{"a": {"frames": 4}}',
    ):
        (tmp_path / "truth.json").write_text(content)
        with pytest.raises(
            DataError, match=f"{tmp_path / 'truth.json'} .*write the synthetic tree again"
        ):
            truth(tmp_path)
    (tmp_path / "truth.json").write_text(
        '{"a": {"frames": 4, "forged": [[0, 1], [3, 4]], "people": 2, "person": 1}}'
    )
    assert (
        truth(tmp_path)["a"].forged_t.tolist() == [True, False, False, True]
        and truth(tmp_path)["a"].person == 1
    )


# ---- WildDeepfake


def wild_plan(category: str, count: int, frames: int = 40) -> list:
    return wilddeepfake_tree.plan_category(
        Job(Path(), SETTINGS["wild-like"], frames, 0), category, count, 0
    )


def test_wilddeepfake_pictures(trees):
    found = load_records("wilddeepfake", trees["wild-like"])
    for record in found:
        pictures = read_pictures(record.path)
        assert list(pictures) == sorted(pictures) and len(pictures) >= 3
        crops = np.stack(
            [
                cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
                for png in pictures.values()
            ]
        )
        assert crops.shape[1:] == (224, 224, 3) and crops.std() > 10
    shards = Counter(r.video_id.rsplit("/", 1)[0] for r in found)
    assert max(shards.values()) > 1 and {
        "real_train/0",
        "fake_train/0",
        "real_test/0",
        "fake_test/0",
    } <= set(shards)


def test_wilddeepfake_archives_have_the_owners_form_and_an_order_that_is_not_by_number(tmp_path):
    names = [f"./0/real/7/{n}.png" for n in (998, 999, 1000, 1001)]
    (tmp_path / "0.tar.gz").write_bytes(
        wilddeepfake_tree.packed({name: name.encode() for name in names})
    )
    with tarfile.open(tmp_path / "0.tar.gz") as tar:
        assert tar.getnames() == [names[2], names[3], names[0], names[1]]
    assert list(read_pictures(tmp_path / "0.tar.gz/0/real/7")) == [
        998,
        999,
        1000,
        1001,
    ]  # read with ./ in front, as the owners pack


def test_wilddeepfake_real_and_fake_sequences_follow_one_law():
    real, fake = wild_plan("real_train", 120), wild_plan("fake_train", 120)
    for plan in (real, fake):
        sequences = [s for job in plan for s in job.sequences]
        assert len(sequences) == 120 and len({s.clip for s in sequences}) == 120
        lengths = np.array([len(s.numbers) for s in sequences])
        assert (
            ((lengths >= 24) & (lengths <= 40)).sum() == 75
            and (lengths <= 6).sum() == 15
            and lengths.min() >= 3
        )
        gaps = [int((np.diff(s.numbers) > 1).sum()) for s in sequences]
        assert set(gaps) == {0, 1, 2} and all((np.diff(s.numbers) >= 1).all() for s in sequences)
        assert {len(job.sequences) for job in plan} == {1, 2, 3}
        assert all(
            s.name != t.name
            for job in plan
            for s in job.sequences
            for t in job.sequences
            if s is not t
        )
    assert {job.method for job in real} == {"real"}
    methods = Counter(job.method for job in fake)
    assert set(methods) == set(METHODS) and max(methods.values()) - min(methods.values()) <= 1
    # as many as the smallest profile has: nothing too short for a snippet, more than one shard
    small = wild_plan("real_train", 4, 24)
    assert min(len(s.numbers) for job in small for s in job.sequences) >= 8 and len(small) > 1


def test_wilddeepfake_the_video_goes_on_in_a_gap():
    """A picture is that of its number, whichever others are there."""
    for method in ("real", "Face2Face"):
        whole = wilddeepfake_tree.Sequence(3, 3, (50, 51, 52, 53, 54))
        job = wilddeepfake_tree.Shard(
            Path(), SETTINGS["wild-like"], 5, 0, "real_train", 0, 0, method, (whole,)
        )
        source = wilddeepfake_tree.draw_source(np.random.default_rng(0))
        full, gapped = (
            wilddeepfake_tree.draw_sequence(job, source, replace(whole, numbers=n))
            for n in (whole.numbers, (50, 51, 54))
        )
        np.testing.assert_array_equal(full[[0, 1, 4]], gapped)
        assert not np.array_equal(full[1], full[2])


# ---- parts


def test_camera_against_its_equation():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 6, 8, 3), np.uint8)
    camera = Camera(gain=0.6, gamma=1.3, tint=(0.9, 1.0, 1.4))
    shot = camera.shoot(frames, np.random.default_rng(1))
    for index, value in np.ndenumerate(frames):
        exact = min(255.0, 255 * 0.6 * (float(value) / 255) ** 1.3 * camera.tint[index[-1]])
        assert abs(int(shot[index]) - exact) <= 0.501
    np.testing.assert_array_equal(Camera().shoot(frames, np.random.default_rng(1)), frames)


def test_camera_noise_has_its_deviation_and_no_memory():
    grey = np.full((6, 96, 96, 3), 128, np.uint8)
    shot = Camera(noise=8.0).shoot(grey, np.random.default_rng(1)).astype(float) - 128
    assert shot.std() == pytest.approx(8, rel=0.03) and abs(shot.mean()) < 0.3
    assert abs(np.corrcoef(shot[0].ravel(), shot[1].ravel())[0, 1]) < 0.1
    blurred = Camera(blur=2.0).shoot(
        grey[:1] + (np.indices((1, 96, 96, 3)).sum(0) % 2 * 50).astype(np.uint8),
        np.random.default_rng(1),
    )
    assert blurred.std() < 3


def test_deal():
    hand = deal(0, "x", ("a", "b", "c"), 11)
    assert Counter(hand) == {"a": 4, "b": 4, "c": 3} and hand == deal(0, "x", ("a", "b", "c"), 11)
    assert (
        len({tuple(deal(seed, purpose, range(9), 9)) for seed in (0, 1) for purpose in "xy"}) == 4
    )
    assert deal(0, "x", ("a",), 0) == []


@pytest.mark.parametrize("place", [places.stage, places.living_room])
def test_places_are_pictures(place):
    image = place(np.random.default_rng(2), 40, 80)
    assert (
        image.shape == (40, 80, 3)
        and image.dtype == np.float32
        and 0 <= image.min() < image.max() <= 1
    )
    assert not np.array_equal(image, place(np.random.default_rng(3), 40, 80))
    np.testing.assert_array_equal(image, place(np.random.default_rng(2), 40, 80))
