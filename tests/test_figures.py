"""Figures are made from arrays, carry their caption, say when they are synthetic, and leave
nothing behind.
"""

import io
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dfil import paper
from dfil.results import figures, tables
from dfil.system.errors import RunError


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(0, 256, (8, 20, 20, 3), dtype=np.uint8)
        for name in ("real", *paper.ALL_MANIPULATIONS)
    }


@pytest.fixture
def ratios():
    rng = np.random.default_rng(1)
    kinds = np.repeat(["real", *paper.ALL_MANIPULATIONS], 6)
    label = (kinds != "real").astype(int)
    return pd.DataFrame(
        {"label": label, "manipulation": np.where(label, kinds, "")}
        | {g: rng.normal(1, 0.1, 30) for g in (1, 2, 4)}
    )


@pytest.fixture
def table(ratios):
    results = {}
    for gap in (1, 2, 4):
        for kind in paper.ALL_MANIPULATIONS:
            rows = ratios[ratios["manipulation"].isin(["", kind])]
            scores = rows[["label"]].assign(video_id=rows.index.astype(str), score=rows[gap])
            results[f"gap {gap}", kind] = tables.CellResult([scores])
    layout = tables.grid(
        "model-free", "t", paper.AUC, ["gap 1", "gap 2", "gap 4"], paper.ALL_MANIPULATIONS
    )
    return tables.build(layout, results, synthetic=True)


def words(fig: Figure) -> str:
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))


def drawn(fig: Figure) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    return buffer.getvalue()


def test_save_writes_caption_into_both_files_and_leaves_nothing_else(clips, tmp_path):
    fig = figures.local_inconsistency(clips, synthetic=True)
    png = figures.save(
        fig,
        tmp_path / "new",
        "fig1",
        "Figure 1: a title – with a dash",
        "What is to be seen.",
        synthetic=True,
    )
    assert sorted(path.name for path in png.parent.iterdir()) == ["fig1.pdf", "fig1.png"]
    with Image.open(png) as image:
        assert image.text["Title"] == "Figure 1: a title – with a dash (synthetic data)"
        assert image.text["Description"] == "What is to be seen."
    pdf = (png.parent / "fig1.pdf").read_bytes()
    assert b"CreationDate" not in pdf and b"/Type3" not in pdf  # reproducible, and TrueType inside


def test_the_same_figure_gives_the_same_bytes(clips, tmp_path):
    for name in "ab":
        figures.save(
            figures.local_inconsistency(clips, synthetic=False),
            tmp_path / name,
            "f",
            "t",
            "d",
            synthetic=False,
        )
    for kind in ("pdf", "png"):
        assert (tmp_path / "a" / f"f.{kind}").read_bytes() == (
            tmp_path / "b" / f"f.{kind}"
        ).read_bytes()


def test_a_synthetic_figure_that_does_not_say_so_is_refused(clips, tmp_path):
    fig = figures.local_inconsistency(clips, synthetic=False)
    with pytest.raises(RunError, match="does not say so"):
        figures.save(fig, tmp_path, "fig1", "t", "d", synthetic=True)
    assert not list(tmp_path.iterdir())
    assert "synthetic" not in words(fig)


def test_local_inconsistency_shows_the_second_difference(clips):
    fig = figures.local_inconsistency(
        clips, first=2, frames=4, ratios=dict.fromkeys(clips, 1.234), synthetic=True
    )
    row = fig.axes[: 4 + 2 + 2]
    grey_thw = clips["real"].astype(float).mean(-1)
    assert np.allclose(
        row[4].images[0].get_array(), grey_thw[4] - 2 * grey_thw[3] + grey_thw[2], atol=1e-3
    )
    assert row[4].images[0].get_clim() == row[5].images[0].get_clim() == (-40, 40)
    assert row[6].images[0].get_array().shape == (8, 20)  # all frames by one row of pixels
    assert (
        "ratio 1.23" in words(fig)
        and "synthetic" in words(fig)
        and "2nd difference\nat 3" in words(fig)
    )


@pytest.mark.parametrize("wrong", [{"first": 5}, {"first": -1}])
def test_local_inconsistency_refuses_a_snippet_outside_the_clip(clips, wrong):
    with pytest.raises(RunError, match="at least"):
        figures.local_inconsistency(clips, **wrong, synthetic=True)


def test_local_inconsistency_refuses_clips_of_different_shapes(clips):
    with pytest.raises(RunError, match="one shape"):
        figures.local_inconsistency(clips | {"real": clips["real"][:, :10]}, synthetic=True)


def test_gap_curves_draw_the_values_and_say_n(table):
    fig = figures.gap_curves(
        {"c23": table, "c40": table.assign(ours=table["ours"] / 2)}, synthetic=True
    )
    ax = fig.axes[0]
    curve = next(line for line in ax.lines if line.get_label() == "FaceSwap")
    assert np.allclose(curve.get_ydata(), table.loc[table["column"] == "FaceSwap", "ours"])
    assert "n = 12 videos" in ax.get_title() and "synthetic" in words(fig)
    assert drawn(fig)


def test_gap_curves_leave_out_cells_that_were_not_run(table):
    table.loc[table["column"] == "Face2Face", ["ours", "ci_low", "ci_high"]] = np.nan
    (ax,) = figures.gap_curves({"c23": table}, synthetic=False).axes
    shown = [line.get_label() for line in ax.lines if not line.get_label().startswith("_")]
    assert shown == ["Deepfakes", "FaceSwap", "NeuralTextures"]


def test_histograms_count_every_video(ratios):
    fig = figures.ratio_histograms(ratios, (1, 4), synthetic=True)
    assert len(fig.axes) == 8
    real = fig.axes[0].patches[:20]
    assert sum(bar.get_height() for bar in real) == 6
    assert "real (6)" in words(fig) and drawn(fig)


@pytest.mark.parametrize("shared", [True, False])
def test_maps_share_a_scale_or_have_one_each(shared):
    rows = {"small": [np.full((3, 5), 1.0), np.zeros((3, 5))], "large": [np.full((3, 5), -8.0)]}
    fig = figures.maps(rows, ["a", "b"], title="t", signed=True, shared=shared, synthetic=True)
    small, large = fig.axes[0].collections[0], fig.axes[2].collections[0]
    assert large.get_clim() == (-8, 8)
    assert small.get_clim() == ((-8, 8) if shared else (-1, 1))
    assert not fig.axes[3].get_visible() and drawn(fig)


def test_strips_show_the_frames_under_their_captions(clips):
    rows = {"neighbours": clips["real"][:4], "sparse": clips["real"][::4]}
    fig = figures.strips(rows, [list("0123"), ["0", "4"]], title="t", synthetic=True)
    assert (
        np.array_equal(fig.axes[5].images[0].get_array(), clips["real"][4])
        and fig.axes[5].get_title() == "4"
    )
    assert not fig.axes[6].images and "neighbours" in words(fig) and drawn(fig)


def test_maps_can_cut_their_scale_off():
    fig = figures.maps(
        {"one": [np.full((2, 2), 3.0)]},
        title="t",
        signed=True,
        limit=0.5,
        bar=False,
        synthetic=False,
    )
    assert fig.axes[0].collections[0].get_clim() == (-0.5, 0.5) and len(fig.axes) == 1


def test_maps_of_a_constant_can_be_drawn():
    assert drawn(figures.maps({"one": [np.ones((2, 2))]}, title="t", synthetic=False))


def test_nothing_leaks_into_pyplot(clips):
    before = dict(matplotlib.rcParams)
    figures.local_inconsistency(clips, synthetic=True)
    assert plt.get_fignums() == [] and dict(matplotlib.rcParams) == before


def test_every_manipulation_has_its_own_colour_and_the_style_is_shipped():
    assert set(figures.COLOURS) == {"real", *paper.ALL_MANIPULATIONS} == {"real", *figures.MARKERS}
    assert len(set(figures.COLOURS.values())) == 5
    assert Path(figures.STYLE).is_file()


def test_figures_of_runs_show_every_run_row_and_video():
    history = pd.DataFrame({"clips": [10, 20], "train_loss": [0.7, 0.5], "val_auc": [0.5, 0.9]})
    fig = figures.histories(
        {"dil-ffpp-c23-all-1234": history, "DIL, frames four apart": history},
        title="T",
        synthetic=True,
    )
    assert "synthetic" in words(fig) and {"dil-ffpp-c23-all", "DIL, frames four apart"} <= {
        text.get_text() for text in fig.findobj(matplotlib.text.Text)
    }
    assert [len(ax.lines) for ax in fig.axes] == [2, 3]  # the second panel has the line of chance
    fig = figures.histories(
        {"a, seed 0": history, "b, seed 0": history, "a, seed 1": history},
        title="T",
        synthetic=True,
    )
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["a", "b"]
    first, second, third = (line.get_color() for line in fig.axes[0].lines)
    assert (
        first == third == "#0072B2" and second == "#D55E00"
    )  # the style's colours, also when it is drawn later

    rows = pd.DataFrame({"row": ["dil", "dil", "resnet50"], "column": ["HQ DF", "LQ DF", "HQ DF"]})
    rows = rows.assign(
        ours=[0.9, 0.8, 0.5],
        ci_low=[0.8, 0.7, 0.4],
        ci_high=[0.95, 0.9, 0.6],
        n_videos=48,
        metric="accuracy",
    )
    fig = figures.accuracies(rows, title="T", synthetic=False)
    assert (
        "n = 48" in words(fig)
        and "synthetic" not in words(fig)
        and [ax.get_title() for ax in fig.axes] == ["HQ DF", "LQ DF"]
    )
    assert [len(ax.collections[0].get_segments()) for ax in fig.axes] == [2, 1]  # intervals
    assert fig.axes[0].collections[1].get_offsets()[:, 0].tolist() == [0.9, 0.5]
    assert fig.get_supxlabel() == "accuracy"
    fig = figures.accuracies(rows.assign(metric="auc"), title="T", synthetic=False)
    assert fig.get_supxlabel() == "AUC"
    long = figures.accuracies(
        rows, title="A title that a narrow figure cuts off" * 2, synthetic=True
    )
    long.canvas.draw()
    box = long._suptitle.get_window_extent()
    assert 0 <= box.x0 and box.x1 <= long.bbox.width and "synthetic" in words(long)
    assert "no cell was run" in words(figures.accuracies(rows[:0], title="T", synthetic=False))

    videos = pd.DataFrame(
        {"row": ["dil"] * 4, "label": [0, 0, 1, 1], "score": [0.1, 0.2, 0.8, 0.9]}
    )
    fig = figures.scores(videos, title="T", synthetic=True)
    shown = np.concatenate([c.get_offsets()[:, 0] for c in fig.axes[0].collections])
    assert shown.tolist() == videos["score"].tolist() and "synthetic" in words(fig)


def test_activations_lay_maps_over_the_frames_and_outline_the_forged_region(clips):
    masks = np.zeros((4, 20, 20), bool)
    masks[:, 5:15, 5:15] = True
    strong = np.zeros((4, 20, 20))
    strong[1] = 2.0
    maps = {"Grad-CAM": strong, "attention": np.zeros((4, 20, 20))}
    groups = {
        f"{name}, p 0.90": (clips[name][:4], None if name == "FaceSwap" else masks, maps)
        for name in paper.ALL_MANIPULATIONS
    }
    fig = figures.activations(groups, title="t", synthetic=True)
    assert "synthetic" in words(fig) and "FaceSwap, p 0.90" in words(fig)
    pictures = [ax for ax in fig.findobj(matplotlib.axes.Axes) if ax.images]
    first = pictures[:12]  # one group: three rows of four
    assert np.array_equal(first[2].images[0].get_array(), clips["Deepfakes"][2])
    assert (
        len(first[0].collections) == 2 and not first[4].collections
    )  # the outline, on the frames only
    faint, hot = first[4].images[0].get_array(), first[5].images[0].get_array()
    grey = clips["Deepfakes"][1].mean(-1, keepdims=True) / 255
    expected = 0.25 * grey + 0.75 * np.array(matplotlib.colormaps["inferno"](1.0)[:3])
    assert np.allclose(hot, expected, atol=1e-6) and not np.allclose(faint, hot)
    assert not any(ax.collections for ax in pictures[24:36])  # no mask, no outline
    assert drawn(fig)


def test_ut_map_frames_the_forged_and_writes_the_probabilities():
    rng = np.random.default_rng(0)
    forged = np.zeros((3, 4), bool)
    forged[1, 2:] = True
    clip = {"frames": rng.integers(0, 256, (3, 4, 8, 8, 3), dtype=np.uint8), "forged": forged}
    clip |= {"map": rng.random((3, 4)), "fake": np.arange(12).reshape(3, 4) / 12}
    fig = figures.ut_map(
        {"short": clip, "unknown": clip | {"forged": None}}, title="t", synthetic=False
    )
    shown = [ax for ax in fig.findobj(matplotlib.axes.Axes) if ax.images or ax.collections]
    red = [[p for p in ax.patches if isinstance(p, matplotlib.patches.Rectangle)] for ax in shown]
    assert [len(patches) for patches in red] == [2, 2, 2, 0, 0, 0]
    assert {tuple(np.round(patch.get_center(), 6)) for patch in red[1]} == {(2.5, 1.5), (3.5, 1.5)}
    picture = shown[0].images[0].get_array()
    assert np.array_equal(picture[8:16, 16:24], clip["frames"][1, 2])
    for ax, values, digits in ((shown[1], clip["map"], 3), (shown[2], clip["fake"], 2)):
        assert np.allclose(ax.collections[0].get_array().ravel(), values.ravel())
        said = [text.get_text() for text in ax.texts]
        assert said == [f"{value:.{digits}f}" for value in values.ravel()]  # what the colour shows
    assert drawn(fig)


def test_timelines_shade_the_forged_frames_and_centre_each_curve():
    forged = np.zeros(20, bool)
    forged[8:12] = True
    scores = pd.DataFrame(
        {
            "video_id": "a",
            "first_frame": [0, 4, 8],
            "last_frame": [3, 7, 11],
            "logit": [1.0, 2.0, 6.0],
        }
    )
    fig = figures.timelines({"dil": scores}, {"a": forged}, title="Clips", synthetic=True)
    (line,) = fig.axes[0].lines
    assert line.get_xdata().tolist() == [1.5, 5.5, 9.5] and line.get_ydata().tolist() == [-2, -1, 3]
    (grey,) = fig.axes[0].patches
    assert (grey.get_x(), grey.get_x() + grey.get_width()) == (7.5, 11.5)
    assert not fig.axes[1].axison and "synthetic" in fig.get_suptitle()


def test_seen_frames_join_the_frames_of_a_snippet():
    fig = figures.frames_seen(
        {"dil": figures.Sampling(4, 8, 4), "tei": figures.Sampling(16, 32, 1)}, frames=64
    )
    lines = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in lines] == [4] * 8 + [1] * 32
    assert all(np.diff(line.get_xdata()).tolist() == [1, 1, 1] for line in lines[:8])


@pytest.mark.parametrize("rows", [1, 13])
def test_no_figure_is_taller_than_a_notebook_page(rows):
    names = [f"method {i}" for i in range(rows)]
    cells = pd.DataFrame([(n, c) for n in names for c in "abcdefgh"], columns=["row", "column"])
    cells = cells.assign(ours=0.7, ci_low=0.6, ci_high=0.8, n_videos=9, metric="accuracy")
    videos = pd.DataFrame({"row": names * 2, "label": [0] * rows + [1] * rows, "score": 0.5})
    pictures = {name: np.zeros((4, 8, 8, 3), np.uint8) for name in names}
    history = pd.DataFrame({"clips": [1, 2], "train_loss": [1.0, 0.5], "val_auc": [0.5, 0.6]})
    for fig in (
        figures.accuracies(cells, title="t", synthetic=True),
        figures.scores(videos, title="t", synthetic=True),
        figures.strips(pictures, title="t", synthetic=True),
        figures.maps({name: [np.eye(3)] for name in names}, title="t", synthetic=True),
        figures.histories(dict.fromkeys(names, history), title="t", synthetic=True),
    ):
        assert fig.get_figheight() * 110 <= 647


def test_many_rows_do_not_share_colours_that_mean_something():
    names = ["dil", "resnet50", "stil", *(f"other {i}" for i in range(9))]
    history = pd.DataFrame({"clips": [1, 2], "train_loss": [1.0, 0.5], "val_auc": [0.5, 0.6]})
    fig = figures.histories(dict.fromkeys(names, history), title="t", synthetic=True)
    colours = [line.get_color() for line in fig.axes[0].lines]
    assert len(set(colours[:3])) == 3 and set(colours[3:]) == {figures.GREY}
