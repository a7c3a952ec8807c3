# shellcheck shell=bash
# An S3 server in the hub, for the tests of blobs and for a dispatcher that keeps them in a bucket: versitygw, which
# speaks S3 over HTTPS and keeps each bucket in a folder. It signs, authenticates and decides conditional writes as
# S3 does; it does not sync, so nothing can be learned from it about a loss of power.

objects_folder() { echo "$STATE/s3"; }
objects_program() { echo "$STATE/bin/versitygw"; }
objects_url() { echo s3://invoke; }
objects_ca() { echo "$(objects_folder)/ca.pem"; }

# What S3 clients read from the environment, without the AWS_ that their names begin with.
objects_settings() {
    printf '%s\n' "ENDPOINT_URL=https://$(address_s3)" REGION=us-east-1 "CA_BUNDLE=$(objects_ca)" \
        ACCESS_KEY_ID=invoke "SECRET_ACCESS_KEY=$(<"$STATE/pki/s3.secret")"
}

# The secret goes by the environment, as everyone may read a command line.
start_s3() (
    objects_configure
    local folder
    folder=$(objects_folder)
    export ROOT_ACCESS_KEY_ID=invoke ROOT_SECRET_ACCESS_KEY
    ROOT_SECRET_ACCESS_KEY=$(<"$STATE/pki/s3.secret")
    process_start s3 in_hub setpriv --reuid nobody --regid nogroup --clear-groups --no-new-privs \
        "$(objects_program)" --port "$(address_s3)" --region us-east-1 --health /health \
        --cert "$folder/server.crt" --key "$folder/server.key" posix "$folder/buckets"
)
stop_s3() { process_stop s3 TERM 5; }
address_s3() { echo "$HUB_IP:7070"; }
healthy_s3() {
    in_hub curl --silent --fail --max-time 5 --output /dev/null --cacert "$(objects_ca)" "https://$(address_s3)/health"
}

objects_await() {
    await s3 30 healthy_s3
}

objects_configure() {
    local folder secret=$STATE/pki/s3.secret
    folder=$(objects_folder)
    [[ -s $secret ]] || random_password >"$secret"
    [[ -s $(pki)/s3.crt ]] || certificate broker s3 /CN=s3 "IP:$HUB_IP,IP:127.0.0.1,DNS:localhost"
    # A copy: the cache's folder may be closed to the user that it runs as.
    install --mode=755 "$S3_BIN/versitygw" "$(objects_program)"
    # A folder in here is a bucket.
    mkdir -p "$folder/buckets/invoke"
    cp "$(pki)/broker-ca.crt" "$(objects_ca)"
    cp "$(pki)/s3.crt" "$folder/server.crt"
    install --mode=600 "$(pki)/s3.key" "$folder/server.key"
    chown -R nobody:nogroup "$folder"
}

# Tests pass on what they need of it; under its own name it would reach programs that it is not meant for.
objects_env() {
    local setting
    export_line INVOKE_TEST_S3_URL "$(objects_url)"
    export_line INVOKE_TEST_S3_PROGRAM "$(objects_program)"
    while read -r setting; do
        export_line "INVOKE_TEST_AWS_${setting%%=*}" "${setting#*=}"
    done < <(objects_settings)
}
