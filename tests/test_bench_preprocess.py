"""`bench preprocess` at its smallest size: the numbers mean nothing, what they are made of does."""

import av
import cv2
import numpy as np
import pytest

from dfil.cli import main
from dfil.faces.video import read_frames
from dfil.system.errors import DataError
from dfil.tools.bench import preprocess as bench
from dfil.tools.bench import scenes as drawn
from dfil.tools.bench.scenes import encode, rescaled, scenes, write


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A folder of two videos."""
    folder = tmp_path_factory.mktemp("footage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "DRAWN", 4)
        drawn.rendered.cache_clear()
        for name, frames in (("a.mp4", 12), ("b.mkv", 16)):
            write(folder / name, scenes(360, frames)[0])
        (folder / "about.txt").write_text("two videos")
        yield folder
        drawn.rendered.cache_clear()


def test_all_of_it_at_the_smallest_size(footage):
    found = bench.measure(footage, (360,), frames=16, repeats=1, every=8, mtcnn_frames=8)
    (row,) = found["sizes"]
    for pixels in bench.FORMATS:
        assert row[f"occluded_{pixels}"] > 1 and row[f"real_{pixels}"] > 1
    assert row["compared"] > 6 > row["missed"] and row["switches"] == 0
    assert found["clips"] == ["b.mkv", "a.mp4"]
    assert found["real"]["compared"] == 2 + 2 and found["real"]["iou_p5"] > 0.7
    text = bench.table(found)
    assert "| real footage, yuv444p | " in text and "times of b.mkv, rescaled; boxes in 2" in text
    without = bench.table(found | {"clips": [], "real": None})
    assert "`--clips FOLDER`" in without and "| real footage" not in without


def test_rescaled_footage_has_grain_and_the_format_asked_for(footage, tmp_path):
    grainy = np.stack(list(rescaled(footage / "a.mp4", 240, 5))).astype(float)
    assert grainy.shape == (5, 240, 426, 3)
    plain = [
        cv2.resize(f, (426, 240), interpolation=cv2.INTER_AREA)
        for f in read_frames(footage / "a.mp4")
    ]
    error = grainy - np.stack(plain[:5])
    assert 4 < error.std() < 6 and abs(error.mean()) < 1
    path = encode(tmp_path / "out.mp4", grainy.astype(np.uint8), "yuv444p")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.pix_fmt, stream.height, stream.frames) == ("yuv444p", 240, 5)


def test_a_folder_without_videos_is_an_error_before_anything_is_drawn(tmp_path):
    with pytest.raises(DataError, match="no video in it"):
        bench.measure(tmp_path)


def test_clips_are_for_two_of_the_benches(tmp_path, capsys):
    assert main(["bench", "preprocess", "--clips", str(tmp_path)]) == 1
    assert "no video in it" in capsys.readouterr().err
    assert main(["bench", "model", "--clips", str(tmp_path)]) == 1
    assert "leave out --clips" in capsys.readouterr().err
