"""From per-video scores to the long form, its files, and the paper's arrangement."""

import numpy as np
import pandas as pd
import pytest

from dfil import paper
from dfil.results import arrange, metrics, tables
from dfil.results.markdown import footnotes, markdown
from dfil.results.notes import EARLIER, Notes
from dfil.system.errors import DataError, RunError


def scores(n=20, seed=0, shift=2.0):
    """Scores of n videos, half of them fake, as a run stores them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    values = 1 / (1 + np.exp(-(rng.normal(size=n) + shift * (labels - 0.5))))
    return pd.DataFrame(
        {
            "video_id": [f"c23/x/{i:03d}" for i in range(n)],
            "label": labels,
            "score": values,
            "person": [f"{i:03d}" for i in range(n)],
        }
    )


def table1(extra="", synthetic=True):
    results = {
        ("dil", c.key): tables.CellResult(
            [scores(seed=1), scores(seed=2)], ["aa", "bb"], ("own note",)
        )
        for c in paper.TABLES["table1"].columns
    }
    results["stil", "HQ DF"] = tables.CellResult([scores(seed=3)], ["cc"])
    return tables.build(
        paper.TABLES["table1"], results, "not in this profile", extra, synthetic=synthetic
    )


def at(df, row, column):
    return df[(df["row"] == row) & (df["column"] == column)].iloc[0]


def test_every_cell_has_one_row():
    df = table1(extra="said once")
    assert list(df.columns) == tables.COLUMNS
    assert len(df) == 16 * 8
    line = at(df, "dil", "LQ NT")
    both = np.stack([scores(seed=1)["score"], scores(seed=2)["score"]])
    estimate = metrics.accuracy(scores()["label"], both, scores()["person"])
    assert (line["paper"], line["ours"], line["ci_low"], line["ci_high"]) == (
        0.9428,
        estimate.value,
        estimate.low,
        estimate.high,
    )
    assert (line["n_videos"], line["seeds"], line["run"], line["metric"]) == (
        20,
        2,
        "aa bb",
        "accuracy",
    )
    assert line["note"].startswith("synthetic data; own note; said once; per seed ")
    assert np.mean(Notes.parse(line["note"]).per_seed) == pytest.approx(line["ours"], abs=1e-4)


def test_cells_that_were_not_run_say_why():
    df = table1()
    for row, reason in [("c3d", "not in this profile"), ("deeprhythm", paper.QUOTED)]:
        line = at(df, row, "HQ DF")
        assert (
            np.isnan(line["ours"])
            and pd.isna(line["n_videos"])
            and line["run"] == ""
            and line["note"] == reason
        )
    by_cell = tables.build(
        paper.TABLES["table2"], {}, lambda cell: f"needs {cell.test.dataset}", synthetic=False
    )
    assert at(by_cell, "dil", "WildDeepfake")["note"] == "needs wilddeepfake"


def test_only_built_in_data_is_called_synthetic():
    real = table1(synthetic=False)
    assert tables.is_synthetic(table1()) and not tables.is_synthetic(real)
    assert "synthetic" in markdown(table1(), "T").splitlines()[0]
    assert "synthetic" not in markdown(real, "T")


def test_save_and_load_give_the_same(tmp_path):
    df = table1()
    path = tables.save(df, tmp_path / "tables", "table1", paper.TABLES["table1"].title)
    assert path.read_text().splitlines()[0] == ",".join(tables.COLUMNS)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "table1.csv",
        "table1.md",
    ]  # no temporary file is left
    again = tables.load(tmp_path / "tables")["table1"]
    pd.testing.assert_frame_equal(again, df, rtol=1e-5)
    assert (path.parent / "table1.md").read_text() == markdown(again, paper.TABLES["table1"].title)
    assert (
        tables.title_of(tmp_path / "tables", "table1")
        == paper.TABLES["table1"].title + " (synthetic data)"
    )
    assert tables.load(tmp_path / "nowhere") == {}


def test_earlier_lines_are_taken_if_they_are_of_the_same_run(tmp_path):
    layout = tables.grid("extra", "Extra", "auc", ["a", "b", "c", "d"], ["X"])
    results = {
        (row, "X"): tables.CellResult([scores(seed=k)], [f"run-{row}"])
        for k, row in enumerate("abc")
    }
    results["b", "X"] = tables.CellResult(
        [scores(seed=1), scores(seed=2)], ["run-b", "run-b-seed-1"]
    )
    path = tables.save(
        tables.build(layout, results, "on request", synthetic=True), tmp_path, "extra", "Extra"
    )
    now = tables.build(
        layout,
        {("a", "X"): tables.CellResult([scores(seed=9)], ["run-a"])},
        "on request",
        synthetic=True,
    )
    runs = {
        ("a", "X"): ["run-a"],
        ("b", "X"): ["run-b", "run-b-seed-2"],
        ("c", "X"): ["run-with-other-settings"],
        ("d", "X"): ["run-d"],
    }
    merged = tables.with_earlier(now, path, runs)
    assert at(merged, "a", "X")["ours"] == at(now, "a", "X")["ours"]
    kept, before = at(merged, "b", "X"), at(tables.load_file(path), "b", "X")
    assert (
        kept.drop("note").equals(before.drop("note"))
        and kept["note"] == f"{before['note']}; {EARLIER}"
    )
    assert at(merged, "c", "X")["ours"] == at(tables.load_file(path), "c", "X")["ours"]
    assert at(merged, "c", "X")["note"].endswith(
        "; found by an earlier call, perhaps with other data or settings (now: on request)"
    )
    assert at(merged, "d", "X")["note"] == "on request" and merged["ours"].notna().sum() == 3
    assert list(merged["row"]) == list("abcd") and (merged.dtypes == now.dtypes).all()
    tables.save(merged, tmp_path, "extra", "Extra")
    assert tables.with_earlier(now, path, runs).equals(merged)  # and it is said once
    assert tables.with_earlier(now, tmp_path / "none.csv", {}).equals(now)


def test_markdown_looks_like_the_paper():
    text = markdown(table1(), "Table 1")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0].startswith("| Method | HQ DF | HQ F2F |")
    assert [len(line.split(" | ")) for line in lines[2:]] == [9] * 16
    line = at(table1(), "dil", "HQ DF")
    assert (
        f"**1.0**<br>{line['ours']:.3f} [{line['ci_low']:.3f}, {line['ci_high']:.3f}]" in lines[-1]
    )
    assert "n = 20 test videos per cell, 1 to 2 seeds (mean)." in text
    assert (
        "| DSANet † <sup>" in text
        and "**0.9964**" in text
        and "not run: not in this profile." in text
    )
    assert "per seed" not in text


def test_markdown_of_the_run_rows_only():
    text = markdown(table1(), "Table 1", only_run=True, level=3)
    assert text.startswith("### Table 1")
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][2:] == [
        "| STIL",
        "| DIL <sup>b</sup>",
    ]
    assert (
        "- <sup>a</sup> not run: not in this profile." in text
        and "- <sup>b</sup> own note." in text
        and paper.QUOTED not in text
    )


def test_ablation_keeps_its_check_marks():
    df = tables.build(
        paper.TABLES["table4"], {("intra", "DF"): tables.CellResult([scores()])}, synthetic=True
    )
    text = markdown(df, "Table 4")
    assert "| Intra | Inter | DF |" in text
    assert "\n| ✓ |  | 0.9750<br>" in text


def test_some_cells_of_a_table_are_shown_with_dashes_between_them():
    df = table1()
    whole = tables.pivot(df)
    places = list(zip(df["row"], df["column"], strict=True))
    (row, column), other = places[0], places[-1]
    assert row != other[0] and column != other[1]
    some = tables.pivot(df[[place in ((row, column), other) for place in places]])
    assert some.shape == (2, 2) and some.loc[:, column].iloc[0] == whole.loc[:, column].iloc[0]
    assert some.loc[:, other[1]].iloc[0].endswith("–") and some.loc[:, column].iloc[1].endswith("–")


def test_pivot():
    shown = tables.pivot(table1())
    assert shown.shape == (16, 8)
    assert shown.loc["C3D", "HQ DF"] == "0.9286 | –"
    assert shown.loc["DIL", "HQ DF"].startswith("1.0 | 0.")
    assert "TEI †" in shown.index


def test_a_table_beyond_the_paper():
    extra = tables.grid(
        "temporal-only", "Temporal only", paper.AUC, ["dil", "resnet50"], ["DF", "NT"]
    )
    results = {
        (row, column): tables.CellResult([scores()], ["dd"])
        for row in ("dil", "resnet50")
        for column in ("DF", "NT")
    }
    df = tables.build(extra, results, synthetic=True)
    assert (df["table"] == "temporal-only").all() and df["paper"].isna().all()
    assert at(df, "dil", "NT")["ours"] == metrics.auc(scores()["label"], scores()["score"]).value
    shown = tables.pivot(df)
    assert list(shown.index) == ["DIL", "ResNet-50"] and "|" not in shown.loc["DIL", "DF"]


def test_footnotes_find_rows_columns_and_cells():
    extra = tables.grid("x", "X", paper.ACCURACY, ["p", "q", "r"], ["A", "B"])
    notes = {
        ("p", "A"): ("row", "column"),
        ("p", "B"): ("row",),
        ("q", "A"): ("column",),
        ("r", "A"): ("column",),
        ("q", "B"): ("cell",),
        ("r", "B"): (),
    }
    df = tables.build(
        extra,
        {place: tables.CellResult([scores()], notes=note) for place, note in notes.items()},
        synthetic=True,
    )
    notes = footnotes(df)
    assert notes.general == ["synthetic data"]
    assert {note.text: (note.rows, note.columns, note.cells) for note in notes.special} == {
        "row": (["p"], [], []),
        "column": ([], ["A"], []),
        "cell": ([], [], [("q", "B")]),
    }


def test_a_row_that_is_filled_in_part_has_its_notes_at_its_name():
    extra = tables.grid("x", "X", paper.ACCURACY, ["p", "q"], ["A", "B", "C"])
    seeds = {(r, c): tables.CellResult([scores()], notes=(r,)) for r, c in ("pA", "pB", "qA", "qC")}
    df = tables.build(extra, seeds, "why", synthetic=True)
    found = {note.text: (note.rows, note.cells) for note in footnotes(df).special}
    assert found == {"p": (["p"], []), "q": (["q"], []), "why": ([], [("p", "C"), ("q", "B")])}


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        ([scores(), scores().iloc[1:]], RunError, "did not score the same videos"),
        ([scores(), scores().assign(label=lambda df: 1 - df["label"])], RunError, "labels differ"),
        ([pd.concat([scores(), scores()])], DataError, "scored twice"),
        ([scores().drop(columns="score")], DataError, r"lack the columns \['score'\]"),
        (
            [scores().assign(score=np.nan)],
            DataError,
            "table1, row dil, column HQ DF: 20 of 20 scores are not finite",
        ),
        ([], RunError, "without scores"),
    ],
)
def test_damaged_scores_are_named(frames, error, message):
    with pytest.raises(error, match=message):
        tables.build(
            paper.TABLES["table1"], {("dil", "HQ DF"): tables.CellResult(frames)}, synthetic=True
        )


def test_seeds_may_list_the_videos_in_any_order():
    one, other = scores(), scores().sample(frac=1, random_state=0)
    df = tables.build(
        paper.TABLES["table1"], {("dil", "HQ DF"): tables.CellResult([one, other])}, synthetic=True
    )
    assert at(df, "dil", "HQ DF")["ours"] == metrics.accuracy(one["label"], one["score"]).value


def test_results_for_no_cell_are_an_error():
    with pytest.raises(RunError, match="no cell .*dil.*c23 DF"):
        tables.build(
            paper.TABLES["table1"],
            {("dil", "c23 DF"): tables.CellResult([scores()])},
            synthetic=True,
        )


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "table1.csv").write_text("row,column\na,b\n")
    with pytest.raises(DataError, match="table1.csv is not a result table.*row, column"):
        tables.load(tmp_path)
    (tmp_path / "table1.csv").write_text(
        ",".join(tables.COLUMNS) + "\ntable1,dil,HQ DF,accuracy,x,,,,,,,\n"
    )
    with pytest.raises(DataError, match="table1.csv is not a result table"):
        tables.load(tmp_path)
    with pytest.raises(DataError, match="cannot be saved"):
        tables.save(table1().drop(columns="run"), tmp_path, "table1", "T")


def test_write_text_keeps_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.txt"
    tables.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        tables.write_text(path, "new \ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_filled_table_is_never_replaced_by_an_empty_one(tmp_path):
    path = tables.save(table1(), tmp_path, "table1", "T")
    before = tables.load_file(path)
    empty = tables.build(paper.TABLES["table1"], {}, "ffpp is not there", synthetic=False)
    tables.save(empty, tmp_path, "table1", "T")
    after = tables.load_file(path)
    assert after[tables.COLUMNS[:-1]].equals(before[tables.COLUMNS[:-1]])
    filled = after["ours"].notna()
    assert filled.sum() == 9
    assert after.loc[filled, "note"].str.endswith("(now: ffpp is not there)").all()
    tables.save(empty, tmp_path, "table1", "T")
    assert tables.load_file(path).equals(after)  # said once, however often
    # Of other columns, such as an empty table of an earlier form, nothing filled is lost either.
    other = tables.build(tables.grid("table1", "T", "auc", ["dil"], ["X"]), {}, synthetic=False)
    tables.save(other, tmp_path, "table1", "T")
    assert tables.load_file(path)["ours"].notna().sum() == 9


def test_columns_that_a_call_does_not_know_stay(tmp_path):
    """As where a dataset was there in an earlier call and is not now."""
    first = tables.grid("extra", "Extra", "auc", ["a", "old"], ["X", "Y"])
    places = [("a", "X"), ("a", "Y"), ("old", "X")]
    results = {each: tables.CellResult([scores(seed=3)], ["first"]) for each in places}
    path = tables.save(tables.build(first, results, "left out", synthetic=True), tmp_path, "e", "E")
    before = tables.load_file(path)
    second = tables.grid("extra", "Extra", "auc", ["a", "new"], ["X", "Z"])
    results = {each: tables.CellResult([scores(seed=4)], ["second"]) for each in (("a", "Z"),)}
    now = tables.build(second, results, "not yet", synthetic=True)
    tables.save(now, tmp_path, "e", "E")
    after = tables.load_file(path)
    assert list(dict.fromkeys(after["row"])) == ["a", "new", "old"]
    assert list(dict.fromkeys(after["column"])) == ["X", "Z", "Y"] and len(after) == 9
    there = after[after["ours"].notna()]
    assert {*zip(there["row"], there["column"], strict=True)} == {*places, ("a", "Z")}
    for row, column in places:
        assert at(after, row, column)["ours"] == at(before, row, column)["ours"]
        assert "(now: " in at(after, row, column)["note"]
    assert at(after, "new", "Y")["note"] == at(after, "old", "Z")["note"] == arrange.NO_CELL
    assert (
        at(after, "old", "Y")["note"] == "left out" and at(after, "new", "X")["note"] == "not yet"
    )
    assert (after["metric"] == "auc").all() and (after["table"] == "extra").all()
    assert "Z" in path.with_suffix(".md").read_text() and tables.pivot(after).shape == (3, 3)
    tables.save(now, tmp_path, "e", "E")
    assert tables.load_file(path).equals(after)  # settled: another call changes nothing


def test_rows_that_a_call_does_not_know_stay(tmp_path):
    layout = tables.grid("extra", "Extra", "auc", ["a", "toy"], ["X"])
    both = {(row, "X"): tables.CellResult([scores(seed=3)], [row]) for row in ("a", "toy")}
    path = tables.save(tables.build(layout, both, synthetic=True), tmp_path, "extra", "Extra")
    one = tables.grid("extra", "Extra", "auc", ["a"], ["X"])
    now = tables.build(one, {("a", "X"): tables.CellResult([scores(seed=4)])}, synthetic=True)
    tables.save(now, tmp_path, "extra", "Extra")
    after = tables.load_file(path)
    assert (
        list(after["row"]) == ["a", "toy"]
        and "(now: no such cell)" in at(after, "toy", "X")["note"]
    )
    assert at(after, "a", "X")["ours"] == pytest.approx(at(now, "a", "X")["ours"], rel=1e-5)


def test_a_damaged_table_is_put_aside_and_made_anew(tmp_path, capsys):
    (tmp_path / "table1.csv").write_text("cut in the mid")
    tables.save(table1(), tmp_path, "table1", "T")
    assert len(tables.load_file(tmp_path / "table1.csv")) == 16 * 8
    assert (tmp_path / "table1.csv.damaged").read_text() == "cut in the mid"
    assert "table1.csv is not a result table" in capsys.readouterr().out


def test_columns_of_other_notebooks_stay_as_they_are(tmp_path):
    table = paper.TABLES["table2"]
    first = {("dil", "Celeb-DF"): tables.CellResult([scores()], ["a"])}
    other = {("dil", "DFDC"): tables.CellResult([scores(seed=1)], ["b"])}
    for results, column in ((first, "Celeb-DF"), (other, "DFDC")):
        df = tables.build(table, results, f"not by {column}'s notebook", synthetic=True)
        path = tables.save(df, tmp_path, "table2", "T", columns=[column])
    df = tables.load_file(path)
    assert list(df["row"]) == [cell.row for cell in table.cells()]
    assert at(df, "dil", "Celeb-DF")["run"] == "a" and at(df, "dil", "DFDC")["run"] == "b"
    assert "earlier" not in at(df, "dil", "Celeb-DF")["note"]
    assert at(df, "stil", "Celeb-DF")["note"] == "not by Celeb-DF's notebook"


def test_notes_are_one_text_in_the_file_and_parts_in_code():
    notes = Notes(("seed 0", "learning rate 0.01"), True, (0.5, 0.75), EARLIER)
    text = notes.format()
    assert text == f"synthetic data; seed 0; learning rate 0.01; per seed 0.5000 0.7500; {EARLIER}"
    assert Notes.parse(text) == notes and Notes.parse("") == Notes()
    assert notes.footnotes == ("synthetic data", "seed 0", "learning rate 0.01", EARLIER)
    assert not Notes.parse("trained on the non-synthetic data").synthetic  # a word is no mark


def test_a_method_from_elsewhere_gets_a_row_in_the_papers_tables(tmp_path):
    results = {
        ("toy", c.key): tables.CellResult([scores()]) for c in paper.TABLES["table1"].columns
    }
    df = tables.build(paper.TABLES["table1"], results, synthetic=True)
    assert len(df) == 17 * 8 and at(df, "toy", "LQ NT")["ours"] > 0.5
    path = tables.save(df, tmp_path, "table1", "Table 1")
    assert "| toy |" in path.with_suffix(".md").read_text()
    assert "| DIL <sup>" in path.with_suffix(".md").read_text()


def test_auc_stands_beside_accuracy_in_a_table_of_its_own(tmp_path):
    layout = paper.TABLES["table1"].measured_by(paper.AUC)
    results = {("dil", "HQ DF"): tables.CellResult([scores()])}
    df = tables.build(layout, results, synthetic=True)
    assert (df["table"] == "table1_auc").all() and (df["metric"] == "auc").all()
    assert df["paper"].isna().all() and at(df, "deeprhythm", "HQ DF")["note"] == paper.QUOTED
    assert at(df, "dil", "HQ DF")["ours"] == metrics.auc(scores()["label"], scores()["score"]).value
    tables.save(df, tmp_path, "table1_auc", layout.title)
    assert "DSANet †" in tables.pivot(tables.load(tmp_path)["table1_auc"]).index


def test_intervals_are_by_person_and_say_so_where_no_person_is_known():
    twice = pd.concat([scores(), scores().assign(video_id=lambda df: df["video_id"] + "b")])
    known, unknown = (
        at(tables.build(paper.TABLES["table1"], {("dil", "HQ DF"): tables.CellResult([df])},
                        synthetic=True), "dil", "HQ DF")
        for df in (twice, twice.drop(columns="person"))
    )  # fmt: skip
    assert known["ci_low"] < unknown["ci_low"] and known["n_videos"] == unknown["n_videos"] == 40
    assert tables.NO_PERSON in unknown["note"] and tables.NO_PERSON not in known["note"]
