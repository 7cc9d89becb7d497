#!/usr/bin/env bash
# From a fresh Debian or Ubuntu machine to a running worker: as root, `setup.sh EXTRA`, with EXTRA tpu, cuda or worker.
# It can be run again, and as a startup script of a spot machine, which comes back empty.
#
# PROMPTMILL_BROKER (and PROMPTMILL_MODEL, HF_TOKEN, any setting of a worker) come from the environment, or, on a Google
# VM, from the instance attribute promptmill-env: lines of NAME=VALUE.
set -euo pipefail

extra=${1:-tpu}
home=/opt/promptmill
package=${PROMPTMILL_PACKAGE:-promptmill}

attribute() {
  curl -sf --max-time 5 -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1" || true
}

if [ ! -f /etc/promptmill.env ]; then
  umask 077
  attribute promptmill-env >/etc/promptmill.env
  env | grep -E '^(PROMPTMILL_|HF_TOKEN=|STORAGE_EMULATOR_HOST=)' >>/etc/promptmill.env || true
fi
grep -q '^PROMPTMILL_BROKER=' /etc/promptmill.env || {
  echo "PROMPTMILL_BROKER is not set, nor is it in the attribute promptmill-env" >&2
  rm -f /etc/promptmill.env
  exit 2
}

if ! python3 -c 'import ensurepip' 2>/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
fi
[ -x "$home/bin/python" ] || python3 -m venv "$home"
"$home/bin/pip" install -q --upgrade "${package}[${extra},metrics]"

unit=$(dirname "$0")/promptmill-worker.service
if [ -f "$unit" ]; then
  cp "$unit" /etc/systemd/system/promptmill-worker.service
else
  attribute promptmill-unit >/etc/systemd/system/promptmill-worker.service
fi
systemctl daemon-reload
systemctl enable --now promptmill-worker
