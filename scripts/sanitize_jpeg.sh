#!/usr/bin/env bash
# Decodes mutated JPEG files with src/data/jpeg.rs, its C code compiled with the address and undefined-behaviour sanitizers.
#
#     scripts/sanitize_jpeg.sh [MUTATIONS] [SEED]      (100,000 and 1 unless given)
#
# The program is a crate of its own in target/sanitize-jpeg, which includes the decoder's source as it is. Needs gcc and its
# sanitizers. Any finding ends the run with the sanitizer's report.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
crate=target/sanitize-jpeg
mkdir -p "$crate/src"
cat > "$crate/Cargo.toml" <<EOF
[package]
name = "sanitize-jpeg"
version = "0.0.0"
edition = "2024"
[dependencies]
$(grep '^mozjpeg-sys = ' Cargo.toml)
[workspace]
[profile.release]
debug-assertions = true
overflow-checks = true
EOF
cp Cargo.lock "$crate/Cargo.lock"
cat > "$crate/src/main.rs" <<EOF
//! Mutated files through the decoder; every seed gives the same files.

pub const LARGEST_IMAGE: u64 = 64 << 20;

pub struct RgbImage {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>,
    pub warning: Option<Box<str>>,
}

#[path = "$root/src/data/jpeg.rs"]
mod jpeg;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, files: &[Vec<u8>], random: &mut Random) {
    for _ in 0..1 + random.below(6) {
        let (at, count) = (random.below(bytes.len()), 1 + random.below(40));
        let end = (at + count).min(bytes.len());
        match random.below(8) {
            0..3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8),
            3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            4 => drop(bytes.drain(at..end)),
            5 => drop(bytes.splice(at..at, (0..count).map(|_| random.next() as u8).collect::<Vec<_>>())),
            6 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            _ => {
                // The beginning of one file and the end of another.
                let other = &files[random.below(files.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
    }
    // A file without an end is refused before the C code sees it.
    bytes.extend([0xff, 0xd9]);
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let (mutations, seed) = (arguments.next().unwrap(), arguments.next().unwrap());
    let mut names: Vec<_> = std::fs::read_dir("$root/tests/fixtures/images").unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|ending| ending == "jpg"));
    names.sort();
    let files: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(name).unwrap()).collect();
    assert!(files.len() > 50, "the fixtures are there");
    let done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|half| {
                let files = &files;
                scope.spawn(move || {
                    let (mut whole, mut warned, mut refused) = (0u64, 0u64, 0u64);
                    for index in (half..mutations).step_by(2) {
                        let mut random = Random(seed ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93));
                        let mut bytes = files[random.below(files.len())].clone();
                        mutate(&mut bytes, files, &mut random);
                        if !jpeg::is_jpeg(&bytes) {
                            refused += 1;
                            continue;
                        }
                        match jpeg::decode(&bytes) {
                            Ok(image) => {
                                assert_eq!(image.pixels.len(), 3 * image.width as usize * image.height as usize);
                                if image.warning.is_some() { warned += 1 } else { whole += 1 }
                            }
                            Err(error) => {
                                assert!(!error.is_empty());
                                refused += 1;
                            }
                        }
                    }
                    [whole, warned, refused]
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).fold([0; 3], |a, b| std::array::from_fn(|i| a[i] + b[i]))
    });
    println!("{mutations} mutated files: {} decoded, {} with a warning, {} refused; no finding", done[0], done[1], done[2]);
}
EOF
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -g"
target=$(rustc -vV | sed -n 's/^host: //p')
cd "$crate"
# With a target given, flags are for the program and not for build scripts.
CC=gcc CFLAGS="$flags" RUSTFLAGS="-C link-arg=-lasan -C link-arg=-lubsan" \
    cargo build --release --quiet --target "$target" --target-dir .
# The address sanitizer wants to be loaded before every other library.
LD_PRELOAD=$(gcc -print-file-name=libasan.so) "./$target/release/sanitize-jpeg" "${1:-100000}" "${2:-1}"
