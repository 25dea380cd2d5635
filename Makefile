# make reproduce [PROFILE=smoke|demo|paper] [ROOT=/path/to/FaceForensics++]   everything: install, data, notebooks, report
# make test                                                                   lint and all tests
# make browser                                                                the notebooks of the last smoke in a Chromium
# make lab                                                                    the notebooks in JupyterLab
# make strip                                                                  take outputs out of the stored notebooks, before a commit
PROFILE ?= demo
ROOT ?=
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(p)),$(p))))
VENV = .venv
BIN = $(VENV)/bin
STRIP = $(BIN)/nbstripout --keep-id --extra-keys "metadata.language_info metadata.papermill cell.metadata.execution cell.metadata.jupyter.outputs_hidden"

.PHONY: reproduce test browser lint lab strip clean install
.DELETE_ON_ERROR:

reproduce: install
	$(BIN)/dfil reproduce --profile $(PROFILE) $(if $(ROOT),--root "$(ROOT)")

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --ignore=tests/browser

browser: install
	$(BIN)/python -m pytest -rs tests/browser

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: install
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb --FileContentsManager.post_save_hook=dfil.tools.save_hook.refresh

strip: install
	$(STRIP) notebooks/*.ipynb

install: $(VENV)/installed

# A notebook that was run and saved counts as unchanged: git strips outputs (see .gitattributes) by the filter set here.
# A linked worktree without a .venv of its own has no filter, and git should not complain of it at every call.
# The exact versions that were tried together; pyproject.toml says what is needed, constraints.txt which release of it.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dfil needs Python 3.11 or later; call make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,lab]"
	@git rev-parse --git-dir >/dev/null 2>&1 && git config filter.stripped.clean 'if test -x $(BIN)/nbstripout; then $(STRIP); else cat; fi' && git config filter.stripped.smudge cat || true
	touch $@

# Everything that can be made again. Trained runs, crops and the published results in outputs/demo stay.
clean:
	rm -rf $(VENV) build *.egg-info outputs/smoke outputs/.work .pytest_cache .ruff_cache
	find dfil tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
