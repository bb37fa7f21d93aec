# Two commands on a machine with Python >= 3.11 and make: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SLIDE := examples/data/CMU-1-Small-Region.svs
DEMO := demo/CMU-1-Small-Region

.PHONY: demo test lint slow bench clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tilesegment needs Python 3.11 or newer; give one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	@mkdir -p demo
	@test -d $(DEMO).zarr || $(BIN)/tilesegment import $(SLIDE) $(DEMO).zarr
	@$(BIN)/tilesegment run $(DEMO).zarr --overwrite --verify 4 --report demo
	@$(BIN)/tilesegment export $(DEMO).zarr $(DEMO)-overlay.png --labels nuclei --overwrite
	@echo "In the browser: $(BIN)/tilesegment view $(DEMO).zarr"

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/roofline.py
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/scheduling.py
	$(BIN)/python benchmarks/workers.py
	$(BIN)/python benchmarks/rivals.py
	$(BIN)/python benchmarks/plots.py

clean:
	rm -rf .venv demo
