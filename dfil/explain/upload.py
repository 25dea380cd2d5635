"""A button with which a notebook's reader gives it a video."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dfil.system import paths
from dfil.system.files import atomic
from dfil.train.own_video import VIDEOS


class Upload:
    """The button, where ipywidgets can show one; elsewhere a sentence in its place."""

    def __init__(self) -> None:
        self.button = None
        if find_spec("ipywidgets"):
            from ipywidgets import FileUpload

            self.button = FileUpload(accept=",".join(sorted(VIDEOS)), description="a video")

    def _repr_mimebundle_(self, **_) -> dict[str, object]:
        shown = self.button._repr_mimebundle_() if self.button else {}
        return {**shown, "text/plain": "Opened in JupyterLab, a button for a video stands here."}

    def path(self, video: str, otherwise: Path) -> Path:
        """The file named by `video`, else the uploaded one, else `otherwise`.

        What was uploaded is written to uploads/ in the data folder.
        """
        if video:
            return Path(video).expanduser()
        if not (self.button and self.button.value):
            return otherwise
        (uploaded,) = self.button.value
        path = paths.data() / "uploads" / Path(uploaded["name"]).name
        with atomic(path) as temporary:
            temporary.write_bytes(uploaded["content"])
        return path
