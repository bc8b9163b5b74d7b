#!/bin/bash
# One rank of a training task on Aurora: rank.sh COMMAND…  It sees its own tile alone, and all but the first keep their output
# on their own node: mpiexec is not to carry more than a few KB for each.
local_rank="${PALS_LOCAL_RANKID:?rank.sh is started by mpiexec}"
if [ "${ZE_FLAT_DEVICE_HIERARCHY:-FLAT}" = COMPOSITE ]; then
    export ZE_AFFINITY_MASK="$((local_rank / 2)).$((local_rank % 2))"
else
    export ZE_AFFINITY_MASK="$local_rank"
fi
if [ "${PALS_RANKID:-0}" != 0 ]; then
    logs="/tmp/merit-$UID/ranks"
    mkdir -p "$logs" && exec >"$logs/$PALS_RANKID.log" 2>&1
fi
exec "$@"
