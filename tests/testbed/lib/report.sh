# shellcheck shell=bash
# What the reader sees: every step with the time since the start, failures with the log that explains them.
# All of it goes to standard error, because standard output belongs to `env`, `exec` and `kubectl`.

now_in_milliseconds() {
    # The decimal separator of EPOCHREALTIME follows the locale, so drop whatever is not a digit.
    local microseconds=${EPOCHREALTIME//[!0-9]/}
    echo $((microseconds / 1000))
}

# A caller that reports its own steps (the demo) passes its start on, so that times read as one sequence.
REPORT_START=${INVOKE_TESTBED_REPORT_START:-$(now_in_milliseconds)}
readonly REPORT_START

say() {
    local elapsed=$(($(now_in_milliseconds) - REPORT_START))
    printf '[%4d.%d s] %s\n' $((elapsed / 1000)) $((elapsed % 1000 / 100)) "$*" >&2
}

# One line that says what is wrong and what to do about it.
fail() {
    printf 'testbed: %s\n' "$*" >&2
    exit 1
}

# Says which part failed and shows the end of its log. Everything stays in place for whoever looks into it.
fail_part() {
    local part=$1 reason=$2 log
    log=$(part_log "$part")
    printf 'testbed: %s: %s\n' "$part" "$reason" >&2
    if [[ -s $log ]]; then
        printf -- '--- last 30 lines of %s\n' "$log" >&2
        tail -n 30 "$log" >&2
        printf -- '---\n' >&2
    fi
    exit 1
}
