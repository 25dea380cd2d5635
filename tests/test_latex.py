"""Tables for LaTeX: booktabs, every letter escaped, paper above ours, notes below."""

import re

import pytest

from dfil import cli, paper
from dfil.results import latex, tables
from dfil.system.errors import DataError
from dfil.train.experiments import CellResult


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """outputs/smoke with Table 2's DIL on Celeb-DF filled from eight videos."""
    import pandas as pd

    scores = pd.DataFrame(
        {
            "video_id": list("abcdefgh"),
            "label": [0, 0, 0, 0, 1, 1, 1, 1],
            "score": [0.1, 0.2, 0.6, 0.3, 0.9, 0.8, 0.4, 0.7],
            "person": list("aabbccdd"),
        }
    )
    table = paper.TABLES["table2"]
    cell = next(cell for cell in table.cells() if cell.row == "dil")
    filled = {(cell.row, cell.column): CellResult([scores], ["dil-x_1"], ("50 % & more",))}
    df = tables.build(table, filled, "not run", synthetic=True)
    folder = tmp_path / "out/smoke"
    tables.save(df, folder / "tables", "table2", table.title)
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "out"))
    return folder


def test_a_table_becomes_booktabs_with_escaped_text(saved):
    (path,) = latex.write(saved)
    text = path.read_text(encoding="utf-8")
    assert path.name == "table2.tex" and text.isascii()
    for part in ("\\toprule", "\\midrule", "\\bottomrule", "\\label{tab:table2}", "\\centering"):
        assert part in text
    assert "0.750 [" in text and "synthetic data" in text and "50 \\% \\& more" in text
    plain = re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", text, flags=re.S)
    assert not re.search(r"(?<!\\)[%&#_]", plain.replace("\\label{tab:table2}", ""))
    body = re.search(r"\\midrule\n(.*)\\bottomrule", text, re.S).group(1).strip().splitlines()
    columns = text.split("\\begin{tabular}{")[1].split("}")[0]
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1 for line in body)
    ours = next(number for number, line in enumerate(body) if line.startswith("\\quad ours"))
    assert body[ours - 1].startswith("DIL")


def test_report_writes_them_on_request(saved, capsys):
    assert cli.main(["report", "--profile", "smoke", "--latex"]) == 0
    assert "table2.tex" in capsys.readouterr().out


def test_without_a_number_there_is_nothing_to_write(tmp_path):
    (tmp_path / "tables").mkdir()
    with pytest.raises(DataError, match="no table with a number"):
        latex.write(tmp_path)
