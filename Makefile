# The doors of the project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
UV ?= uv
PYTHON := .venv/bin/python
SETUP := vagrant/provision/setup.sh
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

# Expanded when a recipe is about to run: one line and exit 2 where this machine cannot.
refuse = $(if $(1),$(error $(1)))
able = $(call refuse,$(shell vagrant/provision/refusal.sh $@))

.PHONY: help
help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: lab
lab: ## set everything up, start JupyterLab on 127.0.0.1 and print its URL (root; Ctrl-C stops it)
	$(able)@$(SETUP) lab
	@exec .venv/bin/labkit start

.PHONY: test
test: ## set up and run every test (root)
	$(able)@$(SETUP) test
	@unset MAKEFLAGS MAKELEVEL MFLAGS; tests/all

.PHONY: vm
vm: ## the lab in a virtual machine: build its box if absent, boot it, print the URL (root; docs/vm.md)
	$(able)@$(SETUP) vm
	@vagrant/vm.sh up

.PHONY: test-vm
test-vm: ## boot the virtual machine and run every notebook in it; reports in build/vm (root)
	$(able)@$(SETUP) vm
	@vagrant/vm.sh test

.PHONY: bench
bench: ## measure against the limits and the peers, and write docs/benchmarks.md (root)
	$(able)@$(SETUP) bench
	@$(PYTHON) -m benchmarks

.PHONY: site
site: ## build the site of all stored notebooks and guides into build/site (root)
	$(able)@$(SETUP) site
	@$(PYTHON) -m website

.PHONY: site-check
site-check: site ## look at every page of the site with axe-core, in both themes (root; minutes)
	@$(PYTHON) -m website.audit

.PHONY: compare
compare: ## run one program by every runtime, and write this machine's part of docs/compare.md (root)
	$(able)@$(SETUP) lab
	@.venv/bin/labkit compare --write docs/compare.md

.PHONY: lint
lint: ## ruff, mypy --strict, import-linter, shellcheck
	$(call refuse,$(if $(wildcard .venv/installed-test),,make lint needs its tools; remedy: make test sets them up))@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --no-logo > /dev/null || .venv/bin/lint-imports --no-logo
	@shellcheck vagrant/*.sh vagrant/box/*.sh vagrant/provision/*.sh tests/all tests/machine .ci/run

.PHONY: lock
lock: ## choose the versions of the Python packages anew (needs uv)
	@$(LOCK) --upgrade -o requirements.lock pyproject.toml
	@$(LOCK) --upgrade --all-extras -c requirements.lock -o requirements-test.lock pyproject.toml

.PHONY: clean
clean: ## remove from the kernel whatever the labs made (root)
	$(able)$(call refuse,$(if $(wildcard .venv/bin/labkit),,nothing is set up here; remedy: sudo make lab))@.venv/bin/labkit clean
