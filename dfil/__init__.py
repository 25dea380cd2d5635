"""dfil: a runnable reproduction of Dynamic Inconsistency Learning (DIL) for deepfake video
detection, AAAI 2022.
"""

__version__ = "0.1.0"
