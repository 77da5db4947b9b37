#!/usr/bin/env bash
# Records what a refactoring must leave as it is: the machine code of every kernel, and the bytes that small seeded runs write.
#
#     scripts/record_guards.sh OUT [RESIDUA]     (RESIDUA: the binary that runs; the release build, made first, unless given)
#
# Record before and after on the same machine, then `diff -r BEFORE AFTER`: the bytes depend on the CPU's instruction set.
#
# OUT/machine_code.txt has a line for each kernel, variant and architecture of the sources in this folder (not of RESIDUA): file,
# constants, architecture, entry, registers, static shared memory, hash. The hash depends on no name: where files or entries were
# renamed, compare `cut -f 3,5- machine_code.txt | sort`. NVRTC and nvdisasm are the ones that RESIDUA_NVRTC and RESIDUA_NVDISASM
# name, else the ones that .ci/run installs.
#
# OUT/bits.txt has a line for each file that the runs write: SHA-256 and name. WORK=DIR keeps these files in DIR/runs; DIR must be
# new. Left out are
#   - events.out.tfevents.*: every entry, and the name, holds a time
#   - images_per_second in metrics.jsonl, run.json, and the lines of report.html with data-clock: measured by the clock
#   - the version of the program in meta.json and report.html: another one with every release
#   - .lock: always empty
set -euo pipefail
export LC_ALL=C
out=$(mkdir -p "${1:?usage: scripts/record_guards.sh OUT [RESIDUA]}" && realpath "$1")
residua=${2:+$(realpath "$2")}
if [ -n "${WORK:-}" ]; then
    mkdir "$WORK"
    work=$(realpath "$WORK")
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
cd "$(dirname "$0")/.."
if [ -z "$residua" ]; then
    cargo build --release
    residua=$(realpath "${CARGO_TARGET_DIR:-target}/release/residua")
fi

echo "== machine code"
export RESIDUA_NVRTC="${RESIDUA_NVRTC:-$PWD/target/ci-cuda-13.0/nvidia/cu13/lib}"
export RESIDUA_NVDISASM="${RESIDUA_NVDISASM:-$PWD/target/ci-cuda-13.0/nvidia/cu13/bin/nvdisasm}"
rm -f "$out/machine_code.txt"
RESIDUA_COMPILE_GATE=required RESIDUA_MACHINE_CODE="$out/machine_code.txt" \
    cargo test --release --test it -- --ignored the_machine_code_of_every_kernel_is_recorded
[ -s "$out/machine_code.txt" ] || { echo "no test wrote $out/machine_code.txt" >&2; exit 1; }

echo "== seeded runs"
# Results name their data by paths relative to here.
cd "$work"
mkdir -p runs/{calibrate,predict} data/{train,test,stones/granite,stones/marble}
# Birds and dogs of three breeds each, images to predict, and stones as outliers; pixels are noise about a colour.
awk '
    function noise() { state = state * 16807 % 2147483647; return state % 60 }
    function image(path, side, red, green, blue,    i) {
        print "P3", side, side, 255 > path
        for (i = 0; i < side * side; i++) print red + noise(), green + noise(), blue + noise() > path
        close(path)
    }
    BEGIN {
        state = 1
        print "image,superclass_index,subclass_index" > "data/train.csv"
        for (i = 0; i < 84; i++) {
            print i ".ppm," int(i % 6 / 3) "," i % 6 > "data/train.csv"
            image("data/train/" i ".ppm", 16, 30 * (i % 6), 150 - 25 * (i % 6), i % 2 * 90)
        }
        for (i = 0; i < 20; i++) image("data/test/" i ".ppm", 16, 25 * (i % 8), 150 - 20 * (i % 8), i % 2 * 90)
        for (i = 0; i < 24; i++) image("data/stones/" (i % 2 ? "granite/" : "marble/") i ".ppm", 8, 120, 120, 120)
        print "index,class\n0,bird\n1,dog\n2,novel" > "data/superclass_mapping.csv"
        print "index,class\n0,robin\n1,owl\n2,wren\n3,poodle\n4,beagle\n5,collie\n6,novel" > "data/subclass_mapping.csv"
    }'
recipe() {
    cat <<END
name = "guards"
seed = 7
$1
[data]
train = "csv:data/train.csv,images=data/train?labels=both"
test = "images:data/test"
size = 16
[outliers]
data = "folder:data/stones"
count = 20
[splits]
select = 0.15
calibrate = 0.2
report = 0.2
$2
[train]
arch = "resnet20"
width = 0.25
augment = "resize-flip-rotate"
epochs = 2
batch_size = 16
optimizer = "adam"
lr = 3e-3
$3
END
}
recipe 'approach = "two_models"
superclass_teaches = true' 'hold_out = [1, 5]' 'class_weights = "balanced"
[subclass]
head = "cosine"
outlier_loss = "energy"
[calibrate]
hierarchy = "mask"
[calibrate.subclass]
rule = "youden"' > two_models.toml
recipe 'approach = "two_heads"' 'folds = 2' 'kl_weight = 0.1
outlier_loss = "uniform"
head = "cosine-relu-linear"
[calibrate]
hierarchy = "joint"
[calibrate.superclass]
score = "energy"
[calibrate.subclass]
score = "mahalanobis"
rule = "intersection"' > two_heads.toml

unset RESIDUA_KERNELS
run() { # DEVICE NAME ARGUMENTS…: writes runs/NAME
    local device=$1 name=$2
    shift 2
    echo "$name: residua $* --device $device"
    "$residua" "$@" --device "$device" --out "runs/$name" --threads 2 --quiet > /dev/null
}
run cpu demo demo --tiny
run cpu seeds run runs/demo/recipe.toml --seeds 1,2
for set in 'train=demo:?limit=120' 'id=demo:?split=test,limit=60' 'digits=demo:digits?limit=40' 'unseen=demo:unseen?limit=40'; do
    run cpu "caches/${set%%=*}" extract --checkpoint runs/demo --data "${set#*=}"
done
for device in cpu emulator; do
    run $device ood_$device ood --train runs/caches/train --id runs/caches/id --ood far:digits=runs/caches/digits \
        --ood near:unseen=runs/caches/unseen --knn-k 5 --bootstrap 100 --balance
done
run cpu collapse collapse --checkpoints 'runs/demo/checkpoints/epoch_*' --data 'demo:?limit=120' \
    --test 'demo:?split=test,limit=60' --ood 'digits=demo:digits?limit=40'
run cpu calibrate/thresholds.toml calibrate --checkpoint runs/demo --seen 'demo:?split=test,limit=200' \
    --novel 'demo:unseen?limit=100' --fit 'demo:?limit=120' --score mahalanobis --rule youden
run cpu predict/predictions.csv predict --checkpoint runs/demo --thresholds runs/calibrate/thresholds.toml \
    --data 'demo:digits?limit=40' --with-scores --p-values
run cpu two_models run two_models.toml
run cpu two_heads run two_heads.toml
run cpu resumed train --data 'demo:?sample=48,size=16' --val 'demo:?sample=20,size=16' --arch resnet50 --stem imagenet \
    --width 0.25 --batch-size 20 --epochs 2 --optimizer adamw --lr 0.001 --max-steps 4
run cpu resumed train --resume

run emulator emulated/two_models run two_models.toml
run emulator emulated/two_heads run two_heads.toml --precision bf16
train=(train --epochs 1 --batch-size 8 --lr 0.01)
few='demo:?sample=40,size=16'
for precision in f32 bf16; do
    run emulator emulated/resnet18_$precision "${train[@]}" --precision $precision --data "$few" --holdout 0.1 --arch resnet18 \
        --width 0.125 --nesterov
    run emulator emulated/resnet50_$precision "${train[@]}" --precision $precision --data "$few" --arch resnet50 --width 0.125 \
        --optimizer adamw
    run emulator emulated/caches_$precision extract --precision $precision --checkpoint runs/emulated/resnet18_$precision \
        --data 'demo:digits?limit=20,size=16'
done
# Wide enough for every kind of convolution kernel in bf16.
wide=("${train[@]}" --precision bf16 --data 'demo:?sample=16,size=32')
run emulator emulated/wide_resnet18 "${wide[@]}" --arch resnet18
run emulator emulated/wide_resnet50 "${wide[@]}" --arch resnet50 --width 0.5

cd runs
find . \( -name 'events.out.tfevents.*' -o -name .lock -o -name run.json \) -delete
find . -name metrics.jsonl -exec sed -i -E 's/"images_per_second":[^,}]*/"images_per_second":0/' {} +
find . -name report.html -exec sed -i '/ data-clock/d' {} +
find . \( -name meta.json -o -name report.html \) -exec sed -i -E 's/residua [0-9]+\.[0-9]+\.[0-9]+/residua VERSION/' {} +
find . -type f -printf '%P\n' | sort | xargs -d '\n' sha256sum > "$out/bits.txt"
find . -type l -printf 'link to %l  %P\n' | sort >> "$out/bits.txt"
echo "recorded in $out"
