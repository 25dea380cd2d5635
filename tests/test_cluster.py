"""A real dask scheduler and worker processes: work that loses a worker ends as it would have
locally.
"""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from distributed import KilledWorker, LocalCluster
from safetensors.torch import load_file

from dfil.cli import main
from dfil.datasets import load_records
from dfil.faces.preprocess import preprocess
from dfil.faces.store import CropStore
from dfil.profiles import SMOKE, Training
from dfil.system import cluster
from dfil.system.errors import RunError
from dfil.train.runs import RunSpec, RunStore

TINY = {"depth": (2, 1, 1, 1), "width": 4, "stem": "small"}
PROFILE = dataclasses.replace(
    SMOKE, backbone=TINY, training=Training(epochs=4, lr=1e-3, batch=4, paired=True)
)
SPECS = [
    RunSpec.of_table(PROFILE, "table1", "dil", "ffpp", "c23", ("Deepfakes",), seed=seed)
    for seed in (0, 1)
]


def until(what, seconds=60.0):
    """The first true value of what(), asked again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"not within {seconds:.0f} s")


class Dask:
    """`dask scheduler` and `dask worker`, each a process of its own as on several machines."""

    def __init__(self, folder):
        self.folder, self.file, self.processes = folder, folder / "scheduler.json", []
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.start(
            "dask_scheduler",
            "--port",
            "0",
            "--dashboard-address",
            ":0",
            "--scheduler-file",
            self.file,
        )
        self.address = f"tcp://127.0.0.1:{until(self._port)}"

    def _port(self):
        try:
            return json.loads(self.file.read_text())["address"].rsplit(":", 1)[1]
        except (OSError, ValueError):
            return ""

    def start(self, program, *arguments):
        with open(self.folder / f"{program}-{len(self.processes)}.log", "wb") as log:
            command = [sys.executable, "-m", f"distributed.cli.{program}", *map(str, arguments)]
            self.processes.append(
                subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=self.folder, env=self.environment
                )
            )
        return self.processes[-1]

    def workers(self, count):
        """Start workers until there are `count`; (address, process id) of all of them."""
        with cluster.connect(self.address) as client:
            for _ in range(count - len(client.scheduler_info(n_workers=-1)["workers"])):
                self.start(
                    "dask_worker",
                    self.address,
                    "--nthreads",
                    1,
                    "--resources",
                    "GPU=1",
                    "--no-nanny",
                    "--no-dashboard",
                )
            client.wait_for_workers(count, timeout=60)
            return client.run(os.getpid)

    def busy(self, name):
        """The address of the worker that works on the task called `name`."""
        with cluster.connect(self.address) as client:
            return until(
                lambda: [
                    at
                    for at, keys in client.processing().items()
                    if any(name in key for key in keys)
                ]
            )[0]

    def kill(self, pid):
        (process,) = [p for p in self.processes if p.pid == pid]
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    running = Dask(tmp_path_factory.mktemp("dask"))
    yield running
    for process in running.processes:
        process.kill()
        process.wait()


@pytest.fixture
def use(dask, monkeypatch):
    monkeypatch.setenv(cluster.VARIABLE, dask.address)
    return dask


def beside(function):
    """Run function() in a thread; call the returned function for its result."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()

    def wait():
        thread.join(60)
        assert result, "it raised, see above"
        return result[0]

    return wait


def test_videos_survive_a_killed_worker(tiny_tree, tiny_store, use, tmp_path):
    pids, records = use.workers(2), load_records("ffpp", tiny_tree)

    def kill_in_the_middle():
        until(lambda: list((tmp_path / "store").rglob("crops/**/*.json")))
        use.kill(next(iter(pids.values())))
        return len(list((tmp_path / "store").rglob("crops/**/*.json")))

    killed = beside(kill_in_the_middle)
    with cluster.executor() as executor:
        store = preprocess(records, tmp_path / "store", 32, progress=False, executor=executor)
    assert killed() < len(records)
    assert store.meta["digest"] == tiny_store.meta["digest"]  # the crops' checksums among all else


def test_a_run_goes_on_elsewhere_when_its_worker_is_killed(tiny_store, use, tmp_path):
    pids, runs = use.workers(2), RunStore(tmp_path / "cluster", PROFILE)

    def kill_in_the_middle():
        checkpoint = until(lambda: next(runs.folder.glob("*/checkpoint.pt"), None))
        use.kill(pids[use.busy(checkpoint.parent.name)])
        return checkpoint.parent.name, torch.load(checkpoint, weights_only=True)["history"]

    killed = beside(kill_in_the_middle)
    there = runs.get_all(SPECS, tiny_store)
    key, before = killed()
    assert 0 < len(before) < PROFILE.training.epochs
    history = next(run.history for run in there if run.key == key)
    assert history["seconds"].tolist()[: len(before)] == [
        row["seconds"] for row in before
    ]  # gone on with, not begun again

    locally = RunStore(tmp_path / "local", PROFILE)
    for spec, run in zip(SPECS, there, strict=True):
        here = locally.get(spec, tiny_store)
        one, two = (load_file(r.folder / "weights.safetensors") for r in (here, run))
        assert (
            run.key == here.key
            and one.keys() == two.keys()
            and all(torch.equal(one[name], two[name]) for name in one)
        )
        assert run.scores_file(tiny_store, "c23").is_file()  # by the worker
        ours, theirs = (r.scores(tiny_store, "c23") for r in (here, run))
        pd.testing.assert_frame_equal(ours, theirs)


def test_preprocess_takes_a_scheduler(tiny_tree, tiny_store, dask, tmp_path, capsys):
    dask.workers(1)
    command = [
        "preprocess",
        "ffpp",
        "--root",
        str(tiny_tree),
        "--store",
        str(tmp_path / "store"),
        "--size",
        "32",
    ]
    every = ["--every", str(tiny_store.meta["every"])]
    assert main([*command, *every, "--scheduler", dask.address]) == 0
    assert "in the given executor" in capsys.readouterr().out
    assert CropStore(tmp_path / "store").meta["digest"] == tiny_store.meta["digest"]


def test_a_lost_scheduler_is_one_sentence():
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as local:
        with pytest.raises(RunError, match="was lost; call again"):
            with cluster.executor(local.scheduler_address) as executor:
                waiting = executor.submit(time.sleep, 1)
                local.close()
                waiting.result(timeout=20)


def test_each_hands_on_the_environment_and_what_a_task_raises(use, monkeypatch):
    use.workers(1)
    monkeypatch.setenv("DFIL_BACKBONE_WEIGHTS", "/somewhere/resnet50.pth")
    tasks = {"name": (os.environ.get, ("DFIL_BACKBONE_WEIGHTS",)), "sum": (sum, ([1, 2],))}
    assert dict(cluster.each(tasks)) == {"name": "/somewhere/resnet50.pth", "sum": 3}
    with pytest.raises(ZeroDivisionError):
        list(cluster.each({"wrong": (divmod, (1, 0))}))


def test_without_a_scheduler_there_is_no_executor(monkeypatch):
    monkeypatch.delenv(cluster.VARIABLE, raising=False)
    cluster.use("")
    assert cluster.address() == ""
    with cluster.executor() as executor:
        assert executor is None


def test_what_is_wrong_with_a_cluster_is_said(monkeypatch):
    monkeypatch.setattr(cluster, "WAIT", "1s")
    with pytest.raises(RunError, match="no dask scheduler answers at 'tcp://127.0.0.1:9'"):
        cluster.use("tcp://127.0.0.1:9")
    assert cluster.address() == ""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as threads:
        with pytest.raises(RunError, match="--nthreads 1"):
            cluster.use(threads.scheduler_address)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as local:
        with pytest.raises(RunError, match="run-7: 4 workers died"):
            list(cluster.each({"run-7": (_dies, ())}, local.scheduler_address))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RunError, match="pip install"):
        cluster.use("tcp://127.0.0.1:9")


def _dies():
    raise KilledWorker("run-7", SimpleNamespace(address="tcp://gone"), 3)


def test_a_worker_has_the_callers_weights_and_no_other_callers(monkeypatch):
    monkeypatch.setenv("DFIL_SCNET_WEIGHTS", "/caller/scnet.pth")
    monkeypatch.setenv("DFIL_LANDMARKS", "/caller/landmarks.dat")
    given = {name: os.environ[name] for name in os.environ if cluster._is_handed_on(name)}
    assert given == {
        "DFIL_SCNET_WEIGHTS": "/caller/scnet.pth",
        "DFIL_LANDMARKS": "/caller/landmarks.dat",
    }
    assert cluster._call(given, os.environ.get, ("DFIL_SCNET_WEIGHTS",)) == "/caller/scnet.pth"
    assert cluster._call({}, os.environ.get, ("DFIL_SCNET_WEIGHTS",)) is None  # the next caller
    assert cluster._call({}, os.environ.get, ("DFIL_LANDMARKS",)) is None
    monkeypatch.setattr(cluster, "_OWN", {"DFIL_SCNET_WEIGHTS": "/worker/scnet.pth"})
    for named, taken in ((given, "/caller/scnet.pth"), ({}, "/worker/scnet.pth")):
        assert cluster._call(named, os.environ.get, ("DFIL_SCNET_WEIGHTS",)) == taken
