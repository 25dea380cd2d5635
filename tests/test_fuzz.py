"""Hundreds of damaged inputs a run; see fuzz.py, which also runs by itself with other seeds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")
KINDS = dict.fromkeys(("lists", "trees", "archives", "marks", "settings"), 60)
KINDS |= {"videos": 100, "stores": 80, "runs": 40}
MORE = int(os.environ.get("DFIL_FUZZ", "1"))  # times as many inputs


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_input_is_a_row_or_a_sentence_never_a_traceback_or_a_hang(kind):
    inputs = MORE * KINDS[kind]
    run = [sys.executable, str(FUZZ), "--inputs", str(inputs), "--kind", kind]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600 * MORE)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = dict(line.split()[1:] for line in done.stdout.strip().splitlines())
    assert sum(map(int, counted.values())) == inputs and "fault" not in counted


def test_the_fuzzer_tries_every_kind_and_at_least_500_inputs():
    import fuzz

    assert set(KINDS) == set(fuzz.KINDS) and sum(KINDS.values()) >= 500


def test_the_fuzzer_sees_a_traceback_a_hang_and_a_sentence_that_names_nothing(monkeypatch):
    import fuzz

    from dfil.system.errors import DataError

    def raising(error):
        def use():
            raise error

        return lambda root, rng: use

    def hanging(root, rng):
        return lambda: [None for _ in iter(int, 1)]

    monkeypatch.setattr(fuzz, "PATIENCE", 1)
    faults = {
        "bug": raising(KeyError("x")),
        "vague": raising(DataError("It failed.")),
        "slow": hanging,
    }
    for name, make in faults.items():
        monkeypatch.setitem(fuzz.KINDS, name, make)
        assert fuzz.outcome(name, 0)[0] == "fault", name
    assert "still busy" in fuzz.outcome("slow", 0)[1]
