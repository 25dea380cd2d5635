"""Independent work, videos and runs, on an existing `dask.distributed` cluster; without one the
same work is done by local processes.

    dask scheduler                               # prints its address, tcp://HOST:8786
    # one worker for each GPU, with its own CUDA_VISIBLE_DEVICES
    dask worker tcp://HOST:8786 --nthreads 1 --resources GPU=1
    dfil reproduce --profile paper --scheduler tcp://HOST:8786

What the machines must share: the folders of data and outputs under the same path, and this package.
Each worker has one thread, because a run seeds its process's random numbers and dlib's detector
serves one caller. A worker on a GPU is started with DASK_DISTRIBUTED__WORKER__DAEMON=False in its
environment: a daemon may not start the processes that feed the GPU. Workers that declare the
resource GPU get one run each; where none does, every worker takes runs. A worker that dies loses
nothing that was finished: its videos and its run go to another one, the run from its last
checkpoint. dask gives up on work during which four workers died.

On Slurm, `dask-jobqueue` starts scheduler and workers; leave this running and give the printed
address to `dfil`:

    import dask, time
    from dask_jobqueue import SLURMCluster
    cluster = SLURMCluster(
        cores=1, processes=1, job_cpu=8,  # one thread of dask, eight cores for loading
        memory="64GB", walltime="24:00:00",
        job_extra_directives=["--gres=gpu:1"], worker_extra_args=["--resources GPU=1"],
        job_script_prologue=["export DASK_DISTRIBUTED__WORKER__DAEMON=False"],
    )
    cluster.scale(jobs=8)
    print(cluster.scheduler_address)
    time.sleep(7 * 24 * 3600)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dfil.system.errors import RunError

if TYPE_CHECKING:
    from distributed import Client

VARIABLE = "DFIL_SCHEDULER"  # how the kernels of notebooks learn the address
WAIT = "30s"  # for the scheduler's first answer


def address() -> str:
    """The scheduler named by `use` or by $DFIL_SCHEDULER; empty if none is."""
    return os.environ.get(VARIABLE, "")


def use(scheduler: str) -> None:
    """Let this process, and those that it starts, hand their work to the scheduler at this address;
    empty leaves all as it is.

    Raises RunError if none answers there or its workers cannot be used.
    """
    if scheduler:
        with connect(scheduler):
            os.environ[VARIABLE] = scheduler


@contextmanager
def connect(scheduler: str) -> Iterator[Client]:
    """A client of the cluster. Raises RunError if dask is not installed, nobody answers, a worker
    has several threads, or inside the block the scheduler is lost or workers die on the same task
    again and again."""
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise RunError(
            "--scheduler needs dask.distributed, which is not installed: pip install"
            ' "dfil[cluster]"'
        ) from error
    try:
        client = Client(scheduler, timeout=WAIT, set_as_default=False)
    except (OSError, ValueError) as error:  # ValueError: not an address
        raise RunError(
            f"no dask scheduler answers at {scheduler!r} ({error}); start `dask scheduler` and give"
            " the address it prints"
        ) from error
    with client:
        workers = _workers(client)
        if several := [worker["name"] for worker in workers.values() if worker["nthreads"] > 1]:
            raise RunError(
                f"the dask worker {several[0]} has several threads; start every worker with"
                " --nthreads 1"
            )
        if not workers:
            said = "has no worker yet; work starts when the first one comes."
            print(f"The scheduler {scheduler} {said}", flush=True)
        try:
            yield client
        except KilledWorker as error:
            raise RunError(
                f"{error.task}: {error.allowed_failures + 1} workers died while they worked on it,"
                " most often for lack of memory; see their logs, then call again: what was finished"
                " is kept"
            ) from error
        except CancelledError as error:
            raise RunError(
                f"the dask scheduler at {scheduler} was lost; call again when it is back: what was"
                " finished is kept"
            ) from error


@contextmanager
def executor(scheduler: str = "") -> Iterator[Executor | None]:
    """A concurrent.futures executor on the cluster at `scheduler`, default the one of `address()`;
    None where no cluster is named.

    For work that leaves its results in files and may be done twice, such as
    `dfil.faces.preprocess`.
    """
    if not (scheduler := scheduler or address()):
        yield None
        return
    with connect(scheduler) as client, client.get_executor(pure=False) as pool:
        yield pool


def each(
    tasks: Mapping[str, tuple[Callable, tuple]], scheduler: str = ""
) -> Iterator[tuple[str, object]]:
    """Call function(*arguments) of every task on the cluster, on one GPU each where workers declare
    them; (name, result) as they end.

    A name is the work's identity: while one client waits for it, a second one with the same name
    waits for the same work. Raises what a task raised.
    """
    from distributed import as_completed

    environment = {name: value for name, value in os.environ.items() if _is_handed_on(name)}
    with connect(scheduler or address()) as client:
        gpus = any(worker["resources"].get("GPU") for worker in _workers(client).values())
        how, futures = {"pure": False, "resources": {"GPU": 1} if gpus else None}, {}
        for name, (function, arguments) in tasks.items():
            work = environment, function, arguments
            futures[client.submit(_call, *work, key=f"dfil {name}", **how)] = name
        for future in as_completed(list(futures), loop=client.loop):
            yield futures[future], future.result()


def _is_handed_on(variable: str) -> bool:
    """Whether a variable of the caller's environment decides what a worker does for it: which
    weights and landmarks it takes, and how much memory."""
    weights = variable.startswith("DFIL_") and variable.endswith("_WEIGHTS")
    return weights or variable in ("DFIL_CHECKPOINT", "DFIL_LANDMARKS")


# What this process was started with: a worker may name files of its own machine.
_OWN = {name: value for name, value in os.environ.items() if _is_handed_on(name)}


def _call(environment: Mapping[str, str], function: Callable, arguments: tuple) -> object:
    """In a worker, where another caller's variables may have stayed."""
    for name in [name for name in os.environ if _is_handed_on(name)]:
        del os.environ[name]
    os.environ.update(_OWN | environment)
    return function(*arguments)


def _workers(client: Client) -> dict[str, dict]:
    return client.scheduler_info(n_workers=-1)["workers"]
