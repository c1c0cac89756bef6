//! The functions of libcublasLt.
//!
//! What it takes is less than what the library takes: matrices of float or bf16 in columns, sums in float, factors on
//! the host, one product a call.

#![allow(non_snake_case)] // the names are NVIDIA's

use crate::ffi::{Bytes, In, Out, Room};
use crate::matmul::{Epilogue, Matmul, Matrix, Order, Reduction, Type};
use crate::world::{Work, say, world};
use cudarc::cublaslt::sys::cublasLtEpilogue_t as Finish;
use cudarc::cublaslt::sys::cublasLtMatmulAlgoConfigAttributes_t as Config;
use cudarc::cublaslt::sys::cublasLtMatmulDescAttributes_t as Of;
use cudarc::cublaslt::sys::cublasLtMatmulPreferenceAttributes_t as Wish;
use cudarc::cublaslt::sys::cublasLtMatrixLayoutAttribute_t as Shape;
use cudarc::cublaslt::sys::cublasStatus_t::{self as Status, *};
use cudarc::cublaslt::sys::{cublasLtMatmulAlgo_t, cublasLtMatmulHeuristicResult_t, cudaDataType_t};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

type Done<T = ()> = Result<T, Status>;

const VERSION: usize = 130_000;
const SUM_IN_FLOAT: u32 = 68; // CUBLAS_COMPUTE_32F
const SUM_IN_FLOAT_PEDANTIC: u32 = 69;
const R_32F: u32 = cudaDataType_t::CUDA_R_32F as u32;
const R_16BF: u32 = cudaDataType_t::CUDA_R_16BF as u32;
/// A type that nobody has set.
const UNSET: u32 = u32::MAX;

// ---- descriptions ---------------------------------------------------------------------------------------------------

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Library,
    Product,
    Layout,
    Preference,
}

/// A description: values by the numbers of their attributes.
#[derive(Clone)]
struct Description {
    kind: Kind,
    values: HashMap<u32, Vec<u8>>,
}

/// Size of an attribute, where the stand-in knows it.
fn size(kind: Kind, attribute: u32) -> Option<usize> {
    const FOUR: usize = 4;
    const EIGHT: usize = 8;
    let of = |names: &[u32], bytes| names.contains(&attribute).then_some(bytes);
    match kind {
        Kind::Library => None,
        Kind::Product => of(
            &[
                Of::CUBLASLT_MATMUL_DESC_COMPUTE_TYPE as u32,
                Of::CUBLASLT_MATMUL_DESC_SCALE_TYPE as u32,
                Of::CUBLASLT_MATMUL_DESC_POINTER_MODE as u32,
                Of::CUBLASLT_MATMUL_DESC_TRANSA as u32,
                Of::CUBLASLT_MATMUL_DESC_TRANSB as u32,
                Of::CUBLASLT_MATMUL_DESC_TRANSC as u32,
                Of::CUBLASLT_MATMUL_DESC_EPILOGUE as u32,
                Of::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE as u32,
                Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE as u32,
                Of::CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET as u32,
            ],
            FOUR,
        )
        .or(of(
            &[
                Of::CUBLASLT_MATMUL_DESC_BIAS_POINTER as u32,
                Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER as u32,
                Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD as u32,
            ],
            EIGHT,
        )),
        Kind::Layout => of(
            &[
                Shape::CUBLASLT_MATRIX_LAYOUT_TYPE as u32,
                Shape::CUBLASLT_MATRIX_LAYOUT_ORDER as u32,
                Shape::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT as u32,
            ],
            FOUR,
        )
        .or(of(
            &[
                Shape::CUBLASLT_MATRIX_LAYOUT_ROWS as u32,
                Shape::CUBLASLT_MATRIX_LAYOUT_COLS as u32,
                Shape::CUBLASLT_MATRIX_LAYOUT_LD as u32,
                Shape::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET as u32,
            ],
            EIGHT,
        )),
        Kind::Preference => of(
            &[
                Wish::CUBLASLT_MATMUL_PREF_SEARCH_MODE as u32,
                Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK as u32,
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES as u32,
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES as u32,
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES as u32,
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES as u32,
                Wish::CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT as u32,
            ],
            FOUR,
        )
        .or(of(
            &[
                Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES as u32,
                Wish::CUBLASLT_MATMUL_PREF_IMPL_MASK as u32,
            ],
            EIGHT,
        )),
    }
}

impl Description {
    /// The value of an attribute of four bytes.
    fn word(&self, attribute: u32) -> Option<u32> {
        let bytes = self.values.get(&attribute)?.as_slice();
        Some(u32::from_le_bytes(bytes.try_into().expect("sizes are checked when a value is set")))
    }

    /// The value of an attribute of eight bytes.
    fn long(&self, attribute: u32) -> Option<u64> {
        let bytes = self.values.get(&attribute)?.as_slice();
        Some(u64::from_le_bytes(bytes.try_into().expect("sizes are checked when a value is set")))
    }
}

#[derive(Default)]
struct Descriptions {
    all: HashMap<usize, Description>,
    made: usize,
}

fn descriptions() -> MutexGuard<'static, Descriptions> {
    static ALL: LazyLock<Mutex<Descriptions>> = LazyLock::new(Mutex::default);
    ALL.lock().expect("a panic in the stand-in ends the process")
}

fn status(done: Done) -> Status {
    done.err().unwrap_or(CUBLAS_STATUS_SUCCESS)
}

fn because<T>(status: Status, reason: &str) -> Done<T> {
    say(&format!("{status:?}: {reason}"));
    Err(status)
}

fn create(out: &Out<usize>, kind: Kind, values: impl IntoIterator<Item = (u32, Vec<u8>)>) -> Done {
    let mut descriptions = descriptions();
    descriptions.made += 1;
    let handle = 0x10_0000 + 0x10 * descriptions.made;
    descriptions.all.insert(handle, Description { kind, values: values.into_iter().collect() });
    if out.put(handle) { Ok(()) } else { Err(CUBLAS_STATUS_INVALID_VALUE) }
}

fn find(handle: usize, kind: Kind) -> Done<Description> {
    match descriptions().all.get(&handle) {
        Some(description) if description.kind == kind => Ok(description.clone()),
        _ => because(CUBLAS_STATUS_INVALID_VALUE, &format!("{handle:#x} is no {kind:?}")),
    }
}

fn destroy(handle: usize, kind: Kind) -> Done {
    find(handle, kind)?;
    descriptions().all.remove(&handle);
    Ok(())
}

fn set(handle: usize, kind: Kind, attribute: u32, value: Bytes, bytes: usize) -> Done {
    find(handle, kind)?;
    if size(kind, attribute) != Some(bytes) {
        let reason = format!("attribute {attribute} of a {kind:?} with {bytes} bytes");
        return because(CUBLAS_STATUS_INVALID_VALUE, &reason);
    }
    let value = value.copy(bytes).ok_or(CUBLAS_STATUS_INVALID_VALUE)?;
    let mut descriptions = descriptions();
    descriptions.all.get_mut(&handle).expect("found above").values.insert(attribute, value);
    Ok(())
}

// ---- algorithms -----------------------------------------------------------------------------------------------------

/// Products that an algorithm sums before it adds their sum to the rest, by its number.
const BLOCKS: [usize; 4] = [64, 32, 16, 128];
const TILES: [u32; 4] = [15, 18, 20, 24]; // 64x64, 128x64, 128x128, 256x128
const STAGES: [u32; 3] = [15, 16, 11]; // 64x3, 64x4, 32x5
const MOST_PARTS: u32 = 32;
/// Marks an algorithm of this library.
const MARK: u64 = 0xd0e1;

/// What an opaque algorithm says: one word for each attribute, behind the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Algorithm {
    /// By the numbers of the attributes.
    config: [u32; 9],
}

impl Algorithm {
    fn new(id: u32, tile: u32, stages: u32, parts: u32, reduction: u32) -> Self {
        let mut config = [0; 9];
        config[Config::CUBLASLT_ALGO_CONFIG_ID as usize] = id;
        config[Config::CUBLASLT_ALGO_CONFIG_TILE_ID as usize] = tile;
        config[Config::CUBLASLT_ALGO_CONFIG_STAGES_ID as usize] = stages;
        config[Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM as usize] = parts;
        config[Config::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME as usize] = reduction;
        Algorithm { config }
    }

    fn of(&self, attribute: Config) -> u32 {
        self.config[attribute as usize]
    }

    fn pack(&self) -> cublasLtMatmulAlgo_t {
        let mut data = [0u64; 8];
        data[0] = MARK;
        for (i, &value) in self.config.iter().enumerate() {
            data[1 + i / 2] |= u64::from(value) << (32 * (i % 2));
        }
        cublasLtMatmulAlgo_t { data }
    }

    fn unpack(algo: &cublasLtMatmulAlgo_t) -> Done<Self> {
        if algo.data[0] != MARK {
            return because(CUBLAS_STATUS_INVALID_VALUE, "an algorithm that this library did not make");
        }
        let mut config = [0; 9];
        for (i, value) in config.iter_mut().enumerate() {
            *value = (algo.data[1 + i / 2] >> (32 * (i % 2))) as u32;
        }
        Ok(Algorithm { config })
    }

    /// The order of its sums.
    ///
    /// # Errors
    /// When there is no such algorithm.
    fn order(&self) -> Done<Order> {
        let id = self.of(Config::CUBLASLT_ALGO_CONFIG_ID) as usize;
        let parts = self.of(Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
        let reduction = match self.of(Config::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) {
            0 => Reduction::None,
            1 => Reduction::InPlace,
            2 => Reduction::ComputeType,
            4 => Reduction::OutputType,
            _ => return Err(CUBLAS_STATUS_NOT_SUPPORTED),
        };
        let known = id < BLOCKS.len()
            && TILES.contains(&self.of(Config::CUBLASLT_ALGO_CONFIG_TILE_ID))
            && STAGES.contains(&self.of(Config::CUBLASLT_ALGO_CONFIG_STAGES_ID))
            && parts <= MOST_PARTS
            && (parts > 1) == (reduction != Reduction::None);
        if !known {
            return because(
                CUBLAS_STATUS_NOT_SUPPORTED,
                &format!("an algorithm configured as {:?}", self.config),
            );
        }
        Ok(Order { block: BLOCKS[id], parts: parts.max(1) as usize, reduction })
    }
}

/// A product without its addresses.
struct Problem {
    a: Matrix,
    b: Matrix,
    c: Matrix,
    d: Matrix,
    transposed: [bool; 2],
    bias: bool,
    gelu: bool,
    gelu_gradient: bool,
    aux: bool,
    inner: usize,
}

fn matrix(layout: usize) -> Done<Matrix> {
    let layout = find(layout, Kind::Layout)?;
    let long = |attribute: Shape| layout.long(attribute as u32).unwrap_or(0);
    let kind = match layout.word(Shape::CUBLASLT_MATRIX_LAYOUT_TYPE as u32) {
        Some(R_32F) => Type::F32,
        Some(R_16BF) => Type::Bf16,
        other => return because(CUBLAS_STATUS_NOT_SUPPORTED, &format!("a matrix of type {other:?}")),
    };
    if layout.word(Shape::CUBLASLT_MATRIX_LAYOUT_ORDER as u32).unwrap_or(0) != 0 {
        return because(CUBLAS_STATUS_NOT_SUPPORTED, "a matrix that is not in columns");
    }
    if layout.word(Shape::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT as u32).unwrap_or(1) != 1 {
        return because(CUBLAS_STATUS_NOT_SUPPORTED, "a batch of matrices");
    }
    let [rows, cols, ld] = [
        Shape::CUBLASLT_MATRIX_LAYOUT_ROWS,
        Shape::CUBLASLT_MATRIX_LAYOUT_COLS,
        Shape::CUBLASLT_MATRIX_LAYOUT_LD,
    ]
    .map(|attribute| long(attribute) as usize);
    if rows == 0 || cols == 0 || ld < rows {
        return because(CUBLAS_STATUS_INVALID_VALUE, &format!("a matrix of {rows} x {cols}, {ld} apart"));
    }
    Ok(Matrix { at: 0, rows, cols, ld, kind })
}

/// Checks a product, as all functions that are given one do.
fn problem(product: usize, layouts: [usize; 4]) -> Done<(Problem, Description)> {
    let product = find(product, Kind::Product)?;
    let word = |attribute: Of| product.word(attribute as u32);
    let [a, b, c, d] = layouts.map(matrix);
    let (a, b, c, d) = (a?, b?, c?, d?);
    let compute = word(Of::CUBLASLT_MATMUL_DESC_COMPUTE_TYPE).unwrap_or(SUM_IN_FLOAT);
    let scale = word(Of::CUBLASLT_MATMUL_DESC_SCALE_TYPE).unwrap_or(R_32F);
    if ![SUM_IN_FLOAT, SUM_IN_FLOAT_PEDANTIC].contains(&compute) || scale != R_32F {
        return because(
            CUBLAS_STATUS_NOT_SUPPORTED,
            &format!("sums of type {compute}, factors of type {scale}"),
        );
    }
    if word(Of::CUBLASLT_MATMUL_DESC_POINTER_MODE).unwrap_or(0) != 0 {
        return because(CUBLAS_STATUS_NOT_SUPPORTED, "factors that are not on the host");
    }
    if a.kind != b.kind || c.kind != d.kind || (a.kind == Type::F32 && d.kind == Type::Bf16) {
        let kinds = [a.kind, b.kind, c.kind, d.kind];
        return because(CUBLAS_STATUS_NOT_SUPPORTED, &format!("matrices of types {kinds:?}"));
    }
    let turned = |attribute| match word(attribute).unwrap_or(0) {
        0 => Ok(false),
        1 => Ok(true),
        other => because(CUBLAS_STATUS_NOT_SUPPORTED, &format!("operation {other} on a matrix")),
    };
    let transposed = [turned(Of::CUBLASLT_MATMUL_DESC_TRANSA)?, turned(Of::CUBLASLT_MATMUL_DESC_TRANSB)?];
    if turned(Of::CUBLASLT_MATMUL_DESC_TRANSC)? {
        return because(CUBLAS_STATUS_NOT_SUPPORTED, "a transposed C");
    }
    let shape = |m: &Matrix, turned: bool| if turned { (m.cols, m.rows) } else { (m.rows, m.cols) };
    let ((m, inner), (again, n)) = (shape(&a, transposed[0]), shape(&b, transposed[1]));
    if inner != again || (m, n) != (d.rows, d.cols) || (m, n) != (c.rows, c.cols) {
        let shapes = format!("{m} x {inner} times {again} x {n}, to {} x {}", d.rows, d.cols);
        return because(CUBLAS_STATUS_INVALID_VALUE, &shapes);
    }
    // Tensor cores load 16 bytes at once.
    let odd = |m: &Matrix| !(m.ld * m.kind.bytes()).is_multiple_of(16);
    if a.kind == Type::Bf16 && [&a, &b, &c, &d].into_iter().any(odd) {
        return because(CUBLAS_STATUS_NOT_SUPPORTED, "columns that do not begin at multiples of 16 bytes");
    }
    let epilogue =
        word(Of::CUBLASLT_MATMUL_DESC_EPILOGUE).unwrap_or(Finish::CUBLASLT_EPILOGUE_DEFAULT as u32);
    let is = |which: &[Finish]| which.iter().any(|&e| e as u32 == epilogue);
    let gelu = is(&[
        Finish::CUBLASLT_EPILOGUE_GELU,
        Finish::CUBLASLT_EPILOGUE_GELU_BIAS,
        Finish::CUBLASLT_EPILOGUE_GELU_AUX,
        Finish::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
    ]);
    let bias = is(&[
        Finish::CUBLASLT_EPILOGUE_BIAS,
        Finish::CUBLASLT_EPILOGUE_GELU_BIAS,
        Finish::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
    ]);
    let gelu_gradient = is(&[Finish::CUBLASLT_EPILOGUE_DGELU]);
    let aux =
        gelu_gradient || is(&[Finish::CUBLASLT_EPILOGUE_GELU_AUX, Finish::CUBLASLT_EPILOGUE_GELU_AUX_BIAS]);
    if !(gelu || bias || gelu_gradient || is(&[Finish::CUBLASLT_EPILOGUE_DEFAULT])) {
        return because(CUBLAS_STATUS_NOT_SUPPORTED, &format!("epilogue {epilogue}"));
    }
    if aux {
        let ld = product.long(Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD as u32).unwrap_or(0) as usize;
        if ld < m || !ld.is_multiple_of(8) {
            return because(
                CUBLAS_STATUS_INVALID_VALUE,
                &format!("an auxiliary matrix with columns {ld} apart"),
            );
        }
    }
    Ok((Problem { a, b, c, d, transposed, bias, gelu, gelu_gradient, aux, inner }, product))
}

/// Bytes of memory that an algorithm needs.
fn workspace(problem: &Problem, order: &Order) -> usize {
    let numbers = order.parts * problem.d.rows * problem.d.cols;
    match order.reduction {
        Reduction::None => 0,
        Reduction::InPlace => 4096,
        Reduction::ComputeType => 4 * numbers,
        Reduction::OutputType => problem.d.kind.bytes() * numbers,
    }
}

/// What the library would try, best first. For an output too small to fill a GPU the inner dimension is split, and how
/// depends on the size of the output.
fn candidates(problem: &Problem) -> Vec<Algorithm> {
    let (m, n) = (problem.d.rows, problem.d.cols);
    let tiles = m.div_ceil(128) * n.div_ceil(128);
    let mut all = Vec::new();
    if tiles <= 64 && problem.inner >= 32 {
        let parts = (64 / tiles).clamp(2, 8).min(problem.inner / 16) as u32;
        all.push(Algorithm::new((n / 64 % 2) as u32, TILES[0], STAGES[0], parts.max(2), 2));
    }
    let first = if n >= 128 && m >= 128 { [2, 0, 1, 3] } else { [1, 0, 2, 3] };
    all.extend(
        first.map(|id| Algorithm::new(id, TILES[id as usize], STAGES[id as usize % STAGES.len()], 1, 0)),
    );
    all.push(Algorithm::new(0, TILES[2], STAGES[1], 2, 4));
    all
}

/// The candidates that a wish allows.
fn allowed(problem: &Problem, most: usize, schemes: u32) -> Vec<(Algorithm, usize)> {
    let mut all = Vec::new();
    for algorithm in candidates(problem) {
        let order = algorithm.order().expect("a candidate is an algorithm");
        let scheme = algorithm.of(Config::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
        let bytes = workspace(problem, &order);
        if bytes <= most && scheme & !schemes == 0 {
            all.push((algorithm, bytes));
        }
    }
    all
}

fn result(algorithm: &Algorithm, bytes: usize) -> cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulHeuristicResult_t {
        algo: algorithm.pack(),
        workspaceSize: bytes,
        state: CUBLAS_STATUS_SUCCESS,
        wavesCount: 1.0,
        reserved: [0; 4],
    }
}

// ---- the library ----------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn cublasLtGetVersion() -> usize {
    VERSION
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtCreate(handle: Out<usize>) -> Status {
    if world().in_context().is_err() {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    status(create(&handle, Kind::Library, []))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtDestroy(handle: usize) -> Status {
    status(destroy(handle, Kind::Library))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescCreate(out: Out<usize>, compute: u32, scale: u32) -> Status {
    let values = [
        (Of::CUBLASLT_MATMUL_DESC_COMPUTE_TYPE as u32, compute.to_le_bytes().to_vec()),
        (Of::CUBLASLT_MATMUL_DESC_SCALE_TYPE as u32, scale.to_le_bytes().to_vec()),
    ];
    status(create(&out, Kind::Product, values))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescDestroy(handle: usize) -> Status {
    status(destroy(handle, Kind::Product))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescSetAttribute(handle: usize, attr: u32, value: Bytes, bytes: usize) -> Status {
    status(set(handle, Kind::Product, attr, value, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutCreate(
    out: Out<usize>,
    kind: u32,
    rows: u64,
    cols: u64,
    ld: i64,
) -> Status {
    let values = [
        (Shape::CUBLASLT_MATRIX_LAYOUT_TYPE as u32, kind.to_le_bytes().to_vec()),
        (Shape::CUBLASLT_MATRIX_LAYOUT_ROWS as u32, rows.to_le_bytes().to_vec()),
        (Shape::CUBLASLT_MATRIX_LAYOUT_COLS as u32, cols.to_le_bytes().to_vec()),
        (Shape::CUBLASLT_MATRIX_LAYOUT_LD as u32, ld.to_le_bytes().to_vec()),
    ];
    status(create(&out, Kind::Layout, values))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutDestroy(handle: usize) -> Status {
    status(destroy(handle, Kind::Layout))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutSetAttribute(
    handle: usize,
    attr: u32,
    value: Bytes,
    bytes: usize,
) -> Status {
    status(set(handle, Kind::Layout, attr, value, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceCreate(out: Out<usize>) -> Status {
    status(create(&out, Kind::Preference, []))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceDestroy(handle: usize) -> Status {
    status(destroy(handle, Kind::Preference))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    handle: usize,
    attr: u32,
    value: Bytes,
    bytes: usize,
) -> Status {
    status(set(handle, Kind::Preference, attr, value, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    library: usize,
    product: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    preference: usize,
    wanted: i32,
    results: Out<cublasLtMatmulHeuristicResult_t>,
    count: Out<i32>,
) -> Status {
    let run = || {
        find(library, Kind::Library)?;
        let wish = find(preference, Kind::Preference)?;
        let wanted = usize::try_from(wanted).ok().filter(|&n| n > 0).ok_or(CUBLAS_STATUS_INVALID_VALUE)?;
        let (problem, _) = problem(product, [a, b, c, d])?;
        let most = wish.long(Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES as u32).unwrap_or(0) as usize;
        let schemes = wish.word(Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK as u32).unwrap_or(7);
        let all = allowed(&problem, most, schemes);
        let given = all.len().min(wanted);
        for (i, (algorithm, bytes)) in all[..given].iter().enumerate() {
            if !results.put_at(i, result(algorithm, *bytes)) {
                return Err(CUBLAS_STATUS_INVALID_VALUE);
            }
        }
        if count.put(given as i32) { Ok(()) } else { Err(CUBLAS_STATUS_INVALID_VALUE) }
    };
    let done: Done = run();
    if done.is_err() {
        _ = count.put(0);
    }
    status(done)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulAlgoCheck(
    library: usize,
    product: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    algo: In<cublasLtMatmulAlgo_t>,
    out: Out<cublasLtMatmulHeuristicResult_t>,
) -> Status {
    let run = || {
        find(library, Kind::Library)?;
        let (problem, _) = problem(product, [a, b, c, d])?;
        let algorithm = Algorithm::unpack(&algo.get(0).ok_or(CUBLAS_STATUS_INVALID_VALUE)?)?;
        let bytes = workspace(&problem, &algorithm.order()?);
        if out.put(result(&algorithm, bytes)) { Ok(()) } else { Err(CUBLAS_STATUS_INVALID_VALUE) }
    };
    status(run())
}

/// Whether there are algorithms for such sums, factors and matrices A, B, C and D.
fn are_known(compute: u32, scale: u32, [a, b, c, d]: [u32; 4]) -> bool {
    let plain = [SUM_IN_FLOAT, SUM_IN_FLOAT_PEDANTIC].contains(&compute) && scale == R_32F;
    plain && a == b && c == d && [[R_32F, R_32F], [R_16BF, R_32F], [R_16BF, R_16BF]].contains(&[a, c])
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulAlgoGetIds(
    library: usize,
    compute: u32,
    scale: u32,
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    wanted: i32,
    ids: Out<i32>,
    count: Out<i32>,
) -> Status {
    let run = || {
        find(library, Kind::Library)?;
        let wanted = usize::try_from(wanted).ok().filter(|&n| n > 0).ok_or(CUBLAS_STATUS_INVALID_VALUE)?;
        let known = if are_known(compute, scale, [a, b, c, d]) { BLOCKS.len() } else { 0 };
        let given = known.min(wanted);
        let stored = (0..given).all(|id| ids.put_at(id, id as i32)) && count.put(given as i32);
        if stored { Ok(()) } else { Err(CUBLAS_STATUS_INVALID_VALUE) }
    };
    status(run())
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulAlgoInit(
    library: usize,
    compute: u32,
    scale: u32,
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    id: i32,
    algo: Out<cublasLtMatmulAlgo_t>,
) -> Status {
    let run = || {
        find(library, Kind::Library)?;
        if !are_known(compute, scale, [a, b, c, d]) {
            return because(CUBLAS_STATUS_NOT_SUPPORTED, "an algorithm for other types");
        }
        let id = u32::try_from(id).ok().filter(|&id| (id as usize) < BLOCKS.len());
        let id = id.ok_or(CUBLAS_STATUS_INVALID_VALUE)?;
        // Tile and stages are for the caller to choose.
        if algo.put(Algorithm::new(id, 0, 0, 1, 0).pack()) {
            Ok(())
        } else {
            Err(CUBLAS_STATUS_INVALID_VALUE)
        }
    };
    status(run())
}

/// Size of an attribute of an algorithm.
fn config_size(attribute: u32) -> Option<usize> {
    match attribute {
        0..=6 => Some(4),
        7 | 8 => Some(2), // shapes inside a tile and of clusters
        _ => None,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulAlgoConfigGetAttribute(
    algo: In<cublasLtMatmulAlgo_t>,
    attr: u32,
    value: Room,
    bytes: usize,
    written: Out<usize>,
) -> Status {
    let run = || {
        let algorithm = Algorithm::unpack(&algo.get(0).ok_or(CUBLAS_STATUS_INVALID_VALUE)?)?;
        let size = config_size(attr).ok_or(CUBLAS_STATUS_INVALID_VALUE)?;
        let said = written.put(size);
        if bytes == 0 {
            return if said { Ok(()) } else { Err(CUBLAS_STATUS_INVALID_VALUE) };
        }
        let stored = algorithm.config[attr as usize].to_le_bytes();
        if bytes == size && value.put(&stored[..size]) { Ok(()) } else { Err(CUBLAS_STATUS_INVALID_VALUE) }
    };
    status(run())
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulAlgoConfigSetAttribute(
    algo: Out<cublasLtMatmulAlgo_t>,
    attr: u32,
    value: Bytes,
    bytes: usize,
) -> Status {
    let run = || {
        let mut algorithm = Algorithm::unpack(&algo.get().ok_or(CUBLAS_STATUS_INVALID_VALUE)?)?;
        if config_size(attr) != Some(bytes) || attr == 0 {
            return because(
                CUBLAS_STATUS_INVALID_VALUE,
                &format!("attribute {attr} of an algorithm, {bytes} bytes"),
            );
        }
        let mut word = [0; 4];
        word[..bytes].copy_from_slice(&value.copy(bytes).ok_or(CUBLAS_STATUS_INVALID_VALUE)?);
        algorithm.config[attr as usize] = u32::from_le_bytes(word);
        if algo.put(algorithm.pack()) { Ok(()) } else { Err(CUBLAS_STATUS_INVALID_VALUE) }
    };
    status(run())
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmul(
    library: usize,
    product: usize,
    alpha: In<f32>,
    a: u64,
    a_layout: usize,
    b: u64,
    b_layout: usize,
    beta: In<f32>,
    c: u64,
    c_layout: usize,
    d: u64,
    d_layout: usize,
    algo: In<cublasLtMatmulAlgo_t>,
    memory: u64,
    bytes: usize,
    stream: usize,
) -> Status {
    let run = || {
        find(library, Kind::Library)?;
        let (problem, product) = problem(product, [a_layout, b_layout, c_layout, d_layout])?;
        let alpha = alpha.get(0).ok_or(CUBLAS_STATUS_INVALID_VALUE)?;
        let beta = beta.get(0).ok_or(CUBLAS_STATUS_INVALID_VALUE)?;
        let algorithm = match algo.get(0) {
            Some(algo) => Algorithm::unpack(&algo)?,
            None => allowed(&problem, bytes, 7).first().ok_or(CUBLAS_STATUS_NOT_SUPPORTED)?.0,
        };
        let order = algorithm.order()?;
        let needed = workspace(&problem, &order);
        if needed > bytes || needed > 0 && (memory == 0 || !memory.is_multiple_of(16)) {
            let reason = format!("a workspace of {bytes} bytes at {memory:#x}, {needed} are needed");
            return because(CUBLAS_STATUS_INVALID_VALUE, &reason);
        }
        let align = if problem.a.kind == Type::Bf16 { 16 } else { 4 };
        for (name, at) in [("A", a), ("B", b), ("C", if beta == 0.0 { d } else { c }), ("D", d)] {
            if at == 0 {
                return because(CUBLAS_STATUS_INVALID_VALUE, &format!("{name} is nowhere"));
            }
            if at % align != 0 {
                return because(CUBLAS_STATUS_NOT_SUPPORTED, &format!("{name} at {at:#x} is not aligned"));
            }
        }
        let pointer = |attribute: Of| match product.long(attribute as u32) {
            None | Some(0) => because(CUBLAS_STATUS_INVALID_VALUE, &format!("{attribute:?} is not set")),
            Some(at) => Ok(at),
        };
        // A bias and an auxiliary matrix have the type of D.
        let as_stored = |attribute: Of| {
            let stored = match problem.d.kind {
                Type::F32 => R_32F,
                Type::Bf16 => R_16BF,
            };
            match product.word(attribute as u32) {
                Some(kind) if kind != stored && kind != UNSET => because(
                    CUBLAS_STATUS_INVALID_VALUE,
                    &format!("{attribute:?} is {kind}, the type of D {stored}"),
                ),
                _ => Ok(problem.d.kind),
            }
        };
        let mut epilogue =
            Epilogue { gelu: problem.gelu, gelu_gradient: problem.gelu_gradient, ..Epilogue::default() };
        if problem.bias {
            let at = pointer(Of::CUBLASLT_MATMUL_DESC_BIAS_POINTER)?;
            epilogue.bias = Some((at, as_stored(Of::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE)?));
        }
        if problem.aux {
            let at = pointer(Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER)?;
            if at % 16 != 0 {
                return because(
                    CUBLAS_STATUS_INVALID_VALUE,
                    "the auxiliary matrix is not aligned to 16 bytes",
                );
            }
            let ld = product.long(Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD as u32).unwrap_or(0) as usize;
            let kind = as_stored(Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE)?;
            epilogue.aux = Some(Matrix { at, ld, kind, ..problem.d });
        }
        let matmul = Matmul {
            a: Matrix { at: a, ..problem.a },
            b: Matrix { at: b, ..problem.b },
            transposed: problem.transposed,
            alpha,
            c: (beta != 0.0).then_some(Matrix { at: c, ..problem.c }),
            beta,
            d: Matrix { at: d, ..problem.d },
            epilogue,
            order,
            workspace: (memory, needed),
        };
        if matmul.d.overlaps(&matmul.a) || matmul.d.overlaps(&matmul.b) {
            return because(CUBLAS_STATUS_INVALID_VALUE, "the product is stored over one of its factors");
        }
        let in_place = matmul.c.is_none_or(|c| c.at == d && c.ld == matmul.d.ld || !c.overlaps(&matmul.d));
        if !in_place {
            return because(CUBLAS_STATUS_INVALID_VALUE, "C and D overlap without being the same");
        }
        let mut world = world();
        world.in_context().map_err(|_| CUBLAS_STATUS_NOT_INITIALIZED)?;
        let work = Work::Matmul(Arc::new(matmul));
        if let Err(reason) = world.check(&work, true) {
            return because(CUBLAS_STATUS_INVALID_VALUE, &reason);
        }
        world.start_work(stream, work).map_err(|_| CUBLAS_STATUS_EXECUTION_FAILED)
    };
    status(run())
}
