#!/usr/bin/env bash
# Everything to measure on a machine with an NVIDIA GPU, from one built binary: no Rust, no network.
#
#   benches/gpu.sh BINARY OUT [PART...]
#
# PART is one or more of
#   check   every kernel against the CPU in f64 (`doctor --full`), f32 and bf16
#   tune    every kernel that can compute each convolution of the networks, bf16; the fastest go into OUT/kernels.toml
#   model   what each call of the steps should take, and beside it what it does take, bf16; with the tuned table as well
#   ours    whole steps of three networks, batches 128, 256, 512, f32 and bf16, with the tuned kernels if there are any; first step
#           with cold and warm caches; every kernel
#   fuse    whole steps of bf16 training at the first batch size with no fusion, with each alone, and with one after the other; with
#           all of them also with serial launches
#   peer    PyTorch on the same steps and the same scores of rows (benches/peers/train_step_gpu.py, extract_gpu.py, row_scores.py);
#           needs Python with torch and torchvision
#   train   some epochs of ResNet-18 on CIFAR-100 with its accuracy; needs DATA
#   merge   one JSON of all of it, OUT/results.json, and one table, OUT/results.txt
# and by default all of them. Each part ends within BUDGET seconds. What is cut for that is named in its JSON; `ours` and `peer` go on
# with what is missing when they are called again with the same OUT.
#
# From the environment:
#   DEVICE  cuda (default), cuda:N, cpu, or emulator: the last for a dry run, at toy size
#   BUDGET  seconds for each part, 540
#   PYTHON  the Python that has torch, python3
#   DATA    the folder of CIFAR-100, binary or Python version
#   EPOCHS  epochs of the training, 15
#   NETWORKS, BATCHES, PRECISIONS, SECONDS_PER_ROW  what `ours` measures
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
    exit 2
fi
binary=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
shift 2
here=$(dirname "$(realpath "$0")")

device=${DEVICE:-cuda}
budget=${BUDGET:-540}
python=${PYTHON:-python3}
epochs=${EPOCHS:-15}
if [ "$device" = emulator ]; then
    networks=${NETWORKS:-resnet18-cifar.8.w0.0625,resnet50-imagenet.32.w0.0625}
    batches=${BATCHES:-2}
    seconds=${SECONDS_PER_ROW:-0}
    tune_seconds=0
    repeats=1
    check_networks=$networks
    # PyTorch rehearses on the CPU.
    peer=(--device cpu --networks resnet18-cifar.8 --batch-sizes 2 --precisions bf16 --repeats 1)
    peer_rows=(--device cpu --rows 2000 --columns 64 --classes 10 --repeats 1)
    training=(--arch resnet20 --width 0.25 --epochs 1 --max-steps 2 --batch-size 4)
else
    networks=${NETWORKS:-resnet18-cifar.32,resnet50-cifar.64,resnet50-imagenet.64}
    batches=${BATCHES:-128,256,512}
    seconds=${SECONDS_PER_ROW:-0.4}
    tune_seconds=0.05
    repeats=3
    check_networks=$networks
    peer=(--networks "$networks" --batch-sizes "$batches")
    peer_rows=()
    training=(--arch resnet18 --epochs "$epochs" --batch-size 512 --lr 0.4 --schedule onecycle --augment crop-flip
              --label-smoothing 0.1 --nesterov)
fi
precisions=${PRECISIONS:-$(if [ "$device" = cpu ]; then echo f32; else echo "bf16 f32"; fi)}

say() { printf '== %s\n' "$*" >&2; }

# Seconds of the part that are left, a little kept back for writing.
begin() { part_started=$SECONDS; }
left() { local rest=$((budget - (SECONDS - part_started) - 5)); echo $((rest > 1 ? rest : 1)); }
enough() { [ "$(left)" -gt "${1:-5}" ] || [ "$device" = emulator ]; }

# Runs a command for no longer than the part has left; whatever happens is said, and the other parts go on.
status=0
attempt() {
    local what=$1
    shift
    if ! timeout --signal=INT --kill-after=20 "$(left)" "$@"; then
        say "$what did not end well"
        status=1
    fi
}

check() {
    begin
    for precision in $precisions; do
        say "check, $precision"
        local share=$(($(left) / 2))
        [ "$precision" = "${precisions##* }" ] && share=$(left)
        attempt "check, $precision" "$binary" doctor --full --device "$device" --precision "$precision" \
            --arch "$check_networks" --budget "$share" --quiet --json >"$out/check-$precision.json.part"
        if [ -s "$out/check-$precision.json.part" ]; then
            mv "$out/check-$precision.json.part" "$out/check-$precision.json"
        fi
    done
}

# One call of `bench`, unless its file is there already, with nothing cut.
rows() {
    local name=$1
    shift
    if grep -qs '"cut": \[\]' "$out/$name.json"; then
        say "$name is there already"
    elif enough 20; then
        say "$name"
        local table=()
        [ ! -s "$out/kernels.toml" ] || table=(--kernel-table "$out/kernels.toml")
        attempt "$name" "$binary" bench --device "$device" --budget "$(left)" --seconds "$seconds" --repeats "$repeats" \
            "${table[@]}" --quiet --out "$out/$name.json" "$@" >"$out/$name.txt"
    else
        say "$name: no time left; call this part again"
        echo "$name" >>"$out/cut.txt"
    fi
}

tune() {
    begin
    local batch
    for batch in ${batches//,/ }; do
        if ! enough 20; then
            say "tune: no time left for batch $batch; call this part again"
            continue
        fi
        say "tune, batch $batch"
        # Convolutions that were tuned before are measured again, and those that were cut keep what the table had.
        attempt "tune, batch $batch" "$binary" bench --tune "$out/kernels.toml" --device "$device" --precision bf16 \
            --arch "$networks" --batch-size "$batch" --budget "$(left)" --seconds "$tune_seconds" --repeats "$repeats" \
            --quiet --json >"$out/tune-b$batch.json.part"
        if [ -s "$out/tune-b$batch.json.part" ]; then
            mv "$out/tune-b$batch.json.part" "$out/tune-b$batch.json"
        fi
    done
}

model() {
    begin
    local network table=()
    for network in ${networks//,/ }; do
        for name in predicted tuned; do
            table=()
            if [ "$name" = tuned ]; then
                # The table of an emulator is of no card that the model knows.
                [ -s "$out/kernels.toml" ] && [ "$device" != emulator ] || continue
                table=(--kernel-table "$out/kernels.toml")
            fi
            if ! enough 20; then
                say "model-$name-$network: no time left; call this part again"
                continue
            fi
            say "model-$name-$network"
            attempt "model-$name-$network" "$binary" bench --model --device "$device" --precision bf16 --arch "$network" \
                --batch-size "${batches%%,*}" --seconds "$seconds" --repeats "$repeats" "${table[@]}" --quiet \
                --out "$out/model-$name-$network.json" >"$out/model-$name-$network.txt"
        done
    done
}

ours() {
    begin
    : >"$out/cut.txt"
    local first_batch=${batches%%,*} first_network=${networks%%,*} precision network batch
    precision=${precisions%% *}
    # The first step with an empty cache of compiled kernels, and again with a full one.
    local cache
    cache=$(mktemp -d)
    # Warm means just after cold.
    grep -qs '"cut": \[\]' "$out/first-step-warm.json" || rm -f "$out/first-step-cold.json"
    for when in cold warm; do
        RESIDUA_CACHE=$cache rows "first-step-$when" --steps --only 'train.*' --arch "$first_network" \
            --batch-size "$first_batch" --precision "$precision"
    done
    rm -rf "$cache"
    # Steps by themselves, one call each: a crash of one takes no other with it.
    for precision in $precisions; do
        for network in ${networks//,/ }; do
            for batch in ${batches//,/ }; do
                rows "ours-steps-$network-b$batch-$precision" --steps --arch "$network" --batch-size "$batch" \
                    --precision "$precision"
            done
        done
    done
    if [[ ,$networks, == *,resnet50-imagenet.64,* ]]; then
        # PyTorch is tuned at this size as well.
        for precision in $precisions; do
            rows "ours-steps-resnet50-imagenet.64-b64-$precision" --steps --arch resnet50-imagenet.64 --batch-size 64 \
                --precision "$precision"
        done
    fi
    # Passes over rows of features, f64 whatever the precision; the CPU has none.
    [ "$device" = cpu ] || rows ours-rows --operations --only 'row_*'
    for precision in $precisions; do
        for network in ${networks//,/ }; do
            rows "ours-operations-$network-$precision" --operations --arch "$network" --batch-size "$first_batch" \
                --precision "$precision"
        done
    done
}

fuse() {
    begin
    local network fusions
    for network in ${networks//,/ }; do
        for fusions in none prologue statistics residual-gradient masks pool-head statistics,residual-gradient \
            statistics,residual-gradient,masks,pool-head all; do
            rows "fuse-$network-$fusions" --steps --only 'train.*' --arch "$network" --batch-size "${batches%%,*}" \
                --precision bf16 --fuse "$fusions"
        done
        rows "fuse-$network-all-serial" --steps --only 'train.*' --arch "$network" --batch-size "${batches%%,*}" \
            --precision bf16 --fuse all --launches serial
    done
}

peer() {
    begin
    if ! "$python" -c 'import torch, torchvision' 2>/dev/null; then
        say "peer: $python has no torch and torchvision; name one that has with PYTHON=..."
        status=1
        return
    fi
    # Compiled kernels of PyTorch are kept beside the results, so that a second call goes on where the first was cut.
    export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$out/torchinductor}
    # Training gets two thirds of the time, and what it leaves is extraction's.
    say "peer, training"
    attempt "peer, training" "$python" "$here/peers/train_step_gpu.py" --out "$out/peer.json" \
        --budget "$(($(left) * 2 / 3))" "${peer[@]}" >"$out/peer.txt"
    say "peer, extraction"
    attempt "peer, extraction" "$python" "$here/peers/extract_gpu.py" --out "$out/peer-extract.json" --budget "$(left)" \
        "${peer[@]}" >"$out/peer-extract.txt"
    if enough 20; then
        say "peer, rows"
        attempt "peer, rows" "$python" "$here/peers/row_scores.py" "${peer_rows[@]}" --out "$out/rows-pytorch.json" \
            >"$out/rows-pytorch.txt"
    fi
}

train() {
    begin
    if [ -z "${DATA:-}" ]; then
        say "train: DATA names no folder with CIFAR-100; left out"
        return
    fi
    for precision in ${precisions%% *}; do
        say "train, $precision"
        rm -rf "$out/training-$precision"
        attempt "train, $precision" "$binary" train --data "cifar100:$DATA" --val "cifar100:$DATA" --device "$device" \
            --precision "$precision" "${training[@]}" --out "$out/training-$precision" --quiet --json \
            >"$out/train-$precision.json.part"
        if [ -s "$out/train-$precision.json.part" ]; then
            mv "$out/train-$precision.json.part" "$out/train-$precision.json"
        fi
    done
}

merge() {
    begin
    attempt merge "$binary" bench --merge "$out" --out "$out/results.json" >"$out/results.txt"
    cat "$out/results.txt"
}

# What the card was set to, for whoever reads the figures later.
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu --format=csv \
    >"$out/card.csv" 2>/dev/null || rm -f "$out/card.csv"

for part in "${@:-check tune model ours fuse peer train merge}"; do
    for one in $part; do
        case $one in
        check | tune | model | ours | fuse | peer | train | merge) "$one" ;;
        *)
            say "no part is called $one; there are check, tune, model, ours, fuse, peer, train and merge"
            exit 2
            ;;
        esac
    done
done
exit "$status"
