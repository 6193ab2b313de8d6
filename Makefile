PYTHON ?= python3
RUN = .venv/bin/python -m
# A folder of images, or a table: make sweep DATA=DIR, make sweep TABLE=FILE; without, drawn images.
images = $(if $(TABLE),data=table 'data.table=$(TABLE)' $(if $(DATA),'data.root=$(DATA)'),$(if $(DATA),data=folder 'data.root=$(DATA)'))
# Where decoded and drawn images lie, cxr's cache_dir.
CACHE ?= $(HOME)/.cache/cxr
kept = $(foreach what,store phantom copies shortcuts audit known .building,'$(CACHE)'/$(what)-*)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed ## make .venv and install cxr with its test tools

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -e '.[dev]'
	@touch $@

sweep: .venv/installed ## the model × augmentation grid on drawn images, or on DATA=DIR
	$(RUN) cxr.train -m model=cnn,resnet18 aug=on,off $(images)

capstone: .venv/installed ## the grid by the 2022 capstone's protocol, DATA=DIR
	$(RUN) cxr.train -m experiment=capstone2022 model=cnn,resnet18 aug=on,off $(images)

seeds: .venv/installed ## the grid with three seeds
	$(RUN) cxr.train -m model=cnn,resnet18 aug=on,off seed=0,1,2 $(images)

parallel: .venv/installed ## the grid, N runs at a time: for a GPU that one run leaves idle
	$(RUN) cxr.train -m launcher=parallel n=$(or $(N),2) model=cnn,resnet18 aug=on,off $(images)

slurm: .venv/installed ## the grid as jobs of Slurm
	$(RUN) cxr.train -m launcher=slurm model=cnn,resnet18 aug=on,off $(images)

ddp: .venv/installed ## ResNet-18 on N devices (2)
	$(RUN) cxr.train trainer=ddp trainer.devices=$(or $(N),2) model=resnet18 $(images)

search: .venv/installed ## the best options of MODEL (cnn), by validation images, in N trials (20)
	$(RUN) cxr.train -m hparams=optuna n_trials=$(or $(N),20) model=$(or $(MODEL),cnn) $(images)

networks: .venv/installed ## larger networks, and their cost
	$(RUN) cxr.train -m model=resnet18,resnet34,resnet50,densenet121,efficientnet_b0 $(images)

balance: .venv/installed ## rare classes: as they are, or all classes weighted equally
	$(RUN) cxr.train -m loss.weights=none,balanced $(images)

hospitals: .venv/installed ## leave each hospital out in turn, TABLE=FILE with a column hospital
	$(RUN) cxr.train -m data.split=hospital data.hold_out=all $(images)

audit: .venv/installed ## find problems in the images, DATA=DIR
	$(RUN) cxr.audit $(images)

bench: .venv/installed ## speed, against the network alone and a student's loop
	$(RUN) cxr.bench $(images)

scale: .venv/installed ## speed and memory at 1, 10 and 100 thousand images
	$(RUN) cxr.bench --scale model=cnn aug=on $(images)

gpu: .venv/installed ## measure everything on a GPU, in 8 minutes (IMAGES=a tar or a folder); a dry run without a GPU
	$(RUN) cxr.bench --gpu $(if $(IMAGES),--images '$(IMAGES)') $(if $(OUT),--out '$(OUT)')

gpu-folder: .venv/installed ## build/gpu, everything that make gpu needs on a machine without internet access, IMAGES=TAR
	PATH="$(CURDIR)/.venv/bin:$$PATH" bash cxr/benchmarks/gpu.sh '$(IMAGES)'

report: .venv/installed ## rebuild report.html of the sweep or run DIR
	$(RUN) cxr.report '$(DIR)'

demo: .venv/installed ## a page in the browser that classifies an image, by CKPT=RUN or a network for drawn images
	$(RUN) cxr.demo $(if $(CKPT),'ckpt=$(CKPT)') $(if $(PORT),port=$(PORT))

# One sweep or run alone: its name would only lengthen those of its runs.
trained = $(wildcard runs/*/)
board: .venv/installed ## TensorBoard on 127.0.0.1:6006 over everything trained so far, or over runs/NAME
	@test -z '$(NAME)' || test -d 'runs/$(NAME)' || { echo 'there is no folder runs/$(NAME)'; exit 2; }
	$(RUN) tensorboard.main --logdir '$(if $(NAME),runs/$(NAME),$(if $(filter 1,$(words $(trained))),$(trained),runs))' --host 127.0.0.1

test: .venv/installed ## the tests (three at a time: some wait for processes of their own)
	$(RUN) pytest -n 3 --dist worksteal

long: .venv/installed ## the tests that take longest: side by side, several devices, the benchmark, the README's commands
	$(RUN) pytest -n 3 --dist worksteal -m long

faults: .venv/installed ## kill, stop and starve real runs, and check that nothing is lost (6 minutes)
	.venv/bin/python tests/faults/run.py

lint: .venv/installed ## ruff
	.venv/bin/ruff check . && .venv/bin/ruff format --check .

clean: ## remove what make and Python made; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache *.egg-info && find cxr tests -name __pycache__ -prune -exec rm -rf {} +

clean-cache: ## remove decoded and drawn images, and audits of them, from CACHE
	@test -n '$(CACHE)'
	@du -shc $(kept) 2>/dev/null | tail -1 || true
	rm -rf $(kept)

.PHONY: help install sweep capstone seeds parallel slurm ddp search networks balance hospitals audit bench scale gpu gpu-folder report demo board test long faults lint clean clean-cache
