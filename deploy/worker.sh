#!/bin/sh
# A worker of the work pool, in the checkout at ZEROTAG_CHECKOUT, with the deployments of its prefect.yaml.
set -eu
cd "$ZEROTAG_CHECKOUT"
# The pool is made by the first worker; an error that matters is one of the next command too.
prefect work-pool create zerotag --type process || true
# Deployments are for all workers: none may have the path of this checkout.
env -u ZEROTAG_CHECKOUT prefect --no-prompt deploy --all
exec prefect worker start --pool zerotag "$@"
