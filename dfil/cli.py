"""The console script `dfil`. Imports that take long stand inside the verbs, so that --help answers at once."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dfil.system.errors import DataError, DfilError, RunError

SHOWN = 20  # videos that `preprocess` and files that `data check` name one by one


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for an error that one line explains, 130 after Ctrl-C."""
    typed = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(typed)
    arguments.command_line = shlex.join(["dfil", *typed])
    try:
        return arguments.run(arguments)
    except DfilError as error:
        print(f"dfil: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "dfil: interrupted; what was finished is kept, and the same command goes on from there.",
            file=sys.stderr,
        )
        return 130


def _reproduce(a: argparse.Namespace) -> int:
    from dfil import profiles
    from dfil.system import cluster
    from dfil.tools.reproduce import parse_value, reproduce

    cluster.use(a.scheduler)
    _set_checkpoint(a)
    if a.backbone_weights:
        if not a.backbone_weights.is_file():
            raise RunError(
                f"{a.backbone_weights}: no such file; give torchvision's resnet50 weights, .pth or .safetensors"
            )
        os.environ["DFIL_BACKBONE_WEIGHTS"] = str(
            a.backbone_weights.absolute()
        )  # the kernels inherit it
    parameters = {name: parse_value(text) for name, text in a.parameters}
    if a.methods:
        parameters["methods"] = a.methods
    if a.seeds:
        parameters["seeds"] = list(profiles.get(a.profile, a.seeds).seeds)
    return reproduce(a.profile, a.only, a.root, parameters, command=a.command_line)


def _set_checkpoint(a: argparse.Namespace) -> None:
    if a.checkpoint:
        from dfil.train.loop import CHECKPOINT

        os.environ[CHECKPOINT] = "1"  # kernels and worker processes inherit it


def _preprocess(a: argparse.Namespace) -> int:
    from dfil.datasets import load_records
    from dfil.faces.preprocess import COMPACT, preprocess
    from dfil.system import cluster
    from dfil.train import data

    root = a.root.expanduser().absolute()  # as the notebooks name it, and workers on other machines
    records = load_records(a.dataset, root, **_filters(a))
    folder = (a.store or data.store_folder(a.dataset, root, a.size)).absolute()
    settings = {"tracks": a.tracks or data.TRACKS[a.dataset]} | (COMPACT if a.compact else {})
    settings |= {"stretches": tuple(a.stretches)} if a.stretches else {}
    with cluster.executor(a.scheduler) as executor:
        store = preprocess(
            records,
            folder,
            a.size,
            a.detector or data.DETECTORS[a.dataset],
            a.every,
            a.jobs,
            executor=executor,
            **settings,
        )
    asked = {record.video_id for record in records}
    rows = store.index[store.index["video_id"].isin(asked)]
    counts = ", ".join(
        f"{count} {status}" for status, count in rows["status"].value_counts().items()
    )
    print(f"{len(rows)} {'synthetic ' * store.meta['synthetic']}videos: {counts}.")
    others = rows[rows["status"] != "ok"]
    _list([f"{row.video_id}: {row.status}: {row.reason}" for row in others.itertuples()])
    print(f"Crop store: {folder}")
    if len(others) == len(rows):
        print(
            f"dfil: none of the {len(rows)} videos under {a.root} could be used; the reasons are above.",
            file=sys.stderr,
        )
        return 1
    return 0


def _data_make(a: argparse.Namespace) -> int:
    from dfil import synthetic
    from dfil.datasets import load_records

    sizes = {
        name: getattr(a, name)
        for name in ("train", "val", "test", "frames", "qualities", "seed", "jobs")
    }
    synthetic.write(
        a.setting, a.root, **{name: value for name, value in sizes.items() if value is not None}
    )
    print(
        f"{len(load_records(synthetic.DATASET_OF[a.setting], a.root))} synthetic videos in {a.root}."
    )
    return 0


def _data_check(a: argparse.Namespace) -> int:
    from dfil.datasets.check import WRONG, check

    found = check(a.dataset, a.root, **_filters(a))
    if a.json:
        print(json.dumps(found, indent=1))
    else:
        _print_check(found)
    return 1 if any(found[name] for name in WRONG) else 0


def _print_check(found: dict) -> None:
    total = sum(row["videos"] for row in found["counts"])
    print(
        f"{found['dataset']} in {found['root']}: {total} {'synthetic ' * found['synthetic']}videos"
    )
    print(f"{'split':8}{'label':7}{'manipulation':16}{'compression':13}videos")
    for row in found["counts"]:
        label = ("real", "fake")[row["label"]]
        print(
            f"{row['split'] or '-':8}{label:7}{row['manipulation']:16}{row['compression'] or '-':13}{row['videos']:6}"
        )
    print(f"Missing: {len(found['missing'])}" if found["missing"] else "Nothing is missing.")
    _list(found["missing"])
    titles = {
        "unreadable": "Unreadable",
        "leaks": "In training and in test",
        "differences": "Not the published numbers",
        "notes": "Notes",
    }
    for name, title in titles.items():
        if found[name]:
            print(f"{title}: {len(found[name])}")
            _list(found[name])


def _score(a: argparse.Namespace) -> int:
    from dfil.train.own_video import score_videos

    results = []
    for result in score_videos(a.videos, a.weights, a.snippets, a.detector):
        results.append(result)
        if result["score"] is None:
            why = (
                result["reason"]
                .removeprefix(str(Path(result["video"]).absolute()))
                .removeprefix(result["video"])
                .lstrip(": ")
            )
            print(f"dfil: {result['video']}: {result['status']}: {why}", file=sys.stderr)
        elif not a.json:
            _print_score(result)
    if a.json:
        print(json.dumps(results, indent=1))
    return 0 if all(result["score"] is not None for result in results) else 1


def _print_score(result: dict) -> None:
    print(f"{result['video']}: {result['score']:.3f} probability of being forged")
    print(
        f"  a face in {result['frames_with_face']} of {result['frames']} frames kept; {result['reason'] or 'nothing skipped'}"
    )
    if len(result["people"]) > 1:
        others = ", ".join(f"{person['score']:.3f}" for person in result["people"])
        print(
            f"  {len(result['people'])} people, the largest face first: {others}; below, the highest"
        )
    for snippet in result["snippets"]:
        score = "-" if snippet["score"] is None else f"{snippet['score']:.3f}"
        print(f"  frames {snippet['first_frame']:6}-{snippet['last_frame']:<6} {score}")
    if result["synthetic_training"]:
        print(
            "  These weights were trained on synthetic clips: on a real video the number means nothing."
        )


def _models(a: argparse.Namespace) -> int:
    import torch

    from dfil import models
    from dfil.tools import costs

    device = (
        torch.cuda.get_device_name(0)
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(
        f"{'name':11}{'year':6}{'kind':9}{'starts from':13}{'million':>8}{'GFLOPs':>9}{'ms':>8}  a test video is"
    )
    for name in models.available():
        about, model = models.about(name), models.build(name)
        took = "-" if a.quick else f"{costs.milliseconds(name):.0f}"
        shown = costs.sampling(name)
        looks = f"{shown.test} x {shown.frames} frames" + (
            f", {shown.stride} apart" if shown.stride > 1 else ""
        )
        numbers = f"{costs.parameters(model):8.2f}{costs.gflops(name):9.1f}{took:>8}"
        print(f"{name:11}{about.year:<6}{about.kind:9}{about.start:13}{numbers}  {looks}")
    print(
        f"At 224 px, full size. million: parameters. GFLOPs: multiply-adds per test video. ms: per test video on {device}."
    )
    return 0


def _bench(a: argparse.Namespace) -> int:
    from importlib import import_module

    bench = import_module(f"dfil.tools.bench.{a.what}")
    result = bench.measure()
    print(json.dumps(result, indent=1) if a.json else bench.table(result))
    return 0


def _plan(a: argparse.Namespace) -> int:
    from dfil import profiles
    from dfil.tools import plan

    made = plan.make(profiles.get(a.profile, a.seeds), a.methods)
    print(json.dumps(made, indent=1) if a.json else plan.text(made, each_run=a.list))
    return 0


def _train(a: argparse.Namespace) -> int:
    from dfil import paper, profiles
    from dfil.system import cluster, paths
    from dfil.train import data, experiments
    from dfil.train.parallel import in_first_process, processes
    from dfil.train.runs import RunSpec, RunStore

    profile, ffpp = profiles.get(a.profile), a.dataset == "ffpp"
    if not ffpp and (a.compression or a.manipulations or a.across):
        raise RunError(
            f"--compression, --manipulations and --across belong to ffpp, not to {a.dataset}, of which all videos are taken"
        )
    if a.scheduler and "LOCAL_RANK" in os.environ:
        raise RunError(
            "torchrun shares one run among its processes and --scheduler hands it to one worker; take one of the two"
        )
    cluster.use(a.scheduler)
    _set_checkpoint(a)
    chosen = a.manipulations or (paper.ALL_MANIPULATIONS if ffpp else ())
    manipulations = tuple(
        m for m in paper.ALL_MANIPULATIONS if m in chosen
    )  # in one order, as it is part of the run's name
    (method,) = experiments.methods(profile, [a.method])
    table = "table3" if a.across else "table1" if ffpp else "table2"
    compression = a.compression or ("c23" if ffpp else "")
    spec = RunSpec.of_table(
        profile, table, method, a.dataset, compression, manipulations, seed=a.seed
    )
    root = a.root.absolute() if a.root else ""
    with processes() as rank:
        store = in_first_process(
            lambda: data.crops(profile, data.tree(profile, root, a.dataset), a.dataset)
        )
        (run,) = RunStore(paths.outputs(profile.name) / "runs", profile).get_all([spec], store)
    if rank == 0:
        best = run.history.query("best").iloc[-1]
        print(
            f"Epoch {best['epoch']:.0f} of {len(run.history)}: AUC {best['val_auc']:.3f} on the validation videos."
        )
        print(f"Weights: {run.folder / 'weights.safetensors'}")
    return 0


def _report(a: argparse.Namespace) -> int:
    from dfil import profiles
    from dfil.results import page
    from dfil.system import paths

    folder, readme = paths.outputs(profiles.get(a.profile).name), paths.project() / "README.md"
    print(f"Wrote {page.build(folder)}")
    if a.profile == "demo":  # the README shows the published results only
        if not readme.is_file():
            raise DataError(
                f"{readme} is not there, so its results were not updated: run this in a checkout of the project"
            )
        for block, (published, names) in page.IN_README.items():
            shown = folder if published == "demo" else paths.project() / "outputs" / published
            changed = page.update_readme(readme, shown, names, block)
            print(f"{readme}: {block} {'updated' if changed else 'up to date'}")
    return 0


def _list(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  ... and {len(lines) - SHOWN} more")


def _filters(a: argparse.Namespace) -> dict[str, list[str]]:
    return {
        name: getattr(a, name) for name in ("manipulations", "compressions") if getattr(a, name)
    }


def _parser() -> argparse.ArgumentParser:
    from dfil.datasets import ADAPTERS
    from dfil.paper import ALL_MANIPULATIONS
    from dfil.profiles import PROFILES

    parser = argparse.ArgumentParser(
        prog="dfil",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Dynamic Inconsistency Learning for deepfake video detection (AAAI 2022), reproduced.",
        epilog="Example:\n  dfil reproduce --profile smoke",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    verb = _verb(
        verbs,
        "reproduce",
        _reproduce,
        "run the notebooks and build the report",
        "dfil reproduce --profile demo --only 20 90",
    )
    verb.add_argument(
        "--profile",
        choices=PROFILES,
        default="demo",
        help="scale of everything (default: %(default)s)",
    )
    verb.add_argument(
        "--only",
        nargs="+",
        metavar="NN",
        help="numbers or names of the notebooks to run (default: all)",
    )
    verb.add_argument(
        "--root",
        default="",
        metavar="TREE",
        help="a real FaceForensics++ tree instead of the profile's data",
    )
    verb.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="rows of Tables 1-3 to run, all for every one (default: the profile's)",
    )
    _add_seeds(verb)
    verb.add_argument(
        "--backbone-weights",
        type=Path,
        metavar="FILE",
        help="ImageNet weights of ResNet-50 for the paper profile, offline",
    )
    verb.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a further parameter of the notebooks; may be given several times",
    )

    _add_scheduler(verb)
    _add_checkpoint(verb)

    example = "dfil preprocess ffpp --root /data/FaceForensics++ --compressions c23 --jobs 8"
    verb = _verb(
        verbs,
        "preprocess",
        _preprocess,
        "cut the faces of a dataset's videos into a crop store; goes on where it stopped",
        example,
    )
    _add_tree(verb, ADAPTERS)
    verb.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="where the crops go (default: where the notebooks look for them)",
    )
    verb.add_argument(
        "--size",
        type=int,
        default=224,
        help="pixels of the typical crop (default: %(default)s, the paper's)",
    )
    verb.add_argument(
        "--detector",
        choices=("dlib", "mtcnn"),
        help="face detector (default: the paper's for the dataset)",
    )
    verb.add_argument(
        "--jobs", type=int, metavar="N", help="videos at a time (default: one per core)"
    )
    verb.add_argument(
        "--every",
        type=int,
        default=8,
        metavar="N",
        help="frames from one detection to the next (default: %(default)s)",
    )
    verb.add_argument(
        "--tracks",
        choices=("largest", "all"),
        help="keep the largest face of a video, or everybody's (default: the dataset's protocol)",
    )
    verb.add_argument(
        "--stretches",
        type=int,
        nargs=2,
        metavar=("N", "FRAMES"),
        help="keep only N evenly spaced stretches of FRAMES frames per video",
    )
    verb.add_argument(
        "--compact",
        action="store_true",
        help="five stretches of 16 frames and crop margins up to 1.3: both qualities of FaceForensics++ in 200 GB",
    )
    _add_scheduler(verb)

    data = verbs.add_parser(
        "data",
        help="write or check a dataset's tree",
        description="Write or check a dataset's tree.",
    )
    data.formatter_class = argparse.RawDescriptionHelpFormatter
    data.epilog = "Example:\n  dfil data check ffpp --root /data/FaceForensics++"
    parts = data.add_subparsers(title="verbs", metavar="VERB", required=True)

    example = "dfil data make celebdf-like --root data/tiny --train 4 --test 2"
    verb = _verb(
        parts, "make", _data_make, "write synthetic clips as a tree of a dataset's layout", example
    )
    settings = "ff-like or temporal-only (FaceForensics++; the latter has no traces in single frames), celebdf-like, dfdc-like, wild-like"
    verb.add_argument("setting", metavar="SETTING", help=settings)
    verb.add_argument("--root", type=Path, required=True, metavar="DIR", help="where the tree goes")
    verb.add_argument(
        "--train",
        type=int,
        metavar="N",
        help="people (FaceForensics++) or real clips in training (default: 60 or 40)",
    )
    verb.add_argument(
        "--val",
        type=int,
        metavar="N",
        help="people in validation, FaceForensics++ only; others have none (default: 10)",
    )
    verb.add_argument("--test", type=int, metavar="N", help="the same in test (default: 20 or 16)")
    verb.add_argument(
        "--frames", type=int, metavar="F", help="frames per clip (default: the setting's)"
    )
    verb.add_argument(
        "--qualities",
        nargs="+",
        metavar="Q",
        help="compressions, FaceForensics++ only (default: c23 c40)",
    )
    verb.add_argument(
        "--seed", type=int, metavar="S", help="of all that is drawn at random (default: 0)"
    )
    verb.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="people, clips or archives at a time (default: one per core)",
    )

    example = "dfil data check ffpp --root /data/FaceForensics++ --compressions c23"
    verb = _verb(
        parts,
        "check",
        _data_check,
        "count a tree's videos and name what is wrong; exit status 1 if something is",
        example,
    )
    _add_tree(verb, ADAPTERS)
    verb.add_argument(
        "--json", action="store_true", help="print the counts and everything found as JSON"
    )

    example = (
        "dfil train dil --dataset ffpp --compression c40 --manipulations Deepfakes --profile paper"
    )
    more = f"{example}\n  torchrun --nproc-per-node 2 -m {example}      # one run on two GPUs"
    verb = _verb(
        verbs,
        "train",
        _train,
        "train one run of the tables, where they find it, or go on with it",
        more,
    )
    verb.add_argument("method", metavar="METHOD", help="a name that `dfil models` lists")
    verb.add_argument(
        "--profile",
        choices=PROFILES,
        default="demo",
        help="scale of everything (default: %(default)s)",
    )
    verb.add_argument(
        "--dataset",
        choices=[d for d in ADAPTERS if d != "dfdc"],
        default="ffpp",
        help="(default: %(default)s); in smoke and demo the others begin with the weights of a built-in ffpp run, which is trained first",
    )
    verb.add_argument(
        "--root",
        type=Path,
        metavar="TREE",
        help="the dataset's real tree instead of the profile's data",
    )
    verb.add_argument("--compression", metavar="C", help="ffpp only (default: c23)")
    verb.add_argument(
        "--manipulations",
        nargs="+",
        choices=ALL_MANIPULATIONS,
        metavar="M",
        help="ffpp only (default: all)",
    )
    verb.add_argument("--across", action="store_true", help="as long as Table 3 asks for")
    verb.add_argument(
        "--seed", type=int, default=0, help="of weights and batches (default: %(default)s)"
    )
    _add_scheduler(verb)
    _add_checkpoint(verb)

    example = "dfil plan --profile paper --methods dil resnet50"
    verb = _verb(
        verbs,
        "plan",
        _plan,
        "what the six tables take: runs, hours by a short measurement on this machine, disk",
        example,
    )
    verb.add_argument(
        "--profile",
        choices=PROFILES,
        default="paper",
        help="scale of everything (default: %(default)s)",
    )
    verb.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="NAME",
        help="registry names, all for every one (default: the profile's)",
    )
    _add_seeds(verb)
    verb.add_argument("--list", action="store_true", help="a line for each run")
    verb.add_argument("--json", action="store_true", help="print everything as JSON")

    example = "dfil score suspicious.mp4 --weights outputs/paper/runs/RUN/weights.safetensors"
    verb = _verb(
        verbs,
        "score",
        _score,
        "probability of being forged of one's own videos, and of their snippets",
        example,
    )
    verb.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="video files")
    verb.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="FILE",
        help="a run's weights.safetensors, its config.json beside it",
    )
    verb.add_argument(
        "--snippets",
        type=int,
        metavar="U",
        help="snippets to look at, evenly spread (default: 8, the paper's)",
    )
    verb.add_argument(
        "--detector", choices=("dlib", "mtcnn"), help="face detector (default: the training data's)"
    )
    verb.add_argument("--json", action="store_true", help="print everything as JSON")

    verb = _verb(
        verbs,
        "models",
        _models,
        "list the methods: parameters, arithmetic and time per video at their own sampling",
        "dfil models",
    )
    verb.add_argument(
        "--quick", action="store_true", help="leave out the time, which has to be measured"
    )

    what = "measure ratios on this machine: ours against a plain ResNet-50, decode-only, PNG files, ..."
    verb = _verb(verbs, "bench", _bench, what, "dfil bench model --json")
    kinds = {
        "model": "forward and training step",
        "train": "frames per second, waiting, memory",
        "data": "crops to batches",
        "preprocess": "videos to crops",
        "reproduce": "smoke, notebook by notebook",
    }
    verb.add_argument(
        "what",
        choices=kinds,
        metavar="WHAT",
        help="; ".join(f"{kind}: {text}" for kind, text in kinds.items()),
    )
    verb.add_argument("--json", action="store_true", help="print everything as JSON")

    verb = _verb(
        verbs,
        "report",
        _report,
        "build the report page, and the README's results for demo, from the tables",
        "dfil report",
    )
    verb.add_argument(
        "--profile", choices=PROFILES, default="demo", help="whose results (default: %(default)s)"
    )
    return parser


def _verb(verbs, name: str, run, what: str, example: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"Example:\n  {example}",
    )
    verb.formatter_class = (
        argparse.RawDescriptionHelpFormatter
    )  # an example that is wrapped cannot be copied
    verb.set_defaults(run=run)
    return verb


def _add_scheduler(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--scheduler",
        default="",
        metavar="ADDRESS",
        help="of a running dask cluster that does the work; see dfil.system.cluster",
    )


def _add_seeds(verb: argparse.ArgumentParser) -> None:
    text = "of weights and batches; every model is trained once for each and tables hold their mean (default: the profile's)"
    verb.add_argument("--seeds", nargs="+", type=int, default=[], metavar="S", help=text)


def _add_checkpoint(verb: argparse.ArgumentParser) -> None:
    what = "gradient checkpointing: less memory, about a quarter slower, the same result"
    verb.add_argument("--checkpoint", action="store_true", help=what)


def _add_tree(verb: argparse.ArgumentParser, datasets) -> None:
    verb.add_argument(
        "dataset", choices=datasets, metavar="DATASET", help=f"one of: {', '.join(datasets)}"
    )
    verb.add_argument(
        "--root",
        type=Path,
        required=True,
        metavar="TREE",
        help="top of the tree as the dataset's owners distribute it",
    )
    verb.add_argument(
        "--manipulations", nargs="+", metavar="M", help="only these (default: all that are there)"
    )
    verb.add_argument(
        "--compressions", nargs="+", metavar="C", help="only these (default: all that are there)"
    )
