# Good nodes, and copies on them, where a job asks for them:  source "$MERIT/jobs/nodes.sh"   after begin.sh
#
# Goes by variables of qsub -v:
#   NEEDED    good nodes that the job needs: bad ones are left out, and with fewer it ends. Ask PBS for one or two more
#   ENV_TAR   the archive of the virtual environment, unpacked on every node to $STAGING/env (docs/aurora.md says how to make it)
#   STAGE     models to be copied to every node, paths with blanks between
#   STAGING   where to, on each node (default /tmp/merit)
# With none of them it does nothing.

merit_nodes="$PWD/runs/nodes.${PBS_JOBID:-$$}"
good_nodes() {  # a command that leaves a file of good nodes, with its words
    mkdir -p runs
    python "$MERIT/workflows/run.py" "$@" "${where[@]}" --at-least "${NEEDED:-1}" --nodefile "$merit_nodes"
}

if [ -n "${ENV_TAR:-}${STAGE:-}" ]; then
    where+=(--site-option "staging=${STAGING:=/tmp/merit}")
fi
if [ -n "${ENV_TAR:-}" ]; then
    if [ -n "${NEEDED:-}" ]; then  # first, since a dead node would hold the copying up
        good_nodes preflight --quick || return 1
        export MERIT_NODEFILE="$merit_nodes"
    fi
    good_nodes stage "$ENV_TAR" --unpack --name env || return 1
    export MERIT_NODEFILE="$merit_nodes"
    source "$STAGING/env/bin/activate" || return 1
    # for workers; MERIT_VENV stays as it is, since a successor inherits it and has no copies yet when it starts
    [ "$SITE" = local ] || where+=(--site-option "venv=$STAGING/env")
fi
if [ -n "${NEEDED:-}" ]; then
    (   # ranks are to meet as those of training do
        [ -z "${ENV_TAR:-}" ] || MERIT_VENV="$STAGING/env"
        [ ! -f "$beside/env.sh" ] || source "$beside/env.sh" training
        good_nodes preflight
    ) || return 1
    export MERIT_NODEFILE="$merit_nodes"
fi
if [ -n "${STAGE:-}" ]; then
    good_nodes stage $STAGE || return 1  # paths, so they are split
    export MERIT_NODEFILE="$merit_nodes"
fi
