"""The README agrees with what is published and with what there is."""

import re
import subprocess
from pathlib import Path

import pytest

from dfil import paper, profiles
from dfil.results import claims, page, tables
from dfil.tools import reproduce

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
DEMO = PROJECT / "outputs" / "demo"
DOCS = [f"docs/{path.name}" for path in sorted((PROJECT / "docs").glob("*.md"))]


@pytest.mark.parametrize("block", page.IN_README)
def test_results_are_those_of_the_published_tables(block):
    folder, names = page.IN_README[block]
    published = f"outputs/{folder}/tables"
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", published],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if changed.stdout.strip():
        pytest.skip(
            f"{published} holds the results of a run of your own, the README those of the published"
        )
    stale = page.readme_is_stale(PROJECT / "README.md", PROJECT / "outputs" / folder, names, block)
    assert not stale, "run `dfil report` and commit the README"


def test_every_notebook_is_on_the_map_and_was_published():
    names = set(reproduce.titles(PROJECT / "notebooks"))
    assert set(re.findall(r"notebooks/(\d\d_\w+)\.ipynb", README)) == names
    published = reproduce.read_status(DEMO / "status.csv")
    done = {name for name, row in published.items() if row["status"] == "ok"}
    left = {name for name in names if name[:2] in profiles.DEMO.on_request}
    assert done == {path.stem for path in (DEMO / "notebooks").glob("*.ipynb")}
    assert published.keys() - done <= left
    if done | left != names:
        pytest.skip(f"to be published: {', '.join(sorted(names ^ (done | left)))}")


def test_it_is_short_and_its_two_commands_stand_at_the_top():
    assert len(README.splitlines()) <= 130 and len(README.encode()) <= 9_000
    assert README.index("make test") < 1500 < README.index("<img")


def test_the_files_to_read_first_are_there_and_about_as_long_as_it_says():
    block = README.partition("<!-- reading:begin -->")[2].partition("<!-- reading:end -->")[0]
    listed = re.findall(r"\]\((\S+)\) \| .+ \| (\d+) \|", block)
    assert len(listed) > 10
    for name, said in listed:
        lines = len((PROJECT / name).read_text(encoding="utf-8").splitlines())
        assert abs(lines - int(said)) <= 0.2 * lines + 10, f"{name} has {lines} lines"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS])
def test_links_of_every_page_lead_somewhere(page):
    text = (PROJECT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)\)|src=\"([^\"]+)\"", text):
        target = "".join(link)
        assert target.startswith("http") or (PROJECT / page).parent.joinpath(target).exists(), (
            target
        )


def test_make_targets_are_there():
    makefile = (PROJECT / "Makefile").read_text()
    for target in set(re.findall(r"^\s*make (\w+)|`make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("folder", [folder for folder, _ in page.IN_README.values()])
def test_the_published_tables_say_that_they_are_synthetic(folder):
    published = PROJECT / "outputs" / folder / "tables"
    frames = tables.load(published)
    assert "table1" in frames and "temporal_only" in frames
    for name, df in frames.items():
        assert tables.is_synthetic(df), name
        assert "synthetic" in (published / f"{name}.md").read_text().lower(), name


def test_the_published_result_is_whole():
    frames = tables.load(DEMO / "tables")
    filled = frames["table1"][frames["table1"]["ours"].notna()]
    trained = {
        column.key
        for column in paper.TABLES["table1"].columns
        if column.train.compression in profiles.DEMO.qualities
    }
    for row in ("dil", "resnet50"):
        assert set(filled[filled["row"] == row]["column"]) == trained
    assert filled[["ci_low", "ci_high", "n_videos"]].notna().all(axis=None)
    assert "synthetic" in (DEMO / "report.html").read_text().lower()


@pytest.mark.parametrize(
    "path",
    sorted((PROJECT / "outputs").glob("**/demo/notebooks/*.ipynb")),
    ids=lambda path: path.stem,
)
def test_executed_notebooks_are_small_and_name_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 2 * 2**20
    assert not re.search(r"/(home|root|Users|work)/\w", text)


def test_the_first_table_has_the_rows_that_claims_name():
    df = tables.load(PROJECT / "outputs" / "study" / "tables")["temporal_only"]
    named = {row for c in claims.CLAIMS if c.table == "temporal_only" for row in (c.better, c.than)}
    there = set(df.loc[df["ours"].notna(), "row"])
    assert named - there == {0.5} and there - named  # the study has trained others too
    shown = README.partition("results:begin")[2].partition("results:end")[0]
    rows = [line for line in shown.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(named & there) and "Co-motion" not in shown
