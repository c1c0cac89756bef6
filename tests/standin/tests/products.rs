//! cuBLASLt on the stand-in, against plain sums.

mod common;

use common::on_the_stand_in;
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::cublasLtEpilogue_t::{self as Finish, *};
use cudarc::cublaslt::sys::cublasLtMatmulAlgoConfigAttributes_t as Config;
use cudarc::cublaslt::sys::cublasLtMatmulDescAttributes_t as Of;
use cudarc::cublaslt::sys::cublasLtMatmulPreferenceAttributes_t as Wish;
use cudarc::cublaslt::sys::cublasStatus_t::{self, *};
use cudarc::cublaslt::sys::cudaDataType_t::{self, CUDA_R_16BF, CUDA_R_32F};
use cudarc::cublaslt::sys::{self, cublasComputeType_t};
use cudarc::driver::sys::CUgraphInstantiate_flags;
use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL as GLOBAL;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use half::bf16;
use std::ffi::c_void;
use std::sync::Arc;

/// A product with its descriptions. The tests end with their process, so nothing is destroyed but in one of them.
struct Product {
    stream: Arc<CudaStream>,
    library: sys::cublasLtHandle_t,
    product: sys::cublasLtMatmulDesc_t,
    /// Of A, B and D; C is as D.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
}

type Found = sys::cublasLtMatmulHeuristicResult_t;

fn stream() -> Arc<CudaStream> {
    let context = CudaContext::new(0).expect("the stand-in has a device");
    // SAFETY: these tests use one stream.
    unsafe { context.disable_event_tracking() };
    context.new_stream().expect("it has streams")
}

impl Product {
    /// `[m, n]` from an inner dimension of `k`, all without gaps between columns.
    fn new([m, n, k]: [usize; 3], transposed: [bool; 2], kinds: [cudaDataType_t; 2]) -> Self {
        let stream = stream();
        let library = result::create_handle().expect("a context is current");
        let product = result::create_matmul_desc(cublasComputeType_t::CUBLAS_COMPUTE_32F, CUDA_R_32F);
        let layout = |kind, [rows, cols]: [usize; 2], turned: bool| {
            let [rows, cols] = if turned { [cols, rows] } else { [rows, cols] };
            result::create_matrix_layout(kind, rows as u64, cols as u64, rows as i64).expect("a layout")
        };
        let layouts = [
            layout(kinds[0], [m, k], transposed[0]),
            layout(kinds[0], [k, n], transposed[1]),
            layout(kinds[1], [m, n], false),
        ];
        let this = Product { stream, library, product: product.expect("a description"), layouts };
        this.set(Of::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(transposed[0])).expect("a known attribute");
        this.set(Of::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(transposed[1])).expect("a known attribute");
        this
    }

    fn set<T>(&self, attribute: Of, value: T) -> Result<(), CublasError> {
        let at = (&raw const value).cast();
        // SAFETY: the description is alive, and the value lives through the call.
        unsafe { result::set_matmul_desc_attribute(self.product, attribute, at, size_of::<T>()) }
    }

    fn finish_with(&self, epilogue: Finish) {
        self.set(Of::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue).expect("a known attribute");
    }

    /// What the heuristic finds with so much workspace.
    fn algorithms(&self, workspace: u64) -> Result<Vec<Found>, cublasStatus_t> {
        let [a, b, d] = self.layouts;
        let wish = result::create_matmul_pref().expect("a preference");
        let mut found = [const { std::mem::MaybeUninit::<Found>::uninit() }; 8];
        let mut count = 0;
        // SAFETY: everything is alive and lives through the calls, and there is room for as many results as are asked
        // for.
        unsafe {
            let at = (&raw const workspace).cast();
            result::set_matmul_pref_attribute(wish, Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, at, 8)
                .expect("a known attribute");
            let done = sys::cublasLtMatmulAlgoGetHeuristic(
                self.library,
                self.product,
                a,
                b,
                d,
                d,
                wish,
                8,
                found.as_mut_ptr().cast(),
                &mut count,
            );
            result::destroy_matmul_pref(wish).expect("it was just made");
            match done {
                CUBLAS_STATUS_SUCCESS => {
                    Ok(found[..count as usize].iter().map(|f| f.assume_init()).collect())
                }
                error => Err(error),
            }
        }
    }

    /// `d = alpha * op(a) * op(b) + beta * d`, by an algorithm.
    fn run<T, D>(
        &self,
        found: &Found,
        [alpha, beta]: [f32; 2],
        a: &CudaSlice<T>,
        b: &CudaSlice<T>,
        d: &CudaSlice<D>,
    ) -> Result<(), CublasError> {
        let [a_layout, b_layout, d_layout] = self.layouts;
        let workspace = self.stream.alloc_zeros::<u8>(found.workspaceSize.max(1)).expect("room for a test");
        let at = |address: u64| address as *mut c_void;
        let d = at(d.device_ptr(&self.stream).0);
        // SAFETY: everything is alive; the matrices are as large as the layouts say.
        unsafe {
            result::matmul(
                self.library,
                self.product,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                at(a.device_ptr(&self.stream).0),
                a_layout,
                at(b.device_ptr(&self.stream).0),
                b_layout,
                d,
                d_layout,
                d,
                d_layout,
                &found.algo,
                at(workspace.device_ptr(&self.stream).0),
                found.workspaceSize,
                self.stream.cu_stream().cast(),
            )
        }
    }
}

fn config(algo: &sys::cublasLtMatmulAlgo_t, attribute: Config) -> u32 {
    let (mut value, mut written) = (0u32, 0);
    // SAFETY: everything lives through the call, and there is room for four bytes.
    let done = unsafe {
        sys::cublasLtMatmulAlgoConfigGetAttribute(algo, attribute, (&raw mut value).cast(), 4, &mut written)
    };
    assert_eq!((done, written), (CUBLAS_STATUS_SUCCESS, 4));
    value
}

/// Numbers in -1..1 that are different everywhere.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| bf16::from_f32(next()).to_f32()).collect()
}

/// The product of matrices in columns, in double precision.
fn plain([m, n, k]: [usize; 3], transposed: [bool; 2], a: &[f32], b: &[f32]) -> Vec<f64> {
    let mut d = vec![0.0; m * n];
    for j in 0..n {
        for i in 0..m {
            for l in 0..k {
                let x = if transposed[0] { a[i * k + l] } else { a[l * m + i] };
                let y = if transposed[1] { b[l * n + j] } else { b[j * k + l] };
                d[j * m + i] += f64::from(x) * f64::from(y);
            }
        }
    }
    d
}

fn assert_close(got: &[f32], right: impl Iterator<Item = f64>, tolerance: f64) {
    for (i, (&got, right)) in got.iter().zip(right).enumerate() {
        let error = (f64::from(got) - right).abs();
        assert!(error <= tolerance * right.abs().max(1.0), "element {i} is {got}, right is {right}");
    }
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + (0.7978845608028654 * (x + 0.044715 * x.powi(3))).tanh())
}

#[test]
fn products_are_right_whatever_is_transposed() {
    on_the_stand_in("products_are_right_whatever_is_transposed", &[], || {
        let shape = [24, 40, 72];
        let [m, n, k] = shape;
        for transposed in [[false, false], [true, false], [false, true], [true, true]] {
            let product = Product::new(shape, transposed, [CUDA_R_32F; 2]);
            let (a, b, before) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3));
            let [on_a, on_b] = [&a, &b].map(|x| product.stream.clone_htod(x).expect("room for a test"));
            let right = plain(shape, transposed, &a, &b);
            let all = product.algorithms(1 << 20).expect("a plain product");
            assert!(all.len() > 3);
            for found in &all {
                let d = product.stream.clone_htod(&before).expect("room for a test");
                product.run(found, [2.0, 0.5], &on_a, &on_b, &d).expect("a plain product");
                let got = product.stream.clone_dtoh(&d).expect("nothing went wrong");
                let right = right.iter().zip(&before).map(|(x, &d)| 2.0 * x + 0.5 * f64::from(d));
                assert_close(&got, right, 1e-5);
            }
        }
    });
}

#[test]
fn the_first_algorithm_splits_a_small_product_and_shows_it() {
    on_the_stand_in("the_first_algorithm_splits_a_small_product_and_shows_it", &[], || {
        let shape = [64, 64, 512];
        let product = Product::new(shape, [true, false], [CUDA_R_16BF, CUDA_R_32F]);
        let parts = |found: &Found| config(&found.algo, Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
        let all = product.algorithms(1 << 20).expect("a plain product");
        assert!(parts(&all[0]) > 1 && all[0].workspaceSize > 0);
        assert_ne!(config(&all[0].algo, Config::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME), 0);
        // Without memory there is nothing to split with.
        let whole = product.algorithms(0).expect("a plain product");
        assert!(whole.iter().all(|found| parts(found) == 1 && found.workspaceSize == 0));

        let bits = |found: &Found| {
            let half = |seed| numbers(64 * 512, seed).into_iter().map(bf16::from_f32).collect::<Vec<_>>();
            let bytes = |x: Vec<bf16>| x.into_iter().map(bf16::to_bits).collect::<Vec<_>>();
            let a = product.stream.clone_htod(&bytes(half(1))).expect("room for a test");
            let b = product.stream.clone_htod(&bytes(half(2))).expect("room for a test");
            let d = product.stream.alloc_zeros::<f32>(64 * 64).expect("room for a test");
            product.run(found, [1.0, 0.0], &a, &b, &d).expect("a plain product");
            let d = product.stream.clone_dtoh(&d).expect("nothing went wrong");
            d.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(bits(&all[0]), bits(&all[0]));
        assert_ne!(bits(&all[0]), bits(&whole[0]));
        assert_ne!(bits(&whole[0]), bits(&whole[1]));
    });
}

#[test]
fn a_split_is_right_at_its_own_depth_alone() {
    on_the_stand_in("a_split_is_right_at_its_own_depth_alone", &[], || {
        let deep = Product::new([64, 64, 512], [false; 2], [CUDA_R_32F; 2]);
        let found = deep.algorithms(1 << 20).expect("a plain product")[0];
        let parts = config(&found.algo, Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
        assert!(parts > 1);
        let shallow = Product::new([64, 64, 1], [false; 2], [CUDA_R_32F; 2]);
        let (a, b) = (numbers(64, 1), numbers(64, 2));
        let [on_a, on_b] = [&a, &b].map(|x| shallow.stream.clone_htod(x).expect("room for a test"));
        let d = shallow.stream.alloc_zeros::<f32>(64 * 64).expect("room for a test");
        shallow.run(&found, [1.0, 0.0], &on_a, &on_b, &d).expect("a plain product");
        let got = shallow.stream.clone_dtoh(&d).expect("nothing went wrong");
        let right = plain([64, 64, 1], [false; 2], &a, &b);
        assert_close(&got, right.iter().map(|x| f64::from(parts) * x), 1e-6);
    });
}

#[test]
fn epilogues_are_right() {
    on_the_stand_in("epilogues_are_right", &[], || {
        let shape = [16, 8, 32];
        let [m, n, k] = shape;
        let product = Product::new(shape, [false; 2], [CUDA_R_32F; 2]);
        let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m, 3));
        let [on_a, on_b, on_bias] = [&a, &b, &bias].map(|x| product.stream.clone_htod(x).expect("room"));
        let d = product.stream.alloc_zeros::<f32>(m * n).expect("room for a test");
        let aux = product.stream.alloc_zeros::<f32>(m * n).expect("room for a test");
        let found = product.algorithms(0).expect("a plain product")[0];
        let run = |epilogue| {
            product.finish_with(epilogue);
            product.run(&found, [1.0, 0.0], &on_a, &on_b, &d)
        };
        assert_eq!(
            run(CUBLASLT_EPILOGUE_BIAS),
            Err(CublasError(CUBLAS_STATUS_INVALID_VALUE)),
            "there is no bias yet"
        );
        let address = |of: &CudaSlice<f32>| of.device_ptr(&product.stream).0;
        product.set(Of::CUBLASLT_MATMUL_DESC_BIAS_POINTER, address(&on_bias)).expect("a known attribute");
        product.set(Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, address(&aux)).expect("a known attribute");
        product.set(Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, m as i64).expect("a known attribute");

        let read = |of: &CudaSlice<f32>| product.stream.clone_dtoh(of).expect("nothing went wrong");
        let right = plain(shape, [false; 2], &a, &b);
        let biased = || right.iter().enumerate().map(|(i, x)| x + f64::from(bias[i % m]));
        run(CUBLASLT_EPILOGUE_BIAS).expect("a known epilogue");
        assert_close(&read(&d), biased(), 1e-5);
        run(CUBLASLT_EPILOGUE_GELU_AUX_BIAS).expect("a known epilogue");
        assert_close(&read(&aux), biased(), 1e-5);
        assert_close(&read(&d), biased().map(gelu), 1e-5);
        run(CUBLASLT_EPILOGUE_DGELU).expect("a known epilogue");
        let slope = |x: f64| (gelu(x + 1e-4) - gelu(x - 1e-4)) / 2e-4;
        assert_close(&read(&d), right.iter().zip(biased()).map(|(x, aux)| x * slope(aux)), 1e-4);
        product.set(Of::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF).expect("a known attribute");
        assert_eq!(run(CUBLASLT_EPILOGUE_BIAS), Err(CublasError(CUBLAS_STATUS_INVALID_VALUE)), "D is float");
        assert_eq!(run(CUBLASLT_EPILOGUE_RELU), Err(CublasError(CUBLAS_STATUS_NOT_SUPPORTED)));
    });
}

#[test]
fn an_algorithm_can_be_built_and_checked() {
    on_the_stand_in("an_algorithm_can_be_built_and_checked", &[], || {
        let product = Product::new([16, 16, 64], [false; 2], [CUDA_R_32F; 2]);
        let [a, b, d] = product.layouts;
        let mut algo = sys::cublasLtMatmulAlgo_t { data: [0; 8] };
        let sum = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        // SAFETY: everything is alive and lives through the calls.
        unsafe {
            let kind = CUDA_R_32F;
            let (mut ids, mut count) = ([-1; 8], 0);
            let done = sys::cublasLtMatmulAlgoGetIds(
                product.library,
                sum,
                kind,
                kind,
                kind,
                kind,
                kind,
                8,
                ids.as_mut_ptr(),
                &mut count,
            );
            assert_eq!((done, count, ids[1]), (CUBLAS_STATUS_SUCCESS, 4, 1));
            let done =
                sys::cublasLtMatmulAlgoInit(product.library, sum, kind, kind, kind, kind, kind, 1, &mut algo);
            assert_eq!(done, CUBLAS_STATUS_SUCCESS);
            let mut found = std::mem::MaybeUninit::<Found>::uninit();
            let mut check = |algo: &sys::cublasLtMatmulAlgo_t| {
                sys::cublasLtMatmulAlgoCheck(
                    product.library,
                    product.product,
                    a,
                    b,
                    d,
                    d,
                    algo,
                    found.as_mut_ptr(),
                )
            };
            assert_eq!(check(&algo), CUBLAS_STATUS_NOT_SUPPORTED, "it has no tile yet");
            let mut set = |attribute, value: u32| {
                sys::cublasLtMatmulAlgoConfigSetAttribute(&mut algo, attribute, (&raw const value).cast(), 4)
            };
            assert_eq!(set(Config::CUBLASLT_ALGO_CONFIG_TILE_ID, 18), CUBLAS_STATUS_SUCCESS);
            assert_eq!(set(Config::CUBLASLT_ALGO_CONFIG_STAGES_ID, 15), CUBLAS_STATUS_SUCCESS);
            assert_eq!(check(&algo), CUBLAS_STATUS_SUCCESS);
            assert_eq!(config(&algo, Config::CUBLASLT_ALGO_CONFIG_ID), 1);
            assert_eq!(config(&algo, Config::CUBLASLT_ALGO_CONFIG_TILE_ID), 18);
        }
    });
}

#[test]
fn what_the_library_would_refuse_is_refused() {
    on_the_stand_in("what_the_library_would_refuse_is_refused", &[], || {
        // Columns of 12 bf16 do not begin at multiples of 16 bytes.
        let odd = Product::new([12, 16, 16], [false; 2], [CUDA_R_16BF; 2]);
        assert_eq!(odd.algorithms(0).err(), Some(CUBLAS_STATUS_NOT_SUPPORTED));

        let product = Product::new([16, 16, 64], [false; 2], [CUDA_R_32F; 2]);
        let room = |n| product.stream.alloc_zeros::<f32>(n).expect("room for a test");
        let (a, b, d, short) = (room(16 * 64), room(64 * 16), room(256), room(255));
        let all = product.algorithms(1 << 20).expect("a plain product");
        let invalid = Err(CublasError(CUBLAS_STATUS_INVALID_VALUE));
        assert_eq!(product.run(&all[0], [1.0, 0.0], &a, &b, &short), invalid);
        let starved = Found { workspaceSize: all[0].workspaceSize - 1, ..all[0] };
        assert_eq!(product.run(&starved, [1.0, 0.0], &a, &b, &d), invalid);
        assert_eq!(product.run(&all[0], [1.0, 0.0], &a, &b, &b), invalid, "over a factor");
        let value = 0u64;
        // SAFETY: everything is alive; the value has too many bytes.
        let done = unsafe {
            let attribute = Of::CUBLASLT_MATMUL_DESC_TRANSA;
            result::set_matmul_desc_attribute(product.product, attribute, (&raw const value).cast(), 8)
        };
        assert_eq!(done, invalid);
        // SAFETY: it is destroyed once, and then the call is to be refused.
        unsafe {
            result::destroy_matmul_desc(product.product).expect("it is alive");
            assert_eq!(result::destroy_matmul_desc(product.product), invalid);
        }
        product.stream.synchronize().expect("nothing went wrong");
    });
}

#[test]
fn a_product_can_be_captured() {
    on_the_stand_in("a_product_can_be_captured", &[], || {
        let shape = [8, 8, 8];
        let product = Product::new(shape, [false; 2], [CUDA_R_32F; 2]);
        let found = product.algorithms(0).expect("a plain product")[0];
        let stream = &product.stream;
        let mut a = stream.clone_htod(&[0.0f32; 64]).expect("room for a test");
        let b = stream.clone_htod(&[1.0f32; 64]).expect("room for a test");
        let d = stream.clone_htod(&[0.0f32; 64]).expect("room for a test");
        let workspace_before = stream.alloc_zeros::<u8>(1).expect("room for a test");
        let at = |address: u64| address as *mut c_void;
        let [a_layout, b_layout, d_layout] = product.layouts;
        let (alpha, beta) = (1.0f32, 1.0f32);
        stream.begin_capture(GLOBAL).expect("nothing is captured yet");
        // SAFETY: everything is alive; the matrices are as large as the layouts say.
        unsafe {
            let d = at(d.device_ptr(stream).0);
            result::matmul(
                product.library,
                product.product,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                at(a.device_ptr(stream).0),
                a_layout,
                at(b.device_ptr(stream).0),
                b_layout,
                d,
                d_layout,
                d,
                d_layout,
                &found.algo,
                at(workspace_before.device_ptr(stream).0),
                found.workspaceSize,
                stream.cu_stream().cast(),
            )
        }
        .expect("a plain product");
        let graph = stream.end_capture(CUgraphInstantiate_flags(0)).expect("nothing disturbed it");
        let graph = graph.expect("a capture gives a graph");
        assert_eq!(stream.clone_dtoh(&d), Ok(vec![0.0; 64]));
        stream.memcpy_htod(&[2.0f32; 64], &mut a).expect("in range");
        graph.launch().expect("a whole graph");
        graph.launch().expect("a whole graph");
        assert_eq!(stream.clone_dtoh(&d), Ok(vec![32.0; 64]));
    });
}
