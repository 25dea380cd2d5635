"""H.264 in and out of memory through PyAV: deterministic on one machine, one thread, no files but what is asked for."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np

from dfil.synthetic.settings import FPS

# x264's macroblock tree is not reproducible on processors with AVX-512: the same frames give different files (seen with x264 165 and
# PyAV 18). Without it they are the same, a quarter larger and half a decibel better.
X264 = {"threads": "1", "mbtree": "0"}


def encode(frames: np.ndarray, crf: int, preset: str = "veryfast") -> bytes:
    """MP4 file with `frames`, uint8 of shape (T, H, W, 3) in RGB or (T, H, W) in grey, as 4:2:0 H.264."""
    buffer = io.BytesIO()
    pixels = "rgb24" if frames.ndim == 4 else "gray"
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"crf": str(crf), "preset": preset, **X264}
        )
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=pixels)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def decode(video: bytes | str | Path, pixels: str = "rgb24") -> np.ndarray:
    """All frames of a file or of encoded bytes: uint8 (T, H, W, 3), or (T, H, W) with `pixels="gray"`."""
    source = io.BytesIO(video) if isinstance(video, bytes) else str(video)
    with av.open(source) as container:
        return np.stack([frame.to_ndarray(format=pixels) for frame in container.decode(video=0)])
