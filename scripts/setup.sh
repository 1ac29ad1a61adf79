#!/usr/bin/env bash
# Sets up this checkout. `setup.sh runtime` makes .venv with what runs; `setup.sh dev` adds linters and test tools;
# `setup.sh test` adds the Debian packages that tests start, `setup.sh faults` those of the fault matrix.
# Safe to run again; installs only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)

apt_install() {
  local missing=()
  for package in "$@"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if ! command -v apt-get >/dev/null; then
    echo "setup: please install: ${missing[*]} (this machine has no apt-get)" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

runtime() {
  local python="${PY:-python3}"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: Meterway needs Python 3.11 or newer; $("$python" --version) found. Try: make PY=python3.12 setup" >&2
    exit 1
  }
  "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  packages cloud,embedded
}

packages() {
  echo "setup: installing Python packages into .venv ($1)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$1]"
}

tests() {
  # Debian starts a service for some of these on installation; tests start their own on free ports.
  apt_install mosquitto mosquitto-clients chromium postgresql-15 socat
}

faults() {
  apt_install rabbitmq-server gcc libc6-dev
  command -v npm >/dev/null || apt_install nodejs npm
  # A peer, shown by `make faults ARGS=--peers`; the matrix itself does without it.
  npm install --silent --no-audit --no-fund --prefix .venv/node-red node-red@4.1.15 ||
    echo "setup: Node-RED could not be had from npm; its rows will say so" >&2
}

case "${1:-}" in
  runtime) runtime ;;
  dev) packages dev ;;
  test) tests ;;
  faults) faults ;;
  *) echo "usage: scripts/setup.sh {runtime|dev|test|faults}" >&2; exit 2 ;;
esac
