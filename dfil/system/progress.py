"""Progress bars where somebody watches: in a terminal and in a notebook opened by hand.

A notebook that papermill executes shows none, so nothing of them is left in the executed file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec

from tqdm import tqdm


def by_hand() -> bool:
    """Whether the running cell was sent by a person, whose front end could answer a question.

    JupyterLab, Colab and others say so in each request of the Jupyter protocol (`allow_stdin`);
    papermill and nbconvert, which nobody watches, say no.
    """
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython and ipython.get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel else {}
    return bool(request.get("content", {}).get("allow_stdin"))


def progress_bar(work: Iterable | None = None, *, quiet: bool = False, **how) -> tqdm:
    """tqdm over `work`, or with `total` and by its `update`; gone when it is done.

    A widget in a notebook, text in a terminal, nothing elsewhere or if it is to be quiet.
    """
    if not quiet and by_hand() and find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget(work, leave=False, **how)
    return tqdm(work, leave=False, disable=quiet or None, **how)
