# Checks: each says what a user notices, and is counted.
# shellcheck shell=bash

PASSED=0 FAILED=0 SKIPPED=0 KNOWN=0
KNOWN_REASON=

number() {
    echo $((PASSED + FAILED + SKIPPED + KNOWN))
}

passed() {
    PASSED=$((PASSED + 1))
    echo "ok $(number) - $1"
}

# failed NAME DETAIL: the detail is what a person needs to see to believe it.
failed() {
    if [[ $REFERENCE && $KNOWN_REASON ]]; then
        KNOWN=$((KNOWN + 1))
        echo "known $(number) - $1 (of the Go suite: $KNOWN_REASON)"
        return
    fi
    FAILED=$((FAILED + 1))
    echo "not ok $(number) - $1"
    head -n 60 <<<"$2" | sed 's/^/#   /'
}

# skip NAME WHY: a check that cannot run here. It is counted, and named again at the end of the whole run.
skip() {
    SKIPPED=$((SKIPPED + 1))
    echo "skip $(number) - $1: $2"
}

# known WHY CHECK...: with REFERENCE=1 a failure of this check is listed as known of the Go suite.
known() {
    local KNOWN_REASON=$1
    shift
    "$@"
}

# check NAME CMD...: passes when the command succeeds.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed "$name"
    else
        failed "$name" "$* failed with"$'\n'"$output"
    fi
}

# fails NAME CMD...: passes when the command fails.
fails() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        failed "$name" "$* succeeded with"$'\n'"$output"
    else
        passed "$name"
    fi
}

# is NAME WANTED CMD...: passes when the command prints exactly that.
is() {
    local name=$1 wanted=$2 output
    shift 2
    output=$("$@" 2>&1) || output+=$'\n'"(exit $?)"
    if [[ $output == "$wanted" ]]; then
        passed "$name"
    else
        failed "$name" "$*"$'\n'"wanted: $wanted"$'\n'"got:    $output"
    fi
}

# within CMD...: repeats a command until it succeeds, for at most PATIENCE seconds.
within() {
    local end=$((SECONDS + PATIENCE)) output
    until output=$("$@" 2>&1); do
        if ((SECONDS >= end)); then
            echo "not within $PATIENCE seconds; the last answer was:"
            echo "$output"
            return 1
        fi
        sleep 0.1
    done
    echo "$output"
}

# gone CMD...: the opposite of succeeding, to be used as "within gone CMD...".
gone() {
    ! "$@"
}

stopped_at() {
    # Bash runs the trap in subshells too, and then again in the script.
    ((BASHPID == $$)) || exit 1
    trap - ERR
    # The command may have had its output redirected.
    exec >&"$STDOUT"
    KNOWN_REASON=
    failed "the script stopped" "$1: $2"
    exit 1
}

# The last words of a script, and its exit status.
close() {
    trap - EXIT ERR
    set +eE
    if declare -F tear_down >/dev/null; then tear_down; fi
    local known=
    if ((KNOWN)); then known=", $KNOWN known of the Go suite"; fi
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped$known"
    exit $((FAILED > 0))
}
