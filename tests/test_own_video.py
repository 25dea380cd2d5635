"""What is said of one's own videos: seconds, calibration, words, rows."""

import copy
import csv
import io
import json
import math
import os
import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit

from dfil import models
from dfil.cli import main
from dfil.datasets import folder, load_records
from dfil.explain import own_page, pointing
from dfil.explain.upload import Upload
from dfil.faces import still, video
from dfil.faces.clock import Clock
from dfil.faces.frame import Frame
from dfil.faces.kept import Track
from dfil.faces.still import Changes
from dfil.faces.video import decode, frame_rate
from dfil.models.saved import save_weights
from dfil.results import verdict
from dfil.synthetic import SETTINGS, render_target
from dfil.synthetic.two_people import Scene, scene
from dfil.system.errors import RunError
from dfil.train import calibration, own_video
from dfil.train.run import digest_of


def scores(real, forged):
    labels = [0] * len(real) + [1] * len(forged)
    people = [f"{n % 40}" for n in range(len(labels))]
    df = pd.DataFrame({"label": labels, "logit": [*real, *forged], "person": people})
    return df.assign(manipulation="Deepfakes")


def drawn(count_real=200, count_forged=800):
    """Logits three times too large of videos whose true log odds are known."""
    rng = np.random.default_rng(0)
    return scores(
        3 * rng.normal(-1, math.sqrt(2), count_real), 3 * rng.normal(1, math.sqrt(2), count_forged)
    )


def test_calibration_undoes_a_detector_that_is_too_sure_and_weighs_both_kinds_alike():
    scale = calibration.fit(drawn(), "validation videos", False)
    # normal(-1, 2) against normal(1, 2): the log odds are x itself, so a third of the logit
    assert scale.slope == pytest.approx(1 / 3, rel=0.2) and abs(scale.intercept) < 0.15
    for x in (-2.0, 0.0, 1.5):
        assert scale.probability(3 * x) == pytest.approx(expit(x), abs=0.05)


def test_calibration_of_separable_videos_is_not_infinitely_sure():
    scale = calibration.fit(scores(np.linspace(-9, -4, 20), np.linspace(4, 9, 20)), "few", True)
    assert 0.8 < scale.probability(6) < 0.99


def test_too_few_validation_videos_of_a_kind_calibrate_nothing():
    assert calibration.fit(scores([0.0] * 9, [1.0] * 50), "few", False) is None


def test_validation_videos_that_rank_no_better_than_chance_calibrate_nothing():
    """A falling line would call what the detector finds forged real."""
    assert calibration.fit(scores(np.arange(5, 25), np.arange(-15, 5)), "worse", False) is None


def test_as_high_counts_validation_videos_and_a_certain_score_is_higher_than_all():
    scale = calibration.fit(scores(np.arange(-10, 10), np.arange(0, 20)), "some", False)
    assert scale.as_high(0.0) == {"real": (10, 20), "forged": (20, 20)}
    assert scale.as_high(99.0) == {"real": (0, 20), "forged": (0, 20)}
    assert scale.probability(999.0) == 1.0
    assert calibration.Calibration(**json.loads(json.dumps(scale.as_dict()))) == scale


def test_weights_of_a_run_are_calibrated_by_its_own_validation_scores_only(tmp_path):
    settings = {"dataset": "ffpp", "compression": "c23", "manipulations": ["Deepfakes"]}
    settings["data"], mine = "the tree's digest", digest_of("the tree's digest")
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "scores").mkdir()
    assert calibration.of_run(tmp_path, True) is None
    others = drawn(0, 50).assign(manipulation="FaceSwap", logit=-99.0)
    where = {"split": "val", "compression": "c23"}
    mixed = pd.concat([drawn(40, 40), others], ignore_index=True).assign(**where)
    mixed["video_id"] = mixed.index.astype(str)
    drawn(50, 50).to_parquet(tmp_path / "scores" / "ffpp-c23-val-0.parquet")  # another tree's
    assert calibration.of_run(tmp_path, True) is None
    mixed.to_parquet(tmp_path / "scores" / f"ffpp-c23-val-{mine}.parquet")
    drawn(30, 30).to_parquet(tmp_path / "scores" / f"ffpp-c23-test-{mine}.parquet")
    drawn(20, 20).to_parquet(tmp_path / "scores" / "celebdf-val-abc.parquet")
    scale = calibration.of_run(tmp_path, True)
    assert (len(scale.real), len(scale.forged)) == (40, 40)
    assert scale.videos == "synthetic validation videos of ffpp c23"
    assert calibration.of_weights(tmp_path / "weights.safetensors", {"synthetic": True}) == scale
    # of a real tree all its manipulations are in one file, whose name ends otherwise
    file = tmp_path / "scores" / f"ffpp-c23-val-{mine}.parquet"
    file.unlink()
    mixed.attrs["own"] = True
    mixed.to_parquet(file.with_name("ffpp-c23-val-1.parquet"))
    assert calibration.of_run(tmp_path, True) == scale


def test_a_clock_goes_by_the_files_times_even_where_they_are_uneven_or_missing():
    clock = Clock(10.0)
    for seconds in (5.0, 5.1, 5.6, None, 5.5):  # the last one runs backwards
        clock.add(seconds)
    assert [clock.at(n) for n in range(6)] == [0.0, 0.1, 0.6, 0.7, 0.7, 0.8]
    chosen_n = np.array([True, True, False, False, True])
    assert clock.spans(chosen_n) == [[0.0, 0.6], [0.7, 0.8]]
    assert Clock(25.0).length == 0.0 and not clock.pauses and not Clock(25.0).notes()


def clocked(times) -> Clock:
    clock = Clock(25.0)
    for seconds in times:
        clock.add(seconds)
    return clock


def test_a_pause_is_no_time_in_which_somebody_is_seen_and_no_snippet_crosses_it():
    hours = 20 * 3600.0
    clock = clocked([n / 25 + hours * (n >= 36) for n in range(72)])
    everywhere_n = np.ones(72, bool)
    assert clock.pauses == (36,) and clock.stretches(everywhere_n) == [(0, 36), (36, 36)]
    assert clock.spans(everywhere_n) == [[0.0, 1.44], [hours + 1.44, hours + 2.88]]
    assert clock.notes() == [f"no picture from 1.4 to {hours + 1.44:.1f} s"]
    sampling = {"frames": 4, "stride": 1, "snippets": 8}
    video = own_video._Video(Path("x"), None, sampling, None, None, own_video.unseen)
    starts = video._starts(SimpleNamespace(valid_n=everywhere_n), clock)
    assert len(starts) == 8 and not {33, 34, 35} & {*starts.tolist()}


def test_a_video_of_few_pictures_a_second_is_said_to_be_one():
    assert not clocked(np.arange(50) / 15).notes()
    (said,) = clocked(np.arange(50) / 4).notes()
    assert said.startswith("4 pictures a second")
    assert not clocked(np.arange(5) * 10.0).pauses  # a time lapse has none
    many = clocked(np.arange(50) / 25 + 60 * (np.arange(50) // 10))
    assert len(many.notes()) == 4 and many.notes()[-1] == "1 more such pause"


@pytest.mark.parametrize(
    "wrong",
    [{"slope": np.nan}, {"slope": -1.0}, {"slope": "a"}, {"people": 0}, {"real": []},
     {"real": "abc"}, {"forged": [np.inf]}, {"intercept": None}, {"more": 1}],
)  # fmt: skip
def test_a_calibration_that_no_fit_gives_is_refused(wrong):
    kept = calibration.fit(drawn(), "validation videos", False).as_dict()
    config = {"calibration": kept, "synthetic": False}
    assert calibration.of_weights("w", config).as_dict() == kept
    with pytest.raises(RunError, match="w: its calibration is not of the form"):
        calibration.of_weights("w", config | {"calibration": kept | wrong})


def snippet(first, score):
    times = {"first_second": first / 25, "last_second": (first + 4) / 25}
    return {"first_frame": first, "last_frame": first + 3, **times, "score": score}


def found(**changed):
    """A result as score_videos gives it: two people, the second forged from 2 to 3 seconds."""
    scale = calibration.fit(drawn(), "validation videos of ffpp c23", False)
    left = {"frames_with_face": 100, "examined": 0.32, "seen": [[0.0, 4.0]], "place": [0.2, 0.5]}
    left |= {
        "logit": logit(0.1),
        "score": 0.1,
        "calibrated": 0.2,
        "snippets": [snippet(n, 0.1) for n in range(0, 96, 25)],
    }
    right = left | {"seen": [[1.0, 5.0]], "place": [0.8, 0.5]}
    right |= {"logit": logit(0.9), "score": 0.9, "calibrated": 0.7}
    right["snippets"] = [snippet(25, 0.2), snippet(50, 0.97), snippet(71, 0.8), snippet(100, 0.3)]
    result = {"video": "clip.mp4", "status": "ok", "reason": "", "frames": 125, "seconds": 5.0}
    result |= {"frames_with_face": 100, "examined": 0.3}
    result |= {"logit": logit(0.9), "score": 0.9, "calibrated": 0.7}
    result |= {"suspect": 1, "snippets": right["snippets"], "people": [left, right]}
    result |= {"no_face": [], "trained_on": "a-run", "synthetic_training": False}
    return result | {"calibration": scale.as_dict()} | changed


def test_the_sentences_name_probability_people_seconds_share_and_faceless_stretches():
    text = "\n".join(verdict.sentences(found(no_face=[[5.0, 125.5]], reason="interlaced")))
    assert "clip.mp4: forged with a probability of 70%, if half of such videos are" in text
    assert "calibrated by 1000 validation videos of ffpp c23, of 40 people or pairs;" in text
    assert "the detector itself says 0.90" in text
    assert "of 200 (95 % interval" in text and "of 800 (95 % interval" in text
    assert (
        "Of 2 people the most suspicious is person 2, on the right, seen from 1.0 s to 5.0 s"
        in text
    )
    assert "person 1 (on the left) has 0.10" in text
    assert (
        "most suspicious moment is 2.0 s to 2.2 s (0.97); above one half it is from 2.0 s to 3.0 s"
        in text
    )
    assert "30% of its 125 frames (5.0 s) were examined" in text
    assert "No face was found from 5.0 s to 125.5 s (2:05)." in text and "Interlaced." in text


def test_a_sentence_of_synthetic_weights_says_so_even_where_it_travels_alone():
    first, *_ = verdict.sentences(found(synthetic_training=True))
    assert "70%, if it is a synthetic clip, and half of such clips are" in first
    bare = found(synthetic_training=True, calibrated=None, calibration=None)
    assert "on a real video it means nothing" in verdict.sentences(bare)[0]


def test_no_probability_is_called_certain():
    assert [verdict.percent(p) for p in (0.0, 0.004, 0.01, 0.5, 0.99, 0.996, 1.0)] == [
        *["under 1%"] * 2, "1%", "50%", "99%", *["over 99%"] * 2
    ]  # fmt: skip
    first, *_ = verdict.sentences(found(calibrated=0.9999))
    assert "with a probability of over 99%" in first


def test_weights_that_do_not_say_what_they_are_and_damaged_scores_are_named(tmp_path):
    save_weights(
        torch.nn.Linear(1, 1), tmp_path / "weights.safetensors", {"method": "dil", "switches": {}}
    )
    with pytest.raises(RunError, match="does not say trained_on, synthetic, sampling"):
        own_video.described(tmp_path)
    with pytest.raises(RunError, match="not of the form"):
        calibration.of_weights(tmp_path, {"calibration": {"slope": 1}})
    settings = {"dataset": "ffpp", "compression": "c23", "manipulations": [], "data": "x"}
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "scores").mkdir()
    damaged = tmp_path / "scores" / f"ffpp-c23-val-{digest_of('x')}.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    with pytest.raises(RunError, match="no whole table of scores"):
        calibration.of_run(tmp_path, True)
    for content, what in (('{"settings": {', "cut short"), ("{}", "run.json: damaged")):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunError, match=what):
            calibration.of_run(tmp_path, True)


def test_a_home_folder_that_the_shell_left_as_it_is_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    with pytest.raises(RunError, match="run.json: damaged"):
        calibration.of_weights("~/run", {"synthetic": True})
    (tmp_path / "a.mp4").touch()
    (result,) = own_video.score_videos([Path("~/a.mp4")])
    assert result["video"] == str(tmp_path / "a.mp4")


def test_without_validation_scores_the_number_is_called_uncalibrated():
    first, *_ = verdict.sentences(found(calibrated=None, calibration=None))
    assert "the detector says 0.90 for forged" in first and "no validation scores" in first


def test_a_method_that_judges_a_whole_names_no_moment_and_a_video_without_score_its_reason():
    whole = [snippet(n, None) for n in (0, 25)]
    assert any("cannot say which seconds" in s for s in verdict.sentences(found(snippets=whole)))
    (only,) = verdict.sentences(found(score=None, status="no face", reason="nobody is there"))
    assert only == "clip.mp4: no face, so there is no score. Nobody is there."


def test_many_stretches_are_summed_up():
    many = [[float(n), n + 0.1 * (n + 1)] for n in range(6)]
    assert verdict.spans(many) == (
        "from 3.0 s to 3.4 s, from 4.0 s to 4.5 s, from 5.0 s to 5.6 s"
        " and in 3 shorter stretches of 0.6 s together"
    )


def test_a_table_has_a_row_for_each_person_and_one_for_a_video_without_any():
    first, second = verdict.rows(found(no_face=[[0.0, 0.5], [2.0, 3.0]]))
    assert (first["person"], second["person"]) == (1, 2) and second["place"] == "right"
    assert second["highest_first_second"] == 2.0 and second["no_face_seconds"] == 1.5
    (none,) = verdict.rows(found(people=[], score=None, status="no face"))
    assert none["status"] == "no face" and none.get("person") is None
    assert all(set(row) <= set(verdict.ROW) for row in (first, second, none))


@pytest.fixture
def no_model(monkeypatch):
    """score_videos gives `found()`, and the weights have seen synthetic clips only."""
    monkeypatch.setattr(own_video, "described", lambda weights: {"synthetic": True})
    results = [found(synthetic_training=True), found(score=None, status="no face", people=[])]
    monkeypatch.setattr(own_video, "score_videos", lambda *args, **kwargs: iter(results))


def test_the_command_says_first_that_weights_have_seen_synthetic_clips_only(no_model, capsys):
    assert main(["score", "clip.mp4"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == verdict.WARNING and "mean nothing" in verdict.WARNING
    assert err.startswith("dfil: clip.mp4: no face") and "2.00-2.16" in out


def test_json_lines_and_the_table_stay_readable_by_machines(no_model, capsys):
    assert main(["score", "clip.mp4", "--json"]) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 2 and err.splitlines()[0] == verdict.WARNING
    assert lines[0]["summary"][0] == verdict.WARNING and lines[0]["suspect"] == 1
    assert main(["score", "clip.mp4", "--csv"]) == 1
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["person"] for row in table] == ["1", "2", ""]
    assert list(table[0]) == list(verdict.ROW)


def test_options_that_cannot_be_are_refused_before_any_video(no_model, tmp_path, capsys):
    assert main(["score", "clip.mp4", "--csv", "--json"]) == 1
    assert "give one of them" in capsys.readouterr().err
    (tmp_path / "page.html").write_bytes(b"<!doctype html><title>Notes of a year</title>")
    for wrong, why in (
        (str(tmp_path), "no name of a page"),
        ("clip.mp4", "no name of a page"),  # the page's name was forgotten
        (str(tmp_path / "page.html"), "is there and no report"),
        ("/proc/page.html", "nothing can be written there"),
    ):
        assert main(["score", "other.mp4", "--report", wrong]) == 1
        assert why in capsys.readouterr().err


def test_weights_of_crops_that_are_not_cut_here_are_refused(tmp_path):
    sampling = {"frames": 4, "stride": 1, "size": 32, "snippets": 4, "detector": "dlib"}
    config = {"method": "dil", "switches": {}, "trained_on": "x", "synthetic": True}
    for box, refused in (("snippet", False), ("frame", True)):
        config["sampling"] = sampling | {"box": box}
        save_weights(torch.nn.Linear(1, 1), tmp_path / "weights.safetensors", config)
        if refused:
            with pytest.raises(RunError, match="a box per frame"):
                own_video.described(tmp_path)
        else:
            assert own_video.described(tmp_path)["sampling"]["box"] == "snippet"


@pytest.mark.parametrize(
    "broken",
    [None, {}, {"size": 32, "frames": 4, "stride": 1, "snippets": "8"}, []]
    + [
        {"size": 32, "frames": 4, "stride": 1, "snippets": 8, "detector": "dlib"} | wrong
        for wrong in (
            {"frames": 0},
            {"stride": -1},
            {"snippets": 0},
            {"size": 10**5},
            {"views": 3},
            {"views": None},
            {"detector": "x"},
        )
    ],
)
def test_weights_whose_sampling_is_not_whole_are_named(tmp_path, broken):
    about = {"method": "dil", "switches": {}, "trained_on": "x", "synthetic": True}
    save_weights(
        torch.nn.Linear(1, 1), tmp_path / "weights.safetensors", about | {"sampling": broken}
    )
    with pytest.raises(RunError, match="sampling"):
        own_video.described(tmp_path)


def test_weights_that_give_no_number_are_called_broken(small_dil):
    sampling = {"frames": 4, "stride": 1, "size": 32, "snippets": 4, "detector": "dlib"}
    clips = [(4 * u, np.zeros((4, 32, 32, 3), np.uint8)) for u in range(4)]
    whole = own_video.judge(small_dil, clips, sampling)["logit"]
    broken = copy.deepcopy(small_dil)
    next(broken.parameters()).data.fill_(math.nan)
    assert math.isfinite(whole)
    with pytest.raises(RunError, match="broken"):
        own_video.judge(broken, clips, sampling)


def test_a_page_is_written_of_what_there_is_when_it_is_stopped(no_model, tmp_path, monkeypatch):
    def stopped(*args):
        yield found(score=None, status="no face", people=[])
        raise KeyboardInterrupt

    sampling = {"frames": 4, "stride": 1, "size": 32, "snippets": 4, "detector": "dlib"}
    config = {"method": "dil", "trained_on": "x", "synthetic": True, "sampling": sampling}
    monkeypatch.setattr(own_video, "described", lambda weights: config)
    monkeypatch.setattr(own_video, "score_videos", stopped)
    assert main(["score", "a.mp4", "b.mp4", "--report", str(tmp_path / "page.html")]) == 130
    assert "All of it: no face" in (tmp_path / "page.html").read_text(encoding="utf-8")
    # a page of this command may be written again
    assert main(["score", "a.mp4", "--report", str(tmp_path / "page.html")]) == 130


def test_times_of_a_video_with_uneven_frames_are_the_files_own(tmp_path):
    path = tmp_path / "uneven.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 64
        stream.codec_context.time_base = Fraction(1, 100)
        for pts in (0, 4, 8, 50, 54):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = pts, Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    clock = Clock(frame_rate(path))
    for frame in decode(path):
        clock.add(frame.seconds)
    assert [clock.at(n) for n in range(5)] == [0.0, 0.04, 0.08, 0.5, 0.54]


def test_patterns_folders_and_files_are_gone_through_in_order(tmp_path):
    for name in ("b.mp4", "a.mp4", "deep/c.mkv", "notes.txt", "[odd].mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    asked = [tmp_path / "?.mp4", tmp_path / "[odd].mp4", tmp_path / "deep", tmp_path / "x*.mp4"]
    names = [path.name for path in own_video._files(asked)]
    assert names == ["a.mp4", "b.mp4", "[odd].mp4", "c.mkv", "x*.mp4"]
    # Each once, also where a pattern matches a folder, what is in it, and that again.
    twice = [tmp_path / "**", tmp_path / "a.mp4", tmp_path / "deep/../a.mp4"]
    files = [path.resolve() for path in own_video._files(twice)]
    assert len(files) == len(set(files)) and {p.name for p in files} >= {"a.mp4", "c.mkv"}


def test_links_to_nothing_and_second_names_of_a_file_are_not_dropped_in_silence(tmp_path, capsys):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "c.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "d.mp4").symlink_to(tmp_path / "d.mp4")
    assert [file.name for file in own_video._files([tmp_path])] == ["a.mp4", "b.mp4", "d.mp4"]
    assert "c.mp4: the same file as" in capsys.readouterr().err
    assert len(list(own_video._files([tmp_path / "a.mp4"] * 2))) == 1
    assert capsys.readouterr().err == "", "one name given twice is not worth a word"
    reasons = [result["reason"] for result in own_video.score_videos([tmp_path])]
    assert "no such file" in reasons[1] and "symbolic links" in reasons[2]


def test_what_may_not_be_read_stops_no_other_video(tmp_path, monkeypatch):
    for name in ("shut/a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def refused(path, *mode, **how):
        if Path(path).name == "b.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *mode, **how)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(video, "open", refused, raising=False)
    seen = {Path(r["video"]).name: r["reason"] for r in own_video.score_videos([tmp_path])}
    assert "b.mp4: may not be read (Permission denied)" in seen["b.mp4"]
    assert "cannot be opened as a video" in seen["c.mp4"]
    assert "shut: may not be read" in seen["shut"]


def test_one_snippet_a_second_by_the_times_of_the_frames_and_not_by_the_headers_rate():
    clock = Clock(rate=1000.0)  # as files say that a browser has recorded
    for n in range(750):
        clock.add(n / 25)
    track = Track(np.zeros((750, 4)), np.ones(750, bool), np.zeros(750, bool), None)
    looks = {"frames": 4, "stride": 1, "snippets": 8, "size": 64}
    one = own_video._Video(Path("v.mp4"), None, looks, None, None, None)
    assert len(one._starts(track, clock)) == 32


def test_the_page_keeps_little_of_a_long_video_and_the_most_suspicious_of_it():
    watch, rng = own_page.Evidence(), np.random.default_rng(0)
    for first in range(0, 4000, 100):
        starts = [first + 10 * u for u in range(4)]
        clips = [(start, rng.integers(0, 255, (4, 32, 32, 3), np.uint8)) for start in starts]
        scores = [snippet(start, start % 977 / 1000) for start in starts]
        watch(None, first % 200 // 100, clips, {"logit": 0.0, "snippets": scores})
    assert len(watch.groups) == own_page.SHOWN and watch.groups[0].highest == 0.976
    for faces in watch.faces.values():
        starts = [start for start, _ in faces]
        assert 6 <= len(faces) <= own_page.FACES and starts[-1] - starts[0] > 2800
    watch.clear()
    assert not watch.groups and not watch.faces


@pytest.fixture(scope="module")
def small_dil():
    """An untrained DIL for snippets of 4 frames of 32 pixels."""
    torch.manual_seed(0)
    return models.build("dil", depth=(1, 2, 1, 1), width=8, stem="small", frames=4).eval()


def page_of(result, watch, tmp_path, synthetic=True):
    sampling = {"frames": 4, "stride": 1, "size": 32, "snippets": 4, "detector": "dlib"}
    config = {"method": "dil", "trained_on": "a-run", "synthetic": synthetic, "sampling": sampling}
    own_page.write(tmp_path / "page.html", [own_page.section(result, watch)], config)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_shows_scores_people_snippets_and_maps_and_needs_no_other_file(
    small_dil, tmp_path
):
    result, watch = found(no_face=[[4.5, 5.0]], reason="<b>odd</b>"), own_page.Evidence()
    rng = np.random.default_rng(0)
    for number, person in enumerate(result["people"]):
        pixels = rng.integers(0, 255, (4, 4, 32, 32, 3), np.uint8)
        clips = [
            (s["first_frame"], clip) for s, clip in zip(person["snippets"], pixels, strict=True)
        ]
        judged = {"logit": 0.0, "snippets": person["snippets"]}
        watch(small_dil, number, clips, judged)
    page = page_of(result, watch, tmp_path)
    assert verdict.WARNING in page and page.index(verdict.WARNING) < page.index("<h2>")
    assert all(sentence.split(",")[0] in page for sentence in verdict.sentences(result)[1:3])
    assert page.count('class="mark"') == 8 and page.count("data:image/webp") == 8 + 3 * 3
    assert "class activation" in page and "U–T map" in page and "layer" not in page
    assert page.count('class="cell map"') == 16 and "n = 200" in page and "n = 800" in page
    assert "From 4.5 s to 5.0 s: no face was found there" in page and "&lt;b&gt;odd" in page
    assert not re.search(r"(src|href)=.(?!data:|#)", page), "a link out of the page"
    assert verdict.WARNING not in page_of(result, watch, tmp_path, synthetic=False)


def test_videos_of_one_name_are_told_apart_on_the_page(tmp_path):
    videos = ["a/x/1.mp4", "b/x/1.mp4", "1.mp4", "c/2.mp4", "c/2.mp4"]
    failed = {"status": "unreadable", "reason": "cut", "score": None, "people": []}
    sections = [
        own_page.section({**found(), **failed, "video": video}, own_page.Evidence())
        for video in videos
    ]
    own_page.write(
        tmp_path / "page.html",
        sections,
        {
            "method": "dil",
            "trained_on": "a-run",
            "synthetic": True,
            "sampling": {"frames": 4, "stride": 1, "size": 32, "snippets": 4, "detector": "dlib"},
        },
    )
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", page)[: len(videos)]
    assert headings == ["a/x/1.mp4", "b/x/1.mp4", "1.mp4", "2.mp4", "2.mp4"]


def test_the_page_of_a_method_without_maps_or_of_nobody_says_so(tmp_path):
    class Whole(models.Detector):
        def forward(self, x):
            return x.mean((1, 2, 3, 4, 5))

    whole = [snippet(n, None) for n in (0, 25)]
    person = {**found()["people"][0], "snippets": whole}
    result = found(snippets=whole, people=[person], suspect=0, calibration=None, calibrated=None)
    watch = own_page.Evidence()
    clips = [(n, np.zeros((4, 32, 32, 3), np.uint8)) for n in (0, 25)]
    watch(Whole(), 0, clips, {"logit": 1.0, "snippets": whole})
    page = page_of(result, watch, tmp_path)
    assert "There is no class activation" in page and "U–T map" not in page
    assert "Score along time" not in page and "none: there are no validation scores" in page
    nobody = found(score=None, status="no face", people=[], reason="dlib sees none")
    page = page_of(nobody, own_page.Evidence(), tmp_path)
    assert "All of it: no face" in page and "dlib sees none" in page


def test_the_weights_that_come_along_load_say_what_they_are_and_carry_a_calibration():
    model, config = models.load_weights(own_video.SHIPPED)
    assert config["synthetic"] and config["method"] == "dil" and not model.training
    scale = calibration.of_weights(own_video.SHIPPED, config)
    assert scale.synthetic and len(scale.real) == 32 and len(scale.forged) == 128
    assert sum(file.stat().st_size for file in own_video.SHIPPED.iterdir()) < 1_000_000
    assert "synthetic clips only" in (own_video.SHIPPED / "README.md").read_text()


def test_a_scene_of_two_people_is_pointed_at(tmp_path):
    forged = scene(1, tmp_path)
    assert forged == scene(1, tmp_path) and (forged.person, forged.manipulation) == (1, "Deepfakes")
    watch = own_page.Evidence()
    (result,) = own_video.score_videos([forged.path], observe=watch)
    row = pointing.judged(forged, result)
    assert (row["status"], row["person"], row["moment"]) == ("ok", True, True), row
    assert 0 < row["by_chance"] < 0.25 and row["covered"] > 0.5 and row["forged"] > row["real"]
    assert {group.person for group in watch.groups} == {0, 1} and result["seconds"] == 6.0


def test_a_verdict_that_points_at_the_wrong_person_or_second_is_told_from_a_right_one():
    left = Scene(Path("x.mp4"), 0, "Deepfakes", 2.0, 3.0)
    assert not pointing.judged(left, found())["person"]
    right = Scene(Path("x.mp4"), 1, "Deepfakes", 2.0, 3.0)
    row = pointing.judged(right, found())
    assert row["person"] and row["moment"] and row["by_chance"] == 0.25
    assert row["inside"] == row["covered"] == 1.0
    later = Scene(Path("x.mp4"), 1, "Deepfakes", 4.0, 5.0)
    row = pointing.judged(later, found())
    assert row["person"] and not row["moment"] and row["inside"] == row["covered"] == 0.0
    assert pointing.judged(right, found(people=[]))["status"] == "0 people found"
    whole = found()
    for person in whole["people"]:
        person["snippets"] = [{**snippet, "score": None} for snippet in person["snippets"]]
    said = "the detector judges videos as a whole"
    assert pointing.judged(right, whole)["status"] == said


def test_an_uploaded_video_a_path_and_the_built_in_one_are_taken_in_this_order(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path))
    upload, built_in = Upload(), tmp_path / "built-in.mp4"
    upload.button = None
    assert upload.path("", built_in) == built_in and "text/plain" in upload._repr_mimebundle_()
    upload.button = SimpleNamespace(value=({"name": "../odd.mp4", "content": memoryview(b"x")},))
    assert upload.path("", built_in) == tmp_path / "uploads" / "odd.mp4"
    assert (tmp_path / "uploads" / "odd.mp4").read_bytes() == b"x"
    assert upload.path("mine.mp4", built_in) == Path("mine.mp4")


def test_links_to_folders_are_followed_and_files_of_other_kinds_are_named(tmp_path, capsys):
    top, linked = tmp_path / "top", tmp_path / "linked"
    names = [top / "a.mp4", top / "c.MXF", top / "d.vob", top / "e.ogv", linked / "b.mp4"]
    others = [top / "e.txt", linked / "f.srt", top / "g.srt", top / "h.srt", top / ".DS_Store"]
    for path in (*names, *others):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (top / "sub").symlink_to(linked)
    (linked / "up").symlink_to(top)
    asked = ["a.mp4", "c.MXF", "d.vob", "e.ogv", "sub/b.mp4"]
    said = f"{top}: files of other kinds, which were not looked at: 4 (e.txt, g.srt, h.srt, ...).\n"
    found = [str(path.relative_to(top)) for path in own_video._files([top])]
    assert found == asked and capsys.readouterr().err == said
    folder._say_once.cache_clear()
    assert [r.video_id for r in load_records("folder", top)] == asked
    assert load_records("folder", top) and capsys.readouterr().err.count("not looked at") == 1


@pytest.mark.parametrize(("suffix", "codec"), [("mxf", "mpeg2video"), ("vob", "mpeg2video")])
def test_videos_of_studios_and_discs_are_read(tmp_path, suffix, codec):
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert f".{suffix}" in folder.VIDEOS and len(list(decode(path))) == 5


def shown(path, frames, rate=25, crf="20"):
    """A video of these pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": crf, "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame_hwc in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_hwc, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_still_picture_gets_no_score_and_repeated_frames_a_word(tmp_path):
    target = next(iter(render_target(0, 1, SETTINGS["ff-like"], methods=(), frames=24)))
    frames = list(np.ascontiguousarray(target.frames_thwc))
    videos = [
        shown(tmp_path / "still.mp4", [frames[5]] * 24, crf="30"),
        shown(tmp_path / "twice.mp4", [f for f in frames for _ in (0, 1)], rate=50),
        shown(tmp_path / "once.mp4", frames),
    ]
    picture, twice, once = own_video.score_videos(videos)
    assert (picture["status"], picture["score"], picture["people"]) == ("still picture", None, [])
    assert "the one of the frame before in 23 of 23 frames" in verdict.sentences(picture)[0]
    assert verdict.rows(picture)[0]["status"] == "still picture"
    assert twice["score"] is not None
    assert 18 <= int(re.search(r"of the frame before in (\d+) of 47", twice["reason"])[1]) <= 24
    assert any("of 47 frames" in sentence for sentence in verdict.sentences(twice))
    assert verdict.rows(twice)[0]["reason"] == twice["reason"]
    assert once["score"] is not None and once["reason"] == ""


def test_a_portrait_on_the_wall_is_left_out_and_named():
    changes, rng, notes = Changes(), np.random.default_rng(0), []
    for _ in range(20):  # the left half of the picture moves
        picture = np.full((128, 256, 3), 90, np.uint8)
        picture[:, :128] = rng.integers(0, 256, (128, 128, 1), np.uint8)
        changes.add(Frame.of(picture))
    all_n = np.ones(20, bool)
    left, right = (
        Track(np.tile(np.float32([x, 20, x + 80, 100]), (20, 1)), all_n, all_n, np.zeros((1, 1)))
        for x in (20, 150)
    )
    assert changes.repeats(left, (256, 128)) == (0, 19)
    assert changes.repeats(right, (256, 128)) == (19, 19)
    assert still.moving([right, left], changes, (256, 128), notes) == [left]
    (note,) = notes
    assert note.startswith("1 of 2 faces without a score: still pictures")


def test_a_clock_that_starts_anew_goes_on_where_streams_were_joined():
    clock = Clock(10.0)
    for seconds in (5.0, 5.1, 7.0, 0.0, 0.1, 3.0):
        clock.add(seconds)
    assert [clock.at(n) for n in range(6)] == [0.0, 0.1, 2.0, 2.1, 2.2, 5.1]


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_a_probability_does_not_depend_on_the_size_of_the_logits(size):
    plain = calibration.fit(drawn(), "some", False)
    other = calibration.fit(drawn().assign(logit=lambda df: size * df["logit"]), "some", False)
    for x in (-2.0, 0.1, 3.0):
        assert other.probability(size * x) == pytest.approx(plain.probability(x), abs=1e-3)
