"""JupyterLab in a headless Chromium over a copy of the notebooks.

Without Chromium, Playwright or JupyterLab the tests of this folder are skipped with a sentence.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
from lab import (
    FLAGS,
    HEIGHT,
    PROJECT,
    SETTINGS,
    WIDTH,
    Lab,
    chromium,
    executed,
    free_port,
    strip,
    wait_for,
)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A git repository with the stored notebooks and, in `executed`, those of the last smoke."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(PROJECT / "notebooks", root / "notebooks")
    for name in (".gitattributes", ".gitignore"):
        shutil.copy(PROJECT / name, root)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for call in ("init -q", "add .", "commit -qm notebooks", "config filter.stripped.smudge cat"):
        subprocess.run([*git, *call.split()], check=True)
    # Only now, since the stored notebooks have no outputs, and the filter takes seconds for each.
    subprocess.run([*git, "config", "filter.stripped.clean", strip()], check=True)
    (root / ".git" / "info" / "exclude").write_text("executed\nhome\nout\n", encoding="utf-8")
    for path in executed():
        (root / "executed").mkdir(exist_ok=True)
        shutil.copy(path, root / "executed")
    return root


@pytest.fixture(scope="session")
def lab(checkout):
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install it")
    pytest.importorskip("jupyterlab", reason='no JupyterLab: pip install -e ".[lab]"')
    home, port = checkout / "home", free_port()
    for plugin, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    environment = os.environ | {
        "DFIL_OUTPUTS": str(checkout / "out"),
        "PYTHONPATH": f"{PROJECT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    environment.pop("DFIL_PROFILE", None)
    environment.pop("DFIL_WORK", None)
    options = {
        "ServerApp.port": port,
        "ServerApp.root_dir": checkout,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": "t",
        "LabApp.expose_app_in_browser": True,
        "FileContentsManager.post_save_hook": "dfil.tools.save_hook.refresh",  # as in the Makefile
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (home / "log.txt").open("w") as log, sync_api.sync_playwright() as playwright:
        program = chromium(playwright)
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/api?token=t", server, home / "log.txt")
            browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(60_000)
            shown = Lab(page, address, checkout)
            shown.start()
            yield shown
            browser.close()
        finally:
            server.terminate()
            server.wait(30)
