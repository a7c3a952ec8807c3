# shellcheck shell=bash
# The product, put in place the way an operator does it: dispatcher, `invoke clusters add`, Helm chart. Nothing here
# reaches around the product's own interfaces, so that what works here works for an operator.

readonly RUNNER_NAMESPACE=invoke-system
readonly RUNNER_RELEASE=invoke-runner
readonly RUNNER_SELECTOR=app.kubernetes.io/instance=$RUNNER_RELEASE
# An ordinary, powerless user: the dispatcher needs no more, and a bug that hides behind root's rights shows.
readonly DISPATCHER_USER=65532

product_folder() { echo "$STATE/product"; }
dispatcher_folder() { echo "$STATE/dispatcher"; }
dispatcher_url() { echo "https://$HUB_IP:8443"; }
product_installed() { [[ -e $(product_folder)/dispatcher-wanted ]]; }

product_install() {
    local cli=$BIN_DIR/invoke
    [[ -x $cli && -x $BIN_DIR/invoke-dispatcher ]] || fail "no invoke and invoke-dispatcher in $BIN_DIR: build them, or set INVOKE_BIN_DIR"
    require_up
    product_load_images
    mkdir -p "$(product_folder)"
    chmod 700 "$(product_folder)"
    product_choose_storage
    touch "$(product_folder)/dispatcher-wanted"
    product_dispatcher_ensure
    product_enrol
    product_runner_ensure
    product_await_connected
    product_wrapper
}

product_load_images() {
    if uses_existing_cluster; then return; fi
    binaries_locate
    image_load "$PAUSE_TAR"
    image_load "$IMAGE_DIR/job.tar"
    image_load "$IMAGE_DIR/runner.tar"
}

# --- dispatcher ---

# Decided when the product is installed: a dispatcher that is started again later must find the same jobs.
product_choose_storage() {
    local folder
    folder=$(product_folder)
    if [[ ! -e $folder/database-url ]]; then (umask 077 && echo "${INVOKE_DATABASE_URL:-}" >"$folder/database-url"); fi
    if [[ ! -e $folder/blob-url ]]; then echo "${INVOKE_BLOB_URL:-}" >"$folder/blob-url"; fi
}

product_dispatcher_ensure() {
    local program=$STATE/bin/invoke-dispatcher
    # A copy: a build replaces the original at any time, and its folder may be closed to the dispatcher's user.
    if [[ -x $BIN_DIR/invoke-dispatcher ]] && ! cmp --silent "$BIN_DIR/invoke-dispatcher" "$program"; then
        stop_dispatcher
        install --mode=755 "$BIN_DIR/invoke-dispatcher" "$program"
    fi
    start_if_stopped dispatcher
    await dispatcher 30 healthy_dispatcher
}

start_dispatcher() (
    # What the caller has set for its own use of the product is not meant for this dispatcher.
    local database blobs variable setting
    for variable in "${!INVOKE_@}"; do
        case $variable in INVOKE_TEST_* | INVOKE_TESTBED*) ;; *) unset "$variable" ;; esac
    done
    # Only a test build listens here, or heeds what is set.
    export INVOKE_HOOKS_LISTEN=127.0.0.1:9999 INVOKE_HOOKS
    INVOKE_HOOKS=$(cat "$(product_folder)/hooks" 2>/dev/null || true)
    export INVOKE_LISTEN=$HUB_IP:8443
    export INVOKE_PUBLIC_URL INVOKE_DATA_DIR INVOKE_AMQP_URL INVOKE_AMQP_MANAGEMENT_URL INVOKE_AMQP_CA
    INVOKE_PUBLIC_URL=$(dispatcher_url)
    INVOKE_DATA_DIR=$(dispatcher_folder)
    INVOKE_AMQP_URL=$(broker_amqp_url)
    INVOKE_AMQP_MANAGEMENT_URL=$(broker_management_url)
    INVOKE_AMQP_CA=$STATE/dispatcher/broker-ca.pem
    database=$(<"$(product_folder)/database-url")
    if [[ -n $database ]]; then export INVOKE_DATABASE_URL=$database; fi
    blobs=$(<"$(product_folder)/blob-url")
    if [[ -n $blobs ]]; then
        export INVOKE_BLOB_URL=$blobs
        while read -r setting; do export "AWS_$setting"; done < <(objects_settings)
    fi

    mkdir -p "$(dispatcher_folder)"
    cp "$(pki)/broker-ca.crt" "$INVOKE_AMQP_CA"
    chmod 700 "$(dispatcher_folder)"
    chown -R "$DISPATCHER_USER:$DISPATCHER_USER" "$(dispatcher_folder)"
    process_start dispatcher in_hub setpriv --reuid "$DISPATCHER_USER" --regid "$DISPATCHER_USER" --clear-groups --no-new-privs \
        env HOME="$(dispatcher_folder)" "$STATE/bin/invoke-dispatcher" serve
)
product_hooks() {
    require_up
    echo "${1:-}" >"$(product_folder)/hooks"
}

stop_dispatcher() { process_stop dispatcher TERM 15; }
address_dispatcher() { dispatcher_url; }
healthy_dispatcher() {
    in_hub curl --silent --fail --max-time 3 --output /dev/null --cacert "$(dispatcher_folder)/ca.pem" "$(dispatcher_url)/readyz"
}

# --- runner ---

# The command line, as the local administrator of this dispatcher.
product_cli() {
    in_hub env INVOKE_URL="$(dispatcher_url)" INVOKE_CA_FILE="$(dispatcher_folder)/ca.pem" \
        INVOKE_TOKEN_FILE="$(dispatcher_folder)/local-token" "$BIN_DIR/invoke" "$@"
}

product_cluster() {
    product_cli clusters -o json | jq --compact-output --arg name "$NAME" '.clusters[] | select(.name == $name)'
}

runner_values() { echo "$(product_folder)/runner-values.yaml"; }

# Adds the cluster once. Its values hold a one-time join token, which the runner turns into a key of its own. A token
# that no runner has used lasts 15 minutes; after an installation that failed it takes another one.
product_enrol() {
    local values state
    values=$(runner_values)
    state=$(product_cluster | jq --raw-output .state)
    if [[ -s $values && -n $state ]]; then
        if [[ $state != never_connected || -n $(find "$values" -mmin -10) ]]; then return; fi
    fi
    local verb=add
    if [[ -n $state ]]; then verb=token; fi
    (
        umask 077
        # What it tells a person to do next is what this script does next.
        product_cli clusters "$verb" "$NAME" >"$values.unfinished" 2>"$values.words" || { cat "$values.words" >&2; exit 1; }
    ) || fail "\`invoke clusters $verb $NAME\` failed"
    mv "$values.unfinished" "$values"
    say "runner: invited (invoke clusters $verb $NAME)"
}

# Does nothing while the chart, the values and the images are those of the last time and the runner is available.
product_runner_ensure() {
    local wanted known
    known=$(product_folder)/runner-fingerprint
    wanted=$(runner_fingerprint)
    if [[ $(cat "$known" 2>/dev/null) == "$wanted" ]] && runner_available; then return; fi
    local again values
    mapfile -t values < <(runner_values_files)
    release_settle
    again=$(release_state)
    rm -f "$known"
    helm_as_admin upgrade --install "$RUNNER_RELEASE" "$WORKSPACE/deploy/charts/runner" \
        --namespace "$RUNNER_NAMESPACE" --create-namespace \
        "${values[@]/#/--values=}" --wait --timeout 120s >"$(part_log helm)" 2>&1 || runner_failed
    # The tag of a new image is that of the old one, so Helm alone sees no reason to replace the pods.
    if [[ -n $again ]]; then
        kubectl_as_admin --namespace "$RUNNER_NAMESPACE" rollout restart deployment --selector "$RUNNER_SELECTOR" >>"$(part_log helm)" 2>&1
        kubectl_as_admin --namespace "$RUNNER_NAMESPACE" rollout status deployment --selector "$RUNNER_SELECTOR" --timeout 120s >>"$(part_log helm)" 2>&1 || runner_failed
    fi
    echo "$wanted" >"$known"
    say "runner: installed"
}

# Empty if there is no release.
release_state() {
    helm_as_admin list --namespace "$RUNNER_NAMESPACE" --filter "^$RUNNER_RELEASE\$" --output json | jq --raw-output '.[0].status // empty'
}

# A Helm that was killed leaves its release pending, and every later one refuses to touch it.
release_settle() {
    local state
    state=$(release_state)
    case $state in
    pending-install) helm_as_admin uninstall "$RUNNER_RELEASE" --namespace "$RUNNER_NAMESPACE" --wait >/dev/null ;;
    pending-*) helm_as_admin rollback "$RUNNER_RELEASE" --namespace "$RUNNER_NAMESPACE" --wait >/dev/null ;;
    esac
}

runner_failed() {
    {
        kubectl_as_admin --namespace "$RUNNER_NAMESPACE" get pods,events || true
        kubectl_as_admin --namespace "$RUNNER_NAMESPACE" logs --selector "$RUNNER_SELECTOR" --tail 15 || true
    } >>"$(part_log helm)" 2>&1
    fail_part helm "the runner's chart did not come up"
}

# In the order in which they override each other.
runner_values_files() {
    runner_values
    echo "$TESTBED_DIR/config/values-testbed.yaml"
    if [[ -n ${INVOKE_VALUES_FILE:-} ]]; then echo "$INVOKE_VALUES_FILE"; fi
}

runner_fingerprint() {
    local values
    mapfile -t values < <(runner_values_files)
    {
        find "$WORKSPACE/deploy/charts/runner" -type f -exec sha256sum {} + | sort
        cat "${values[@]}"
        image_digest_or_unknown "$RUNNER_IMAGE"
        image_digest_or_unknown "$JOB_IMAGE"
    } | sha256sum
}

image_digest_or_unknown() {
    if uses_existing_cluster; then echo unknown; else image_digest "$1"; fi
}

runner_available() {
    [[ $(kubectl_as_admin --namespace "$RUNNER_NAMESPACE" get deployments --selector "$RUNNER_SELECTOR" \
        --output json | jq '[.items[] | any(.status.conditions[]?; .type == "Available" and .status == "True")] | length > 0 and all') == true ]]
}

product_connected() {
    [[ $(product_cluster | jq --raw-output .state) == connected ]]
}

product_await_connected() {
    local deadline=$(($(now_in_milliseconds) + 60000))
    until product_connected; do
        if (($(now_in_milliseconds) > deadline)); then
            kubectl_as_admin --namespace "$RUNNER_NAMESPACE" logs --selector "$RUNNER_SELECTOR" --tail 30 >&2 || true
            fail "the runner did not connect within 60 s; the dispatcher's log is $(part_log dispatcher)"
        fi
        sleep 0.3
    done
    say "runner: connected as cluster $NAME"
}

product_status() {
    [[ -e $(product_folder)/runner-fingerprint ]] || return 0
    if product_connected && runner_available; then
        echo "runner: connected as cluster $NAME"
    else
        echo "runner: NOT CONNECTED (testbed $NAME kubectl --namespace $RUNNER_NAMESPACE get pods)"
        return 1
    fi
}

# --- for the user's own shell ---

# A program named invoke that enters the hub and knows where the dispatcher is. What the user has set wins.
product_wrapper() {
    local wrapper=$STATE/bin/invoke
    render invoke-wrapper.sh "NAME=$NAME" "NAMESPACE=$(uses_existing_cluster || echo "/run/netns/$HUB_NAMESPACE")" \
        "URL=$(dispatcher_url)" "CA=$(dispatcher_folder)/ca.pem" "TOKEN=$(dispatcher_folder)/local-token" \
        "PROGRAM=$BIN_DIR/invoke" >"$wrapper.unfinished"
    chmod 755 "$wrapper.unfinished"
    mv "$wrapper.unfinished" "$wrapper"
}

product_env() {
    export_line INVOKE_URL "$(dispatcher_url)"
    export_line INVOKE_CA_FILE "$(dispatcher_folder)/ca.pem"
    export_line INVOKE_TOKEN_FILE "$(dispatcher_folder)/local-token"
}
