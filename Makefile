VENV := .venv
PY := $(VENV)/bin/python

.PHONY: setup demo test lint wheel

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install -q --upgrade "pip>=25.1"
	$(PY) -m pip install -q -e ".[arena]" --group dev
	touch $@

demo: setup
	$(VENV)/bin/stillwatch demo --out demo-out

test: setup
	$(PY) -m pytest

lint: setup
	$(VENV)/bin/ruff format --check src tests
	$(VENV)/bin/ruff check src tests
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# The wheel, installed into an empty environment and called from there.
wheel: setup
	rm -rf dist build/wheel-env
	$(PY) -m pip wheel -q --no-deps -w dist .
	python3 -m venv build/wheel-env
	build/wheel-env/bin/python -m pip install -q dist/*.whl
	cd / && $(CURDIR)/build/wheel-env/bin/stillwatch --help > /dev/null
	cd / && $(CURDIR)/build/wheel-env/bin/python -c "from stillwatch.schema.findings_schema import shipped; assert shipped()"
