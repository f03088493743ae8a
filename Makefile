# Every target installs what it needs into .venv first. Nothing else is touched.

PYTHON ?= python3
BIN := .venv/bin

# Two processes of two threads on two cores run several times slower when idle threads spin.
export OMP_WAIT_POLICY := passive
# ... but one process whose threads sleep between two small operations wastes a third of its time.
export GOMP_SPINCOUNT := 20000
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# As a variable, so that it also holds in pip's isolated build environments.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

SOURCES := rewardtune sampler learner reward_workers protos bench studies examples tests
TWO_AT_A_TIME := -n 2 --dist loadfile --no-loadscope-reorder
# What computes and decides: no process, no server, no whole run.
QUICK := tests/test_house.py tests/learner tests/sampler tests/reward_workers/scoring \
  $(addprefix tests/rewardtune/,config datasets layers policies tasks sweep cluster/driver)

.DEFAULT_GOAL := help
.PHONY: help install demo demo-panoptic demo-colorization demo-captioning test quick check house protos bench crash-equivalence check-dashboards clean

help:
	@echo "make demo    tune a pretrained detector to the mAP reward (SCENES_SEED=n: on fresh scenes)"
	@echo "make demo-panoptic, demo-colorization, demo-captioning   the same of the other tasks"
	@echo "make test    run every test: most two at a time, then alone what could be disturbed"
	@echo "make quick   the tests of what decides, without processes and whole runs: within a minute"
	@echo "make check   lint, format, types, import contracts, generated code"
	@echo "make house   rooms, sizes, circles of imports"
	@echo "make bench   measure speed; writes evidence/bench/results.jsonl"
	@echo "make crash-equivalence   one run six ways, with processes killed: the same weights each time"
	@echo "                         (RUN='--task captioning', '--task panoptic', '--policy hugging-face')"
	@echo "make check-dashboards    every panel of the dashboards has data from a live run"
	@echo "make protos  regenerate the stubs in protos/"
	@echo "make clean   remove .venv and caches; runs/ stays"

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "rewardtune needs Python 3.11 or newer, but '$(PYTHON) --version' says: $$($(PYTHON) --version 2>&1)." \
	    "Say which one to use: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Installing into .venv (some minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --no-input -e '.[all,dev]'
	@touch $@

demo: install
	@$(BIN)/rewardtune demo detection $(if $(SCENES_SEED),--scenes-seed $(SCENES_SEED))

demo-panoptic demo-colorization demo-captioning: demo-%: install
	@$(BIN)/rewardtune demo $* $(if $(SCENES_SEED),--scenes-seed $(SCENES_SEED))

# Two at a time first, then alone what could be disturbed. Both always run; either can fail it.
# Compiled before: where PYTHONDONTWRITEBYTECODE is set, each process that tests start would do so.
test: install
	@$(BIN)/python -m compileall -q $(SOURCES)
	@failed=; \
	$(BIN)/pytest $(TWO_AT_A_TIME) -m "not alone" || failed="two at a time"; \
	$(BIN)/pytest -m alone || failed="$${failed:+$$failed and }alone"; \
	test -z "$$failed" || { echo "tests failed: those that run $$failed" >&2; exit 1; }

quick: install
	@$(BIN)/pytest $(TWO_AT_A_TIME) -m "not alone and not slow" $(QUICK)

check: install
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "some files are not formatted: run .venv/bin/ruff format" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest --quiet tests/protos

house: install
	@$(BIN)/python -m tests.house

protos: install
	@$(BIN)/python -m protos.generate

bench: .venv/.peers
	@$(BIN)/python -m bench

.venv/.peers: .venv/.installed
	@$(BIN)/python -m pip install -qq --no-input -e '.[peers]'
	@touch $@

crash-equivalence: install
	@$(BIN)/python -m tests.faults.crash_equivalence $(RUN)

check-dashboards: install
	@$(BIN)/python -m tests.deploy.live_dashboards

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
