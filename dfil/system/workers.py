"""Processes beside this one: the pools that cut videos, draw clips and train runs start theirs
here."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from dfil.system.errors import RunError


def pool(
    processes: int, start: Callable[..., None] | None = None, *arguments
) -> ProcessPoolExecutor:
    """A pool of spawned processes, each of which first calls `start(*arguments)`, and which end if
    this process is killed.

    Spawned, because forking a process that has threads (torch, OpenCV) can hang. A worker whose
    parent was killed would otherwise go on with what it was given, unseen, and write into folders
    that a second call has begun anew.
    """
    return ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _start, (start, arguments)
    )


def as_done(pool: Executor, work: Callable, items: Iterable, died: str) -> Iterator:
    """work(item) of every item, done by a pool: the results as they come. What has not begun when
    the caller stops is dropped. Raises RunError(died) if a process is killed."""
    futures = [pool.submit(work, item) for item in items]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise RunError(died) from error
    finally:
        for future in futures:
            future.cancel()


def results(pool: ProcessPoolExecutor, futures: Iterable[Future]) -> Iterator:
    """The results of a pool's futures as they come.

    An interruption ends the pool's processes: it reaches them too where a notebook is stopped, each
    takes it for the end of one task, and they would go on with all that is waiting. So this is for
    work that can be stopped at any moment.
    """
    try:
        for future in as_completed(futures):
            yield future.result()
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):
            process.terminate()
        raise


def _start(start: Callable[..., None] | None, arguments: tuple) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _leave_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
