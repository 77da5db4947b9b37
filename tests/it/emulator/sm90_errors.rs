//! Every word of compute capability 9.0 used wrongly, and caught: the pipeline of `sm90` with one mistake planted.

use residua::backend::cuda::driver::emulator::{Copies, Emulator, Options};
use residua::backend::cuda::driver::tensor_map::TmaMode;

use crate::emulator::planted::Planted;
use crate::emulator::sm90::{PIPELINE, Rig, bf16, expected_of_pipeline, pipeline, whole_numbers};
use crate::emulator::{self, MODES, ONE_BLOCK, counting};

const RIGHT: Planted = Planted { text: PIPELINE, run: pipeline, expected: expected_of_pipeline };

#[test]
fn a_missing_wait_for_a_tma_load_shows() {
    let text = RIGHT.with("mbarrier_wait(shared.full[i], k / 2 % 2);", "");
    RIGHT.exposed_by(Copies::Lazy, &text);
    let consumer_left = RIGHT.with("setmaxnreg_inc<232>();", "setmaxnreg_inc<232>(); return;");
    RIGHT.refused(
        &consumer_left,
        &["no thread can go on", "mbarrier_wait", "lacks 1 of 1 arrivals and 0 bytes"],
    );
    // A load that no thread waits for.
    let abandoned = "struct One { u8 tile[8192]; Mbarrier full; };
KERNEL(256, test, Arguments) {
    SHARED_DYNAMIC(One, one);
    if (threadIdx.x == 0) {
        mbarrier_init(one.full, 1);
        mbarrier_arrive_expect_tx(one.full, 8192);
        tma_load(one.tile, p.a, one.full, 0, 0);
    }
}";
    RIGHT.refused_somewhere(
        abandoned,
        &["the block ended while a TMA load of thread 0 (test.cu line 7) was in flight"],
    );
}

#[test]
fn a_missing_wait_for_wgmma_is_refused() {
    let early = RIGHT.with("wgmma_wait<0>();\n", "");
    RIGHT
        .refused_somewhere(&early, &["the block ended while a wgmma of thread", "wgmma_wait<0> are missing"]);
    for copies in [Copies::Lazy, Copies::Eager] {
        RIGHT.exposed_by(copies, &early);
    }
    // Products that were not committed are waited for by nobody.
    RIGHT.refused(&RIGHT.with("wgmma_commit();\n", ""), &["the block ended while a wgmma"]);
}

#[test]
fn sums_that_are_touched_before_their_wait_show() {
    let read = RIGHT
        .with("wgmma_wait<0>();\n", "float early = d[0];\nwgmma_wait<0>();\nif (k == 4) d[0] = early;\n");
    for mode in MODES {
        let y = pipeline(mode, &read).unwrap();
        assert!(y[0].is_nan() && y[1] == expected_of_pipeline()[1], "{mode:?}");
    }
    RIGHT.refused(
        &RIGHT.with("wgmma_wait<0>();\n", "d[5] = 0.0f;\nwgmma_wait<0>();\n"),
        &["wgmma_wait: its accumulators were written to while wgmma instructions were in flight"],
    );
    RIGHT.refused(
        &RIGHT.with("wgmma_fence();", ""),
        &["wgmma: there is no wgmma_fence since the last wgmma_wait"],
    );
}

#[test]
fn a_wrong_parity_shows() {
    for copies in [Copies::Lazy, Copies::Eager] {
        RIGHT.exposed_by(
            copies,
            &RIGHT.with("mbarrier_wait(shared.full[i], k / 2 % 2);", "mbarrier_wait(shared.full[i], k % 2);"),
        );
    }
    RIGHT.refused(
        &RIGHT.with("mbarrier_wait(shared.empty[i], k / 2 % 2 ^ 1);", "mbarrier_wait(shared.empty[i], 0);"),
        &[
            "no thread can go on: thread 0 is at mbarrier_wait (test.cu line 19): a phase of parity 0 lacks 1 of 1 arrivals",
        ],
    );
    RIGHT.refused(
        &RIGHT.with("mbarrier_wait(shared.full[i], k / 2 % 2);", "mbarrier_wait(shared.full[i], k / 2);"),
        &["mbarrier_wait: a phase has parity 0 or 1, not 2"],
    );
}

#[test]
fn a_stage_that_is_released_too_early_shows() {
    let release = "if (threadIdx.x == 128) mbarrier_arrive(shared.empty[i]);";
    let text =
        PIPELINE.replace(release, "").replace("wgmma_commit();", &format!("wgmma_commit();\n{release}"));
    assert_ne!(text, PIPELINE);
    RIGHT.exposed_by(Copies::Eager, &text);
    // Nobody waits until a stage is free.
    RIGHT.exposed_by(Copies::Eager, &RIGHT.with("mbarrier_wait(shared.empty[i], k / 2 % 2 ^ 1);", ""));
}

#[test]
fn bytes_that_do_not_match_those_expected_are_refused() {
    RIGHT.refused(
        &RIGHT.with(
            "mbarrier_arrive_expect_tx(shared.full[i], 16384);",
            "mbarrier_arrive_expect_tx(shared.full[i], 16400);",
        ),
        &["no thread can go on", "a phase of parity 0 lacks 0 of 1 arrivals and 16 bytes"],
    );
    let few = RIGHT.with(
        "mbarrier_arrive_expect_tx(shared.full[i], 16384);",
        "mbarrier_arrive_expect_tx(shared.full[i], 8192);",
    );
    RIGHT.refused_somewhere(&few, &["its 8192 bytes arrive after the phase they were loaded in"]);
    for copies in [Copies::Lazy, Copies::Eager] {
        RIGHT.exposed_by(copies, &few);
    }
    RIGHT.refused(
        &RIGHT.with(
            "mbarrier_arrive_expect_tx(shared.full[i], 16384);",
            "mbarrier_arrive_expect_tx(shared.full[i], 1 << 20);",
        ),
        &["1048576 bytes are expected; a phase may have 1048575"],
    );
}

#[test]
fn a_barrier_that_was_not_made_properly_is_refused() {
    RIGHT
        .refused(&RIGHT.with("mbarrier_init(shared.empty[i], 1);", ""), &["nobody has called mbarrier_init"]);
    RIGHT.refused(
        &RIGHT.with("mbarrier_init_fence();", ""),
        &["thread 0 made the barrier without mbarrier_init_fence"],
    );
    RIGHT.refused(
        &RIGHT.with("mbarrier_init(shared.full[i], 1);", "mbarrier_init(shared.full[i], 0);"),
        &["a barrier for 0 arrivals; 1 to 1048575 are allowed"],
    );
    RIGHT.refused(
        &RIGHT.with("mbarrier_init(shared.full[i], 1);", "mbarrier_init(shared.full[0], 1);"),
        &["mbarrier_init: there is a barrier already, made by thread 0"],
    );
    RIGHT.refused(
        &RIGHT.with("setmaxnreg_dec<40>();", "shared.full[0].state = 0; setmaxnreg_dec<40>();"),
        &["something was written over the barrier"],
    );
    RIGHT.refused_somewhere(&RIGHT.with("block_sync();", ""), &["nobody has called mbarrier_init"]);
}

#[test]
fn an_arrival_too_many_is_refused() {
    let twice = RIGHT.with(
        "mbarrier_arrive_expect_tx(shared.full[i], 16384);",
        "mbarrier_arrive_expect_tx(shared.full[i], 16384); mbarrier_arrive(shared.full[i]);",
    );
    RIGHT.refused(&twice, &["mbarrier_arrive: one arrival too many: all 1 have come", "16384 bytes"]);
    RIGHT.exposed_by(Copies::Eager, &RIGHT.with("if (threadIdx.x == 128)", "if (threadIdx.x % 128 < 2)"));
    // One too few: nobody goes on.
    RIGHT.refused(
        &RIGHT.with("mbarrier_init(shared.empty[i], 1);", "mbarrier_init(shared.empty[i], 2);"),
        &["no thread can go on", "lacks 1 of 2 arrivals"],
    );
}

#[test]
fn a_descriptor_of_another_layout_shows() {
    let a = "matrix_descriptor(shared.stage[i].a + 32 * s, 0, 1024)";
    RIGHT.exposed_by(Copies::Lazy, &RIGHT.with(a, "matrix_descriptor(shared.stage[i].a + 32 * s, 0, 2048)"));
    RIGHT.exposed_by(Copies::Lazy, &RIGHT.with(a, "matrix_descriptor(shared.stage[i].a, 0, 1024)"));
    RIGHT.refused(
        &RIGHT.with(a, "matrix_descriptor(shared.stage[i].a + 32 * s, 0, 1040)"),
        &["wgmma: tile a has stride bytes 1040; a multiple of 1024"],
    );
    RIGHT.refused(
        &RIGHT.with(a, "matrix_descriptor(shared.stage[i].a + 32 * s, 0, 16384)"),
        &["wgmma: tile a begins at byte 0 and ends at byte 115712 of dynamic shared memory, which has 65536"],
    );
    RIGHT.refused(
        &RIGHT.with(a, "matrix_descriptor(shared.stage[i].a + 128 + 32 * s, 0, 1024)"),
        &[
            "wgmma: tile a begins at byte 128 of dynamic shared memory; swizzled tiles begin at multiples of 1024",
        ],
    );
    RIGHT.refused(
        &RIGHT.with(a, "matrix_descriptor(p.y, 0, 1024)"),
        &["matrix_descriptor", "not in the block's shared memory"],
    );
    RIGHT.refused(&RIGHT.with(a, "u64(0)"), &["the descriptor 0x0 of a is none"]);
}

#[test]
fn threads_of_a_warpgroup_at_different_wgmma_are_refused() {
    RIGHT.refused(
        &RIGHT.with("k + s > 0", "k + s > threadIdx.x % 2"),
        &["wgmma: thread", "issues another wgmma"],
    );
    let skip = RIGHT
        .with("wgmma<64, false, false>(d,", "if (threadIdx.x != 200 || s != 3) wgmma<64, false, false>(d,");
    RIGHT.refused(&skip, &["of the warpgroup is at wgmma"]);
    let other = PIPELINE
        .replace("float d[32];", "float d[32], e[32];")
        .replace("false>(d,", "false>(threadIdx.x == 131 && s ? e : d,");
    RIGHT.refused(&other, &["has other accumulators than thread"]);
    // A warp that does not come to the wait.
    RIGHT.refused(
        &RIGHT.with("wgmma_wait<0>();\n", "if (threadIdx.x < 224) wgmma_wait<0>();\n"),
        &["no thread can go on", "is at wgmma_wait"],
    );
}

#[test]
fn a_named_barrier_with_wrong_threads_is_refused() {
    let barrier = "named_barrier_sync(1, 128);";
    RIGHT.refused(
        &RIGHT.with(barrier, "named_barrier_sync(1, 160);"),
        &["no thread can go on", "named_barrier_sync", "128 of 160 threads have come to barrier 1"],
    );
    RIGHT.refused(
        &RIGHT.with(barrier, "named_barrier_sync(1, 100);"),
        &["a barrier of 100 threads in a block of 256"],
    );
    RIGHT.refused(
        &RIGHT.with(barrier, "named_barrier_sync(16, 128);"),
        &["named barriers have numbers 1 to 15, not 16"],
    );
    RIGHT.refused(
        &RIGHT.with(barrier, "named_barrier_sync(1, threadIdx.x < 160 ? 128 : 64);"),
        &["threads, where thread", "waits for"],
    );
    RIGHT.refused(
        &RIGHT.with(barrier, "if (threadIdx.x != 140) named_barrier_sync(1, 128);"),
        &["no thread can go on", "named_barrier_sync", "96 of 128 threads have come"],
    );
}

#[test]
fn registers_that_a_warpgroup_does_not_have_are_refused() {
    RIGHT.refused(
        &RIGHT.with("setmaxnreg_dec<40>();", "setmaxnreg_dec<256>();"),
        &["256 registers, and a thread of this warpgroup has at most 255"],
    );
    RIGHT.refused(
        &RIGHT.with("setmaxnreg_dec<40>();", "if (threadIdx.x < 96) setmaxnreg_dec<40>();"),
        &["no thread can go on", "is at setmaxnreg_dec"],
    );
    // Together more than the SM has, until another warpgroup releases some.
    let taken = |give: &str| {
        format!(
            "KERNEL(384, test, Arguments) {{ if (threadIdx.x < 128) {{ {give} }} else setmaxnreg_inc<232>(); }}"
        )
    };
    for mode in MODES {
        let mut rig = Rig::new(mode, &[0; 8], &[0; 8], 1);
        rig.launch(&taken("setmaxnreg_dec<40>();"), "test", 384, [[0; 16]; 2]).unwrap();
        let error = rig.launch(&taken(""), "test", 384, [[0; 16]; 2]).unwrap_err().to_string();
        assert!(
            error.contains("no thread can go on") && error.contains("is at setmaxnreg_inc"),
            "{mode:?}: {error}"
        );
    }
}

#[test]
fn a_tma_load_from_or_to_the_wrong_address_is_refused() {
    let load = "tma_load(shared.stage[i].a, p.a, shared.full[i], 64 * k, 0);";
    RIGHT.refused(
        &RIGHT.with(load, "tma_load((u8*)&shared + 65536, p.a, shared.full[i], 64 * k, 0);"),
        &["8192 bytes are loaded to address", "not in the block's shared memory"],
    );
    RIGHT.refused(
        &RIGHT.with(load, "tma_load(shared.stage[i].a + 128, p.a, shared.full[i], 64 * k, 0);"),
        &["tma_load: the target lies 128 bytes behind a multiple of 1024"],
    );
    RIGHT.refused(
        &RIGHT.with(load, "tma_load(shared.stage[i].a, p.a, shared.full[i], 64 * k, 0, 0);"),
        &["the map is of boxes in 2 dimensions, the load of boxes in 3"],
    );
    RIGHT.refused(
        &RIGHT.with(load, "tma_load_im2col(shared.stage[i].a, p.a, shared.full[i], 64 * k, 0, 0, 0, 0, 0);"),
        &["the map is of boxes in 2 dimensions, the load of images in 4"],
    );
    // A map of more rows than the operand has.
    let x = bf16(&whole_numbers(64 * 320, 5));
    for mode in MODES {
        let mut rig = Rig::new(mode, &x, &x, 64 * 64);
        let map = rig.map(false, &[320, 65], &[640], TmaMode::Tiled(&[64, 64]));
        let text = PIPELINE.replace("shared.full[i], 64 * k, 0);", "shared.full[i], 64 * k, 1);");
        let error = rig.launch(&text, "test", 256, [map, map]).unwrap_err().to_string();
        let expected =
            "thread 0, test.cu line 21: tma_load reads 2 bytes at byte 40960 of `a`, which has 40960 bytes";
        assert!(error.contains(expected), "{mode:?}: {error}");
        let error = rig.launch(PIPELINE, "test", 256, [[0; 16], map]).unwrap_err().to_string();
        assert!(error.contains("was not made by this device's Driver::tensor_map"), "{mode:?}: {error}");
    }
}

#[test]
fn a_walk_that_begins_outside_its_bounding_box_is_refused() {
    let x = bf16(&whole_numbers(64 * 320, 5));
    let mut rig = Rig::new(MODES[0], &x, &x, 64 * 64);
    let mode = TmaMode::Im2col { lower: [-1, 0], upper: [-1, 0], channels: 64, pixels: 64, strides: [1, 1] };
    let map = rig.map(false, &[64, 8, 8, 5], &[128, 1024, 8192], mode);
    for (w, h, expected) in [
        (-2, 0, "the first pixel's w is -2; the map's bounding box has -1 to 6"),
        (0, 8, "h is 8; the map's bounding box has 0 to 7"),
    ] {
        let load = format!("tma_load_im2col(shared.stage[i].a, p.a, shared.full[i], 0, {w}, {h}, 0, 0, 0);");
        let text = RIGHT.with("tma_load(shared.stage[i].a, p.a, shared.full[i], 64 * k, 0);", &load);
        let error = rig.launch(&text, "test", 256, [map, map]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn stores_that_wgmma_reads_without_a_fence_are_refused() {
    // All threads of the consumer double tile a in place, whatever the swizzle.
    let doubled = |fence: &str| {
        RIGHT.with(
            "wgmma_fence();",
            &format!(
                "for (u32 at = threadIdx.x - 128; at < 4096; at += 128) {{ bf16* x = (bf16*)shared.stage[i].a + at; \
                 *x = from_float<bf16>(2.0f * to_float(*x)); }} {fence} named_barrier_sync(2, 128); wgmma_fence();"
            ),
        )
    };
    let expected: Vec<f32> = expected_of_pipeline().iter().map(|value| 2.0 * value).collect();
    for mode in MODES {
        assert!(pipeline(mode, &doubled("fence_proxy_async();")).unwrap() == expected, "{mode:?}");
    }
    RIGHT.refused(
        &doubled(""),
        &["of dynamic shared memory, which ordinary stores wrote; fence_proxy_async by those threads"],
    );
}

#[test]
fn a_block_that_never_ends_is_stopped() {
    for (body, expected) in [
        ("while (load(p.x) == 0.0f);", "load: the block reads and writes on and on"),
        ("for (;;) warp_sync();", "it never ends; thread"),
    ] {
        for (order, copies) in MODES {
            let device = Emulator::new(Options { order, copies, threads: 1 }).unwrap().with_patience(1 << 16);
            let mut rig = emulator::Rig::new(device, &counting(64), 64);
            let error = rig.launch(&emulator::kernel(body), ONE_BLOCK, 0).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
