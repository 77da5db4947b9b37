//! Blocks of a cluster on the emulator: a pipeline whose blocks send each other half of what both multiply, right in every mode; and
//! every word of clusters used wrongly, and caught.

use residua::Result;
use residua::backend::cuda::driver::LaunchConfig;
use residua::backend::cuda::driver::emulator::{Copies, Order};
use residua::backend::cuda::driver::tensor_map::TmaMode;

use crate::emulator::MODES;
use crate::emulator::planted::Planted;
use crate::emulator::sm90::{Rig, bf16, whole_numbers};

/// Rows of a, all of which every block multiplies with its own 64 columns: each block of a cluster of two loads half of a's rows, by
/// boxes of 32, for both. Two stages, three steps of 64; y is (columns, 64 rows of a).
const PIPELINE: &str = "
struct Stage { u8 a[8192], b[8192]; };
struct Shared { Stage stage[2]; Mbarrier full[2], empty[2]; };
KERNEL(256, test, Arguments) {
    SHARED_DYNAMIC(Shared, shared);
    const u32 rank = cluster_rank(), peer = rank ^ 1;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            mbarrier_init(shared.full[i], 1);
            mbarrier_init(shared.empty[i], 2);
        }
        mbarrier_init_fence();
    }
    cluster_sync();
    if (threadIdx.x == 0) {
        for (u32 k = 0; k < 3; k++) {
            u32 i = k % 2;
            mbarrier_wait(shared.empty[i], k / 2 % 2 ^ 1);
            mbarrier_arrive_expect_tx(shared.full[i], 16384);
            tma_load_multicast(shared.stage[i].a + 4096 * rank, p.a, shared.full[i], 3, 64 * k, 32 * rank);
            for (u32 half = 0; half < 2; half++)
                tma_load(shared.stage[i].b + 4096 * half, p.b, shared.full[i], 64 * k, 64 * blockIdx.x + 32 * half);
        }
    } else if (threadIdx.x >= 128) {
        float d[32];
        for (u32 k = 0; k < 3; k++) {
            u32 i = k % 2;
            mbarrier_wait(shared.full[i], k / 2 % 2);
            wgmma_fence();
            for (u32 s = 0; s < 4; s++)
                wgmma<64, false, false>(d, matrix_descriptor(shared.stage[i].b + 32 * s, 0, 1024),
                                        matrix_descriptor(shared.stage[i].a + 32 * s, 0, 1024), k + s > 0);
            wgmma_commit();
            wgmma_wait<0>();
            if (threadIdx.x == 128) mbarrier_arrive(shared.empty[i]);
            if (threadIdx.x == 160) mbarrier_arrive_remote(shared.empty[i], peer);
        }
        u32 thread = threadIdx.x - 128, row = thread / 32 * 16 + thread % 32 / 4, column = 2 * (thread % 4);
        row += 64 * blockIdx.x;
        for (int j = 0; j < 8; j++)
            for (int i = 0; i < 4; i++) store(p.y + (row + i / 2 * 8) * 64 + 8 * j + column + i % 2, d[4 * j + i]);
    }
    cluster_sync();
}
";

const CONFIG: LaunchConfig =
    LaunchConfig { grid: [4, 1, 1], threads: 256, shared_bytes: 64 << 10, cluster: 2 };

/// Result of two clusters for 64 rows and 256 columns with a K of 192, in one mode.
fn pipeline_on(mode: (Order, Copies), text: &str, config: LaunchConfig) -> Result<Vec<f32>> {
    let (a, b) = (whole_numbers(64 * 192, 5), whole_numbers(256 * 192, 6));
    let mut rig = Rig::new(mode, &bf16(&a), &bf16(&b), 256 * 64);
    let of_a = rig.map(false, &[192, 64], &[384], TmaMode::Tiled(&[64, 32]));
    let of_b = rig.map(true, &[192, 256], &[384], TmaMode::Tiled(&[64, 32]));
    rig.launch_on(text, "test", config, [of_a, of_b])
}

fn pipeline(mode: (Order, Copies), text: &str) -> Result<Vec<f32>> {
    pipeline_on(mode, text, CONFIG)
}

fn expected() -> Vec<f32> {
    let (a, b) = (whole_numbers(64 * 192, 5), whole_numbers(256 * 192, 6));
    (0..256 * 64).map(|i| (0..192).map(|k| b[i / 64 * 192 + k] * a[i % 64 * 192 + k]).sum()).collect()
}

const RIGHT: Planted = Planted { text: PIPELINE, run: pipeline, expected };

#[test]
fn blocks_of_a_cluster_send_each_other_what_both_multiply() {
    for mode in MODES {
        assert!(pipeline(mode, PIPELINE).unwrap() == expected(), "{mode:?}");
    }
}

#[test]
fn pixels_go_to_all_blocks_that_are_named_and_to_no_other() {
    // Of four blocks the one of rank 2 sends its pixels to ranks 1 and 3.
    let text = "
struct Box { u8 tile[1024]; Mbarrier full; };
KERNEL(64, test, Arguments) {
    SHARED_DYNAMIC(Box, box);
    const u32 rank = cluster_rank();
    if (threadIdx.x == 0) { mbarrier_init(box.full, 1); mbarrier_init_fence(); }
    for (u32 at = threadIdx.x; at < 512; at += 64) ((bf16*)box.tile)[at] = from_float<bf16>(-1.0f);
    cluster_sync();
    if (threadIdx.x == 0 && rank % 2 == 1) mbarrier_arrive_expect_tx(box.full, 1024);
    if (threadIdx.x == 0 && rank == 2) tma_load_multicast_im2col(box.tile, p.a, box.full, 10, 0, 0, 0, 0, 0, 0);
    if (rank % 2 == 1) mbarrier_wait(box.full, 0);
    for (u32 row = 0; row < 8; row++) {
        u32 at = (128 * row + 2 * threadIdx.x) ^ row << 4;
        store(p.y + (blockIdx.x * 8 + row) * 64 + threadIdx.x, to_float(*(const bf16*)(box.tile + at)));
    }
    cluster_sync();
}";
    let x = whole_numbers(64 * 8, 3);
    for mode in MODES {
        let mut rig = Rig::new(mode, &bf16(&x), &[0; 8], 4 * 8 * 64);
        let mode = TmaMode::Im2col { lower: [0, 0], upper: [0, 0], channels: 64, pixels: 8, strides: [1, 1] };
        let map = rig.map(false, &[64, 4, 2, 1], &[128, 512, 1024], mode);
        let config = LaunchConfig { grid: [4, 1, 1], threads: 64, shared_bytes: 2048, cluster: 4 };
        let y = rig.launch_on(text, "test", config, [map, map]).unwrap();
        for (rank, y) in y.chunks(512).enumerate() {
            let right = if rank % 2 == 1 { y == x } else { y.iter().all(|&number| number == -1.0) };
            assert!(right, "{mode:?} rank {rank}");
        }
    }
}

#[test]
fn clusters_that_no_device_can_run_are_refused() {
    for (config, part) in [
        (LaunchConfig { grid: [3, 1, 1], ..CONFIG }, "3 blocks in x in clusters of 2"),
        (LaunchConfig { cluster: 0, ..CONFIG }, "clusters of 0 blocks; a cluster has 1 to 8"),
        (LaunchConfig { grid: [16, 1, 1], cluster: 16, ..CONFIG }, "clusters of 16 blocks"),
    ] {
        let error = pipeline_on(MODES[0], PIPELINE, config).unwrap_err().to_string();
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
    // Launched without clusters, it finds no peer.
    let alone = LaunchConfig { cluster: 1, ..CONFIG };
    let error = pipeline_on(MODES[0], PIPELINE, alone).unwrap_err().to_string();
    assert!(error.contains("tma_load_multicast: rank 1 in a cluster of 1"), "{error}");
}

#[test]
fn a_multicast_to_a_block_that_is_not_there_is_refused() {
    let multicast = "p.a, shared.full[i], 3, 64 * k";
    RIGHT.refused(
        &RIGHT.with(multicast, "p.a, shared.full[i], 7, 64 * k"),
        &["tma_load_multicast: rank 2 in a cluster of 2"],
    );
    RIGHT.refused(
        &RIGHT.with(multicast, "p.a, shared.full[i], 0, 64 * k"),
        &["the multicast has no destination"],
    );
    RIGHT.refused(
        &RIGHT.with("(shared.empty[i], peer)", "(shared.empty[i], 2)"),
        &["mbarrier_arrive_remote: rank 2 in a cluster of 2"],
    );
}

#[test]
fn bytes_that_a_block_does_not_expect_from_others_are_refused() {
    // Both send to themselves only, and wait for the other's half for ever.
    RIGHT.refused(
        &RIGHT.with("p.a, shared.full[i], 3, 64 * k", "p.a, shared.full[i], 1 << rank, 64 * k"),
        &["no thread can go on", "lacks 0 of 1 arrivals and 4096 bytes"],
    );
    // They expect their own half only.
    let few = RIGHT.with(
        "mbarrier_arrive_expect_tx(shared.full[i], 16384);",
        "mbarrier_arrive_expect_tx(shared.full[i], 12288);",
    );
    RIGHT.refused_somewhere(&few, &["its 4096 bytes arrive after the phase they were loaded in"]);
    for copies in [Copies::Lazy, Copies::Eager] {
        RIGHT.exposed_by(copies, &few);
    }
}

#[test]
fn a_stage_that_the_other_block_still_reads_may_not_be_filled() {
    // Each waits for its own readers only.
    let text = RIGHT
        .with("mbarrier_init(shared.empty[i], 2);", "mbarrier_init(shared.empty[i], 1);")
        .replace("if (threadIdx.x == 160) mbarrier_arrive_remote(shared.empty[i], peer);", "");
    RIGHT.exposed_by(Copies::Eager, &text);
    // The peer never says that it has read.
    RIGHT.refused(
        &RIGHT.with("if (threadIdx.x == 160) mbarrier_arrive_remote(shared.empty[i], peer);", ""),
        &["no thread can go on", "lacks 1 of 2 arrivals"],
    );
}

#[test]
fn a_barrier_of_another_block_that_is_not_there_yet_is_refused() {
    // Blocks begin when they like: only cluster_sync tells that the other has made its barriers.
    let early = RIGHT.with(
        "    cluster_sync();\n    if (threadIdx.x == 0) {\n",
        "    block_sync();\n    if (threadIdx.x == 0) {\n",
    );
    RIGHT.refused_somewhere(
        &early,
        &["tma_load_multicast: in block (", "there is no barrier here: nobody has called mbarrier_init"],
    );
    RIGHT.refused(
        &RIGHT.with("(shared.empty[i], peer)", "(shared.empty[2], peer)"),
        &["mbarrier_arrive_remote: in block (", "there is no barrier here: nobody has called mbarrier_init"],
    );
    RIGHT.refused(
        &RIGHT.with(
            "mbarrier_arrive_remote(shared.empty[i], peer)",
            "mbarrier_arrive_remote(*(Mbarrier*)p.y, peer)",
        ),
        &["mbarrier_arrive_remote", "not in the block's shared memory"],
    );
    RIGHT.refused(
        &RIGHT.with("mbarrier_init_fence();", "if (rank == 1) mbarrier_init_fence();"),
        &["made the barrier without mbarrier_init_fence"],
    );
}

#[test]
fn a_block_that_ends_while_others_reach_into_it_is_refused() {
    let last = "    }\n    cluster_sync();\n}\n";
    RIGHT.refused(&RIGHT.with(last, "    }\n}\n"), &["cluster_sync"]);
    // One that leaves while the other waits for it.
    let leaves = RIGHT.with(last, "    }\n    if (rank == 0) cluster_sync();\n}\n");
    RIGHT.refused(&leaves, &["block (", "has ended", "cluster_sync"]);
    RIGHT.refused_somewhere(
        &leaves,
        &[
            "no thread can go on: block (",
            "is at cluster_sync",
            "block (1, 0, 0), thread 0 has ended and 255 more",
        ],
    );
    // One that has left when the other sends to it.
    let gone = RIGHT.with(
        "    cluster_sync();\n    if (threadIdx.x == 0) {\n",
        "    cluster_sync();\n    if (rank == 1) return;\n    if (threadIdx.x == 0) {\n",
    );
    RIGHT.refused_somewhere(
        &gone,
        &["tma_load_multicast: block (", "has ended", "must wait for them at cluster_sync"],
    );
    // Some threads of a block that do not come.
    RIGHT.refused(
        &RIGHT.with(last, "    }\n    if (threadIdx.x < 224) cluster_sync();\n}\n"),
        &["no thread can go on", "is at cluster_sync", "thread 224 has ended and 31 more"],
    );
}

#[test]
fn a_block_that_is_reached_into_and_ends_by_luck_behind_that_is_refused() {
    // Rank 0 arrives at a barrier of rank 1, which does not wait for it, and ends after it or before, as threads happen to run.
    let text = |end: &str| {
        format!(
            "KERNEL(32, test, Arguments) {{ SHARED_DYNAMIC(Mbarrier, barrier);
    if (threadIdx.x == 0) {{ mbarrier_init(barrier, 1); mbarrier_init_fence(); }}
    cluster_sync();
    if (threadIdx.x == 0 && cluster_rank() == 0) mbarrier_arrive_remote(barrier, 1);
    {end}
}}"
        )
    };
    let config = LaunchConfig { grid: [2, 1, 1], threads: 32, shared_bytes: 8, cluster: 2 };
    for (mode, ended) in [
        (MODES[0], "the block may end while block (0, 0, 0), thread 0"),
        (MODES[2], "block (1, 0, 0) has ended"),
    ] {
        let mut rig = Rig::new(mode, &[0; 8], &[0; 8], 1);
        rig.launch_on(&text("cluster_sync();"), "test", config, [[0; 16]; 2]).unwrap();
        let error = rig.launch_on(&text(""), "test", config, [[0; 16]; 2]).unwrap_err().to_string();
        assert!(error.contains(ended) && error.contains("cluster_sync"), "{mode:?}: {error}");
    }
}

#[test]
fn after_an_error_in_a_cluster_the_next_launch_is_sound() {
    let (a, b) = (whole_numbers(64 * 192, 5), whole_numbers(256 * 192, 6));
    let mut rig = Rig::new(MODES[0], &bf16(&a), &bf16(&b), 256 * 64);
    let of_a = rig.map(false, &[192, 64], &[384], TmaMode::Tiled(&[64, 32]));
    let of_b = rig.map(true, &[192, 256], &[384], TmaMode::Tiled(&[64, 32]));
    let bad = RIGHT.with("(shared.empty[i], peer)", "(shared.empty[i], 2)");
    rig.launch_on(&bad, "test", CONFIG, [of_a, of_b]).unwrap_err();
    assert!(rig.launch_on(PIPELINE, "test", CONFIG, [of_a, of_b]).unwrap() == expected());
}
