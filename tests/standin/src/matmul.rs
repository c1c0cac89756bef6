//! What a call of `cublasLtMatmul` computes. The order of every sum follows from the algorithm: its number and its
//! split of the inner dimension, so that another algorithm shows in the bits of the result, as it does on a GPU.

use half::bf16;
use std::ops::Range;

/// What numbers are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    F32,
    Bf16,
}

impl Type {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Type::F32 => 4,
            Type::Bf16 => 2,
        }
    }

    fn round(self, x: f32) -> f32 {
        match self {
            Type::F32 => x,
            Type::Bf16 => bf16::from_f32(x).to_f32(),
        }
    }

    /// # Safety
    /// There are more than `index` numbers of this type at the address.
    unsafe fn load(self, at: u64, index: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Type::F32 => (at as *const f32).add(index).read_unaligned(),
                Type::Bf16 => (at as *const bf16).add(index).read_unaligned().to_f32(),
            }
        }
    }

    /// # Safety
    /// There is room for more than `index` numbers of this type at the address.
    unsafe fn store(self, at: u64, index: usize, x: f32) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Type::F32 => (at as *mut f32).add(index).write_unaligned(x),
                Type::Bf16 => (at as *mut bf16).add(index).write_unaligned(bf16::from_f32(x)),
            }
        }
    }
}

/// A matrix, column after column, `ld` numbers from one to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    pub(crate) at: u64,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) ld: usize,
    pub(crate) kind: Type,
}

impl Matrix {
    fn bytes(&self) -> usize {
        ((self.cols - 1) * self.ld + self.rows) * self.kind.bytes()
    }

    /// Whether the two share memory.
    pub(crate) fn overlaps(&self, other: &Matrix) -> bool {
        self.at < other.at + other.bytes() as u64 && other.at < self.at + self.bytes() as u64
    }

    /// The matrix as numbers, transposed if asked for, column after column.
    ///
    /// # Safety
    /// It is there.
    unsafe fn load(&self, transposed: bool) -> Vec<f32> {
        let mut all = vec![0.0; self.rows * self.cols];
        for col in 0..self.cols {
            for row in 0..self.rows {
                // SAFETY: the caller's promise.
                let x = unsafe { self.kind.load(self.at, col * self.ld + row) };
                all[if transposed { row * self.cols + col } else { col * self.rows + row }] = x;
            }
        }
        all
    }
}

/// How partial sums of a split inner dimension come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    None,
    InPlace,
    ComputeType,
    OutputType,
}

/// How a product is computed, as far as its result depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Products that are summed before their sum is added to the rest.
    pub(crate) block: usize,
    /// Parts of the inner dimension.
    pub(crate) parts: usize,
    pub(crate) reduction: Reduction,
}

/// What happens to the product before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Epilogue {
    /// A number for every row.
    pub(crate) bias: Option<(u64, Type)>,
    pub(crate) gelu: bool,
    /// The product is multiplied by the derivative of GELU at `aux`.
    pub(crate) gelu_gradient: bool,
    /// What GELU was, or is, applied to.
    pub(crate) aux: Option<Matrix>,
}

/// `d = epilogue(alpha * op(a) * op(b) + beta * c)`.
pub(crate) struct Matmul {
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) transposed: [bool; 2],
    pub(crate) alpha: f32,
    /// Not read where `beta` is 0.
    pub(crate) c: Option<Matrix>,
    pub(crate) beta: f32,
    pub(crate) d: Matrix,
    pub(crate) epilogue: Epilogue,
    pub(crate) order: Order,
    /// Address and size of memory that the algorithm needs.
    pub(crate) workspace: (u64, usize),
}

const GELU_SCALE: f32 = 0.797_884_6; // sqrt(2 / pi)
const GELU_CUBE: f32 = 0.044_715;

/// GELU by its approximation with the hyperbolic tangent, and its derivative.
fn gelu(x: f32) -> (f32, f32) {
    let t = (GELU_SCALE * (x + GELU_CUBE * x * x * x)).tanh();
    let inner = GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * x * x);
    (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)
}

/// What is kept of a sum in `f32`: tensor cores cut off the rest, others round.
fn kept(sum: f64, of: Type) -> f32 {
    let nearest = sum as f32;
    let cut = of == Type::Bf16 && nearest.is_finite() && f64::from(nearest).abs() > sum.abs();
    if cut { f32::from_bits(nearest.to_bits() - 1) } else { nearest }
}

/// Products of numbers of a type, of one column of the result over a part of the inner dimension: `a` is `[m, k]`
/// column after column.
fn column(out: &mut [f32], a: &[f32], b: &[f32], of: Type, inner: Range<usize>, block: usize) {
    let m = out.len();
    let mut sum = vec![0.0f64; m];
    for start in inner.clone().step_by(block) {
        sum.fill(0.0);
        for k in start..inner.end.min(start + block) {
            let x = b[k];
            for (sum, a) in sum.iter_mut().zip(&a[k * m..(k + 1) * m]) {
                *sum += f64::from(*a) * f64::from(x);
            }
        }
        for (out, sum) in out.iter_mut().zip(&sum) {
            *out = kept(f64::from(*out) + sum, of);
        }
    }
}

impl Matmul {
    /// What it uses: address, bytes and name of each.
    pub(crate) fn ranges(&self) -> Vec<(u64, usize, String)> {
        let Epilogue { bias, aux, .. } = self.epilogue;
        let named =
            |matrix: &Matrix, name: &str| (matrix.at, matrix.bytes(), format!("{name} of a matrix product"));
        let mut all = vec![named(&self.a, "A"), named(&self.b, "B"), named(&self.d, "D")];
        all.extend(self.c.as_ref().map(|c| named(c, "C")));
        all.extend(aux.as_ref().map(|aux| named(aux, "the auxiliary matrix")));
        all.extend(
            bias.map(|(at, kind)| (at, self.d.rows * kind.bytes(), "the bias of a matrix product".into())),
        );
        if self.workspace.1 > 0 {
            all.push((self.workspace.0, self.workspace.1, "the workspace of a matrix product".into()));
        }
        all
    }

    /// What each part sums of an inner dimension. A split that was made for more than there is sums all of it in each
    /// part, as cuBLAS 13.1 does on an H100: an algorithm is for what it was chosen for.
    fn parts_of(&self, k: usize) -> Vec<Range<usize>> {
        if k < self.order.parts {
            return vec![0..k; self.order.parts];
        }
        let part = k.div_ceil(self.order.parts).next_multiple_of(16);
        (0..k).step_by(part).map(|start| start..k.min(start + part)).collect()
    }

    /// # Safety
    /// All of [`Matmul::ranges`] are there, and nobody else uses them.
    pub(crate) unsafe fn run(&self) {
        let (m, n) = (self.d.rows, self.d.cols);
        let k = if self.transposed[0] { self.a.rows } else { self.a.cols };
        // SAFETY: the caller's promise.
        let (a, b) = unsafe { (self.a.load(self.transposed[0]), self.b.load(self.transposed[1])) };
        if self.workspace.1 > 0 {
            // SAFETY: the caller's promise. What is there is lost, as it would be.
            unsafe { (self.workspace.0 as *mut u8).write_bytes(0xff, self.workspace.1) };
        }
        let parts = self.parts_of(k);
        let mut product = vec![0.0f32; m * n];
        let work = |j: usize, out: &mut [f32]| {
            let b = &b[j * k..(j + 1) * k];
            let mut sum = vec![0.0; m];
            for (i, part) in parts.iter().enumerate() {
                sum.fill(0.0);
                column(&mut sum, &a, b, self.a.kind, part.clone(), self.order.block);
                let rounds = self.order.reduction == Reduction::OutputType;
                for (out, &sum) in out.iter_mut().zip(&sum) {
                    let sum = if rounds { self.d.kind.round(sum) } else { sum };
                    *out = if i == 0 { sum } else { *out + sum };
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |t| t.get());
        let threads = if m * n * k > 1 << 20 { threads } else { 1 };
        std::thread::scope(|scope| {
            let columns = n.div_ceil(threads);
            for (chunk, out) in product.chunks_mut(columns * m).enumerate() {
                let mut run = move || {
                    for (j, out) in out.chunks_mut(m).enumerate() {
                        work(chunk * columns + j, out);
                    }
                };
                if threads > 1 {
                    scope.spawn(run);
                } else {
                    run();
                }
            }
        });
        for j in 0..n {
            for i in 0..m {
                // SAFETY: the caller's promise.
                unsafe { self.finish(i, j, product[j * m + i]) };
            }
        }
    }

    /// Stores one element.
    ///
    /// # Safety
    /// As [`Matmul::run`].
    unsafe fn finish(&self, i: usize, j: usize, product: f32) {
        let Epilogue { bias, gelu: is_gelu, gelu_gradient, aux } = self.epilogue;
        let mut x = self.alpha * product;
        // SAFETY: the caller's promise, here and below.
        unsafe {
            if let Some(c) = self.c {
                x += self.beta * c.kind.load(c.at, j * c.ld + i);
            }
            if let Some((at, kind)) = bias {
                x += kind.load(at, i);
            }
            if is_gelu {
                if let Some(aux) = aux {
                    aux.kind.store(aux.at, j * aux.ld + i, x);
                }
                x = gelu(x).0;
            }
            if let (true, Some(aux)) = (gelu_gradient, aux) {
                x *= gelu(aux.kind.load(aux.at, j * aux.ld + i)).1;
            }
            self.d.kind.store(self.d.at, j * self.d.ld + i, x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivative_of_gelu_is_one() {
        for x in [-3.0f32, -0.7, 0.0, 0.4, 2.5] {
            let h = 1e-2;
            let difference = (gelu(x + h).0 - gelu(x - h).0) / (2.0 * h);
            assert!((gelu(x).1 - difference).abs() < 1e-3, "at {x}: {} and {difference}", gelu(x).1);
        }
        assert_eq!(gelu(0.0), (0.0, 0.5));
    }
}
