"""The console script: help with examples, errors in one line, the way from a tree to crops."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

import dfil
from dfil import cli

VERBS = [
    "reproduce",
    "preprocess",
    "data make",
    "data check",
    "train",
    "plan",
    "score",
    "runs",
    "doctor",
    "notebooks",
    "export",
    "evaluate",
    "models",
    "bench",
    "report",
    "publish",
    "selftest faults",
]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "out"))


def fails_in_one_line(capsys, *argv: str) -> str:
    assert cli.main(argv) == 1
    error = capsys.readouterr().err
    assert error.startswith("dfil: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize("verb", ["", "data", *VERBS])
def test_help_has_an_example_that_the_parser_accepts(verb, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*verb.split(), "--help"])
    assert end.value.code == 0
    example = re.search(r"Example:\n  dfil (.+)\n", capsys.readouterr().out).group(1)
    assert verb in example
    cli.parser().parse_args(example.split())


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'cv2', 'pandas', 'numpy', 'papermill'}"
    listed = (
        f"import sys; from dfil import cli; cli.parser(); print(sorted({heavy} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", listed], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_an_empty_name_is_not_the_folder_one_is_in(capsys):
    for words in (["score", ""], ["data", "check", "ffpp", "--root", ""]):
        with pytest.raises(SystemExit):
            cli.main(words)
        assert "an empty name; give a file or a folder" in capsys.readouterr().err


def test_errors_are_one_line(tmp_path, capsys):
    nowhere = str(tmp_path / "nowhere")
    assert nowhere in fails_in_one_line(capsys, "preprocess", "ffpp", "--root", nowhere)
    assert nowhere in fails_in_one_line(capsys, "data", "check", "ffpp", "--root", nowhere)
    assert "'99'" in fails_in_one_line(capsys, "reproduce", "--only", "99")
    assert "'epochs'" in fails_in_one_line(capsys, "reproduce", "--only", "90", "-p", "epochs", "3")
    assert "there is no folder" in fails_in_one_line(capsys, "report", "--profile", "smoke")
    assert "even number" in fails_in_one_line(
        capsys, "data", "make", "ff-like", "--root", nowhere, "--train", "3"
    )


@pytest.mark.parametrize(
    "typed, said",
    [
        ("train dil --compression c24", "--compression c24: give one of raw, c23"),
        ("reproduce --profile smoke --only 30 --methods dill", "no method is called 'dill'"),
        ("reproduce --profile paper --only 30", "$DFIL_SCNET_WEIGHTS"),
        ("train dil --profile paper", "$DFIL_SCNET_WEIGHTS"),
        ("train dil --fakes self-blended", "$DFIL_LANDMARKS names no file"),
        ("preprocess celebdf", "no tree of Celeb-DF: name its tree by --root"),
        ("data check dfdc", "$DFIL_DFDC, or in dfil.toml under [roots] as dfdc"),
    ],
)
def test_what_is_mistyped_is_said_before_any_work(typed, said, monkeypatch, capsys):
    for name in ("DFIL_CELEBDF", "DFIL_DFDC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DFIL_LANDMARKS", "nowhere.dat")
    monkeypatch.setenv("DFIL_SCNET_WEIGHTS", "nowhere.pth")
    monkeypatch.setattr("dfil.train.data.crops", pytest.fail)
    assert said in fails_in_one_line(capsys, *typed.split())


def test_the_named_tree_needs_no_root(tiny_tree, monkeypatch, capsys):
    monkeypatch.setenv("DFIL_FFPP", str(tiny_tree))
    assert cli.main(["data", "check", "ffpp", "--json"]) == 1  # three kinds are missing
    found = json.loads(capsys.readouterr().out)
    assert found["root"] == str(tiny_tree) and sum(row["videos"] for row in found["counts"])


def test_ctrl_c_is_one_line_and_130(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dfil.tools.verbs.train.models", interrupted)
    assert cli.main(["models"]) == 130
    error = capsys.readouterr().err
    assert "interrupted" in error and error.count("\n") == 1


def test_reproduce_passes_on_what_was_typed(monkeypatch):
    from dfil.tools import reproduce

    seen = {}
    monkeypatch.setattr(
        reproduce, "reproduce", lambda *args, **options: seen.update(args=args, **options) or 0
    )
    typed = [
        "reproduce",
        "--profile",
        "smoke",
        "--only",
        "30",
        "12",
        "--root",
        "a tree",
        "-p",
        "epochs",
        "3",
        "-p",
        "name",
        "x",
    ]
    assert cli.main(typed) == 0
    assert seen["args"] == ("smoke", ["30", "12"], "a tree", {"epochs": 3, "name": "x"})
    assert (
        seen["command"]
        == "dfil reproduce --profile smoke --only 30 12 --root 'a tree' -p epochs 3 -p name x"
    )


@pytest.mark.parametrize(
    "typed, said",
    [
        ("preprocess ffpp --root x --jobs -2", "-2 is too small"),
        ("preprocess ffpp --root x --stretches 0 4", "0 is too small"),
        ("preprocess ffpp --root x --size many", "invalid whole number"),
        ("score a.mp4 --weights w --snippets 0", "0 is too small"),
        ("train dil --seed -1", "-1 is too small"),
        ("train dil --seed 99999999999999999999", "is too large"),
        ("study --hours nan", "nan hours cannot be"),
        ("study --hours -1", "-1 hours cannot be"),
        ("bench everything", "invalid choice"),
        ("reproduce --profile large", "invalid choice"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_imported(typed, said):
    start = time.monotonic()
    code = "import sys; from dfil.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *typed.split()],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1]
    assert " torch" not in done.stderr and "papermill" not in done.stderr
    assert time.monotonic() - start < 5  # 0.2 s of processor time; the machine may be busy


def test_stretches_shorter_than_a_snippet_are_refused(tiny_tree, capsys):
    typed = ["preprocess", "ffpp", "--root", str(tiny_tree), "--stretches", "5", "2"]
    assert "a snippet has 4 frames" in fails_in_one_line(capsys, *typed)


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"dfil {dfil.__version__}\n"


def test_a_fault_of_the_machine_is_one_line(monkeypatch, capsys):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device", "/x/crops")

    monkeypatch.setattr("dfil.tools.verbs.train.models", full)
    assert "/x/crops: the disk is full" in fails_in_one_line(capsys, "models")


def test_who_stops_reading_stops_the_verb_without_a_traceback():
    code = """import sys, types
def models(_):
    for _ in range(10**5):
        print("a line of many")
sys.modules["dfil.tools.verbs.train"] = types.SimpleNamespace(models=models)
from dfil.cli import main
sys.exit(main(["models"]))"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout.readline() == "a line of many\n"
        running.stdout.close()
        assert running.stderr.read() == "" and running.wait() == 1


def test_from_a_made_tree_to_a_store_that_names_what_is_not_usable(tmp_path, capsys):
    tree, store = tmp_path / "tree", tmp_path / "store"
    sizes = "--train 2 --val 0 --test 0 --frames 8 --qualities c23 --jobs 1"
    make = f"data make temporal-only {sizes} --root".split()
    assert cli.main([*make, str(tree)]) == 0
    assert (
        f"10 synthetic videos in {tree}" in capsys.readouterr().out
    )  # two people, each real and forged in four ways
    check = ["data", "check", "ffpp", "--root", str(tree)]
    assert cli.main(check) == 0
    assert "Nothing is missing." in capsys.readouterr().out

    broken = tree / "manipulated_sequences/FaceSwap/c23/videos/000_001.mp4"
    broken.write_bytes(b"no video")
    run = [
        "preprocess",
        "ffpp",
        "--root",
        str(tree),
        "--size",
        "32",
        "--jobs",
        "1",
        "--store",
        str(store),
    ]
    assert cli.main([*run, "--manipulations", "Deepfakes", "FaceSwap"]) == 0
    said = capsys.readouterr().out
    assert "6 synthetic videos: 5 ok, 1 unreadable." in said
    assert (
        re.search(r"  c23/FaceSwap/000_001: unreadable: .*000_001.mp4", said)
        and f"Crop store: {store}" in said
    )

    broken.unlink()
    shutil.rmtree(tree / "manipulated_sequences/Face2Face/c23")
    assert cli.main([*check, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == [
        "manipulated_sequences/Face2Face/c23/videos",
        "manipulated_sequences/FaceSwap/c23/videos/000_001.mp4",
    ]
    assert {
        "split": "train",
        "label": 0,
        "manipulation": "real",
        "compression": "c23",
        "videos": 2,
    } in found["counts"]
    assert found["synthetic"] is True


def test_preprocess_without_a_usable_video_fails(tmp_path, tiny_tree, capsys):
    tree = tmp_path / "tree"
    shutil.copytree(tiny_tree, tree)
    for path in tree.rglob("*.mp4"):
        path.write_bytes(b"no video")
    assert cli.main(["preprocess", "ffpp", "--root", str(tree), "--size", "32", "--jobs", "1"]) == 1
    said = capsys.readouterr()
    assert "16 unreadable" in said.out and "none of the 16 videos" in said.err
    assert list(
        (tmp_path / "data/crops").iterdir()
    )  # the default store is where the notebooks look


def test_models_counts_parameters(capsys):
    assert cli.main(["models", "--quick"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert float(lines["dil"].split()[0]) > float(lines["resnet50"].split()[0]) > 23


def test_models_measures_times_unless_it_is_to_be_quick(capsys, monkeypatch):
    monkeypatch.setattr("dfil.models.available", lambda: ["resnet50"])
    assert cli.main(["models"]) == 0
    assert float(capsys.readouterr().out.splitlines()[1].split()[6]) > 0


def test_backbone_weights_reach_the_kernels_and_must_be_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DFIL_BACKBONE_WEIGHTS", "")
    monkeypatch.setattr("dfil.tools.reproduce.reproduce", lambda *a, **k: 0)
    assert "no such file" in fails_in_one_line(
        capsys, "reproduce", "--backbone-weights", str(tmp_path / "none.pth")
    )
    (tmp_path / "some.pth").write_bytes(b"")
    assert cli.main(["reproduce", "--backbone-weights", str(tmp_path / "some.pth")]) == 0
    assert os.environ["DFIL_BACKBONE_WEIGHTS"] == str(tmp_path / "some.pth")
