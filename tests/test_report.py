"""The report page is complete, self-contained and honest about what is missing; so is
RESULTS.md.
"""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from dfil import paper
from dfil.results import claims, published, summary, tables
from dfil.results import page as report
from dfil.system.errors import DataError

VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps start tags, ids and the text of each table's
    rows.
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.rows = [], [], [], {}
        self.table = None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in VOID:
            self.open.append(tag)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if attrs.get("class") == "scroll":
            self.table = attrs["aria-labelledby"]
        if tag == "tr":
            self.rows.setdefault(self.table, []).append([])
        if tag in ("td", "th"):
            self.rows[self.table][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[self.table][-1][-1] += data


def scores(seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(20) % 2
    return pd.DataFrame(
        {
            "video_id": [str(i) for i in range(20)],
            "label": labels,
            "score": np.clip(labels + rng.normal(0, 0.6, 20), 0, 1),
        }
    )


def save_table(folder, key, rows, synthetic=True, seeds=1):
    table = paper.TABLES[key]
    results = {
        (cell.row, cell.column): tables.CellResult([scores(seed) for seed in range(seeds)], ["k"])
        for cell in table.cells()
        if cell.row in rows
    }
    tables.save(
        tables.build(table, results, "a reason with <b>", synthetic=synthetic),
        folder / "tables",
        key,
        table.title,
    )


def save_figure(folder, key, **text):
    (folder / "figures").mkdir(exist_ok=True)
    info = PngImagePlugin.PngInfo()
    for name, value in text.items():
        info.add_text(name, value)
    Image.new("RGB", (40, 20), "white").save(folder / "figures" / f"{key}.png", pnginfo=info)


@pytest.fixture
def folder(tmp_path):
    save_table(tmp_path, "table1", ["dil", "resnet50"], seeds=2)
    save_table(tmp_path, "table2", [])
    save_table(tmp_path, "table4", ["none", "intra", "inter", "intra+inter"])
    save_figure(
        tmp_path, "fig1", Title="A snippet", Description="Synthetic crops & their differences"
    )
    save_figure(tmp_path, "fig9")
    (tmp_path / "notebooks").mkdir()
    first = {
        "source": ["# 30\n", "- **To** `tables/table1.{csv,md}` and `figures/fig1.{png,pdf}`.\n"]
    }
    (tmp_path / "notebooks" / "30_train.ipynb").write_text(json.dumps({"cells": [first]}))
    (tmp_path / "notebooks" / "31_cut.ipynb").write_text('{"cells": [')
    (tmp_path / "status.csv").write_text(
        "notebook,status,seconds,peak MiB\n00_start,ok,12.5,300\n10_data,failed,180,950\n"
        "20_x,skipped,,\n"
    )
    (tmp_path / "environment.json").write_text(
        json.dumps(
            {"profile": "demo", "commit": "abc<1>", "seeds": [0, 1], "versions": {"torch": "2.14"}}
        )
    )
    return tmp_path


def test_page_is_well_formed_and_self_contained(folder):
    path = report.build(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    inside = [link for link in links if link.startswith("#")]
    assert inside and all(link[1:] in page.ids for link in inside)
    assert {link for link in links if link not in inside} == {"notebooks/30_train.ipynb"}
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    sources = [attrs["src"] for _, attrs in page.tags if "src" in attrs]
    assert len(sources) == 2 and all(
        source.startswith("data:image/webp;base64,") for source in sources
    )
    assert not re.search(r"https?://|url\(|@import", text)
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")


def test_figures_are_inlined_smaller_and_pixel_for_pixel(folder):
    rng = np.random.default_rng(0)
    noise_hwc = np.kron(rng.integers(0, 256, (20, 30, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(noise_hwc).save(folder / "figures" / "fig1.png")
    clear_hwc = np.concatenate(
        [noise_hwc, np.full((160, 240, 1), 255, np.uint8)], 2
    )  # matplotlib's PNGs have an opaque fourth channel
    Image.fromarray(clear_hwc).save(folder / "figures" / "fig9.png")
    page = Page(report.build(folder).read_text(encoding="utf-8"))
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 2 and all(
        (image["width"], image["height"]) == ("240", "160") for image in images
    )
    for image, key in zip(images, ("fig1", "fig9"), strict=True):
        webp = base64.b64decode(image["src"].partition(",")[2])
        assert len(webp) < (folder / "figures" / f"{key}.png").stat().st_size
        with Image.open(io.BytesIO(webp)) as shown:
            assert shown.format == "WEBP" and np.array_equal(
                np.asarray(shown.convert("RGB")), noise_hwc
            )
    Image.new("1", (20_000, 1)).save(folder / "figures" / "fig9.png")  # wider than WebP can be
    text = report.build(folder).read_text(encoding="utf-8")
    assert "fig9.png is not a PNG that can be shown" in text and text.count("<img") == 1


def test_paper_stands_beside_ours_in_the_papers_arrangement(folder):
    page = Page(report.build(folder).read_text(encoding="utf-8"))
    rows = page.rows["table1"]
    assert rows[0] == ["Method", "HQ", "LQ"] and rows[1] == ["DF", "F2F", "FS", "NT"] * 2
    body = {row[0].split("†")[0].strip(): row[1:] for row in rows[2:]}
    assert len(body) == 16 and {len(cells) for cells in body.values()} == {8}
    df = tables.load(folder / "tables")["table1"]
    for line in df[df["row"] == "dil"].to_dict("records"):
        cell = body["DIL"][list(df["column"].unique()).index(line["column"])]
        assert (
            f"ours {line['ours']:.3f}" in cell and f"paper {paper.printed(line['paper'])}" in cell
        )
        assert f"[{line['ci_low']:.3f}, {line['ci_high']:.3f}]" in cell and "seeds " in cell
    assert sum("ours" in cell for cells in body.values() for cell in cells) == 16
    assert sum("paper" in cell for cells in body.values() for cell in cells) == 16 * 8


def test_rows_that_were_not_run_are_grey_and_give_the_reason(folder):
    text = report.build(folder).read_text(encoding="utf-8")
    tables_of = text[text.index('id="tables"') :]
    assert tables_of.count('<tr class="idle">') == 14 + 13  # Table 1 but two rows, all of Table 2
    assert "not run: a reason with &lt;b&gt;." in text and "a reason with <b>" not in text
    assert "not run: " + paper.QUOTED in text


def test_what_is_missing_is_named(folder, tmp_path_factory):
    text = report.build(folder).read_text(encoding="utf-8")
    for name in (
        "tables/table3.csv",
        "tables/table5.csv",
        "tables/table6.csv",
        "figures/fig3.png",
        "figures/fig5.png",
    ):
        assert name in text
    assert "tables/table1.csv" not in text
    empty = tmp_path_factory.mktemp("empty")
    text = report.build(empty).read_text(encoding="utf-8")
    Page(text)
    assert text.count("Not there: this folder has no usable") == 6
    assert "no usable <code>status.csv" in text and "no usable <code>environment.json" in text
    with pytest.raises(DataError, match="no folder .*nowhere"):
        report.build(empty / "nowhere")


def test_damaged_files_are_named_and_the_page_still_built(folder):
    (folder / "tables" / "table4.csv").write_text("nonsense\n")
    (folder / "figures" / "fig1.png").write_bytes(b"not a picture")
    (folder / "status.csv").write_text("a,b\n1,2\n")
    (folder / "environment.json").write_text("[1]")
    text = report.build(folder).read_text(encoding="utf-8")
    notice = text[text.index('role="alert"') : text.index("</header>")]
    for name in ("table4.csv", "fig1.png", "status.csv", "environment.json"):
        assert name in notice


def test_a_figure_that_is_called_like_a_table_has_another_anchor(folder):
    save_figure(folder, "table1")
    ids = Page(report.build(folder).read_text(encoding="utf-8")).ids
    assert len(ids) == len(set(ids)) and {"table1", "figure-table1"} <= {*ids}


def badges(text, heading):
    return "synthetic data" in re.search(
        f'<(h3|figure) id="(figure-)?{heading}".*?(</h3>|</figcaption>)', text, re.S
    ).group(0)


def test_synthetic_is_marked_where_it_is(tmp_path):
    save_table(tmp_path, "table1", ["dil"], synthetic=True)
    save_table(tmp_path, "table4", ["intra"], synthetic=False)
    save_figure(tmp_path, "fig1", Description="synthetic clips")
    save_figure(tmp_path, "fig3", Description="real clips")
    text = report.build(tmp_path).read_text(encoding="utf-8")
    assert [badges(text, heading) for heading in ("table1", "table4", "fig1", "fig3")] == [
        True,
        False,
        True,
        False,
    ]
    save_table(tmp_path, "table1", ["dil"], synthetic=False)
    save_figure(tmp_path, "fig1", Description="real clips")
    assert "synthetic data</span>" not in report.build(tmp_path).read_text(encoding="utf-8")


def test_all_figures_are_synthetic_where_all_tables_are(folder):
    text = report.build(folder).read_text(encoding="utf-8")
    assert (
        badges(text, "fig9") and badges(text, "table1") and not badges(text, "table2")
    )  # nothing of ours in Table 2


def study_beside(tmp_path, synthetic=True):
    """A demonstration with HQ of Table 1 and no Table 4, and a study that has both."""
    demo, study = tmp_path / "demo", tmp_path / "study"
    for place, keep in ((demo, "HQ"), (study, "")):
        table = paper.TABLES["table1"]
        results = {
            (cell.row, cell.column): tables.CellResult([scores(0)], [place.name])
            for cell in table.cells()
            if cell.row == "dil" and cell.column.startswith(keep)
        }
        df = tables.build(table, results, "left out", synthetic=synthetic)
        tables.save(df, place / "tables", "table1", table.title)
    save_table(study, "table4", ["none", "intra"])
    (demo / "environment.json").write_text('{"profile": "demo"}')
    return demo, study


def test_a_demonstration_shows_the_studys_numbers_where_it_leaves_them_to_it(tmp_path):
    demo, study = study_beside(tmp_path)
    page, text = Page(report.build(demo).read_text()), (demo / "RESULTS.md").read_text()
    (dil,) = (row for row in page.rows["table1"] if row[0].startswith("DIL"))
    assert all("[" in cell for cell in dil[1:]) and "table4" in page.rows
    assert text.count("from the study's records") == 3  # a note of each table, and a sentence
    assert "(../study/RESULTS.md)" in text and "(../study/tables/table4.md)" in text
    assert "[Table 1](tables/table1.md)" in text
    own = tables.load_file(demo / "tables" / "table1.csv").query("row == 'dil'")
    assert own["ours"].notna().sum() == 4  # the file has its own numbers alone
    assert "study's records" not in report.build(study).read_text()


def test_a_page_of_ones_own_videos_takes_nothing_from_the_study(tmp_path):
    demo, _ = study_beside(tmp_path, synthetic=False)
    # the last call was about built-in clips, which says nothing of the tables of earlier ones
    (demo / "environment.json").write_text('{"profile": "demo", "synthetic": true}')
    page = report.build(demo).read_text()
    assert "study's records" not in page and not published.read(demo).all_synthetic
    assert "study's" not in (demo / "RESULTS.md").read_text()


def test_times_differences_and_environment(folder):
    text = report.build(folder).read_text(encoding="utf-8")
    assert (
        "3 notebooks, 3.2 min in all, at most 950 MiB" in text and "Not finished: 10_data." in text
    )
    assert all(title in text for title, _ in paper.DIFFERENCES)
    assert "abc&lt;1&gt;" in text and "<dd>0, 1</dd>" in text and "<dd>torch 2.14</dd>" in text


def test_the_same_folder_gives_the_same_page(folder):
    first = report.build(folder).read_bytes()
    assert report.build(folder).read_bytes() == first
    assert not list(folder.glob("*.tmp")) and not list(folder.glob(".*.tmp"))


def test_readme_follows_the_tables(folder, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "# Title\n\n<!-- results:begin -->\nformer results\n<!-- results:end -->\n\nThe end.\n"
    )
    assert report.readme_is_stale(readme, folder)
    assert report.update_readme(readme, folder) and not report.update_readme(readme, folder)
    assert not report.readme_is_stale(readme, folder)
    text = readme.read_text()
    assert text.startswith("# Title") and text.endswith("The end.\n") and "former" not in text
    assert (
        "### Table 1" in text and "### Table 4" in text and "### Table 2" not in text
    )  # nothing was run for Table 2
    assert "| DIL |" in text and "| STIL" not in text
    save_table(folder, "table1", ["dil", "stil"])
    assert report.readme_is_stale(readme, folder)
    assert report.update_readme(readme, folder, ["table1"])
    assert "### Table 4" not in readme.read_text()


def test_readme_errors(folder, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no comments")
    with pytest.raises(DataError, match="README.md must hold"):
        report.update_readme(readme, folder)
    with pytest.raises(DataError, match="no table table6"):
        report.readme_table(folder, ["table6"])
    with pytest.raises(DataError, match="no table yet"):
        report.readme_table(tmp_path / "empty")


def test_the_claims_stand_first_and_every_number_has_its_interval_and_n(folder):
    text = report.build(folder).read_text(encoding="utf-8")
    assert text.index('id="claims"') < text.index('id="contents"') < text.index('id="tables"')
    rows = Page(text).rows["claims"]
    assert len(rows) == len(claims.CLAIMS) + 1 and all(row[1] == "not run" for row in rows[1:])
    decided = claims.decided({"table4": results("table4", 3)}, synthetic=["table4"])
    decided.to_csv(folder / "claims.csv", index=False)
    text = report.build(folder).read_text(encoding="utf-8")
    rows = {row[0]: row for row in Page(text).rows["claims"]}
    row = rows["Intra-SIM improves the backbone (Table 4)."]
    assert row[1] in summary.WORDS and re.fullmatch(r"[+−]\d+\.\d \[[+−]\d.*\]", row[2])
    assert "10 people or pairs, 20 videos" == row[3] and row[4] == "3 (the method)"
    assert "not run" in text and "authors were not asked" in text and "280 videos" in text


@pytest.mark.parametrize(
    ("than", "values", "text"),
    [
        ("resnet50", (0.31, 0.141, 0.48), "+31.0 [+14.1, +48.0]"),
        ("0.5", (0.5, 0.472, 0.528), "+50.0 [+47.2, +50.0]"),  # an AUC has no more than 1
        ("0.5", (-0.4, -0.61, -0.2), "−40.0 [−50.0, −20.0]"),
        ("tei", (3.4e-5, -8.1e-5, 1.49e-4), "+0.003 [−0.008, +0.015]"),
    ],
)
def test_a_difference_is_shown_as_fine_as_it_is_and_no_larger_than_it_can_be(than, values, text):
    found = dict(zip(("difference", "low", "high"), values, strict=True))
    assert summary._difference({"than": than} | found) == text


def results(key, seeds):
    table = paper.TABLES[key]
    return {
        (cell.row, cell.column): tables.CellResult(
            [scores(seed).assign(person=lambda df: df.index // 2) for seed in range(seeds)]
        )
        for cell in table.cells()
    }


def test_results_md_has_claims_tables_makers_differences_and_times(folder):
    report.build(folder)
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    for part in (
        "## Claims",
        "### Table 1",
        "### Table 4",
        "## Differences from the paper",
        "## Times",
    ):
        assert part in text
    assert "### Table 2" not in text and "| STIL" not in text  # nothing was run
    assert "Made by [30_train](notebooks/30_train.ipynb)." in text
    assert (
        all(title in text for title, _ in paper.DIFFERENCES)
        and "| 00_start | ok | 12 | 300 |" in text
    )
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (folder / link).exists(), link
    report.build(folder)
    assert (folder / "RESULTS.md").read_text(encoding="utf-8") == text


def test_damaged_claims_are_named_and_the_page_still_built(folder):
    (folder / "claims.csv").write_text("nonsense")
    text = report.build(folder).read_text(encoding="utf-8")
    assert "claims.csv holds no claims" in text
