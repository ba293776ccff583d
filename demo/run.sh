#!/usr/bin/env bash
# Draws the demo's sheet with all its set-up: a virtual environment, what the demo needs from PyPI, the demo.
# Arguments go to it (--help lists them). VENV names the environment (default .venv), PYTHON the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ./venv.sh demo
exec "$bin/python" -m demo "$@"
