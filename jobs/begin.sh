# What every job script begins with:  source "$MERIT/jobs/begin.sh"
#
# Goes by variables of qsub -v: SITE, SITE_OPTIONS, SETTINGS, CONTINUATIONS, MERIT_VENV. Leaves the environment of the driver, and
# the arrays `where` (the site) and `settings` (key=value words) for the command.

export MERIT
export SITE="${SITE:-aurora}"
export MERIT_JOB_SCRIPT="$0"  # what was submitted, in PBS's own copy: a successor is the same, whatever becomes of the file
export CONTINUATIONS="${CONTINUATIONS:-0}"

if [ -z "${MERIT_VENV:-}" ] && [ -f "$MERIT/.venv/bin/activate" ]; then
    export MERIT_VENV="$MERIT/.venv"
fi
case "$SITE" in
    *.py) beside="$(dirname "$SITE")" ;;
    */*) beside="$SITE" ;;
    *) beside="$MERIT/site/$SITE" ;;
esac
if [ -f "$beside/env.sh" ]; then
    source "$beside/env.sh" driver || return 1
elif [ -n "${MERIT_VENV:-}" ]; then
    source "$MERIT_VENV/bin/activate" || return 1
fi

read -ra settings <<<"${SETTINGS:-}"
where=(--site "$SITE")
for option in ${SITE_OPTIONS:-}; do
    where+=(--site-option "$option")
done
