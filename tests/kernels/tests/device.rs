//! The first GPU, where there is one: the conformance suite and what the driver promises; and the compiler of its
//! kernels, which needs no GPU.

use duel_cuda::{Device, Settings, compile, nvrtc_version};
use duel_kernel_tests::device::Open;
use duel_kernel_tests::{Devices, skip};
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

// ---- the driver -----------------------------------------------------------------------------------------------------

/// Runs a test on the GPU, or skips it.
fn on_gpu(test: &str, run: fn(&Open)) {
    match Gpu.absent() {
        None => run(&|settings| Device::open_with(0, settings).expect("it could be opened before")),
        Some(reason) => skip(test, &reason, "REQUIRE_CUDA"),
    }
}

duel_kernel_tests::device_tests!(on_gpu);

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
    duel_kernel_tests::conformance!(super::OwnProducts; gemm, gemm_gelu, gemm_parts, gemm_random, gemm_rows, gemm_strided, gemm_wide);
}

// ---- the compiler ---------------------------------------------------------------------------------------------------

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
