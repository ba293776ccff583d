# Makes the virtual environment that tests/run.sh and demo/run.sh run in, and sets $bin to its folder of programs.
# To be sourced in the repository's root, with the extras of pyproject.toml as an argument ("test" or "demo").
# VENV names the environment (default .venv), PYTHON the interpreter that makes it.
venv=${VENV:-.venv}

[ -d "$venv" ] || "${PYTHON:-python3}" -m venv "$venv"
bin=$venv/bin
[ -d "$bin" ] || bin=$venv/Scripts

if ! "$bin/python" -c "import torch" 2>/dev/null; then
    # The CPU build is a tenth of the size of PyPI's build for Linux; where its index is out of reach, PyPI alone does.
    "$bin/python" -m pip install -q --retries 0 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu \
        "torch==2.13.0" || "$bin/python" -m pip install -q torch
fi
"$bin/python" -m pip install -q ".[$1]"
