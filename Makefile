# Two commands set a fresh machine up: `make demo` and `make test`. Both build the environment first, once.
# PY: the Python to build it from. VENV_FLAGS=--system-site-packages CONSTRAINTS=/dev/null keeps an installed PyTorch.
PY ?= python3
VENV ?= .venv
EXTRAS ?= test
CONSTRAINTS ?= constraints.txt
VENV_FLAGS ?=
export VENV EXTRAS CONSTRAINTS VENV_FLAGS

.PHONY: setup demo test test-slow lint format clean
setup demo test test-slow lint format:
	@$(PY) dev.py $@

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
