"""Processes beside this one."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from dfil.system import workers

SCRIPT = """
import os, time
from dfil.system import workers
if __name__ == "__main__":
    with workers.pool(2) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_pool_calls_its_start_in_every_process():
    with workers.pool(1, os.putenv, "DFIL_TEST", "1") as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
    with workers.pool(1, int, "no number") as pool, pytest.raises(RuntimeError):
        pool.submit(os.getpid).result()


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, text=True
    ) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
        parent.send_signal(signal.SIGKILL)
        for _ in range(100):
            if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.1)
    worker.kill()
    pytest.fail("the worker went on without its parent for ten seconds")


INTERRUPTED = """
import sys, time
from pathlib import Path
from dfil.system import workers
def work(n):
    Path(sys.argv[1], str(n)).touch()
    time.sleep(3)
    return n
if __name__ == "__main__":
    with workers.pool(2) as pool:
        for n in workers.results(pool, [pool.submit(work, n) for n in range(12)]):
            pass
"""


def test_an_interruption_stops_what_is_trained_side_by_side(tmp_path):
    """As a notebook's stop button does: the whole process group is interrupted."""
    (tmp_path / "script.py").write_text(INTERRUPTED)
    (tmp_path / "begun").mkdir()
    command = [sys.executable, tmp_path / "script.py", tmp_path / "begun"]
    how = {"start_new_session": True, "stderr": subprocess.PIPE}
    # A shell lets what it starts in the background ignore interruptions.
    how["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, **how) as parent:
        while not any((tmp_path / "begun").iterdir()):
            time.sleep(0.05)
        time.sleep(0.5)
        os.killpg(parent.pid, signal.SIGINT)
        _, said = parent.communicate(timeout=60)
    assert parent.returncode != 0 and b"KeyboardInterrupt" in said
    assert len(list((tmp_path / "begun").iterdir())) <= 4  # of twelve
