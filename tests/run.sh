#!/usr/bin/env bash
# Runs the tests with all their set-up: a virtual environment, what the tests need from PyPI, pytest.
# Arguments go to pytest. VENV names the environment (default .venv), PYTHON the interpreter that makes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ./venv.sh test
exec "$bin/python" -m pytest "$@"
