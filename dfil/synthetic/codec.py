"""H.264 in and out of memory through PyAV: deterministic on one machine, one thread, no files but
what is asked for."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np

from dfil.synthetic.settings import FPS

# x264's macroblock tree is not reproducible on processors with AVX-512: the same frames give
# different files (seen with x264 165 and PyAV 18). Without it they are the same, a quarter larger
# and half a decibel better.
X264 = {"threads": "1", "mbtree": "0"}
PACKET = 16 * 2**10  # bytes; at qp 23 a frame of 320 x 320 has 7 to 12 thousand
FILLER = b"\0\0\0\1\x0c"  # start code and type of the NAL unit


def encode(
    frames: np.ndarray, crf: int | None = None, preset: str = "veryfast", *, qp: int | None = None
) -> bytes:
    """MP4 file with `frames`, uint8 (T, H, W, 3) in RGB or (T, H, W) in grey, as 4:2:0 H.264.

    crf: constant rate factor, with P and B frames. qp instead: every frame is coded by itself at
    this constant quantiser, and filled up to a multiple of PACKET bytes, so that neither a frame's
    neighbours nor sizes tell anything.
    """
    buffer = io.BytesIO()
    pixels = "rgb24" if frames.ndim == 4 else "gray"
    rate = {"crf": str(crf)} if qp is None else {"qp": str(qp), "g": "1"}
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=rate | {"preset": preset} | X264)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in (*frames, None):
            picture = None if frame is None else av.VideoFrame.from_ndarray(frame, format=pixels)
            for packet in stream.encode(picture):
                container.mux(packet if qp is None else _filled(packet))
    return buffer.getvalue()


def _filled(packet: av.Packet) -> av.Packet:
    """The packet with a NAL unit of filler data (H.264, 7.3.2.7) behind, which decoders skip."""
    content, least = bytes(packet), len(FILLER) + 1
    room = -(len(content) + least) % PACKET
    filled = av.Packet(content + FILLER + b"\xff" * room + b"\x80")
    for name in ("stream", "time_base", "pts", "dts", "duration", "is_keyframe"):
        setattr(filled, name, getattr(packet, name))
    return filled


def decode(video: bytes | str | Path, pixels: str = "rgb24") -> np.ndarray:
    """All frames of a file or of encoded bytes: uint8 (T, H, W, 3), (T, H, W) for pixels="gray"."""
    source = io.BytesIO(video) if isinstance(video, bytes) else str(video)
    with av.open(source) as container:
        return np.stack([frame.to_ndarray(format=pixels) for frame in container.decode(video=0)])
