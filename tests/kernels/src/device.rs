//! What a [`Device`] promises besides its kernels. Each function takes a way to open one.

use crate::message_of_panic;
use duel_backend::{Activation, Error, FeedForward, Repetition, Storage};
use duel_cuda::{Cuda, Device, Driver, Grid, Settings, sys};

/// Opens a device with these settings.
pub type Open<'a> = dyn Fn(Settings) -> Device + 'a;

/// Memory is aligned and zeroed, and copies keep to their offsets.
pub fn memory_is_aligned_zeroed_and_copied_at_offsets(open: &Open) {
    let device = open(Settings::default());
    let mut a = device.alloc(1000).expect("room for a test");
    let mut b = device.alloc(1000).expect("room for a test");
    assert_eq!([device.address(&a) % 256, device.address(&b) % 256], [0, 0]);
    device.upload(&mut a, 10, &[1, 2, 3]);
    device.copy(&mut b, &a, 12);
    device.zero(&mut a, 11);
    let mut host = [[9u8; 6]; 2];
    device.download(&mut host[0], &a, 8).expect("nothing went wrong");
    device.download(&mut host[1], &b, 8).expect("nothing went wrong");
    assert_eq!(host, [[0, 0, 0, 2, 3, 0], [0, 0, 1, 2, 0, 0]]);
    assert!(device.alloc(0).is_ok());
}

/// More memory than there is is refused, and nothing else is harmed.
pub fn too_much_memory_is_refused_with_its_size(open: &Open) {
    let device = open(Settings::default());
    let bytes = 1 << 42;
    let refused = device.alloc(bytes).err().expect("no device has 4 TiB");
    assert_eq!(refused, Error::OutOfMemory { bytes });
    assert!(device.finish().is_ok());
}

/// An error is reported by the next wait, and by no later one.
pub fn an_error_is_reported_once(open: &Open) {
    let device = open(Settings::default());
    // SAFETY: there is no such kernel, so nothing reads the arguments.
    unsafe { device.launch("nothing", Grid::linear(1, 32), &[]) };
    let message = device.finish().expect_err("there is no such kernel").to_string();
    assert!(message.contains("there is no kernel nothing"), "{message}");
    assert!(device.finish().is_ok());
}

/// A tensor map that the device would not take is a panic here.
pub fn tensor_maps_that_the_device_refuses_are_refused(open: &Open) {
    let device = open(Settings::default());
    if device.properties().compute_capability < 90 {
        return; // there is no TMA, and launch code asks for no tensor map
    }
    let memory = device.alloc(1024).expect("room for a test");
    let good = sys::TensorMapSpec {
        base: device.address(&memory),
        extents: [64, 8, 1],
        strides: [128, 0],
        tile: [64, 8, 1],
        rank: 2,
        element_bytes: 2,
        swizzle_bytes: 128,
    };
    device.tensor_map(&good);
    let misaligned = sys::TensorMapSpec { base: good.base + 8, ..good };
    assert!(message_of_panic(|| _ = device.tensor_map(&misaligned)).is_some());
}

/// Kernels are compiled without a folder for them.
pub fn without_a_cache_kernels_are_compiled_and_run_all_the_same(open: &Open) {
    let settings = Settings { cache: None, ..Settings::default() };
    let device = open(settings);
    let cuda = Cuda::<_, f32>::new(device);
    let mut x = cuda.alloc(2).expect("room for a test");
    cuda.upload(&mut x, 0, &[0.0, 20.0]);
    let mut y = cuda.alloc(2).expect("room for a test");
    cuda.activate(&mut y, &x, 2, Activation::GeluTanh);
    let mut host = [9.0; 2];
    cuda.download(&mut host, &y, 0).expect("nothing went wrong");
    assert_eq!(host, [0.0, 20.0]);
}

/// A program's memory becomes a buffer, and a buffer its memory, without a copy.
pub fn memory_of_a_program_of_its_own_is_used_where_it_is(open: &Open) {
    let device = open(Settings::default());
    let values = [1.0f32, -2.0, 3.0, 20.0];
    let mut slice = device.stream().alloc_zeros::<f32>(4).expect("room for a test");
    device.stream().memcpy_htod(&values, &mut slice).expect("it can be copied");
    let x = device.buffer(slice);
    let cuda = Cuda::<_, f32>::new(device);
    let mut y = cuda.alloc(4).expect("room for a test");
    cuda.copy(&mut y, &x, 4);
    cuda.finish().expect("nothing went wrong");
    let stream = cuda.driver().stream().clone();
    assert_eq!(stream.clone_dtoh(&y.into_slice()), Ok(values.to_vec()));
    drop(x);
}

/// What is uploaded may change at once, however much is under way.
pub fn uploads_do_not_wait_and_do_not_mix(open: &Open) {
    let device = open(Settings::default());
    // More than both halves of the staging memory, small and large, the source overwritten at once.
    let sizes = [1 << 10, 5 << 20, 9 << 20, 3, 20 << 20, 1 << 20];
    let cuda = Cuda::<_, f32>::new(device);
    let mut host: Vec<u32> = Vec::new();
    let mut buffers = Vec::new();
    for (i, bytes) in sizes.into_iter().enumerate() {
        let len = bytes / 4 + 1;
        host.clear();
        host.extend((0..len).map(|j| (i * 1_000_003 + j) as u32));
        let mut buf = cuda.alloc(len).expect("room for a test");
        cuda.upload(&mut buf, 0, &host);
        host.fill(0);
        buffers.push(buf);
    }
    for (i, buf) in buffers.iter().enumerate() {
        let mut back = vec![0u32; buf.len()];
        cuda.download(&mut back, buf, 0).expect("nothing went wrong");
        assert!(back.iter().enumerate().all(|(j, &x)| x == (i * 1_000_003 + j) as u32), "upload {i}");
    }
}

/// Work is timed between events.
pub fn time_is_taken_on_the_device(open: &Open) {
    let device = open(Settings::default());
    let cuda = Cuda::<_, f32>::new(device);
    let mut x = cuda.alloc::<f32>(1 << 24).expect("room for a test");
    let seconds = cuda.driver().seconds(|| cuda.zero(&mut x)).expect("nothing went wrong");
    assert!(seconds > 0.0 && seconds < 10.0, "{seconds}");
}

/// Work that cannot be recorded, because something ends the recording, is done all the same.
pub fn what_ends_a_recording_does_not_end_the_work(open: &Open) {
    let [cuda, other] = [(), ()].map(|()| Cuda::<_, f32>::new(open(Settings::default())));
    let mut x = cuda.alloc::<f32>(3).expect("room for a test");
    let y = other.alloc::<f32>(1).expect("room for a test");
    let mut recording = Default::default();
    for (round, asked_for) in [1, 2, 1, 0].into_iter().enumerate() {
        cuda.upload(&mut x, 0, &[1.0f32, 2.0, 3.0]);
        let mut asked = 0;
        cuda.repeat(&mut recording, || {
            asked += 1;
            cuda.zero(&mut x);
            if (round, asked) == (1, 1) {
                // Allocates pinned memory, which a thread may not while it records.
                assert!(other.download(&mut [9.0f32], &y, 0).is_err());
            }
        });
        assert_eq!(asked, asked_for, "round {round}");
        let mut host = [9.0f32; 3];
        cuda.download(&mut host, &x, 0).expect("nothing went wrong");
        assert_eq!(host, [0.0; 3], "round {round}");
    }
}

/// The peak of memory is the sum of what was there at a time.
pub fn memory_is_counted(open: &Open) {
    let device = open(Settings::default());
    let before = device.memory().peak.expect("a device counts");
    let memory = device.alloc(3 << 20).expect("room for a test");
    drop(memory);
    drop(device.alloc(1 << 20));
    assert_eq!(device.memory().peak, Some(before + (3 << 20)));
    assert!(device.memory().free.is_some_and(|free| free > 0));
}

/// A test of every function here: `device_tests!(|name, test| …)` decides where it runs.
#[macro_export]
macro_rules! device_tests {
    ($on:expr) => {
        $crate::device_tests!($on; memory_is_aligned_zeroed_and_copied_at_offsets, too_much_memory_is_refused_with_its_size, an_error_is_reported_once, tensor_maps_that_the_device_refuses_are_refused, without_a_cache_kernels_are_compiled_and_run_all_the_same, memory_of_a_program_of_its_own_is_used_where_it_is, uploads_do_not_wait_and_do_not_mix, time_is_taken_on_the_device, what_ends_a_recording_does_not_end_the_work, memory_is_counted);
    };
    ($on:expr; $($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                $on(stringify!($name), $crate::device::$name);
            }
        )*
    };
}
