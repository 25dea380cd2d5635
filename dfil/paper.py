"""The paper as data: the values of its six tables, its settings, and which trained model feeds
which cell.

Gu, Chen, Yao, Ding, Li and Ma, "Delving into the Local: Dynamic Inconsistency Learning for DeepFake
Video Detection", AAAI 2022. Every value stands here exactly as printed (278/280 appears both as
0.9928 and as 0.9929); nothing else in the project knows one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

MANIPULATIONS = {"DF": "Deepfakes", "F2F": "Face2Face", "FS": "FaceSwap", "NT": "NeuralTextures"}
COMPRESSIONS = {"HQ": "c23", "LQ": "c40"}
ALL_MANIPULATIONS = tuple(MANIPULATIONS.values())

ACCURACY, AUC = "accuracy", "auc"
QUOTED = "quoted by the paper from another publication"
QUOTED_VALUE = "the paper's value is quoted from another publication"


@dataclass(frozen=True)
class Videos:
    """A selection of videos: all reals of a dataset at a compression, and the fakes of the named
    manipulations.

    compression is empty where a dataset has one only; manipulations is empty for all fakes.
    """

    dataset: str
    compression: str = ""
    manipulations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column of a table: what is trained on and what is tested on. `group` is the heading that
    spans several columns.

    n_videos is the number of test videos the printed values imply, None where it cannot be told.
    """

    key: str
    train: Videos | None = None
    test: Videos | None = None
    n_videos: int | None = None
    group: str = ""

    @property
    def short(self) -> str:
        """The heading under the group's heading: `DF` of `HQ DF`."""
        return self.key.removeprefix(self.group).strip()


@dataclass(frozen=True)
class Row:
    """One row of a table, `values` in the order of the table's columns, None where the paper prints
    a dash.

    name: the method's registry name, or the ablation's label. method, switches: what
    `dfil.models.build` is called with; switches holds only what differs from the method's defaults,
    so the full model has the same description in every table. heads: the row's leading cells as
    printed, one per entry of the table's `heads`; `label` says the same in one piece. dagger:
    marked † (re-implemented by the paper's authors). quoted: taken by the paper from another
    publication. bold: keys of the columns whose value is printed in bold. warped: trained on the
    real videos and warps of them, and on no forgery.
    """

    name: str
    label: str
    values: tuple[float | None, ...]
    method: str = ""
    switches: tuple[tuple[str, object], ...] = ()
    heads: tuple[str, ...] = ()
    dagger: bool = False
    quoted: bool = False
    bold: tuple[str, ...] = ()
    warped: bool = False


@dataclass(frozen=True)
class Cell:
    """One value of a table and the model behind it; cells that agree in `run` share it."""

    table: str
    row: str
    column: str
    metric: str
    value: float | None
    method: str
    switches: tuple[tuple[str, object], ...]
    train: Videos | None
    test: Videos | None
    quoted: bool = False
    warped: bool = False

    @property
    def run(self) -> tuple:
        """(method, switches, training videos, whether of reals only): a run but for its seed and
        profile."""
        return self.method, self.switches, self.train, self.warped


@dataclass(frozen=True)
class Table:
    """One table of the paper, or one beyond it (then every value is None)."""

    key: str
    title: str
    caption: str
    metric: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    heads: tuple[str, ...] = ("Method",)

    def cells(self) -> Iterator[Cell]:
        """Every cell, row by row."""
        for row in self.rows:
            model = row.method or row.name, row.switches
            for column, value in zip(self.columns, row.values, strict=True):
                place = self.key, row.name, column.key, self.metric
                yield Cell(*place, value, *model, column.train, column.test, row.quoted, row.warped)

    def extended(self, methods: Iterable[str]) -> Table:
        """The table with a row, without values, for every method that the paper does not know."""
        known = {row.method or row.name for table in TABLES.values() for row in table.rows}
        known |= {row.name for row in self.rows}
        names = [name for name in dict.fromkeys(methods) if name not in known]
        empty = (None,) * len(self.columns)
        return replace(self, rows=self.rows + tuple(Row(name, name, empty) for name in names))

    def measured_by(self, metric: str) -> Table:
        """The same cells by another metric, of which the paper has no values: `table1_auc`."""
        rows = tuple(replace(row, values=(None,) * len(row.values), bold=()) for row in self.rows)
        what = "The cells of the table by a metric that no threshold touches."
        said = {"caption": f"{what} The paper does not print it.", "notes": ()}
        said["title"] = f"{self.title}, by {metric.upper()}"
        return replace(self, key=f"{self.key}_{metric}", metric=metric, rows=rows, **said)

    def cell(self, row: str, column: str) -> Cell:
        """The cell at a row's name and a column's key. Raises KeyError naming both."""
        for cell in self.cells():
            if (cell.row, cell.column) == (row, column):
                return cell
        raise KeyError(f"{self.key} has no cell at row {row!r}, column {column!r}")


@dataclass(frozen=True)
class Settings:
    """What the paper states of its experiments; what it leaves open has no field."""

    backbone: str = "resnet50"
    pretrained_on: str = "ImageNet"
    image_size: int = 224
    frames_per_snippet: int = 4  # T
    train_snippets: int = 4  # U in training
    test_snippets: int = 8  # U in testing
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    # "divide the learning rate by 10 when the performance on validation set saturates"
    learning_rate_factor: float = 0.1
    batch_size: int = 10
    epochs: int = 30
    cross_dataset_epochs: int = 45
    augmentation: str = "horizontal flip"
    loss: str = "binary cross-entropy"
    ffpp_detector: str = "dlib"
    other_detector: str = "mtcnn"


SETTINGS = Settings()


def printed(value: float | None) -> str:
    """A value as the paper prints it: four decimals, 1.0 for one, a dash where there is none."""
    if value is None:
        return "–"
    return "1.0" if value == 1 else f"{value:.4f}"


def _ffpp(quality: str, short: str, key: str, group: str = "") -> Column:
    # One model per manipulation and quality, 140 real and 140 fake test videos: every printed
    # accuracy is a multiple of 1/280.
    videos = Videos("ffpp", COMPRESSIONS[quality], (MANIPULATIONS[short],))
    return Column(key, videos, videos, n_videos=280, group=group)


_FFPP_COLUMNS = tuple(
    _ffpp(quality, short, f"{quality} {short}", quality)
    for quality in COMPRESSIONS
    for short in MANIPULATIONS
)
_ABLATION_COLUMNS = tuple(_ffpp("LQ", short, short) for short in MANIPULATIONS)

_CELEBDF, _DFDC, _WILD = Videos("celebdf"), Videos("dfdc-preview"), Videos("wilddeepfake")
_WITHIN_COLUMNS = (
    Column("Celeb-DF", _CELEBDF, _CELEBDF, n_videos=518),
    Column("DFDC", _DFDC, _DFDC),
    Column("WildDeepfake", _WILD, _WILD, n_videos=806),
)

_FFPP_LQ_ALL = Videos("ffpp", "c40", ALL_MANIPULATIONS)
_CROSS_COLUMNS = (
    Column("FF++ DF", _FFPP_LQ_ALL, Videos("ffpp", "c40", ("Deepfakes",)), n_videos=280),
    Column("Celeb-DF", _FFPP_LQ_ALL, _CELEBDF, n_videos=518),
    Column("DFDC", _FFPP_LQ_ALL, _DFDC),
)


def _rows(columns: tuple[Column, ...], printed: str) -> tuple[Row, ...]:
    """Rows as printed: name | label | values, "-" where there is none, "*" behind those in bold.

    Behind a label † means re-implemented by the paper's authors, ‡ taken from elsewhere.
    """
    rows = []
    for line in printed.strip().splitlines():
        name, label, texts = (part.strip() for part in line.split("|"))
        cells = list(zip(columns, texts.split(), strict=True))
        values = tuple(None if text == "-" else float(text.strip("*")) for _, text in cells)
        bold = tuple(column.key for column, text in cells if text.endswith("*"))
        marks = {"dagger": "†" in label, "quoted": "‡" in label}
        rows.append(Row(name, label.rstrip(" †‡"), values, bold=bold, **marks))
    return tuple(rows)


_TABLE1_ROWS = _rows(_FFPP_COLUMNS, """
    resnet50     | ResNet-50      | 0.9893 0.9857  0.9964 0.9500  0.9536  0.8893  0.9464  0.8750
    xception     | Xception       | 0.9893 0.9893  0.9964 0.9500  0.9678  0.9107  0.9464  0.8714
    lstm         | LSTM           | 0.9964 0.9929  0.9821 0.9393  0.9643  0.8821  0.9429  0.8821
    c3d          | C3D            | 0.9286 0.8857  0.9179 0.8964  0.8929  0.8286  0.8786  0.8714
    i3d          | I3D            | 0.9286 0.9286  0.9643 0.9036  0.9107  0.8643  0.9143  0.7857
    tei          | TEI †          | 0.9786 0.9714  0.9750 0.9429  0.9500  0.9107  0.9464  0.9036
    dsanet       | DSANet †       | 0.9929 0.9929  0.9964 0.9571  0.9679  0.9321  0.9536  0.9178
    v4d          | V4D †          | 0.9964 0.9929  0.9964 0.9607  0.9786  0.9357  0.9536  0.9250
    facenet-lstm | FaceNetLSTM ‡  | 0.8900 0.8700  0.9000 -       -       -       -       -
    co-motion-70 | Co-motion-70 ‡ | 0.9910 0.9325  0.9830 0.9045  -       -       -       -
    deeprhythm   | DeepRhythm ‡   | 0.9870 0.9890  0.9780 -       -       -       -       -
    addnet-3d    | ADDNet-3d †    | 0.9214 0.8393  0.9250 0.7821  0.9036  0.7821  0.8000  0.6929
    s-mil        | S-MIL          | 0.9857 0.9929  0.9929 0.9571  0.9679  0.9143  0.9464  0.8857
    s-mil-t      | S-MIL-T        | 0.9964 0.9964* 1.0    0.9429  0.9714  0.9107  0.9607  0.8679
    stil         | STIL           | 0.9964 0.9929  1.0    0.9536  0.9821  0.9214  0.9714  0.9178
    dil          | DIL            | 1.0*   0.9929  1.0*   0.9643* 0.9928* 0.9571* 0.9786* 0.9428*
""")  # fmt: skip

# Tables 2 and 3: the frame baseline is ours, the paper's tables lack it.
_TABLE2_ROWS = _rows(_WITHIN_COLUMNS, """
    resnet50  | ResNet-50   | -       -       -
    xception  | Xception    | 0.9944  0.8458  0.8325
    i3d       | I3D †       | 0.9923  0.8082  0.6269
    d-fwa     | D-FWA ‡     | 0.9858  0.8511  -
    dianet    | DIANet ‡    | -       0.8583  -
    tei       | TEI †       | 0.9912  0.8697  0.8164
    v4d       | V4D         | 0.9942  0.8739  0.8375
    dsanet    | DSANet †    | 0.9942  0.8867  0.8474
    addnet-3d | ADDNet-3D † | 0.9516  0.7966  0.6550
    s-mil     | S-MIL       | 0.9923  0.8378  -
    s-mil-t   | S-MIL-T     | 0.9884  0.8511  -
    stil      | STIL †      | 0.9961  0.8980  0.8462
    dil       | DIL         | 0.9961* 0.9279* 0.8511*
""")  # fmt: skip

_TABLE3_ROWS = _rows(_CROSS_COLUMNS, """
    resnet50  | ResNet-50   | -       -       -
    xception  | Xception    | 0.9550  0.6550  0.5939
    i3d       | I3D †       | 0.9541  0.7411  0.6687
    va-logreg | VA-LogReg ‡ | 0.7800  0.5510  -
    va-logreg-published | VA-LogReg, its authors' numbers | - - -
    tei       | TEI †       | 0.9654  0.7466  0.6742
    d-fwa     | D-FWA ‡     | 0.8100  0.5690  -
    capsule   | Capsule ‡   | 0.9660  0.5750  -
    v4d       | V4D †       | 0.9674  0.7008  0.6734
    dianet    | DIANet ‡    | 0.9040  0.7040  -
    dsanet    | DSANet †    | 0.9688  0.7371  0.6808
    doublernn | DoubleRNN ‡ | 0.9318  0.7341  -
    addnet-3d | ADDNet-3D † | 0.9622  0.6085  0.6589
    stil      | STIL †      | 0.9712  0.7558  0.6788
    dil       | DIL         | 0.9819* 0.7765* 0.6843*
""")  # fmt: skip
# Not as another row of the same name: the authors' network of D-FWA, which has seen warps of real
# faces only (Table 2's learnt labels), and VA-LogReg with its authors' coefficients.
_OTHERS = {
    "xception": {"quoted": True},  # here alone: of a detector of frames that its authors released
    "d-fwa": {"warped": True, "switches": (("upper", 3),)},
    "va-logreg-published": {"method": "va-logreg", "switches": (("weights", "published"),)},
}
_TABLE3_ROWS = tuple(replace(row, **_OTHERS.get(row.name, {})) for row in _TABLE3_ROWS)


def _ablation(name: str, label: str, parts: str, values: str, **switches) -> Row:
    """A row of DIL with some switches; parts: 1 for each that is there; the whole one is bold."""
    heads, bold = tuple("✓" if each == "1" else "" for each in parts), () if switches else _KINDS
    known, options = tuple(map(float, values.split())), tuple(sorted(switches.items()))
    return Row(name, label, known, method="dil", switches=options, heads=heads, bold=bold)


_KINDS = tuple(MANIPULATIONS)
_FULL_MODEL = "0.9928 0.9571 0.9786 0.9428"

_TABLE4_ROWS = (
    _ablation("none", "no module", "00", "0.9536 0.8893 0.9464 0.8750", intra=False, inter=False),
    _ablation("intra", "Intra-SIM", "10", "0.9750 0.9250 0.9643 0.9214", inter=False),
    _ablation("inter", "Inter-SIM", "01", "0.9714 0.9214 0.9607 0.9036", intra=False),
    _ablation("intra+inter", "both", "11", _FULL_MODEL),
)

_NOTHING = {"bp": False, "ca": False, "lk": False}
_TABLE5_ROWS = (
    _ablation("none", "none of the three", "000", "0.9750 0.9107 0.9571 0.9143", **_NOTHING),
    _ablation("bp", "BP", "100", "0.9821 0.9286 0.9643 0.9214", ca=False, lk=False),
    _ablation("bp+ca", "BP + CA", "110", "0.9928 0.9393 0.9678 0.9286", lk=False),
    _ablation("bp+ca+lk", "BP + CA + LK", "111", _FULL_MODEL),
)

_TABLE6_ROWS = (
    _ablation("stages 1-2", "Stages 1–2", "", "0.9857 0.9500 0.9607 0.9357", stages=(1, 2)),
    _ablation("stages 2-3", "Stages 2–3", "", "0.9821 0.9286 0.9607 0.9214", stages=(2, 3)),
    _ablation("stages 3-4", "Stages 3–4", "", "0.9786 0.9286 0.9607 0.9071", stages=(3, 4)),
    _ablation("stages 2-4", "Stages 2–4", "", "0.9893 0.9393 0.9464 0.9107", stages=(2, 3, 4)),
    _ablation("stages 1-3", "Stages 1–3", "", "0.9893 0.9464 0.9678 0.9357", stages=(1, 2, 3)),
    _ablation("stages 1-4", "Stages 1–4 (all)", "", _FULL_MODEL),
)

_IN_280 = (
    "Every value the authors measured is a multiple of 1/280 (140 real and 140 fake test videos); "
    "some are truncated, some rounded."
)
_BASELINE = "The paper's table has no ResNet-50 row; ours stands there as the frame baseline."
_LQ = "Accuracy on FaceForensics++ LQ with"

TABLES = {
    table.key: table
    for table in (
        Table(
            "table1",
            "Table 1: FaceForensics++, high and low quality",
            "Accuracy on FaceForensics++ at high (HQ, c23) and low quality (LQ, c40), one "
            "manipulation per column.",
            *(ACCURACY, _FFPP_COLUMNS, _TABLE1_ROWS, (_IN_280,)),
        ),
        Table(
            "table2",
            "Table 2: Celeb-DF, DFDC and WildDeepfake",
            "Accuracy when trained and tested on the same dataset.",
            *(ACCURACY, _WITHIN_COLUMNS, _TABLE2_ROWS),
            (
                "The paper's text gives DIL 4.19 points over STIL on DFDC; its table gives 2.99.",
                _BASELINE,
                "The paper does not say which DFDC release or test set it uses; it cites the "
                "preview and counts about 5,000 videos, as it has. S-MIL-T is printed as S-IML-T.",
            ),
        ),
        Table(
            "table3",
            "Table 3: Generalisation across datasets",
            "AUC when trained on all four manipulations of FaceForensics++ LQ and tested on "
            "other data.",
            *(AUC, _CROSS_COLUMNS, _TABLE3_ROWS),
            (
                _BASELINE,
                "The paper does not state the quality of the FF++ DF test videos; read here "
                "as LQ, like the training videos.",
                "The paper's values of VA-LogReg, D-FWA, Capsule and Xception are those of "
                "detectors that their authors released, frame by frame and trained on other data; "
                "DoubleRNN's and DIANet's are from their own papers. D-FWA's .8100 looks like a "
                "misprint of .8010.",
            ),
        ),
        Table(
            "table4",
            "Table 4: Intra-SIM and Inter-SIM",
            f"{_LQ} either module, both or none, inserted into all stages.",
            *(ACCURACY, _ABLATION_COLUMNS, _TABLE4_ROWS),
            ("The paper's first row repeats ResNet-50 of Table 1, its last row DIL.",),
            heads=("Intra", "Inter"),
        ),
        Table(
            "table5",
            "Table 5: Bi-directional path, coordinate attention, learnable kernels",
            f"{_LQ} parts of Intra-SIM: bi-directional path (BP), coordinate attention (CA), "
            "learnable kernels (LK).",
            *(ACCURACY, _ABLATION_COLUMNS, _TABLE5_ROWS),
            (
                "The paper's text calls these parts of Inter-SIM; by its equations 1 to 5 they "
                "belong to Intra-SIM.",
            ),
            heads=("BP", "CA", "LK"),
        ),
        Table(
            "table6",
            "Table 6: Stages that hold the modules",
            f"{_LQ} both modules, alternating, in some stages of the backbone only.",
            *(ACCURACY, _ABLATION_COLUMNS, _TABLE6_ROWS),
            ("The paper's last row repeats DIL of Table 1.",),
            heads=("Stages",),
        ),
    )
}


def quoted_methods() -> set[str]:
    """The registry names of the methods of which the paper has quoted values alone."""
    rows = [row for table in TABLES.values() for row in table.rows]
    valued = [(r.method or r.name, r.quoted) for r in rows if set(r.values) != {None}]
    return {method for method, _ in valued if (method, False) not in valued}


def table(key: str) -> Table | None:
    """The paper's table called `key`, or its cells by another metric, such as `table1_auc`."""
    name, _, metric = key.partition("_")
    if name not in TABLES or metric not in ("", AUC):
        return None
    return TABLES[name].measured_by(metric) if metric else TABLES[name]


# The paper's figures that show measurements (Figure 2 is the drawing of the architecture), by the
# file name of our counterpart.
FIGURES = {
    "fig1": "Figure 1: local inconsistency between the frames of a snippet",
    "fig2": "Figure 2: the architecture, drawn from the built model",
    "fig3": "Figure 3: class activation maps of the output, for the four manipulations",
    "fig4": "Figure 4: activation maps of the intra-snippet motion attention, for the four "
    "manipulations",
    "fig5": "Figure 5: U–T map of Inter-SIM on partially forged videos",
}

# What separates a run of this project from the paper's, as (short title, text); the report numbers
# them.
DIFFERENCES = [
    tuple(" ".join(difference.split()).split(": ", 1))
    for difference in f"""
Data: Smoke, demo and study use synthetic videos of procedural talking heads, as none of the four
datasets may be redistributed. Their numbers say whether the method finds temporal inconsistency
where it is known to be; they are no estimate of its accuracy on real forgeries. Their c40 is crf
33, as frames of 320 px lose more at crf 40 than larger ones do. Only paper reads the real datasets.

One model per quality: The paper, and the paper profile, train one model per manipulation and
quality for Tables 1, 4, 5 and 6; demo and study one per quality on all four, tested on each.

Backbone and resolution: The paper starts from an ImageNet-pretrained ResNet-50 at
{SETTINGS.image_size} px. The others train a small backbone from scratch on smaller crops, so that
everything runs on a CPU without any download. Their models for Table 2 begin with the weights of
the same method's HQ run of Table 1, because from random weights a hundred clips are too few.

Training: The paper trains {SETTINGS.epochs} epochs ({SETTINGS.cross_dataset_epochs} across
datasets) in batches of {SETTINGS.batch_size}. Demo and study train otherwise: a fake and its real
clip lie in one batch, at the same frames, and for each further fake at others; the
learning rate goes through one cycle up to one found on validation videos; the last epoch is kept.

Which frames are kept: The paper takes its snippets all over a video. Every frame of FaceForensics++
would be 1.45 TB of crops, so of real videos four stretches of 16 frames are kept, and what a method
looks at lies in these: several snippets in one place, and frames that its source takes far apart
nearer. `dfil preprocess --whole` keeps all; a note stands beside numbers that come of stretches.

Baselines: All, the eight that the paper only quotes too, are re-implemented from their papers'
descriptions; the method's file says what is a reading, and what it lacks on these data stands
beside its numbers. Each samples frames by its own protocol. The reason stands beside every row that
a profile leaves out. Tables 2 and 3 have a ResNet-50 row that the paper's lack.

Several people: Of several people in a DFDC video one may be forged; the paper does not say whom it
looks at. Here all are scored, the largest face trained on, and a video's score is the highest.

What the paper leaves open: No implementation by the authors is public. The squeeze ratio, the
normalisation, zero alignment of the differences, the reduced variants of Tables 4 and 5, the
schedule's patience and more are readings of ours, which notebook 80 lists with their alternatives.

Face crops: The paper names the detectors, not the crop. Here a face is detected in every eighth
frame and followed between, and a square box, margin 1.3, is held still over each snippet, so that
cropping adds no motion to it. Forged FaceForensics++ videos reuse the boxes of their real video.

Validation and test sets: Models are selected on validation videos only. Where the owners give none
(Celeb-DF, DFDC, WildDeepfake), they are carved from training by identity, or by source video.

Intervals: The paper prints single values. Each of ours has the number of test videos and a 95 %
interval. One video of {_FFPP_COLUMNS[0].n_videos} is {100 / _FFPP_COLUMNS[0].n_videos:.2f}
points; many differences between the paper's rows are smaller than such an interval.
""".strip().split("\n\n")
]
