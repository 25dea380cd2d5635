"""One page of JupyterLab as a student sees it, in a window of 1100 x 800 pixels."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 1100, 800
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
SETTINGS = {  # by plugin of JupyterLab
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is drawn
}
PROBLEMS = (Path(__file__).parent / "problems.js").read_text(encoding="utf-8")


def executed() -> list[Path]:
    from dfil.system import paths

    found = (paths.published("smoke") / "notebooks").glob("[0-9][0-9]_*.ipynb")
    return sorted(path for path in found if not path.name.endswith(".failed.ipynb"))


def chromium(playwright) -> str:
    """The browser: $DFIL_CHROMIUM, the system's, or the one that Playwright has installed."""
    named = [os.environ.get("DFIL_CHROMIUM"), *map(shutil.which, BROWSERS)]
    for path in filter(None, [*named, playwright.chromium.executable_path]):
        if Path(path).is_file():
            return path
    pytest.skip("no Chromium: install your system's, or call playwright install chromium")


class Lab:
    """A JupyterLab over `root`, and one page of it."""

    def __init__(self, page, address: str, root: Path):
        self.page, self.address, self.root = page, address, root

    def start(self) -> None:
        self.page.goto(f"{self.address}/lab?token=t&reset")
        self.page.wait_for_function("() => window.jupyterapp && jupyterapp.restored")
        self.page.evaluate("() => jupyterapp.restored.then(() => null)")

    def open(self, path: str, theme: str = "Light") -> None:
        """Show one notebook, in place of the one before."""
        self.command("application:close-all")
        self.command("docmanager:open", {"path": path})
        # Asked again and again: the promise `ready` of the one before, just closed, never resolves.
        self.page.wait_for_function(
            "path => { const shown = jupyterapp.shell.currentWidget?.context;"
            " return shown?.path === path && shown.isReady }",
            arg=path,
        )
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.content.widgets.every(cell => cell.isAttached)"
        )
        self.look(theme)

    def look(self, theme: str) -> None:
        """Change between Light and Dark."""
        wanted = f"JupyterLab {theme}"
        self.command("apputils:change-theme", {"theme": wanted})
        self.page.wait_for_function(
            "wanted => document.body.dataset.jpThemeName === wanted", arg=wanted
        )
        self.page.wait_for_timeout(300)  # pictures and formulas are laid out again

    def command(self, name: str, arguments: dict | None = None):
        call = "([name, given]) => jupyterapp.commands.execute(name, given).then(() => null)"
        return self.page.evaluate(call, [name, arguments or {}])

    def run_all(self, wait: bool = True) -> None:
        """Run every cell of the open notebook, and wait until all are done."""
        self.page.wait_for_function("() => jupyterapp.shell.currentWidget.sessionContext.isReady")
        if wait:
            self.command("notebook:run-all-cells")
            self.page.wait_for_timeout(500)
        else:
            run = "() => { jupyterapp.commands.execute('notebook:run-all-cells') }"
            self.page.evaluate(run)

    def close(self) -> None:
        """Save the open notebook and end its kernel."""
        self.command("docmanager:save")
        self.command("notebook:shutdown-kernel")

    def problems(self) -> list[str]:
        """What a reader would stumble over in the open notebook, a sentence each."""
        return self.page.evaluate(PROBLEMS, HEIGHT)

    def picture(self, name: str) -> None:
        """The whole notebook as an image, where $DFIL_SCREENSHOTS names a folder."""
        folder = os.environ.get("DFIL_SCREENSHOTS")
        if not folder:
            return
        outer = "jupyterapp.shell.currentWidget.node.querySelector('.jp-WindowedPanel-outer')"
        self.page.evaluate(f"() => {{ {outer}.scrollTop = 0 }}")
        tall = min(self.page.evaluate(f"() => {outer}.scrollHeight") + 140, 14_000)
        self.page.set_viewport_size({"width": WIDTH, "height": tall})
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=Path(folder, f"{name}.png"))
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def strip() -> str:
    """The filter that the Makefile sets up, with this Python's program."""
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("STRIP = ")]
    return line.partition(" = ")[2].replace("$(BIN)/nbstripout", f"{sys.executable} -m nbstripout")


def free_port() -> int:
    with socket.socket() as any_free:
        any_free.bind(("127.0.0.1", 0))
        return any_free.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
