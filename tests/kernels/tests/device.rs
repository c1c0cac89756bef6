//! The first GPU, where there is one: the conformance suite and what the driver promises; and the compiler of its
//! kernels, which needs no GPU.

use duel_backend::{Backend, Error};
use duel_cuda::{Cuda, Device, Driver, Grid, Settings, compile, nvrtc_version, sys};
use duel_kernel_tests::{Devices, message_of_panic, skip};
use duel_kernels::{KERNELS, SOURCES, Source, Target};
use std::io::Write;
use std::sync::OnceLock;

struct Gpu;

fn open() -> Device {
    Device::open(0).expect("it could be opened before")
}

impl Devices for Gpu {
    type Driver = Device;

    /// Twice the same: a result may not differ from one run to the next.
    fn devices(&self) -> Vec<Device> {
        vec![open(), open()]
    }

    fn absent(&self) -> Option<String> {
        static ABSENT: OnceLock<Option<String>> = OnceLock::new();
        let look = || match Device::open(0) {
            Ok(device) => {
                // The device stays in use, so that no test has to start it again.
                std::mem::forget(device);
                None
            }
            Err(error) => {
                // In full once; every test that is skipped says that it is.
                drop(writeln!(std::io::stderr(), "no GPU: {error}"));
                Some("no GPU".into())
            }
        };
        ABSENT.get_or_init(look).clone()
    }
}

duel_kernel_tests::conformance!(Gpu);

// ---- the driver ------------------------------------------------------------------------------------------------------

/// Runs a test on the GPU, or skips it.
fn on_gpu(test: &str, run: impl FnOnce(Device)) {
    match Gpu.absent() {
        None => run(open()),
        Some(reason) => skip(test, &reason, "REQUIRE_CUDA"),
    }
}

#[test]
fn memory_is_aligned_zeroed_and_copied_at_offsets() {
    on_gpu("memory_is_aligned_zeroed_and_copied_at_offsets", |device| {
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
    });
}

#[test]
fn too_much_memory_is_refused_with_its_size() {
    on_gpu("too_much_memory_is_refused_with_its_size", |device| {
        let bytes = 1 << 42;
        let refused = device.alloc(bytes).err().expect("no device has 4 TiB");
        assert_eq!(refused, Error::OutOfMemory { bytes });
        assert!(device.finish().is_ok());
    });
}

#[test]
fn an_error_is_reported_once() {
    on_gpu("an_error_is_reported_once", |device| {
        // SAFETY: there is no such kernel, so nothing reads the arguments.
        unsafe { device.launch("nothing", Grid::linear(1, 32), &[]) };
        let message = device.finish().expect_err("there is no such kernel").to_string();
        assert!(message.contains("there is no kernel nothing"), "{message}");
        assert!(device.finish().is_ok());
    });
}

#[test]
fn tensor_maps_that_the_device_refuses_are_refused() {
    on_gpu("tensor_maps_that_the_device_refuses_are_refused", |device| {
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
    });
}

#[test]
fn without_a_cache_kernels_are_compiled_and_run_all_the_same() {
    on_gpu("without_a_cache_kernels_are_compiled_and_run_all_the_same", |_| {
        let settings = Settings { cache: None, ..Settings::default() };
        let device = Device::open_with(0, settings).expect("it could be opened before");
        let cuda = Cuda::<_, f32>::new(device);
        let mut x = cuda.alloc(2).expect("room for a test");
        cuda.upload(&mut x, 0, &[0.0, 20.0]);
        let mut y = cuda.alloc(2).expect("room for a test");
        cuda.gelu(&mut y, &x, 2);
        let mut host = [9.0; 2];
        cuda.download(&mut host, &y, 0).expect("nothing went wrong");
        assert_eq!(host, [0.0, 20.0]);
    });
}

/// The products of duel's own kernels, on a device whose products are otherwise those of cuBLASLt.
struct OwnProducts;

impl Devices for OwnProducts {
    type Driver = Device;

    fn devices(&self) -> Vec<Device> {
        let settings = Settings { cublaslt: false, ..Settings::default() };
        vec![Device::open_with(0, settings).expect("it could be opened before")]
    }

    fn absent(&self) -> Option<String> {
        Gpu.absent()
    }
}

mod own_products {
    duel_kernel_tests::conformance!(super::OwnProducts; gemm, gemm_gelu, gemm_parts, gemm_random, gemm_rows, gemm_wide);
}

#[test]
fn memory_of_a_program_of_its_own_is_used_where_it_is() {
    on_gpu("memory_of_a_program_of_its_own_is_used_where_it_is", |device| {
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
    });
}

#[test]
fn uploads_do_not_wait_and_do_not_mix() {
    on_gpu("uploads_do_not_wait_and_do_not_mix", |device| {
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
    });
}

#[test]
fn time_is_taken_on_the_device() {
    on_gpu("time_is_taken_on_the_device", |device| {
        let cuda = Cuda::<_, f32>::new(device);
        let mut x = cuda.alloc::<f32>(1 << 24).expect("room for a test");
        let seconds = cuda.driver().seconds(|| cuda.zero(&mut x)).expect("nothing went wrong");
        assert!((0.0..10.0).contains(&seconds), "{seconds}");
    });
}

#[test]
fn memory_is_counted() {
    on_gpu("memory_is_counted", |device| {
        let before = device.memory().peak.expect("a device counts");
        let memory = device.alloc(3 << 20).expect("room for a test");
        drop(memory);
        drop(device.alloc(1 << 20));
        assert_eq!(device.memory().peak, Some(before + (3 << 20)));
        assert!(device.memory().free.is_some_and(|free| free > 0));
    });
}

// ---- the compiler ----------------------------------------------------------------------------------------------------

/// Runs a test of the compiler, or skips it.
fn with_nvrtc(test: &str, run: impl FnOnce()) {
    match nvrtc_version() {
        Ok(_) => run(),
        Err(error) => skip(test, &format!("no NVRTC ({error})"), "REQUIRE_NVRTC"),
    }
}

fn contains(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

/// Compiles all sources that run on a device; their machine code must have every kernel of the table in it.
fn compile_all(compute_capability: u32) {
    let runs = |target| target == Target::Sm80 || compute_capability == 90;
    for source in SOURCES {
        let kernels: Vec<_> = KERNELS.iter().filter(|k| k.source == source.name && runs(k.target)).collect();
        if kernels.is_empty() {
            continue;
        }
        let cubin = compile(source, compute_capability).unwrap_or_else(|e| panic!("{e}"));
        assert!(cubin.starts_with(b"\x7fELF"), "{} is no machine code", source.name);
        for kernel in kernels {
            let section = format!(".text.{}\0", kernel.name);
            assert!(contains(&cubin, &section), "{} is not in the code of {}", kernel.name, source.name);
        }
    }
}

#[test]
fn nvrtc_compiles_every_kernel_for_8_0() {
    with_nvrtc("nvrtc_compiles_every_kernel_for_8_0", || compile_all(80));
}

#[test]
fn nvrtc_compiles_every_kernel_for_9_0() {
    with_nvrtc("nvrtc_compiles_every_kernel_for_9_0", || compile_all(90));
}

#[test]
fn what_the_compiler_rejects_is_reported_with_its_log() {
    with_nvrtc("what_the_compiler_rejects_is_reported_with_its_log", || {
        let broken = Source { name: "broken.cu", text: "#include \"params.h\"\nint x = missing;\n" };
        let message = compile(&broken, 80).expect_err("it does not compile").to_string();
        for part in
            ["broken.cu for sm_80, NVRTC ", "the compiler rejects the source", "broken.cu(2)", "missing"]
        {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    });
}

#[test]
fn a_device_that_the_compiler_does_not_know_is_reported() {
    with_nvrtc("a_device_that_the_compiler_does_not_know_is_reported", || {
        let message = compile(&SOURCES[0], 999).expect_err("there is no such device").to_string();
        assert!(
            message.contains("for sm_999") && message.contains("the newest it knows is sm_"),
            "{message}"
        );
    });
}
