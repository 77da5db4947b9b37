#!/usr/bin/env bash
# The first eight minutes on a machine with an NVIDIA GPU that no kernel has met yet, from one built binary: no Rust, no network.
#
#   benches/first_contact.sh BINARY OUT
#
# What tells most comes first, and everything is on disk as it comes, so that a cut at any moment leaves the most:
#   1 doctor   what is there
#   2 trap     every kernel of convolutions against the CPU in f64, serial launches, built so that a barrier that hangs ends with an error
#   3 qualify  trainings of the networks, which try what they want in a process of its own; what fails is left out from here on
#   4 full     every operation, kernel and whole step (`doctor --full`), bf16 then f32, serial, then with overlapped launches
#   5 card     what predictions assume of this card, measured: card.json
#   6 steps    the steps that are predicted, call by call, each training for SECONDS_PER_ROW seconds, and PyTorch beside it where PYTHON has
#              torch; predictions, the same by card.json, and what was measured, side by side
# OUT/log.txt says when each part began and how it ended; OUT/NAME.err has a line before each check and one behind it.
#
# From the environment:
#   DEVICE        cuda (default), cuda:N, or emulator: the last for a rehearsal, at toy size
#   BUDGET        seconds for all of it, 480
#   KERNEL_CACHE  a folder that `residua kernels build` filled; with it the machine needs no NVRTC
#   KERNELS       a folder of edited kernels, for a rehearsal with a mistake planted
#   PYTHON        the Python that may have torch, python3
#   SECONDS_PER_ROW  10
set -uo pipefail

if [ $# -ne 2 ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
    exit 2
fi
binary=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
here=$(dirname "$(realpath "$0")")

device=${DEVICE:-cuda}
budget=${BUDGET:-480}
python=${PYTHON:-python3}
flags=(--device "$device")
[ -z "${KERNEL_CACHE:-}" ] || flags+=(--kernel-cache "$KERNEL_CACHE")
[ -z "${KERNELS:-}" ] || flags+=(--kernels "$KERNELS")
if [ "$device" = emulator ]; then
    networks=resnet18-cifar.8.w0.125
    steps=(resnet18-cifar.8.w0.125:4)
    trainings=("--data demo:fashion-mnist?size=32 --arch resnet18 --width 0.25 --batch-size 4")
    again=(--qualify again --device-timeout 5)
    seconds=${SECONDS_PER_ROW:-0}
else
    networks=resnet18-cifar.32,resnet50-cifar.64,resnet50-imagenet.64
    steps=(resnet18-cifar.32:512 resnet50-cifar.64:256 resnet50-imagenet.64:64 resnet18-cifar.32:128)
    trainings=("--data demo:fashion-mnist?size=32 --arch resnet18 --batch-size 512"
               "--data demo:fashion-mnist?size=64 --arch resnet50 --batch-size 128"
               "--data demo:fashion-mnist?size=64 --arch resnet50 --stem imagenet --batch-size 128")
    again=(--qualify again)
    seconds=${SECONDS_PER_ROW:-10}
fi

say() { printf '%4d s  %s\n' "$SECONDS" "$*" | tee -a "$out/log.txt" >&2; }
left() { echo $((budget - SECONDS)); }

# A part: its name, the seconds it may take, and a command, whose results go to OUT/NAME.json and whose lines to OUT/NAME.err.
part() {
    local name=$1 most=$2
    shift 2
    local rest
    rest=$(left)
    if [ "$rest" -lt 5 ]; then
        say "$name: cut, no time left"
        return 1
    fi
    [ "$most" -lt "$rest" ] || most=$rest
    say "$name: begins, $most s at most"
    timeout --signal=INT --kill-after=10 "$most" "$@" >"$out/$name.json" 2>"$out/$name.err"
    local code=$?
    say "$name: ended with $code, $(grep -av 'stopping at the next step' "$out/$name.err" | tail -n 1 | cut -c 1-150)"
    return $code
}

part doctor 20 "$binary" doctor --json

part trap 80 "$binary" doctor --full --trap --launches serial "${flags[@]}" --precision bf16 --arch "${networks%%,*}" \
    --only '*@*' --budget 70 --quiet --json

# A training tries what its plans want first; what fails is a matter of record from then on.
index=0
for training in "${trainings[@]}"; do
    # shellcheck disable=SC2086
    part "qualify-$index" 100 "$binary" train "${flags[@]}" "${again[@]}" --precision bf16 $training \
        --max-steps 3 --log-every 1 --out "$out/run-$index" --json
    index=$((index + 1))
    [ "$device" = emulator ] || again=(--qualify auto)
done
"$binary" doctor --json >"$out/record.json" 2>/dev/null
# What was found now, and what was known before: records of other cards and programs are none of this.
failed=$(sed -n 's/.*`\([a-z0-9.-]*\)` is not used on this card.*/\1/p; s/.*left out on this card, as .* explains: \(.*\)$/\1/p' \
    "$out"/qualify-*.err | tr , '\n' | sort -u | paste -sd, -)
[ -z "$failed" ] || say "left out from here on: $failed"
without=()
[ -z "$failed" ] || without=(--exclude "$failed")

for precision in bf16 f32; do
    part "full-$precision-serial" 70 "$binary" doctor --full --launches serial "${flags[@]}" "${without[@]}" \
        --precision $precision --arch "$networks" --budget 60 --quiet --json
done
part full-bf16-overlapped 60 "$binary" doctor --full "${flags[@]}" "${without[@]}" --precision bf16 --arch "$networks" \
    --only '*steps*' --budget 50 --quiet --json
[ "$device" = emulator ] || part launches-bf16 60 "$binary" doctor --full "${flags[@]}" "${without[@]}" --precision bf16 --arch "$networks" \
    --only 'overlapped_launches*' --budget 50 --quiet --json

part card 70 "$binary" bench --calibrate "$out/card.json" "${flags[@]}" --seconds 0.4 --repeats 2 --budget 60 --quiet --json

with_torch=$("$python" -c 'import torch; print(torch.cuda.is_available())' 2>/dev/null)
[ "$with_torch" = True ] || say "peer: $python has no torch that sees a GPU"
index=0
for step in "${steps[@]}"; do
    network=${step%:*} batch=${step#*:}
    part "steps-$index" 40 "$binary" bench --steps --calls --only train "${flags[@]}" "${without[@]}" --precision bf16 \
        --arch "$network" --batch-size "$batch" --seconds "$seconds" --repeats 1 --quiet --json --out "$out/step-$index.json"
    [ "$with_torch" != True ] || part "peer-$index" 60 "$python" "$here/peers/train_step_gpu.py" --networks "$network" \
        --batch-sizes "$batch" --repeats 1 --out "$out/peer-step-$index.json"
    # Predictions need no device; what was measured at the card goes into the second.
    for model in H200 "$out/card.json"; do
        name=$(basename "$model" .json)
        "$binary" bench --model --card "$model" "${flags[@]:2}" "${without[@]}" --precision bf16 --arch "$network" \
            --batch-size "$batch" --quiet --out "$out/predicted-$index-$name.json" >/dev/null 2>>"$out/predictions.err"
    done
    "$python" "$here/predictions.py" compare "$out/predicted-$index-H200.json" "$out/predicted-$index-card.json" \
        "$out/step-$index.json" >>"$out/predictions.txt" 2>>"$out/predictions.err" || say "step-$index: nothing to compare"
    index=$((index + 1))
done
say "done"
