//! The matrix product of `ring.cu`.

use duel_backend::Float;
use duel_cuda::{Argument, Driver, Grid, sys};
use duel_kernel_tests::{Emulation, Memory};
use duel_tests::Random;
use half::bf16;
use std::ffi::c_void;

fn bytes<T: Float, const N: usize>(values: &[T], to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&x| to(x)).collect()
}

fn upload(driver: &Emulation, bytes: &[u8]) -> Memory {
    let mut memory = driver.alloc(bytes.len()).expect("room for a test");
    driver.upload(&mut memory, 0, bytes);
    memory
}

/// The parameter struct of `ring.cu`.
#[repr(C)]
struct RingParams {
    c: *mut c_void,
    m: u32,
    n: u32,
    k: u32,
    through_registers: u32,
}

/// The matrix product of `ring.cu`: TMA into a ring of stages, mbarriers, wgmma, TMA store.
pub struct Ring {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub through_registers: bool,
}

impl Ring {
    /// Runs it and compares with the product in double precision.
    ///
    /// # Panics
    /// When the launch fails or an element is off by more than the rounding of a sum of `k` products in `f32`.
    pub fn check(&self, driver: &Emulation, kernel: &'static str) {
        let &Ring { m, n, k, through_registers } = self;
        let mut random = Random(3);
        let mut values = |n| random.vec(n).into_iter().map(bf16::from_f64).collect::<Vec<_>>();
        let (a, b) = (values(m * k), values(k * n));
        let device_a = upload(driver, &bytes(&a, bf16::to_le_bytes));
        let device_b = upload(driver, &bytes(&b, bf16::to_le_bytes));
        let device_c = upload(driver, &vec![0xff; m * n * 4]);

        let map = |memory: &Memory, [columns, rows]: [usize; 2], tile: u32, element: u32, swizzle: u32| {
            driver.tensor_map(&sys::TensorMapSpec {
                base: driver.address(memory),
                extents: [columns as u64, rows as u64, 1],
                strides: [columns as u64 * u64::from(element), 0],
                tile: [tile, 64, 1],
                rank: 2,
                element_bytes: element,
                swizzle_bytes: swizzle,
            })
        };
        let map_a = map(&device_a, [k, m], 64, 2, 128);
        let map_b = map(&device_b, [n, k], 64, 2, 128);
        let map_c = map(&device_c, [n, m], 32, 4, 0);
        let params = RingParams {
            c: driver.address(&device_c) as *mut c_void,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            through_registers: u32::from(through_registers),
        };
        let grid = Grid::plane([n.div_ceil(64), m.div_ceil(64)], [160, 1]).with_shared(3 * 16384 + 64);
        let arguments =
            [Argument::of(&map_a), Argument::of(&map_b), Argument::of(&map_c), Argument::of(&params)];
        // SAFETY: `ring` takes three tensor maps and RingParams, whose buffers are as large as m, n and k say.
        unsafe { driver.launch(kernel, grid, &arguments) };
        let mut c = vec![0; m * n * 4];
        driver.download(&mut c, &device_c, 0).unwrap_or_else(|e| panic!("{e}"));

        for (i, c) in c.chunks_exact(4).enumerate() {
            let (row, column) = (i / n, i % n);
            let products = (0..k).map(|j| a[row * k + j].to_f64() * b[j * n + column].to_f64());
            let (sum, size) = products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            let got = f64::from(f32::from_le_bytes(c.try_into().expect("four bytes")));
            let bound = size * k as f64 * f64::from(f32::EPSILON);
            assert!(
                (got - sum).abs() <= bound,
                "c[{row}, {column}] is {got}, right is {sum}, bound {bound:e}"
            );
        }
    }
}
