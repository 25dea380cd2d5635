"""Which stored clips the lessons show of a real tree."""

from types import SimpleNamespace

import pandas as pd
import pytest

from dfil.explain import examples
from dfil.system.errors import DataError


def store_of(videos: dict[tuple[str, str], list[tuple[int, int]]]) -> SimpleNamespace:
    """A crop store of test videos, (target, manipulation) -> runs, whose snippets are where they
    begin."""
    index = pd.DataFrame(list(videos), columns=["target", "manipulation"])
    index = index.assign(split="test", status="ok", compression="c23")
    index["video_id"] = index["manipulation"] + "/" + index["target"]
    runs = dict(zip(index["video_id"], videos.values(), strict=True))

    def opened(video_id):
        return SimpleNamespace(runs=runs[video_id], snippet=lambda first, *_: first)

    return SimpleNamespace(index=index, open=opened, folder="crops")


def test_the_clips_of_a_target_begin_with_the_same_frame():
    shown = {("000", "real"): [(0, 9), (20, 30)], ("000", "Deepfakes"): [(0, 4), (25, 40)]}
    assert examples.stored(store_of(shown), 8, 32) == {"real": 25, "Deepfakes": 25}
    apart = {("000", "real"): [(0, 9)], ("000", "Deepfakes"): [(25, 40)]}
    later = {("001", kind): [(3, 8)] for kind in ("real", "Deepfakes")}
    assert examples.stored(store_of(apart | later), 8, 32) == {"real": 3, "Deepfakes": 3}


def test_a_tree_without_such_a_target_is_told_what_is_missing():
    apart = {("000", "real"): [(0, 9)], ("000", "Deepfakes"): [(25, 40)]}
    lone = {("000", "real"): [(0, 9)], ("001", "Deepfakes"): [(0, 9)]}
    for videos in (apart, lone):
        with pytest.raises(DataError, match="crops: no test target has .* 8 neighbouring frames"):
            examples.stored(store_of(videos), 8, 32)
