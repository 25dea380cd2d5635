"""The scales at which everything runs: smoke, demo, study and paper. Nothing else asks which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from dfil import paper
from dfil.system.errors import RunError


@dataclass(frozen=True)
class Training:
    """How one model is trained, all of it part of a run's key.

    Defaults are the paper's (section "Implementation Details"; reading, items 19-21).
    """

    epochs: int = 30
    lr: float = 1e-4
    batch: int = 10  # videos
    # "plateau": the rate falls to a tenth where `plateau_on` ("loss" or "auc" of the validation
    # videos) has not improved for more than `patience` epochs; "one-cycle" (Smith and Topin 2018)
    schedule: str = "plateau"
    plateau_on: str = "loss"
    patience: int = 3
    lowest_lr: float = 1e-6  # of the plateau schedule
    # The weights that a run ends with: of the "best" epoch by `best_by` ("auc", then loss; "loss";
    # "accuracy", then loss, of the validation videos); of the "last" epoch; or the "average" of the
    # last `averaged` epochs, its batch statistics taken anew from the training videos.
    keep: str = "best"
    best_by: str = "auc"
    averaged: int = 3
    snippets: int = 4  # U in training and validation
    paired: bool = False  # a fake and its real clip in one batch, at the same frames
    redraw: bool = False  # a real clip gets other frames with each of its fakes, not the same four
    balance: bool = False  # without pairs: videos of the rarer class come more often, both alike
    same_gap: bool = True  # sparse frames as far apart in testing as in training (Sampling.views)
    threads: int = 1  # of the CPU; sums depend on it. 0: all there are, results differ in bits
    deterministic: bool = False  # see repeat.repeatable


@dataclass(frozen=True)
class Profile:
    """Sizes, budgets and data of one scale; its text is printed where it has to explain itself."""

    name: str
    what: str  # one sentence: what its numbers mean
    size: int  # crop side in pixels
    # of the ResNet: depth, width, stem; empty: ResNet-50
    backbone: dict = field(default_factory=dict)
    pretrained: bool = False  # ImageNet weights
    frames: int = 4  # T
    test_snippets: int = 8  # U in testing
    training: Training = field(default_factory=Training)  # Tables 1, 4, 5 and 6
    within: Training = field(default_factory=Training)  # Table 2
    # Table 2's runs begin with the weights of the method's own built-in c23 run of Table 1
    within_starts: bool = False
    across_epochs: int = 0  # Table 3; 0: as many as for Table 1, so that its runs are found again
    heavy_epochs: int = 0  # at c40, whose weaker traces take longer to learn; 0: as at c23
    mechanism: Training = field(default_factory=Training)  # the temporal-only experiment
    # of single methods, where they differ from the trainings' own
    rates: dict[str, float] = field(default_factory=dict)
    search_rates: bool = False  # `dfil study` searches every method's first (train/rates.py)
    # rows run by default, by table or "" for the others
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    least_updates: int = 460  # of a training on a folder of one's own, which may hold few videos
    validation: float = 0.1  # of the training identities, where the owners give no validation split
    per_manipulation: bool = False  # one model each, as in the paper, or one for all four
    on_request: tuple[str, ...] = ()  # notebooks that only `--only` runs
    qualities: tuple[str, ...] = ()  # of Table 1, if not all; the study has the others
    seeds: tuple[int, ...] = (0,)
    seeds_of: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of single tables
    looks: int = 1  # how often its claims were decided, with seeds added where they were open
    # sizes of the synthetic trees by setting; empty: real data only
    trees: dict[str, dict] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What stands beside every number if the backbone is not the paper's; empty if it is."""
        if not self.backbone:
            return ""
        blocks = "-".join(map(str, self.backbone["depth"]))
        width = self.backbone["width"]
        what = f"{blocks} bottleneck blocks, width {width}, {self.size} px"
        return f"backbone of {what}, no ImageNet weights"

    def runs(self, table: str) -> tuple[str, ...]:
        """Registry names of the methods that a table's notebook runs by default; empty for all."""
        return self.methods.get(table, self.methods.get("", ()))

    def training_for(self, method: str, table: str = "", compression: str = "") -> Training:
        """How a method is trained for a table: "table1", ..., or "temporal-only", the mechanism."""
        own = {"table2": self.within, "temporal-only": self.mechanism}
        training = own.get(table, self.training)
        if table == "table3" and self.across_epochs:
            training = replace(training, epochs=self.across_epochs)
        elif compression == "c40" and self.heavy_epochs:
            training = replace(training, epochs=self.heavy_epochs)
        return replace(training, lr=self.rates.get(method, training.lr))

    def seeds_for(self, table: str) -> tuple[int, ...]:
        """The seeds that a table's runs are trained with."""
        return self.seeds_of.get(table, self.seeds)

    def settings(self, training: Training) -> dict:
        """All that decides a model's weights but method, data and seed; part of a run's key."""
        names = "size", "frames", "backbone", "pretrained"
        return {name: getattr(self, name) for name in names} | asdict(training)


def _trees(faceforensics: dict, mechanism: dict, others: dict) -> dict[str, dict]:
    """Sizes of the synthetic trees by setting; the mechanism needs one quality and manipulation."""
    one_kind = {"qualities": ("c23",), "manipulations": ("Deepfakes",)}
    rest = dict.fromkeys(("celebdf-like", "dfdc-like", "wild-like"), others)
    return {"ff-like": faceforensics, "temporal-only": mechanism | one_kind, **rest}


_SMOKE = Training(epochs=1, lr=1e-3, paired=True, same_gap=False)
SMOKE = Profile(
    name="smoke",
    what="Every stage at the smallest size that runs; its numbers mean nothing.",
    size=32,
    backbone={"depth": (2, 1, 1, 1), "width": 8, "stem": "small"},
    training=_SMOKE,
    within=_SMOKE,
    mechanism=_SMOKE,
    within_starts=True,
    least_updates=0,
    methods={"": ("resnet50", "dil"), "table1": ()},
    validation=0.5,
    trees=_trees(
        {"train": 4, "val": 2, "test": 4, "frames": 24},
        {"train": 4, "val": 2, "test": 4, "frames": 24},
        {"train": 4, "test": 4, "frames": 24},
    ),
)
_SMALL = {"depth": (2, 2, 2, 2), "width": 8, "stem": "small"}
# The last epoch is kept: under one-cycle the rate has then come down to nothing, and so running
# batch statistics are those of the weights; the epoch with the best AUC of a few validation
# people is often one from the middle, with validation losses of 8 and more. At least 460 updates:
# with 153 it is a matter of luck whether a training takes off.
_SMALL_TRAINING = Training(
    epochs=12, lr=1e-2, schedule="one-cycle", keep="last", paired=True, redraw=True
)
_SLOW = ("c3d", "dsanet", "i3d", "lstm", "s-mil", "s-mil-t", "v4d")  # .003 better than .01
_SEARCHED = {"dil": 3e-2, "resnet50": 1e-3}  # what the study's search found, by validation videos
DEMO = Profile(
    name="demo",
    what="A small network trained from scratch on built-in synthetic clips on a CPU: it shows the "
    "mechanism, not the paper's scores.",
    size=64,
    backbone=_SMALL,
    training=_SMALL_TRAINING,
    within=replace(_SMALL_TRAINING, epochs=10),
    # DIL's validation AUC is .99 from epoch 9 of 18 on (seeds 100 and 101, which no table uses)
    mechanism=replace(_SMALL_TRAINING, epochs=18),
    within_starts=True,
    # Its validation AUC at c40: .74 after 12 epochs, .89 after 24, .96 after 36, .99 after 72, with
    # training losses of .03 and .01 and the seeds together; at c23 .99 after 12
    heavy_epochs=72,
    rates=dict.fromkeys(_SLOW, 3e-3) | _SEARCHED,
    methods={"": ("resnet50", "dil")},
    on_request=("29", "40", "50", "52", "54", "72", "74"),
    qualities=("c23",),  # c40 takes six times as long
    validation=0.25,
    trees=_trees(
        {"train": 48, "val": 32, "test": 24, "frames": 40},
        {"train": 64, "val": 32, "test": 32, "frames": 40},
        {"train": 128, "test": 40, "frames": 40},
    ),
)
STUDY = replace(
    DEMO,
    name="study",
    what="The demonstration's small network on as many built-in synthetic test videos as the paper "
    "has real ones, at several seeds: it decides the paper's claims for this benchmark. Where "
    "one was open (p = 0.066, then 0.128 and 0.075), its rows got more seeds: eight, fourteen, 22. "
    "For these three looks the p of each of the paper's claims counts three times; questions "
    "beyond the paper were asked once.",
    within=replace(_SMALL_TRAINING, epochs=12),
    mechanism=replace(_SMALL_TRAINING, epochs=36),
    search_rates=True,
    methods={},
    on_request=(),
    qualities=(),
    seeds=(0, 1, 2, 3, 4),
    seeds_of=dict.fromkeys(("temporal-only", "table5", "table6"), tuple(range(8)))
    | {"table4": tuple(range(22))},
    looks=3,
    trees=_trees(
        {"train": 48, "val": 32, "test": 140, "frames": 40},
        {"train": 64, "val": 32, "test": 140, "frames": 40},
        {"train": 128, "test": 40, "frames": 40},
    ),
)
_PAPER = Training(
    epochs=paper.SETTINGS.epochs,
    lr=paper.SETTINGS.learning_rate,
    batch=paper.SETTINGS.batch_size,
    snippets=paper.SETTINGS.train_snippets,
    threads=0,
)
PAPER = Profile(
    name="paper",
    what="The paper's settings on the real datasets.",
    size=paper.SETTINGS.image_size,
    pretrained=True,
    frames=paper.SETTINGS.frames_per_snippet,
    test_snippets=paper.SETTINGS.test_snippets,
    training=_PAPER,
    within=_PAPER,
    mechanism=_PAPER,
    across_epochs=paper.SETTINGS.cross_dataset_epochs,
    per_manipulation=True,
)
PROFILES = {p.name: p for p in (SMOKE, DEMO, STUDY, PAPER)}


def get(name: str, seeds: int | str | Sequence[int] = ()) -> Profile:
    """The profile called `name`, with another seed or other seeds than its own if any are given.

    Raises RunError for an unknown name, naming those there are, and for seeds that are no different
    whole numbers from 0 on.
    """
    if name not in PROFILES:
        raise RunError(f"no profile is called {name!r}; choose {', '.join(PROFILES)}")
    if isinstance(seeds, str):  # papermill hands lists on as text
        try:
            seeds = json.loads(seeds or "[]")
        except ValueError:
            seeds = [seeds]
    seeds, profile = seeds if isinstance(seeds, list | tuple) else [seeds], PROFILES[name]
    if any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise RunError(f"seeds are different whole numbers from 0 on, as 0 1 2, not {list(seeds)}")
    return replace(profile, seeds=tuple(seeds), seeds_of={}) if seeds else profile
