# make demo: set up, then the main job on real data; make demo-images: the same on images.
# make test: set up, then every check and test; make explore: the property tests with new examples.
# All can be run again and again; what is set up already is left alone.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-from-these-constraints
DEMO := runs/demo

# Some environments, of containers above all, forbid Python to keep what it compiles: each of the hundreds of processes
# that the tests start would compile the program anew. What is empty forbids nothing.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo demo-images test explore lint bench clean

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "tamiz needs Python 3.11 to 3.13, and $(PYTHON) is $$($(PYTHON) --version); say make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@rm -rf $(DEMO)
	$(BIN)/tamiz search examples/penguins.csv --target species --time 60s --run $(DEMO)
	@echo
	$(BIN)/tamiz predict $(DEMO) examples/penguins.csv --output $(DEMO)/predictions.parquet
	@echo
	@# TensorFlow greets on the error stream; it is shown only when something goes wrong.
	@$(BIN)/python examples/predict_without_tamiz.py $(DEMO)/export/penguins/1 2>$(DEMO)/logs/example.txt \
	  || { cat $(DEMO)/logs/example.txt >&2; exit 1; }

demo-images: $(INSTALLED)
	@rm -rf $(DEMO)-images
	$(BIN)/python examples/digits_as_images.py $(DEMO)-images/digits
	$(BIN)/tamiz search $(DEMO)-images/digits --objective accuracy,latency --time 2m --run $(DEMO)-images/run
	@echo
	$(BIN)/tamiz predict $(DEMO)-images/run $(DEMO)-images/digits --key image --output $(DEMO)-images/answers.csv

# A process more than there are cores, five at most: tests wait for servers and workers a fifth of their time.
test: lint
	$(BIN)/python -m pytest -q -n $$(n=$$(nproc); echo $$((n < 4 ? n + 1 : 5))) --dist loadscope --no-loadscope-reorder

explore: $(INSTALLED)
	$(BIN)/python -m pytest -q -m hypothesis --hypothesis-profile=explore -n auto --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/trial_cost.py
	$(BIN)/python benchmarks/trials_per_minute.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/journal_size.py
	$(BIN)/python benchmarks/image_pipeline.py
	$(BIN)/python benchmarks/search_curves.py
	$(BIN)/python benchmarks/search_tables.py
	$(BIN)/python benchmarks/serving.py

clean:
	rm -rf $(VENV) runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
