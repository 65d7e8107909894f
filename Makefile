VENV := .venv
PY := $(VENV)/bin/python

.PHONY: setup test lint

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install -q --upgrade "pip>=25.1"
	$(PY) -m pip install -q -e ".[arena]" --group dev
	touch $@

test: setup
	$(PY) -m pytest

lint: setup
	$(VENV)/bin/ruff format --check src tests
	$(VENV)/bin/ruff check src tests
	$(VENV)/bin/mypy
