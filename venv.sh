# Makes the virtual environment that tests/run.sh and demo/run.sh run in, and sets $bin to its folder of programs.
# To be sourced in the repository's root, with the extras of pyproject.toml as an argument ("test" or "demo").
# VENV names the environment (default .venv), PYTHON the interpreter that makes it.
# What was installed is not installed again, so a second start needs no network.
venv=${VENV:-.venv}
python=${PYTHON:-python3}

if [ ! -e "$venv" ] || [ -f "$venv/unfinished" ]; then
    if ! "$python" -c "import sys; raise SystemExit(sys.version_info < (3, 9))"; then
        echo "error: Python 3.9 or newer is needed, and $python is not: set PYTHON to one, such as PYTHON=python3.12" >&2
        exit 1
    fi
    echo "making the virtual environment $venv (some seconds)"
    rm -rf "$venv"
    mkdir -p "$venv"
    : >"$venv/unfinished" # until all is installed; what is stopped before is made anew
    "$python" -m venv "$venv"
fi
bin=$venv/bin
[ -d "$bin" ] || bin=$venv/Scripts

installed=$venv/installed-$1.toml # what was asked for when the packages were installed
if ! cmp -s pyproject.toml "$installed"; then
    if ! "$bin/python" -c "import torch" 2>/dev/null; then
        echo "installing PyTorch (about 200 MB to fetch; a minute or more)"
        # The CPU build is a tenth of the size of PyPI's build for Linux; where its index is out of reach, PyPI alone does.
        "$bin/python" -m pip install -q --retries 0 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu \
            "torch==2.13.0" || "$bin/python" -m pip install -q torch
    fi
    echo "installing the other packages (half a minute)"
    "$bin/python" -m pip install -q ".[$1]"
    cp pyproject.toml "$installed"
    rm -f "$venv/unfinished"
fi
