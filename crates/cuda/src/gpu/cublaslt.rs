//! Matrix products by cuBLASLt, where that is there.
//!
//! Which of its algorithms makes a product is asked once for each kind of product, at [`TYPICAL_ROWS`] rows, and then
//! kept for every number of rows. An algorithm of the library is a tile of the result and one order of its sum along
//! the depth; asked anew at each size, the library would give few rows another one than many, and a row's result would
//! depend on the rows beside it. For the same reason the depth is never split. Nor is it where the depth is the rows of
//! tokens: an algorithm that splits is right at the depth that it was chosen at alone. On an H100 with cuBLAS 13.1 a
//! split in three added the product of two rows three times, and `cublasLtMatmulAlgoCheck` had nothing against it.

use crate::library::{Epilogue, LibraryProduct, Product};
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DriverError};
use duel_backend::{Dtype, Gemm};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// Rows of tokens that an algorithm is chosen at: a large micro-batch.
const TYPICAL_ROWS: usize = 8192;
/// Rows of tokens that it must take too, for it to be the one of every number of rows.
const OTHER_ROWS: [usize; 4] = [1, 17, 256, 32768];
/// Room that an algorithm may use, in bytes: what NVIDIA recommends for Hopper (cuBLAS documentation,
/// `cublasSetWorkspace`).
const WORKSPACE: usize = 32 << 20;
/// Algorithms that the library is asked for; the first that fits is taken.
const CANDIDATES: usize = 16;
/// Alignment of the operands that is promised to the library: that of rows of whole 16 bytes.
const ALIGNMENT: u32 = 16;

/// What an algorithm is chosen by: everything but the rows of tokens and the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    product: Product,
    n: usize,
    k: usize,
    stride: usize,
    dtype: Dtype,
    bias: bool,
    residual: bool,
    epilogue: sys::cublasLtEpilogue_t,
}

impl Kind {
    fn of(p: &LibraryProduct) -> Self {
        use sys::cublasLtEpilogue_t as Code;
        let bias = !p.bias.is_null();
        let epilogue = match (p.epilogue, bias) {
            (Epilogue::None, false) => Code::CUBLASLT_EPILOGUE_DEFAULT,
            (Epilogue::None, true) => Code::CUBLASLT_EPILOGUE_BIAS,
            (Epilogue::Gelu { .. }, false) => Code::CUBLASLT_EPILOGUE_GELU_AUX,
            (Epilogue::Gelu { .. }, true) => Code::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
            (Epilogue::GeluGradient { .. }, _) => Code::CUBLASLT_EPILOGUE_DGELU,
        };
        let Gemm { n, k, stride, .. } = p.dims;
        let residual = !p.residual.is_null();
        Kind { product: p.product, n, k, stride, dtype: p.dtype, bias, residual, epilogue }
    }

    /// Whether the library may be asked at all: it wants rows of what goes with a GELU in eights (cuBLAS
    /// documentation, `CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD`), how exact its GELU is in float is not documented, and
    /// without a split it adds floats one by one, which over the rows of tokens is less exact than our sums in blocks.
    fn is_for_library(&self) -> bool {
        use sys::cublasLtEpilogue_t as Code;
        if self.dtype == Dtype::F32 && self.product == Product::WeightGradient {
            return false;
        }
        let plain = [Code::CUBLASLT_EPILOGUE_DEFAULT, Code::CUBLASLT_EPILOGUE_BIAS].contains(&self.epilogue);
        let [_, columns, _] = self.product.shape(self.dims(TYPICAL_ROWS));
        plain || (self.dtype == Dtype::Bf16 && columns % 8 == 0)
    }

    fn dims(&self, m: usize) -> Gemm {
        Gemm { m, n: self.n, k: self.k, stride: self.stride }
    }
}

/// A handle of the library, and what it chose.
pub(crate) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    /// Held for its address, which is asked for once: cudarc waits for events where it is asked for, and in a capture
    /// none from outside may be waited for.
    _workspace: CudaSlice<u8>,
    workspace: u64,
    chosen: RefCell<HashMap<Kind, Option<sys::cublasLtMatmulAlgo_t>>>,
}

/// Why the library cannot be used.
#[derive(Debug)]
pub(crate) enum Refusal {
    Library(CublasError),
    Driver(DriverError),
}

impl From<CublasError> for Refusal {
    fn from(e: CublasError) -> Self {
        Refusal::Library(e)
    }
}

impl From<DriverError> for Refusal {
    fn from(e: DriverError) -> Self {
        Refusal::Driver(e)
    }
}

impl CublasLt {
    /// A handle for work on a stream. The library is loaded (`libraries::CUBLASLT`).
    pub(crate) fn new(stream: &Arc<CudaStream>) -> Result<Self, Refusal> {
        stream.context().bind_to_thread()?;
        let slice = stream.alloc_zeros(WORKSPACE)?;
        let (workspace, _) = slice.device_ptr(stream);
        Ok(CublasLt {
            handle: result::create_handle()?,
            _workspace: slice,
            workspace,
            chosen: RefCell::default(),
        })
    }

    /// Its version: 10000 times the major number, 100 times the minor one, and the patch.
    pub(crate) fn version() -> usize {
        // SAFETY: the library is loaded, and the call takes nothing.
        unsafe { sys::cublasLtGetVersion() }
    }

    /// Starts a product, or says that the library has no algorithm for products of this kind.
    ///
    /// # Safety
    /// As for [`crate::Driver::library_product`].
    pub(crate) unsafe fn start(&self, p: &LibraryProduct, stream: &CudaStream) -> Result<bool, CublasError> {
        let kind = Kind::of(p);
        let Some(algorithm) = self.algorithm(kind)? else { return Ok(false) };
        let call = Call::new(kind, p.dims.m, p)?;
        let (alpha, beta) = (1.0f32, if call.adds { 1.0f32 } else { 0.0 });
        // Where nothing is added, C is not read, but has to be there.
        let added = if kind.residual { p.residual } else { p.out.cast_const() };
        // SAFETY: the descriptors are alive; the addresses are the caller's promise; alpha and beta are host numbers of
        // the scale type; the workspace is as large as it says and no other stream uses it.
        unsafe {
            result::matmul(
                self.handle,
                call.desc.0,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                call.operands[0],
                call.layouts[0].0,
                call.operands[1],
                call.layouts[1].0,
                added,
                call.layouts[2].0,
                p.out,
                call.layouts[3].0,
                &algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                stream.cu_stream().cast(),
            )?;
        }
        Ok(true)
    }

    fn algorithm(&self, kind: Kind) -> Result<Option<sys::cublasLtMatmulAlgo_t>, CublasError> {
        if let Some(known) = self.chosen.borrow().get(&kind) {
            return Ok(*known);
        }
        let chosen = if kind.is_for_library() { self.choose(kind)? } else { None };
        self.chosen.borrow_mut().insert(kind, chosen);
        Ok(chosen)
    }

    /// The library's best algorithm for a kind of product.
    fn choose(&self, kind: Kind) -> Result<Option<sys::cublasLtMatmulAlgo_t>, CublasError> {
        let call = Call::new(kind, TYPICAL_ROWS, &kind.example())?;
        let preference = Preference::new()?;
        let mut found = [std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit(); CANDIDATES];
        let mut count = 0;
        // SAFETY: all descriptors are alive, and there is room for as many results as are asked for.
        let answer = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                call.desc.0,
                call.layouts[0].0,
                call.layouts[1].0,
                call.layouts[2].0,
                call.layouts[3].0,
                preference.0,
                CANDIDATES as i32,
                found.as_mut_ptr().cast(),
                &mut count,
            )
        };
        if answer == sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED {
            return Ok(None);
        }
        answer.result()?;
        for candidate in &found[..usize::try_from(count).unwrap_or(0)] {
            // SAFETY: the library has filled so many results.
            let candidate = unsafe { candidate.assume_init() };
            let usable = candidate.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS
                && splits(&candidate.algo)? <= 1;
            if usable && self.takes_all(kind, &candidate.algo)? {
                return Ok(Some(candidate.algo));
            }
        }
        Ok(None)
    }

    /// Whether an algorithm takes few rows and many, in the room that there is.
    fn takes_all(&self, kind: Kind, algo: &sys::cublasLtMatmulAlgo_t) -> Result<bool, CublasError> {
        for rows in OTHER_ROWS {
            let call = Call::new(kind, rows, &kind.example())?;
            let mut found = std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
            // SAFETY: all descriptors are alive, and there is room for the result.
            let answer = unsafe {
                sys::cublasLtMatmulAlgoCheck(
                    self.handle,
                    call.desc.0,
                    call.layouts[0].0,
                    call.layouts[1].0,
                    call.layouts[2].0,
                    call.layouts[3].0,
                    algo,
                    found.as_mut_ptr(),
                )
            };
            if answer != sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
                return Ok(false);
            }
            // SAFETY: the library has filled the result.
            let found = unsafe { found.assume_init() };
            if found.workspaceSize > WORKSPACE {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: the handle is alive, and nobody uses it any more. There is nothing to do about a failure.
        _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Into how many parts an algorithm splits the depth.
fn splits(algo: &sys::cublasLtMatmulAlgo_t) -> Result<u32, CublasError> {
    let (mut parts, mut written) = (0u32, 0);
    // SAFETY: the algorithm was given by the library; both numbers live through the call, and the first is as large as
    // the attribute.
    let done = unsafe {
        sys::cublasLtMatmulAlgoConfigGetAttribute(
            algo,
            sys::cublasLtMatmulAlgoConfigAttributes_t::CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
            (&raw mut parts).cast(),
            size_of::<u32>(),
            &mut written,
        )
    };
    done.result()?;
    Ok(parts)
}

impl Kind {
    /// A product of this kind at no address: enough to ask for an algorithm.
    fn example(&self) -> LibraryProduct {
        use sys::cublasLtEpilogue_t as Code;
        let aligned: *mut c_void = std::ptr::without_provenance_mut(256);
        LibraryProduct {
            product: self.product,
            dims: self.dims(TYPICAL_ROWS),
            dtype: self.dtype,
            out: aligned,
            left: aligned,
            right: aligned,
            bias: if self.bias { aligned } else { std::ptr::null() },
            residual: if self.residual { aligned } else { std::ptr::null() },
            epilogue: match self.epilogue {
                Code::CUBLASLT_EPILOGUE_GELU_AUX | Code::CUBLASLT_EPILOGUE_GELU_AUX_BIAS => {
                    Epilogue::Gelu { input: aligned }
                }
                Code::CUBLASLT_EPILOGUE_DGELU => Epilogue::GeluGradient { input: aligned },
                _ => Epilogue::None,
            },
        }
    }
}

// ---- descriptors ----------------------------------------------------------------------------------------------------

/// How the library is told about a product. It thinks in columns: a row-major matrix `[r, c]` is to it one of `c` rows
/// and `r` columns, and it makes the transpose of our result, of which our rows are the columns. So its first operand
/// is our right one, its second our left one.
struct Call {
    desc: Desc,
    operands: [*const c_void; 2],
    /// Of its A, B, C and D.
    layouts: [Layout; 4],
    /// Whether something is added to the product: the residual, or what a weight gradient was before.
    adds: bool,
}

impl Call {
    fn new(kind: Kind, rows_of_tokens: usize, p: &LibraryProduct) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let dims = kind.dims(rows_of_tokens);
        let [rows, columns, depth] = kind.product.shape(dims);
        let [of_out, of_left, of_right] = kind.product.strides(dims);
        let [left_along, right_along] = kind.product.along_depth();
        let real = data_type(kind.dtype);
        let sum = sys::cudaDataType::CUDA_R_32F;
        let of_result = if kind.product == Product::WeightGradient { sum } else { real };

        let desc = Desc(result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sum)?);
        // An operand whose neighbours are along the depth has the depth as its rows: A wants it as columns, B as rows.
        desc.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(right_along))?;
        desc.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(!left_along))?;
        desc.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &kind.epilogue)?;
        if kind.bias {
            desc.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias)?;
        }
        let input = match p.epilogue {
            Epilogue::None => None,
            Epilogue::Gelu { input } => Some(input.cast_const()),
            Epilogue::GeluGradient { input } => Some(input),
        };
        if let Some(input) = input {
            desc.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &input)?;
            desc.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &(columns as i64))?;
        }
        let operand = |along, other| if along { [depth, other] } else { [other, depth] };
        let layout = |data, [rows, columns]: [usize; 2], stride: usize| {
            result::create_matrix_layout(data, rows as u64, columns as u64, stride as i64).map(Layout)
        };
        Ok(Call {
            desc,
            operands: [p.right, p.left],
            layouts: [
                layout(real, operand(right_along, columns), of_right)?,
                layout(real, operand(left_along, rows), of_left)?,
                layout(of_result, [columns, rows], of_out)?,
                layout(of_result, [columns, rows], of_out)?,
            ],
            adds: kind.residual || kind.product == Product::WeightGradient,
        })
    }
}

fn data_type(dtype: Dtype) -> sys::cudaDataType {
    match dtype {
        Dtype::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Dtype::F32 => sys::cudaDataType::CUDA_R_32F,
        Dtype::F64 | Dtype::U32 | Dtype::I8 => unreachable!("CudaReal is f32 and bf16"),
    }
}

struct Desc(sys::cublasLtMatmulDesc_t);

impl Desc {
    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<(), CublasError> {
        // SAFETY: the descriptor is alive, and the value is as large as it says.
        unsafe {
            let value = std::ptr::from_ref(value).cast();
            result::set_matmul_desc_attribute(self.0, attribute, value, size_of::<T>())
        }
    }
}

impl Drop for Desc {
    fn drop(&mut self) {
        // SAFETY: the descriptor is alive, and nobody uses it any more.
        _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

struct Layout(sys::cublasLtMatrixLayout_t);

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: the layout is alive, and nobody uses it any more.
        _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new() -> Result<Self, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        use sys::cublasLtReductionScheme_t as Scheme;
        let preference = Preference(result::create_matmul_pref()?);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        let scheme = Scheme::CUBLASLT_REDUCTION_SCHEME_NONE;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &(scheme as u32))?;
        for alignment in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(alignment, &ALIGNMENT)?;
        }
        Ok(preference)
    }

    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<(), CublasError> {
        // SAFETY: the preference is alive, and the value is as large as it says.
        unsafe {
            let value = std::ptr::from_ref(value).cast();
            result::set_matmul_pref_attribute(self.0, attribute, value, size_of::<T>())
        }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: the preference is alive, and nobody uses it any more.
        _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
