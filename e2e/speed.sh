#!/usr/bin/env bash
# The time of a chain (bridge with masquerade, portmap with two ports, firewall, tuning; IPv4) against the Go suite's, each
# with its own defaults, taken in turns in one run. Ratios are checked, not seconds; ROUNDS says how many turns.
. "$(dirname "$0")/lib.sh"
REFERENCE_DIR=${REFERENCE_DIR:-$(reference_plugins)} || true
become_host "$@"
if [[ ! $REFERENCE_DIR ]]; then
    skip "the comparison with the Go suite" "$NO_GO"
    exit
fi
ROUNDS=${ROUNDS:-15}
PORTS='{"portMappings": [{"hostPort": PORT1, "containerPort": 80, "protocol": "tcp"}, {"hostPort": PORT2, "containerPort": 81, "protocol": "udp"}]}'

# configuration SUITE SUBNET: its network list, on a bridge and a subnet of its own.
configuration() {
    jq --arg suite "$1" --arg subnet "$2" '
        .name = $suite | .plugins[0].bridge = "cni-" + $suite | .plugins[0].hairpinMode = false
        | .plugins[0].ipam = {type: "host-local", ranges: [[{subnet: $subnet}]], routes: [{dst: "0.0.0.0/0"}]}' \
        "$REPO_DIR/testdata/net.d/20-apps.conflist"
}

# timed SUITE VERB LIST CONTAINER CAPABILITIES: a verb of the whole list; the sum of the times of its plugins, in microseconds,
# is added to a file. What happens between them (this script is the runtime) is not counted.
timed() {
    local suite=$1 verb=$2 list=$3 container=$4 capabilities=$5 result=null index order config start total=0 plugin
    [[ $verb == ADD ]] || result=$(<"$WORK/$suite-$container")
    order=$(jq --arg verb "$verb" '.plugins | keys | if $verb == "DEL" then reverse else . end | .[]' "$list")
    for index in $order; do
        config=$(jq -c --argjson index "$index" --argjson result "$result" --argjson capabilities "$capabilities" '
            {cniVersion, name} + .plugins[$index]
            | if .type == "portmap" then .runtimeConfig = $capabilities else . end
            | if $result != null then .prevResult = $result else . end' "$list")
        plugin=$CNI_PATH/$(jq -r .type <<<"$config")
        start=${EPOCHREALTIME/[.,]/}
        CNI_COMMAND=$verb CNI_CONTAINERID=$container CNI_NETNS=/run/netns/$container CNI_IFNAME=$suite CNI_ARGS='' \
            "$plugin" <<<"$config" >"$WORK/answer" || { cat "$WORK/answer"; return 1; }
        total=$((total + ${EPOCHREALTIME/[.,]/} - start))
        [[ $verb != ADD ]] || result=$(<"$WORK/answer")
    done
    [[ $verb != ADD ]] || echo "$result" >"$WORK/$suite-$container"
    echo "$total" >>"$WORK/times-$suite-$verb"
}

# figure SUITE VERB WHICH: the median of its times, or the least.
figure() {
    sort -n "$WORK/times-$1-$2" |
        awk -v which="$3" '{ time[NR] = $1 } END { print which == "median" ? time[int((NR + 1) / 2)] : time[1] }'
}

# total SUITE WHICH VERB...: the sum of these figures.
total() {
    local suite=$1 which=$2 verb sum=0
    shift 2
    for verb; do
        sum=$((sum + $(figure "$suite" "$verb" "$which")))
    done
    echo "$sum"
}

quotient() {
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'
}

# compare VERB...: prints the time of these verbs together against the Go suite's.
compare() {
    local which ours theirs
    for which in median least; do
        ours=$(total ours "$which" "$@") theirs=$(total go "$which" "$@")
        echo "# $*: $which of $ROUNDS: ours $ours us, Go $theirs us, ratio $(quotient "$ours" "$theirs")"
    done
}

# Each suite has a host of its own: what one leaves there would change what the other does. Within a turn both use the same kernel.
export -f timed
export WORK
for suite in ours go; do
    ip netns add "host-$suite"
    ip -n "host-$suite" link set lo up
done

configuration ours 10.93.0.0/16 >"$WORK/ours"
configuration go 10.94.0.0/16 >"$WORK/go"
for ((round = 1; round <= ROUNDS; round++)); do
    ip netns add "c$round"
done
for verb in ADD CHECK DEL; do
    for ((round = 1; round <= ROUNDS; round++)); do
        for suite in ours go; do
            base=$((20000 + 4 * round))
            [[ $suite == ours ]] || base=$((base + 2))
            ports=${PORTS/PORT1/$base}
            export CNI_PATH=$CNI_BIN
            [[ $suite == ours ]] || CNI_PATH=$REFERENCE_DIR
            nsenter --net="/run/netns/host-$suite" -- "$BASH" -c 'timed "$@"' timed \
                "$suite" "$verb" "$WORK/$suite" "c$round" "${ports/PORT2/$((base + 1))}"
        done
    done
done
for verb in ADD CHECK DEL; do
    compare "$verb"
done
compare ADD CHECK DEL
# The least of each, because it is what the work costs when nothing else runs on the machine; the rest is the machine's.
is "the life of a container takes at most a quarter of the Go suite's time" yes awk -v a="$(total ours least ADD CHECK DEL)" \
    -v b="$(total go least ADD CHECK DEL)" 'BEGIN { print a <= 0.25 * b ? "yes" : "no" }'
