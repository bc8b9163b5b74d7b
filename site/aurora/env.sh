# The environment on Aurora:  source site/aurora/env.sh [driver|inference|training|cpu]
#
# Job scripts source it for the driver, and each block of workers for its role. What is set already is kept where it says :- .
# docs/aurora.md tells what each variable is for.

role="${1:-driver}"
merit="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

if ! type module >/dev/null 2>&1 && [ -f /etc/profile ]; then  # a shell that is no login shell has no modules
    path="$PATH"
    source /etc/profile
    export PATH="$PATH:$path"
fi
if type module >/dev/null 2>&1; then
    module load "frameworks/${MERIT_FRAMEWORKS:-2026.1.0}" || return 1  # in a pipe it would load into a shell of its own
else
    echo "env.sh: this machine has no modules, so no frameworks is loaded" >&2
fi

# PALS's own, before a virtual environment may bring another. A function, since Parsl's launchers say just mpiexec.
export MERIT_MPIEXEC="${MERIT_MPIEXEC:-$(command -v mpiexec)}"
mpiexec() { "$MERIT_MPIEXEC" "$@"; }

if [ -n "${MERIT_VENV:-}" ]; then
    source "$MERIT_VENV/bin/activate" || return 1
    export MERIT_MPIEXEC="${MERIT_MPIEXEC:-$(command -v mpiexec)}"
fi
export PYTHONPATH="$merit${PYTHONPATH:+:$PYTHONPATH}"
export TMPDIR=/tmp  # a longer one: "AF_UNIX path too long"

export ZE_FLAT_DEVICE_HIERARCHY="${MERIT_HIERARCHY:-FLAT}"  # after the module, which sets it
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
export HF_HOME="${HF_HOME:-/flare/datasets/model-weights}"
export MERIT_HOST_SUFFIX="${MERIT_HOST_SUFFIX-.hsn.cm.aurora.alcf.anl.gov}"  # names on the fast network
export no_proxy="localhost,127.0.0.1,.alcf.anl.gov${no_proxy:+,$no_proxy}"

# oneCCL. What training wants is what vLLM's graphs do not bear.
export FI_MR_CACHE_MONITOR=userfaultfd
case "$role" in
    training)
        export CCL_PROCESS_LAUNCHER=pmix CCL_ATL_TRANSPORT=mpi CCL_KVS_MODE=mpi
        export CCL_OP_SYNC=1 CCL_ATL_SYNC_COLL=1
        export CCL_KVS_CONNECTION_TIMEOUT=600
        export CCL_ALLREDUCE_SCALEOUT="direct:0-1048576;rabenseifner:1048577-max"
        export FI_CXI_DEFAULT_CQ_SIZE=1048576 FI_CXI_RX_MATCH_MODE=hybrid
        export MERIT_DEVICE_ID="${MERIT_DEVICE_ID:-0}"
        ;;
    inference)
        export CCL_PROCESS_LAUNCHER=none CCL_ATL_TRANSPORT=ofi
        export CCL_OP_SYNC=0 CCL_ATL_SYNC_COLL=0
        unset CCL_KVS_MODE
        ;;
    driver | network)
        export http_proxy="${http_proxy:-http://proxy.alcf.anl.gov:3128}"
        export https_proxy="${https_proxy:-$http_proxy}"
        ;;
    cpu) ;;
    *)
        echo "env.sh: there is no role '$role' (known: driver, inference, training, cpu)" >&2
        return 1
        ;;
esac
