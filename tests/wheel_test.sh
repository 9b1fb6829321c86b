#!/usr/bin/env bash
# Usage: wheel_test.sh BUILD_PYTHON PYTHON...
# Builds the wheel, installs it with its light extras into a fresh environment of each PYTHON, and runs
# the SDK and router tests against what was installed, from a folder that has no sources beside it.
set -euo pipefail
build_python=$1; shift
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$build_python" -m pip --disable-pip-version-check wheel -q --no-deps -w "$work" "$root"
cp -r "$root/tests" "$root/pyproject.toml" "$work"
cd "$work"

test_on() { # PYTHON VENV
  "$1" -m venv "$2"
  "$2/bin/python" -m pip --disable-pip-version-check install -q \
    "$(echo "$work"/*.whl)[router,load,otel]" pytest hypothesis
  # The simulation is the same Python on every version, and long; so are the load tester's loads.
  "$2/bin/python" -m pytest -q tests/client tests/router \
    --ignore tests/router/core/test_simulation.py \
    --ignore tests/router/core/test_scheduler_bugs.py --ignore tests/client/loadtest
  "$2/bin/santacoder-load" --help >/dev/null
}

# All at once: these tests wait more than they compute.
pythons=("$@")
pids=()
for number in "${!pythons[@]}"; do
  (set -e; test_on "${pythons[number]}" "$work/venv-$number") >"$work/log-$number" 2>&1 &
  pids+=($!)
done
failed=0
for number in "${!pids[@]}"; do
  wait "${pids[number]}" || failed=1
  echo "wheel on $("${pythons[number]}" --version)"
  cat "$work/log-$number"
done
exit "$failed"
