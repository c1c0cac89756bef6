//! What the emulation promises: it computes what the hardware would, and reports what the hardware would not.

#[path = "common/mistake.rs"]
mod mistake;
#[path = "common/ring.rs"]
mod ring;

use duel_cuda::{Driver, Grid, sys};
use duel_kernel_tests::{Copies, Emulation, Order, Schedule, message_of_panic};
use ring::Ring;

fn forward() -> Schedule {
    Schedule::new(Order::Forward, Copies::Lazy)
}

/// Expects that the emulation ends the launch with a message that has `what` in it, and the place.
fn expect(kernel: &'static str, what: &str) {
    let name = kernel.strip_suffix("@test").expect("a kernel of the tests");
    for schedule in Schedule::ALL {
        // Eager copies are never outstanding.
        if what.contains("outstanding") && schedule.copies == Copies::Eager {
            continue;
        }
        let message = mistake::run(kernel, mistake::threads(kernel), schedule).expect_err(name);
        assert!(message.contains(what), "{name}, {schedule:?}: {message}");
        assert!(message.contains(&mistake::place(name)), "{name}, {schedule:?}: {message}");
        assert!(message.starts_with(name), "{name}, {schedule:?}: {message}");
    }
}

#[test]
fn a_deadlock_is_reported_with_who_waits_where() {
    expect("deadlock@test", "threads 0-31 wait at bar_sync");
}

#[test]
fn a_divergent_barrier_is_reported() {
    expect("divergent_barrier@test", "divergence");
}

#[test]
fn a_shuffle_of_half_a_warp_is_reported() {
    expect("half_warp_shuffle@test", "wait at __shfl_xor_sync");
}

#[test]
fn a_lane_outside_its_mask_is_reported() {
    expect("foreign_lane@test", "the calling lane is not in its own mask 0000ffff");
}

#[test]
fn wrong_barrier_counts_are_reported() {
    expect("odd_barrier_count@test", "a count of 48 is not a number of warps");
    expect("two_barrier_counts@test", "barrier 1 with count");
}

#[test]
fn misalignment_is_reported() {
    expect("misaligned_ldmatrix@test", "ldmatrix: shared memory offset");
    expect("misaligned_cp_async@test", "is not a multiple of 16");
    expect("misaligned_load@test", "is not a multiple of 16");
}

#[test]
fn memory_outside_the_block_s_is_reported() {
    expect("cp_async_outside@test", "is outside the 1024 bytes of shared memory");
}

#[test]
fn outstanding_copies_are_reported() {
    expect("copy_at_exit@test", "cp.async copies outstanding at exit");
    expect("wgmma_at_exit@test", "wgmma outstanding at exit");
}

#[test]
fn misuse_of_mbarriers_is_reported() {
    expect("too_many_arrivals@test", "more arrivals than the count of 1");
    expect("no_mbarrier@test", "it was not initialised");
    expect("overwritten_mbarrier@test", "was overwritten");
    expect("missing_arrival@test", "wait at mbarrier wait");
}

#[test]
fn a_wgmma_without_a_fence_is_reported() {
    expect("unfenced_wgmma@test", "no wgmma_fence");
}

// AddressSanitizer reports the write itself, and ends the program.
#[cfg(not(sanitized = "address"))]
#[test]
fn a_write_past_shared_memory_is_reported() {
    let message = mistake::run("write_outside@test", 32, forward()).expect_err("it is outside");
    assert!(message.contains("shared memory was written at offset 1024, past its 1024 bytes"), "{message}");
}

#[test]
fn launches_that_a_device_refuses_are_refused() {
    let message = mistake::run("deadlock@test", 96, forward()).expect_err("more than its bound");
    assert!(message.contains("a block of 96 threads, its launch bound is 64"), "{message}");
    let message = mistake::run("nothing", 32, forward()).expect_err("no such kernel");
    assert!(message.contains("there is no kernel nothing"), "{message}");
}

#[test]
fn an_error_is_reported_once_and_by_the_next_download() {
    let driver = Emulation::new(forward());
    let memory = driver.alloc(16).expect("room for a test");
    // SAFETY: there is no such kernel, so nothing reads the arguments.
    unsafe { driver.launch("nothing", Grid::linear(1, 32), &[]) };
    assert!(driver.download(&mut [0; 4], &memory, 0).is_err());
    assert!(driver.finish().is_ok());
}

#[test]
fn tensor_maps_that_a_device_refuses_are_refused() {
    let good = sys::TensorMapSpec {
        base: 256,
        extents: [64, 8, 1],
        strides: [128, 0],
        tile: [64, 8, 1],
        rank: 2,
        element_bytes: 2,
        swizzle_bytes: 128,
    };
    let driver = Emulation::new(forward());
    driver.tensor_map(&good);
    let bad = [
        (sys::TensorMapSpec { base: 8, ..good }, "base"),
        (sys::TensorMapSpec { strides: [136, 0], ..good }, "stride of 136"),
        (sys::TensorMapSpec { swizzle_bytes: 64, ..good }, "wider than the swizzle"),
        (sys::TensorMapSpec { tile: [64, 257, 1], ..good }, "box of 257"),
        (sys::TensorMapSpec { tile: [4, 8, 1], ..good }, "box row of 8 bytes"),
        (sys::TensorMapSpec { rank: 4, ..good }, "rank 4"),
    ];
    for (spec, what) in bad {
        let message = message_of_panic(|| _ = driver.tensor_map(&spec)).expect(what);
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn tma_mbarriers_and_wgmma_agree_with_plain_arithmetic() {
    for schedule in Schedule::ALL {
        let driver = Emulation::new(schedule);
        for through_registers in [false, true] {
            Ring { m: 64, n: 64, k: 64, through_registers }.check(&driver, "ring@test");
            Ring { m: 72, n: 136, k: 328, through_registers }.check(&driver, "ring@test");
        }
    }
}
