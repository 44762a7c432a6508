# A runtime of a few lines, for what no packaged runtime does: it calls the plugins of a list as the specification says
# (chained, each with the result of the one before), with any directory of plugins for any verb.
# shellcheck shell=bash

# cni_list VERB LIST CONTAINER NETNS [CAPABILITIES]: ADD, CHECK or DEL of one attachment, eth0; ADD prints the result.
# CAPABILITIES is a JSON object such as {"portMappings": [...]}. As in libcni, what ADD was given and what it answered is
# remembered for CHECK and DEL.
cni_list() {
    local verb=$1 list=$2 container=$3 netns=$4 capabilities=${5:-'{}'} result=null output order index memory
    memory=$(cni_memory "$list" "$container")
    if [[ $verb != ADD && -e $memory ]]; then
        result=$(jq .result "$memory")
        capabilities=$(jq .capabilities "$memory")
    fi
    order=$(jq --arg verb "$verb" '.plugins | keys | if $verb == "DEL" then reverse else . end | .[]' "$list")
    for index in $order; do
        if ! output=$(cni_plugin "$verb" "$list" "$index" "$container" "$netns" "$result" "$capabilities"); then
            echo "$output"
            return 1
        fi
        if [[ $verb == ADD ]]; then
            result=$output
            jq -n --argjson result "$result" --argjson capabilities "$capabilities" '{$result, $capabilities}' >"$memory"
        fi
    done
    case $verb in
        ADD) echo "$result" ;;
        DEL) rm -f "$memory" ;;
    esac
}

# The file that remembers an attachment.
cni_memory() {
    mkdir -p "$WORK/memory"
    echo "$WORK/memory/$(jq -r .name "$1")-$2"
}

# One plugin of a list: its configuration, with what the runtime adds, on standard input.
cni_plugin() {
    local verb=$1 list=$2 index=$3 container=$4 netns=$5 result=$6 capabilities=$7 config
    config=$(jq --argjson index "$index" --argjson result "$result" --argjson capabilities "$capabilities" '
        . as $list | .plugins[$index]
        | (.capabilities // {} | with_entries(select(.value))) as $declared
        | ($capabilities | with_entries(select($declared[.key]))) as $runtime
        | {cniVersion: $list.cniVersion, name: $list.name} + .
        | if $runtime != {} then .runtimeConfig = $runtime else . end
        | if $result != null then .prevResult = $result else . end' "$list")
    CNI_COMMAND=$verb CNI_CONTAINERID=$container CNI_NETNS=$netns CNI_IFNAME=eth0 CNI_ARGS='' CNI_PATH=$CNI_BIN \
        timeout 60 "$CNI_BIN/$(jq -r .type <<<"$config")" <<<"$config"
}

# cni_gc LIST [CONTAINER...]: garbage collection at version 1.1.0, where only those containers are still valid.
cni_gc() {
    local list=$1 valid index config failed=0
    shift
    valid=$(jq -n '[$ARGS.positional[] | {containerID: ., ifname: "eth0"}]' --args "$@")
    for index in $(jq '.plugins | keys[]' "$list"); do
        config=$(jq --argjson index "$index" --argjson valid "$valid" '
            {cniVersion: "1.1.0", name} + .plugins[$index]
            + {"cni.dev/valid-attachments": $valid, "cni.dev/attachments": $valid}' "$list")
        # All of them are asked, also after an error.
        CNI_COMMAND=GC CNI_CONTAINERID='' CNI_NETNS='' CNI_IFNAME='' CNI_ARGS='' CNI_PATH=$CNI_BIN \
            timeout 60 "$CNI_BIN/$(jq -r .type <<<"$config")" <<<"$config" || failed=1
    done
    return "$failed"
}
