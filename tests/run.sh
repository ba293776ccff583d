#!/usr/bin/env bash
# Runs the tests with all their set-up: a virtual environment, what the tests need from PyPI, pytest.
# Arguments go to pytest. VENV names the environment (default .venv), PYTHON the interpreter that makes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}

[ -d "$venv" ] || "${PYTHON:-python3}" -m venv "$venv"
bin=$venv/bin
[ -d "$bin" ] || bin=$venv/Scripts

if ! "$bin/python" -c "import torch" 2>/dev/null; then
    # The CPU build is a tenth of the size of PyPI's build for Linux; where its index is out of reach, PyPI alone does.
    "$bin/python" -m pip install -q --retries 0 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu \
        "torch==2.13.0" || "$bin/python" -m pip install -q torch
fi
"$bin/python" -m pip install -q ".[test]"
exec "$bin/python" -m pytest "$@"
