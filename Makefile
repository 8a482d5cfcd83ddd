# `make run` sets everything up and runs the workflow on the embedded cohort; `make test` sets up and
# runs the tests that answer within minutes. Both need Python 3.11, 3.12 or 3.13, git and make, and
# nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
CORES ?= all
# Tests run in so many processes; each starts workflows of two cores.
PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := .venv-docs
# On a terminal a display of the running jobs; in a log file no lines for every single job: they are in
# .snakemake/log (see rules/common.smk), and what fails is told at the end.
PROGRESS := $(shell test -t 2 && echo --logger rich || echo --quiet rules)

# Each job is a process of its own, and would compile what it imports (half the time of a small job) where
# the environment keeps Python from storing what it compiled, as container images often do.
unexport PYTHONDONTWRITEBYTECODE
# What lies there comes before Python's own modules and those of the environment, and pip takes it for
# installed.
unexport PYTHONPATH

.PHONY: run test test-all test-slurm docs validate lint format generate lock pythons clean
.DEFAULT_GOAL := run

# Modules in the working folder are none of ours (see scripts/voxplain_workflow/running/environment.py).
SNAKEMAKE := PYTHONSAFEPATH=1 PATH="$(CURDIR)/$(BIN):$$PATH" snakemake
REPORT := results/snakemake_report.html

run: $(READY)
	$(SNAKEMAKE) --cores $(CORES) --resources gpu=1 $(PROGRESS) $(ARGS)
	@if [ -d results ] && [ -n "$$(find results -type f -newer $(REPORT) -print -quit 2>&1)" ]; then \
	  $(SNAKEMAKE) --report $(REPORT) $(ARGS) && echo "Report: $(REPORT)"; fi

# Several processes share the cores: none of them needs threads of its own.
PYTEST := OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest
# Each file is one process's; the longest comes first (tests/conftest.py).
IN_PROCESSES := -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

# The library, what is refused, what reruns, and one small run from DICOM to the report. What takes more
# than a second or two is marked slow; the limit is for a busy machine.
test: $(READY)
	$(PYTEST) $(IN_PROCESSES) -m "not slow" --timeout 120 $(ARGS)

# All tests but those on SLURM; ARGS="-m slow" for those that `make test` leaves out.
test-all: $(READY)
	$(PYTEST) $(IN_PROCESSES) --timeout 3600 $(ARGS)

# On a SLURM that it starts on this machine; needs root and, once, `tests/slurm/cluster install` (Debian).
test-slurm: $(READY)
	$(PYTEST) tests/slurm --timeout 3600 --durations=5 $(ARGS)

# The documentation as a site, in site/; a link that leads nowhere is an error, and so is a CITATION.cff
# that is none.
docs: $(DOCS)/.ready
	$(DOCS)/bin/check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet

# Whether BIDS tools take the results for what they are, by BIDS' own validator.
validate: $(DOCS)/.ready
	for dataset in results/*/derivatives; do $(DOCS)/bin/bids-validator-deno "$$dataset" || exit 1; done

lint: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" dev/lint

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

# The files that are made from others: config/README.md, envs/*.yaml.
generate: $(READY)
	$(BIN)/python dev/render_config.py
	$(BIN)/python dev/render_envs.py

# HASHES=yes takes the very files that PyPI had when the lock was made, by their SHA-256, and nothing else.
# An index with builds of its own (PyTorch's for the CPU, a site's mirror of other files) cannot give those.
LOCK := $(if $(HASHES),requirements-hashed.lock,requirements.lock)

# Install a lock into an environment: $(1) its bin, $(2) the lock. It names every package, so that there
# is nothing to resolve; the second call adds what it cannot name (the CUDA libraries that PyTorch's
# build for Linux takes from PyPI). Modules are compiled when they are first imported: most never are.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
define install
$(1)/python $(PIP_INSTALL) --no-deps --requirement $(2)
$(1)/python -m pip check > /dev/null || $(1)/python $(PIP_INSTALL) --requirement $(2)
endef

$(READY): $(LOCK)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  f"voxplain needs Python 3.11, 3.12 or 3.13, $(PYTHON) is {v[0]}.{v[1]}; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(call install,$(BIN),$(LOCK))
	@touch $(READY)

$(DOCS)/.ready: requirements-docs.lock
	$(PYTHON) -m venv $(DOCS)
	$(call install,$(DOCS)/bin,requirements-docs.lock)
	@touch $(DOCS)/.ready

lock:
	dev/lock

# Whether the lock can be had on every Python that is taken above.
pythons:
	PYTHON=$(PYTHON) dev/check_pythons

clean:
	rm -rf $(VENV) $(DOCS) .snakemake results logs site .cache
