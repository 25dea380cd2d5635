"""Shared fixtures: a tiny synthetic FaceForensics++ tree and its crops, made once per session."""

import pytest
import torch

torch.set_num_threads(1)  # tiny models; more threads only wait for each other on a busy machine


@pytest.fixture(autouse=True)
def seeded():
    """Weights drawn in a test are the same whichever tests ran before it, on whichever core."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory):
    """Eight people, real and Deepfakes, c23, 20 frames."""
    from dfil.synthetic import write_ffpp

    root = tmp_path_factory.mktemp("trees") / "tiny"
    return write_ffpp(
        root,
        "temporal-only",
        train=4,
        val=2,
        test=2,
        frames=20,
        qualities=("c23",),
        manipulations=("Deepfakes",),
        jobs=1,
        progress=False,
    )


@pytest.fixture(scope="session")
def tiny_store(tiny_tree, tmp_path_factory):
    """The crop store of `tiny_tree` at 32 px."""
    from dfil.datasets import load_records
    from dfil.faces.preprocess import preprocess

    return preprocess(
        load_records("ffpp", tiny_tree),
        tmp_path_factory.mktemp("crops"),
        32,
        jobs=1,
        progress=False,
    )
