# make demo   sets up .venv and runs the main job on the embedded encoder and the bundled sample
# make test   sets up .venv and runs the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tools of a release, apart from what is tested.
TOOLS := $(VENV)/tools
TOOLS_READY := $(TOOLS)/.ready

.PHONY: setup demo notebook report docs reference wheel test test-slow lint types check bench bench-gpu bench-growth bench-ingest bench-lab bench-serve bench-ui torture exam fuzz lock licences sbom audit container-check clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: setup
	rm -rf runs/demo
	$(BIN)/pennyweight demo

# The demo's report: figures, a paper of at most four pages, and an executed notebook.
report: setup
	test -f runs/demo/record.json || $(MAKE) demo
	$(BIN)/pennyweight report runs/demo --out report/demo

# The executed notebook of the demo that is committed.
notebook: setup
	test -f runs/demo/record.json || $(MAKE) demo
	$(BIN)/pennyweight report runs/demo --out notebooks --only notebook
	mv notebooks/notebook.ipynb notebooks/demo.ipynb

# The documentation as a site, in site/; the reference pages are generated from the code.
docs: setup
	$(BIN)/mkdocs build --strict --quiet

reference: setup
	$(BIN)/python docs/generate_reference.py

wheel: setup
	$(BIN)/python -m build --wheel

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Fuzzes every parser: make fuzz MINUTES=10. Coverage-guided where atheris can be installed.
MINUTES ?= 2
fuzz: setup
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python tests/security/fuzz.py --minutes $(MINUTES)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

check: lint types test

# BENCH names real data: make bench BENCH="--data train.csv --validation test.csv --tokenizer DIR"
bench: setup
	$(BIN)/python benchmarks/speed.py $(BENCH)

bench-gpu: setup
	$(BIN)/python benchmarks/speed.py --gpu --only roberta $(BENCH)

bench-ingest: setup
	$(BIN)/python benchmarks/ingest_memory.py

bench-ui: setup
	test -f runs/demo/record.json || $(MAKE) demo
	$(BIN)/python benchmarks/ui.py runs/demo

bench-serve: setup
	test -f runs/demo/record.json || $(MAKE) demo
	$(BIN)/python benchmarks/serve.py runs/demo

# How time and memory grow with the rows. GROWTH passes options, such as
# GROWTH="--rows 1000000 3000000 10000000 --out growth.json".
bench-growth: setup
	$(BIN)/python benchmarks/growth.py $(GROWTH)

bench-lab: setup
	$(BIN)/python benchmarks/lab_memory.py

# Kills commands at random moments and checks that nothing is lost. TORTURE passes options, such as
# TORTURE="--minutes 30 --kills 200 --write docs/concepts/faults.md".
torture: setup
	$(BIN)/python benchmarks/torture.py $(TORTURE)

# The competition: trains Pennyweight's system with three seeds, without and with its target, and
# writes the submissions. DATA is a directory with ag_news/train.parquet, ag_news/test.csv and
# competition/test_unlabelled.pkl; EXAM passes options, such as EXAM="--seeds 1".
exam: setup
	@test -n "$(DATA)" || { echo "make exam DATA=DIR: name the directory of the data"; exit 2; }
	$(BIN)/python benchmarks/exam.py $(DATA) --out runs/exam $(EXAM)

# The supply chain; see SECURITY.md. Writes locks/, with a version and hashes of every package.
# PyTorch and its GPU libraries are in a lock of their own, because their build is the user's choice.
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--constraint constraints.txt --custom-compile-command 'make lock'
LOCK := $(COMPILE) pyproject.toml --no-emit-package torch --excludes locks/gpu-libraries.txt
lock: $(TOOLS_READY)
	$(LOCK) --output-file locks/main.txt
	$(LOCK) --extra serve --output-file locks/serve.txt
	$(LOCK) --extra lab --extra onnx --extra quantization --extra ray --extra report --extra search \
		--extra serve --output-file locks/all.txt
	grep '^torch==' constraints.txt | $(COMPILE) - --output-file locks/torch.txt
	$(COMPILE) --group release --output-file locks/tools.txt

# The licences of the locked packages, from what is installed.
licences: setup
	$(BIN)/python release/licences.py

# A bill of materials of the installed environment, in CycloneDX.
sbom: setup $(TOOLS_READY)
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file build/sbom.json $(BIN)/python
	@echo build/sbom.json

# Known vulnerabilities of the pinned packages; says so, and passes, where no database can be reached.
audit: $(TOOLS_READY)
	$(TOOLS)/bin/python release/audit.py

container-check: $(TOOLS_READY)
	$(TOOLS)/bin/hadolint Dockerfile
	$(TOOLS)/bin/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

$(TOOLS_READY): locks/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement locks/tools.txt
	touch $(TOOLS_READY)

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache
