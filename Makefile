# One word for each thing to do. Everything runs in .venv, which `make setup` makes.
PYTHON ?= python3
BIN := .venv/bin
CCD := $(BIN)/ccd
SOURCES := src tests benchmarks examples docs/hooks
# Options of `make paper`: STUDY_OPTIONS='--sets kvasir --seeds 0 --dry'.
# Tests run side by side: `make test WORKERS=1` in one process, `make test ORDER=3` in the random order of seed 3.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
PYTEST = $(BIN)/pytest --quiet --numprocesses $(WORKERS) --dist worksteal \
	$(if $(ORDER),--random-order-bucket module --random-order-seed $(ORDER)) $(PYTEST_OPTIONS)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-igd test test-fast test-all check lint type docs smoke coverage fuzz audit endurance \
	bench bench-check bench-peers ablation paper tensorboard clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: .venv/ready  ## make .venv with the tested versions

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup  ## pretrain, fit, test and compare on synthetic images (minutes on two cores)
	$(CCD) data synthesize
	$(CCD) fit --config ccd_synthetic
	$(CCD) fit --config padim_synthetic
	$(CCD) test
	$(CCD) fit --config padim_synthetic \
		--model.encoder.weights null --trainer.logger.init_args.name padim_untrained
	$(CCD) test
	$(CCD) fit --config neighbours_synthetic
	$(CCD) test
	@echo
	@$(CCD) compare runs/padim_synthetic runs/padim_untrained runs/neighbours_synthetic
	@echo
	@echo "Pictures:  $$(ls runs/padim_synthetic/latest/figures/*.png | tr '\n' ' ')"
	@echo "Dashboard: $(BIN)/tensorboard --logdir runs"

demo-igd: demo  ## the demo, then IGD on the encoders of both branches (a quarter of an hour more)
	$(CCD) fit --config ccd_synthetic_local
	$(CCD) fit --config igd_synthetic
	$(CCD) test
	@echo
	@$(CCD) compare runs/padim_synthetic runs/igd_synthetic

test: setup  ## run the tests (about twenty minutes on two CPU cores)
	$(PYTEST) -m "not slow"

test-fast: setup  ## run the tests that neither train, export nor start processes (over a minute), before every commit
	$(PYTEST) -m "not fit and not process and not export and not slow"

test-all: setup  ## run all tests, also those that take too long for every run
	$(PYTEST)

coverage: setup  ## run the tests and list the lines and branches of src that none of them reaches
	$(PYTEST) -m "not slow" --cov=ccd_lightning --cov-branch --cov-report=term-missing:skip-covered

fuzz: setup  ## try 10,000 made-up manifests, configs, checkpoints and images on each reader (hours)
	$(PYTEST) --hypothesis-profile=fuzz tests/reliability/test_fuzzing.py

audit: setup  ## look the installed versions up in the list of known vulnerabilities (needs the network)
	$(PYTHON) -m venv .audit
	.audit/bin/pip install --quiet pip-audit
	.audit/bin/pip-audit --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

endurance: setup  ## measure memory over thousands of calls and hours of steps, and kill fits at random moments (half a day)
	$(BIN)/python benchmarks/endurance.py --calls 2000 --minutes 120
	$(BIN)/python benchmarks/kills.py --kills 30

check: lint type  ## lint and types

lint: setup  ## style, docstrings, and which folder may import which
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports --no-cache

type: setup  ## static types
	$(BIN)/mypy

docs: setup  ## build the documentation into site/, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet, warnings are no errors

smoke: setup  ## the whole path on a few tiny images (under a minute)
	$(BIN)/pytest --quiet tests/cli/test_smoke.py

bench: setup  ## measure: detection over seeds, speed and memory (an hour or so on two cores)
	$(BIN)/python benchmarks/detection.py colonoscopy fundus
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/data.py

bench-check: setup  ## measure the ratios that have a limit, and fail beyond it (two minutes)
	$(BIN)/python benchmarks/speed.py --check

bench-peers: .bench/peers/ready  ## the same commands beside anomalib's and lightly's, in an environment of its own (half an hour)
	.bench/peers/bin/python benchmarks/peers.py $(BENCH_OPTIONS)

# It sees this package's environment, so that both run on the same torch, and holds what only the peers need.
.bench/peers/ready: .venv/ready
	$(BIN)/python -m venv .bench/peers
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
		> $$(ls -d .bench/peers/lib/python*/site-packages)/shared.pth
	.bench/peers/bin/pip install --quiet --no-deps 'anomalib>=2.6' 'lightly>=1.5'
	.bench/peers/bin/pip install --quiet --constraint constraints.txt einops freia hydra-core imagecodecs kornia omegaconf \
		opencv-python-headless pandas python-dotenv rich-argparse scikit-image
	@touch $@

ablation: setup  ## measure what each term and family adds: docs/ablation.md (two hours on two cores; HEAD_CT=DIR: and head CT)
	$(BIN)/python benchmarks/ablation.py $(if $(HEAD_CT),--head_ct $(HEAD_CT))

paper: setup  ## the papers' table: ccd study published on Hyper-Kvasir, LAG and Liu et al. in DATA=DIR (days on a GPU)
	$(CCD) study published --data_root $(or $(DATA),data) $(STUDY_OPTIONS)

tensorboard: setup  ## look at all runs in a browser
	$(BIN)/tensorboard --logdir runs

clean:  ## remove caches and what `make bench` and `make ablation` left; runs, data and .venv stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site .bench .audit
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
