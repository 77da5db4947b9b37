//! Copies to the stand-in for the GPU and back: they hold what was there when they were queued, and large ones wait for nothing.

use std::time::Duration;

use residua::Error;
use residua::backend::cuda::driver::native::Native;
use residua::backend::cuda::driver::{Driver, Launch};
use residua::rng::{Purpose, Stream};

use super::fake_driver::{CONFIG, is_child, run_in, source};

fn run(test: &str, variables: &[(&str, &str)]) {
    run_in("fake_driver_copies", test, variables);
}

#[test]
fn memory_and_copies_hold_their_promises() {
    run("memory_and_copies", &[]);
}

#[test]
fn memory_and_copies_hold_their_promises_where_the_copy_stream_is_far_ahead() {
    run("memory_and_copies", &[("RESIDUA_FAKE_COPIES_EARLY", "1")]);
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn memory_and_copies() {
    if !is_child() {
        return;
    }
    let driver = Native::new(0).unwrap();
    assert_eq!(
        (driver.properties().name.as_str(), driver.properties().architecture.as_str()),
        ("Fake GPU", "sm_90a")
    );
    assert_eq!(driver.properties().shared_bytes_per_block, 232_448);
    let error = Native::new(1).err().unwrap();
    assert!(matches!(&error, Error::Usage(text) if text.contains("no GPU number 1")), "{error}");

    // Larger than the ring several times over; from another thread, where no context is current yet.
    const BYTES: usize = 80_000_001;
    let mut memory = driver.allocate(BYTES).unwrap();
    assert_eq!(memory.address() % 256, 0);
    let expected = std::thread::scope(|scope| {
        let work = || {
            let mut host = vec![1; BYTES];
            driver.download(&memory, 0, &mut host).unwrap();
            assert!(host.iter().all(|&byte| byte == 0), "memory begins as zeros");
            let random = Stream::for_purpose(5, Purpose::Synthetic, &[]);
            for (i, byte) in host.iter_mut().enumerate() {
                *byte = (i as u64 ^ random.bits(i as u64 / 4096)) as u8;
            }
            let mut reused = host.clone();
            driver.upload(&mut memory, 0, &reused).unwrap();
            reused.fill(0xee);
            // Many small ones, each out of the same place.
            for i in 0..3000_usize {
                let value = (i as u32 * 77).to_le_bytes();
                let mut place = value;
                driver.upload(&mut memory, i * 1001, &place).unwrap();
                place.fill(0xee);
                host[i * 1001..][..4].copy_from_slice(&value);
            }
            host
        };
        scope.spawn(work).join().unwrap()
    });
    let mut got = vec![0; BYTES];
    driver.download(&memory, 0, &mut got).unwrap();
    assert!(got == expected, "what was uploaded comes back");

    // A copy to the host holds what was there when it was queued, not what comes behind it.
    let first = driver.begin_download(&memory, 16, 100).unwrap();
    drop(driver.begin_download(&memory, 0, 1000).unwrap());
    driver.upload(&mut memory, 0, &[7; 4096]).unwrap();
    let second = driver.begin_download(&memory, 16, 100).unwrap();
    assert_eq!(second().unwrap(), [7; 100]);
    assert_eq!(first().unwrap(), expected[16..116]);

    let outside = driver.upload(&mut memory, BYTES - 3, &[0; 4]).unwrap_err().to_string();
    assert!(outside.contains("4 bytes at byte 79999998"), "{outside}");
    assert!(driver.begin_download(&memory, usize::MAX, 2).is_err());
    let error = driver.allocate(1 << 40).err().unwrap().to_string();
    assert!(error.contains("1048576 MiB") && error.contains("12 MiB are free"), "{error}");
    assert_eq!(driver.allocate(0).unwrap().bytes(), 0);
}

#[test]
fn batches_are_uploaded_while_the_work_before_them_still_runs() {
    run("batches_behind_work", &[]);
    run("batches_behind_work", &[("RESIDUA_FAKE_COPIES_EARLY", "1")]);
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn batches_behind_work() {
    if !is_child() {
        return;
    }
    // 256 images of 224 x 224: more than the ring holds at first.
    const BYTES: usize = 256 * 3 * 224 * 224;
    let driver = Native::new(0).unwrap().with_timeout(Some(Duration::from_millis(500)));
    let mut memory = driver.allocate(BYTES).unwrap();
    let module = driver.module(&source()).unwrap();
    let mut batch = vec![0_u8; BYTES];
    let mut numbered = |number: u8| {
        batch.iter_mut().enumerate().for_each(|(i, byte)| *byte = ((i as u32 * 7) >> 3) as u8 ^ number);
        batch.clone()
    };
    let mut got = vec![0; BYTES];
    for number in 0..5 {
        // Each batch is read by work of its own, and replaced only behind that.
        driver.upload(&mut memory, 0, &numbered(2 * number)).unwrap();
        let first = driver.begin_download(&memory, 0, BYTES).unwrap();
        driver.upload(&mut memory, 0, &numbered(2 * number + 1)).unwrap();
        assert!(first().unwrap() == numbered(2 * number), "batch {}", 2 * number);
        driver.download(&memory, 0, &mut got).unwrap();
        assert!(got == numbered(2 * number + 1), "batch {}", 2 * number + 1);
    }
    // Work that does not end stands for a long step: two batches are queued behind it, and only a further one has to wait.
    let launch = Launch { entry: "hang", config: CONFIG, arguments: &[0; 8], operands: &[] };
    driver.launch(&memory, &module, &launch).unwrap();
    for number in 10..13 {
        driver.upload(&mut memory, 0, &numbered(number)).unwrap();
    }
    let error = driver.upload(&mut memory, 0, &numbered(13)).unwrap_err();
    assert!(matches!(&error, Error::DeviceHangs(_)), "{error}");
}
