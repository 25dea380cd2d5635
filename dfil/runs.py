"""Trained weights from outside the package: `dfil.runs.load_weights(path)`; the run store lies
in dfil.train.runs.
"""

from dfil.train.runs import load_weights, save_weights

__all__ = ["load_weights", "save_weights"]
