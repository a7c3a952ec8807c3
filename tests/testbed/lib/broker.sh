# shellcheck shell=bash
# RabbitMQ in the hub: AMQPS and the management API over HTTPS, and nothing else. Run as Debian's own user for it.

readonly BROKER_PARTS=(epmd rabbitmq)

broker_folder() { echo "$STATE/rabbitmq"; }
broker_password() { cat "$STATE/pki/rabbitmq.password"; }
broker_amqp_url() { echo "amqps://dispatcher:$(broker_password)@$HUB_IP:5671/%2f"; }
broker_management_url() { echo "https://$HUB_IP:15671"; }
broker_ca() { echo "$(broker_folder)/ca.pem"; }

broker_start() {
    start_if_stopped epmd
    await epmd 10 healthy_epmd
    start_if_stopped rabbitmq
}

broker_await() {
    await rabbitmq 60 healthy_rabbitmq
}

# RabbitMQ would start epmd, Erlang's port mapper, by itself, as a daemon that nobody stops. So it finds one running.
start_epmd() {
    process_start epmd in_hub setpriv --reuid rabbitmq --regid rabbitmq --init-groups epmd -address 127.0.0.1
}
stop_epmd() { process_stop epmd TERM 5; }
address_epmd() { echo 127.0.0.1:4369; }
healthy_epmd() { in_hub epmd -names; }

start_rabbitmq() {
    broker_configure
    local folder
    folder=$(broker_folder)
    local environment=(
        PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
        HOME="$folder"
        RABBITMQ_NODENAME="invoke-$NAME@localhost"
        RABBITMQ_MNESIA_BASE="$folder/data"
        RABBITMQ_LOG_BASE="$folder/log"
        RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf"
        RABBITMQ_CONF_ENV_FILE=/dev/null
        RABBITMQ_ENABLED_PLUGINS_FILE="$folder/enabled_plugins"
        # Distribution, Erlang's remote control, stays on loopback. And threads without work sleep instead of spinning.
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
        # The start script then becomes the broker, instead of a parent that waits for it: one process, one pid.
        RUNNING_UNDER_SYSTEMD=true
    )
    process_start rabbitmq in_hub env --ignore-environment "${environment[@]}" \
        setpriv --reuid rabbitmq --regid rabbitmq --init-groups /usr/lib/rabbitmq/bin/rabbitmq-server
}
stop_rabbitmq() {
    # An orderly stop takes six to eleven seconds, all of them for the data.
    local signal=TERM
    if [[ -n ${DISCARDING:-} ]]; then signal=KILL; fi
    process_stop rabbitmq "$signal" 20
}
address_rabbitmq() { echo "$HUB_IP:5671"; }
healthy_rabbitmq() {
    local port
    for port in 5671 15671; do
        broker_management GET "/api/health/checks/port-listener/$port"
    done
}

# broker_management METHOD PATH: the management API. The password goes by file, as everyone may read a command line.
broker_management() {
    in_hub curl --silent --fail --max-time 5 --cacert "$(broker_ca)" --request "$1" \
        --config <(printf 'user = "dispatcher:%s"\n' "$(broker_password)") "$(broker_management_url)$2"
}

broker_configure() {
    local folder password=$STATE/pki/rabbitmq.password
    folder=$(broker_folder)
    [[ -s $password ]] || random_password >"$password"
    mkdir -p "$folder"/{data,log}
    cp "$(pki)/broker-ca.crt" "$folder/ca.pem"
    cp "$(pki)/rabbitmq.crt" "$folder/server.crt"
    install --mode=600 "$(pki)/rabbitmq.key" "$folder/server.key"
    (
        umask 077
        render rabbitmq.conf "HUB_IP=$HUB_IP" "FOLDER=$folder" "PASSWORD=$(<"$password")" >"$folder/rabbitmq.conf"
    )
    echo '[rabbitmq_management].' >"$folder/enabled_plugins"
    chown -R rabbitmq:rabbitmq "$folder"
}
