# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later

# Every target first brings its environment up to date (tools/setup; some hundredths of a second when it is).
# The tools find their checkout themselves, so `make -C FOLDER` and `make -f FOLDER/Makefile` both work.
TOOLS := $(dir $(lastword $(MAKEFILE_LIST)))tools
CHECK := $(TOOLS)/setup dev && $(TOOLS)/../.venv/bin/python $(TOOLS)/check.py
.DEFAULT_GOAL := help
# tools/check.py shares the parts out itself; `make -j` must not start two runs at once.
.NOTPARALLEL:
.PHONY: tools faults faults-random help demo demo-vm test check tests setup sanity unit units integration molecule vm page lint types docs build bench bench-transport ping-experiment clean

help: ## this list
	@sed -n 's/^\([a-z0-9. %-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	  while IFS='|' read -r target about; do printf '  make %-13s %s\n' "$$target" "$$about"; done

demo: ## image two groups of nodes with two images, on the embedded testbed
	@$(TOOLS)/demo
demo-vm: ## the same on two virtual machines that boot by real PXE
	@$(TOOLS)/demo-vm
test: ## everything: all checks and all tests
	@$(CHECK)
check: ## linters, types, documentation, the collection's tarball
	@$(CHECK) check
tests: ## all tests, without the checks
	@$(CHECK) tests

unit: ## tests of the testbed
	@$(CHECK) unit
units: ## unit tests of the collection
	@$(CHECK) units
units-%: ## the same on another ansible-core, for example units-2.17
	@$(CHECK) $@
tools: ## tests of tools/: what the tests start is ended
	@$(CHECK) tools
sanity: ## ansible-test sanity
	@$(CHECK) sanity
whole-%: ## whole runs on the oldest or the newest ansible-core: whole-2.17, whole-2.21
	@$(CHECK) $@
integration: ## the collection against the embedded testbed
	@$(CHECK) integration
faults: ## every fault of a node or a service
	@$(CHECK) faults
faults-random: ## runs with random faults (an hour); ARGS="--seed 7 --runs 50", or ARGS="--replay 7:12"
	@$(TOOLS)/setup dev && cd $(TOOLS)/.. && .venv/bin/python -m tests.faults.random_runs $(ARGS)
molecule: ## the demo's playbook as a molecule scenario
	@$(CHECK) molecule
vm: ## the same run, and machines themselves, on virtual machines that boot by real PXE
	@$(CHECK) vm
page: ## the page of a run in a headless browser
	@$(CHECK) page
lint: ## ruff, ansible-lint, shellcheck, REUSE, changelog
	@$(CHECK) lint
types: ## mypy
	@$(CHECK) types
docs: ## documentation of plugins and roles
	@$(CHECK) docs

build: ## build the collection's tarball into .work/
	@$(TOOLS)/build
bench: ## measure; no part of the tests
	@$(TOOLS)/bench
bench-transport: ## measure the transport beside its peers; ARGS="-n 1 free" for less
	@$(TOOLS)/bench-transport $(ARGS)
ping-experiment: ## the ping experiments of 2006 on light nodes (an hour); ARGS="--rows 1,2" for less
	@$(TOOLS)/ping-experiment $(ARGS)
setup: ## what every other target does first
	@$(TOOLS)/setup dev
clean: ## remove all that was made here (a running testbed is taken down first)
	@$(TOOLS)/clean
