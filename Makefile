# Each command makes its own .venv if there is none, with the versions in constraints.txt.
PYTHON ?= python3
# Stages and DVC find the environment's programs first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help install demo test-quick test check docs test-services bench ablation

# Processes take modules of tests in turns, so that those of one module share its servers and browsers.
PYTEST := pytest --dist loadfile --no-loadscope-reorder --numprocesses

help:
	@echo "make demo           draw the invented people and run the whole pipeline on them; for the other tasks:"
	@echo "                    make demo TASK=verification, or TASK=attributes"
	@echo "make test-quick     the tests to run while working"
	@echo "make test           all checks and tests, as in CI"
	@echo "make check          format, lint and types alone"
	@echo "make docs           write docs/params.md and the schema of params.yaml anew"
	@echo "make test-services  the tests with PostgreSQL, nginx, S3 and a cluster (sudo apt-get install postgresql nginx)"
	@echo "make bench          compare with the plain script and with other libraries, for docs/speed.md; with real faces:"
	@echo "                    make bench DATA=folder WEIGHTS=vgg19.pth"
	@echo "make ablation       measure what each part of the best recipe adds, for docs/accuracy.md:"
	@echo "                    make ablation DATA=folder WEIGHTS=vgg19.pth"
	@echo "make install        the environment alone (.venv)"

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --constraint constraints.txt --editable '.[dev,faces]'
	touch $@

# The base recipe is for recognition; each of the other tasks has a recipe of its name.
TASK := recognition
RECIPE_OF_TASK = $(if $(filter-out recognition,$(TASK)),$$(celebflow recipe '$(TASK)'))

demo: install
	celebflow sample data
	dvc exp run --set-param backbone.weights=untrained $(RECIPE_OF_TASK)
	@echo "See reports/index.html, or run: . .venv/bin/activate && mlflow ui"

check: install
	ruff format --check .
	ruff check .
	mypy

test-quick: install
	$(PYTEST) 2 -m "not slow and not services"

# Many tests wait for servers and queues, so that three processes keep two cores busy.
test: check
	$(PYTEST) 3 -m "not services"

docs: install
	python docs/build.py

test-services: install
	@test -n "$$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null)" || command -v pg_ctl >/dev/null \
		|| { echo "PostgreSQL is missing: sudo apt-get install postgresql"; exit 1; }
	@PATH="$(PATH):/usr/sbin" command -v nginx >/dev/null \
		|| { echo "nginx is missing: sudo apt-get install nginx"; exit 1; }
	pytest -m services

BENCHMARK_OPTIONS = $(if $(DATA),--data '$(DATA)') $(if $(WEIGHTS),--weights '$(WEIGHTS)')

bench: install
	python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	python -m benchmarks.compare $(BENCHMARK_OPTIONS)
	python -m benchmarks.peers $(BENCHMARK_OPTIONS)

ablation: install
	@test -n "$(DATA)" -a -n "$(WEIGHTS)" || { echo "Usage: make ablation DATA=folder WEIGHTS=vgg19.pth"; exit 1; }
	python -m benchmarks.ablation --data '$(DATA)' --weights '$(WEIGHTS)'
