#!/usr/bin/env bash
# Made by the test bed: `invoke` for the instance "@NAME@", from inside its hub network. Your own settings win.
set -euo pipefail

export INVOKE_URL=${INVOKE_URL:-@URL@}
export INVOKE_CA_FILE=${INVOKE_CA_FILE:-@CA@}
export INVOKE_TOKEN_FILE=${INVOKE_TOKEN_FILE:-@TOKEN@}

namespace="@NAMESPACE@"
if [[ -z $namespace ]]; then
    exec "@PROGRAM@" "$@"
fi
if [[ ! -e $namespace ]]; then
    echo 'invoke: the test bed instance "@NAME@" is not running: start it with: tests/testbed/testbed @NAME@ up' >&2
    exit 1
fi
exec nsenter --net="$namespace" -- "@PROGRAM@" "$@"
