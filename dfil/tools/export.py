"""A trained run as a folder that others can use: the Hugging Face layout.

model.safetensors          the weights
config.json                method, its constructor's arguments, checksum, data, calibration
preprocessor_config.json   crops, snippets and normalisation
README.md                  the model card: data, scores with intervals, limits

dfil.models.load_weights, DIL.from_pretrained and `score --weights` take such a folder; `hf upload
OWNER/NAME FOLDER` publishes it.
"""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

import dfil
from dfil import datasets, models
from dfil.models.detector import IMAGENET_MEAN, IMAGENET_STD
from dfil.models.saved import CONFIG, EXPORTED, PREPROCESSING, save_weights
from dfil.results import metrics
from dfil.results.scores import ranked
from dfil.system.errors import RunError
from dfil.system.files import atomic, checksum
from dfil.tools.found import Found, Scores
from dfil.train.calibration import of_run
from dfil.train.origin import refuse_other_code
from dfil.train.spec import select

CARD = "README.md"
FILES = (EXPORTED, CONFIG, PREPROCESSING, CARD)


def export(run: Found, folder: Path) -> Path:
    """Write `folder` from a trained run and return it; the files of an earlier export are replaced.

    Raises RunError if the run has no weights here, or the folder holds anything else.
    """
    folder = Path(folder).expanduser()
    if not run.has_weights:
        raise RunError(
            f"{run.folder}: only the run's record is here, not its weights; remove the folder and"
            " train it again, or take the weights from where it was trained"
        )
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - {*FILES}):
        raise RunError(f"{folder}: this holds other files; name a new folder for the export")
    refuse_other_code(run.run)
    model, config = models.load_weights(run.folder)
    sampling = config["sampling"] | {"box": run.run.spec.box}
    spec = run.run.spec
    trained = {"dataset": run.dataset, "compression": spec.compression, "seed": spec.seed}
    trained |= {"manipulations": list(spec.manipulations), "setting": run.setting}
    trained["fakes"] = spec.fakes.name if spec.fakes else "the dataset's"
    trained["profile"] = run.settings["profile"]
    about = {"sampling": sampling, "library_name": "dfil", "dfil_version": dfil.__version__}
    about["data"] = trained
    if scale := of_run(run.folder, config["synthetic"]):
        about["calibration"] = scale.as_dict()
    looks = {
        "sampling": sampling,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "rescale_factor": 1 / 255,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder / PREPROCESSING).unlink(missing_ok=True)  # an earlier export's would go with these
    save_weights(model, folder / EXPORTED, config | about)
    _write(folder / PREPROCESSING, json.dumps(looks, indent=1) + "\n")
    digest = checksum(folder / EXPORTED)
    _write(folder / CARD, card(run, sampling, digest, scale.videos if scale else ""))
    return folder


def card(run: Found, sampling: dict, digest: str, calibrated: str = "") -> str:
    """The model card as Markdown with the Hub's header. calibrated: by which videos; empty: not."""
    spec, made = run.run.spec, run.record["made"]
    measured = [_measured(kept, run) for split in ("test", "val") for kept in run.scores(split)]
    text = _template().render(
        run=run,
        spec=spec,
        made=made,
        about=models.about(spec.method),
        title=datasets.get(run.dataset).title,
        sampling=sampling,
        measured=measured,
        validation_auc=run.validation_auc,
        digest=digest,
        calibrated=calibrated,
        version=dfil.__version__,
    )
    return text.rstrip() + "\n"


def _measured(kept: Scores, run: Found) -> dict:
    """A line of the card: which videos, how many, and both metrics with their intervals."""
    spec = run.run.spec
    own = kept.dataset == run.dataset
    fakes = spec.manipulations if own else ()
    other = "(another tree)" if own and not kept.own else ""
    table = select(kept.table, kept.split, kept.compression, fakes)
    people = metrics.people(table)
    line = {
        "videos": " ".join(filter(None, (kept.dataset, kept.compression, "+".join(fakes), other))),
        "split": kept.split,
        "n": len(table),
        "fakes": int(table["label"].sum()),
        "people": "not known" if people is None else len(set(people)),
    }
    ranks = ranked(table)
    for name, metric in metrics.METRICS.items():
        both = name == metrics.ACCURACY or table["label"].nunique() == 2
        line[name] = _text(metric(table["label"], ranks, people)) if both else "-"
    return line


def _text(estimate: metrics.Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("model_card.j2")
