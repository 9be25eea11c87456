# Two commands do everything: `make demo` sets up and runs the main job, `make test` sets up and passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := audit cli examples experiments layers nets prototxt_like pycaffe reports solvers

.PHONY: demo test check install test-slow test-browser bench docs fuzz format clean

demo: install
	$(BIN)/imae demo

# Two processes of one thread each, which take whole files of tests.
test: install check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not browser" -n 2 --dist worksteal $(PYTEST_FLAGS)

# What takes longer than `make test` may: minutes of real training.
test-slow: install
	$(BIN)/python -m pytest -m slow -s $(PYTEST_FLAGS)

# The audit's pages in the machine's own chromium; skipped, saying why, where there is none.
test-browser: install
	-$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[browser]'
	$(BIN)/python -m pytest -m browser -rs $(PYTEST_FLAGS)

# On a machine with nothing else to do: writes benchmarks/README.md's figures.
bench: install
	$(BIN)/python -m benchmarks

# Every reader on damaged inputs, some minutes; FUZZ_FLAGS="--seed 2": other damage. See docs/reliability.md.
fuzz: install
	$(BIN)/python -m fuzzing $(FUZZ_FLAGS)

# What is drawn and written from the code: docs/house.svg, docs/layers.md, docs/zoo.md.
docs: install
	$(BIN)/python docs/house.py
	$(BIN)/python docs/layers.py
	$(BIN)/python docs/zoo.py

check: install build/typing/imae
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n 2 $(foreach package,$(PACKAGES),-p imae.$(package)) -m imae.__main__ -p benchmarks -p fuzzing \
		-m docs.house -m docs.layers -m docs.onnx_table -m docs.zoo

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/installed build/typing/imae

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "imae needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $@

# For tools that do not follow an editable install: mypy, editors, a machine without pip.
build/typing/imae:
	mkdir -p build/typing
	ln -sfn ../.. $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
