//! One operation, on a device and on the CPU backend in the same and in double precision, compared by the precision
//! rule.

use duel_backend::{Acc, Backend, Dtype, Element, Float, Index, Real};
use duel_cpu::Cpu;
use duel_cuda::{Cuda, CudaReal, Driver};
use duel_tests::Random;

/// Roundings in `f32` that a result may always be off by, besides its own rounding to the type it is stored in: the
/// naive implementation may happen to be exact where another order of the same operations is not.
const FLOOR: f64 = 3.0;

/// Products that a tensor core adds to a sum at a time. What `f32` has no room for is cut off then, which PTX leaves
/// open and hardware does: up to a unit of the last place each time, where a rounding is half of one.
const PRODUCTS_AT_A_TIME: usize = 16;

/// Elements that follow every output, which an operation must not touch.
const SLACK: usize = 64;

/// Where a suite runs.
pub trait Devices {
    /// What drives them.
    type Driver: Driver;
    /// One driver for each way of running; their results must be bitwise equal.
    fn devices(&self) -> Vec<Self::Driver>;
    /// Why nothing can run here, if so: the tests of [`conformance!`](crate::conformance) are then skipped.
    fn absent(&self) -> Option<String> {
        None
    }
}

/// A verb, or several in a row, at a shape.
pub trait Operation {
    /// Says which and at what shape, for messages.
    fn name(&self) -> String;
    /// Makes the inputs, runs the verbs and hands in the outputs. Must ask for the same inputs on every backend.
    fn run<B: Backend>(&self, b: &B, bench: &mut Bench);
}

/// An output on the host.
struct Output {
    name: &'static str,
    values: Vec<f64>,
    /// Elements that share a natural scale: a row.
    row: usize,
    /// Distance from 1 to the next number in the type that it is stored in.
    epsilon: f64,
    /// Rounds to that type.
    round: fn(f64) -> f64,
    /// How often a tensor core may have cut a sum off.
    cuts: usize,
}

/// Inputs for an operation and a place for its outputs.
pub struct Bench {
    random: Random,
    /// Rounds to the type under test, so that every backend is given the same numbers.
    round: fn(f64) -> f64,
    /// Whether tensor cores multiply that type.
    tensor_cores: bool,
    outputs: Vec<Output>,
}

impl Bench {
    pub(crate) fn new<R: Float>() -> Self {
        Bench {
            random: Random(1),
            round: |x| R::from_f64(x).to_f64(),
            tensor_cores: R::DTYPE == Dtype::Bf16,
            outputs: Vec::new(),
        }
    }

    /// `n` numbers, uniform in `-scale..scale`, as weights or activations.
    pub fn real<B: Backend>(&mut self, b: &B, n: usize, scale: f64) -> Real<B> {
        let values = self.random.vec(n).into_iter().map(|x| x * scale);
        self.real_of(b, values.collect())
    }

    /// These numbers as weights or activations.
    pub fn real_of<B: Backend>(&mut self, b: &B, values: Vec<f64>) -> Real<B> {
        let values: Vec<_> = values.into_iter().map(|x| B::Real::from_f64((self.round)(x))).collect();
        upload(b, &values)
    }

    /// `n` numbers, uniform in `-scale..scale`, as gradients or statistics: rounded to `f32`.
    pub fn acc<B: Backend>(&mut self, b: &B, n: usize, scale: f64) -> Acc<B> {
        let values: Vec<_> =
            self.random.vec(n).into_iter().map(|x| B::Acc::from_f32((x * scale) as f32)).collect();
        upload(b, &values)
    }

    /// `n` row numbers or token ids below `below`.
    pub fn index<B: Backend>(&mut self, b: &B, n: usize, below: usize) -> Index<B> {
        upload(b, &self.random.tokens(n, below))
    }

    /// The random numbers, for what the methods above do not make.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// An output of `n` elements that the operation overwrites: full of NaNs before.
    pub fn output<B: Backend, T: Float>(&mut self, b: &B, n: usize) -> B::Buf<T> {
        upload(b, &vec![T::from_f64(f64::NAN); n + SLACK])
    }

    /// Hands in an output made by [`Bench::output`]; `row` elements share a natural scale.
    ///
    /// # Panics
    /// When the operation wrote past its end.
    pub fn done<B: Backend, T: Float>(&mut self, b: &B, name: &'static str, buf: &B::Buf<T>, row: usize) {
        let n = b.len(buf) - SLACK;
        let mut slack = vec![T::default(); SLACK];
        b.download(&mut slack, buf, n).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(slack.iter().all(|x| x.to_f64().is_nan()), "{name}: written past its end");
        self.push::<B, T>(b, name, buf, n, row, 0);
    }

    /// Hands in a buffer that the operation changed in place.
    pub fn changed<B: Backend, T: Float>(&mut self, b: &B, name: &'static str, buf: &B::Buf<T>, row: usize) {
        self.push::<B, T>(b, name, buf, b.len(buf), row, 0);
    }

    /// Hands in a buffer to each of whose elements the operation added a sum of `depth` products.
    pub fn summed<B: Backend, T: Float>(
        &mut self,
        b: &B,
        name: &'static str,
        buf: &B::Buf<T>,
        row: usize,
        depth: usize,
    ) {
        let cuts = if self.tensor_cores { depth.div_ceil(PRODUCTS_AT_A_TIME) } else { 0 };
        self.push::<B, T>(b, name, buf, b.len(buf), row, cuts);
    }

    fn push<B: Backend, T: Float>(
        &mut self,
        b: &B,
        name: &'static str,
        buf: &B::Buf<T>,
        n: usize,
        row: usize,
        cuts: usize,
    ) {
        let mut host = vec![T::default(); n];
        b.download(&mut host, buf, 0).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = host.into_iter().map(T::to_f64).collect();
        self.outputs.push(Output {
            name,
            values,
            row: row.max(1),
            epsilon: T::EPSILON,
            round: |x| T::from_f64(x).to_f64(),
            cuts,
        });
    }
}

fn upload<B: Backend, T: Element>(b: &B, values: &[T]) -> B::Buf<T> {
    let mut buf = b.alloc(values.len()).expect("room for a test");
    b.upload(&mut buf, 0, values);
    buf
}

/// The outputs of an operation on a backend whose inputs are rounded to `R`.
fn run<R: Float, B: Backend>(b: &B, operation: &impl Operation) -> Vec<Output> {
    let mut bench = Bench::new::<R>();
    operation.run(b, &mut bench);
    b.finish().unwrap_or_else(|e| panic!("{}: {e}", operation.name()));
    bench.outputs
}

/// Checks an operation on every device: the first one's results by the precision rule, those of the others to be the
/// same bits.
///
/// The rule: in each output, the largest error against `Cpu<f64>` on the same inputs, relative to the largest
/// number of the row that it is in, is at most twice that of `Cpu<R>`, plus one rounding to the type of the output
/// and three roundings of `f32`; a sum that tensor cores may have made, one unit of `f32` more for every 16
/// products that it has. A number that is too large for that type must come out as the infinity that it rounds to.
///
/// # Panics
/// When it does not hold, with the worst element.
pub fn check<R>(devices: &impl Devices, operation: &impl Operation)
where
    R: CudaReal + duel_cpu::Real,
    Cpu<R>: Backend,
{
    let reference = run::<R, _>(&Cpu::<f64>::new(1), operation);
    let naive = run::<R, _>(&Cpu::<R>::new(1), operation);
    let mut first: Option<Vec<Output>> = None;
    for driver in devices.devices() {
        let device = Cuda::<_, R>::new(driver);
        let context = format!("{} on {}", operation.name(), device.describe());
        let outputs = run::<R, _>(&device, operation);
        match &first {
            None => {
                for ((got, reference), naive) in outputs.iter().zip(&reference).zip(&naive) {
                    check_output(&context, got, reference, naive);
                }
                first = Some(outputs);
            }
            Some(first) => {
                for (got, first) in outputs.iter().zip(first) {
                    check_same_bits(&context, got, first);
                }
            }
        }
    }
    assert!(first.is_some(), "no device to check {} on", operation.name());
}

fn check_same_bits(context: &str, got: &Output, first: &Output) {
    for (i, (a, b)) in got.values.iter().zip(&first.values).enumerate() {
        assert!(
            a.to_bits() == b.to_bits(),
            "{context}: {}[{i}] is {a:e}, but {b:e} in another schedule",
            got.name
        );
    }
}

/// Largest finite number of a row of `values`, rounded to the type of the output.
fn row_scale(values: &[f64], round: fn(f64) -> f64) -> f64 {
    values.iter().map(|&x| round(x).abs()).filter(|x| x.is_finite()).fold(0.0, f64::max)
}

/// Relative error of each element: 0 where both are the same infinity or NaN, infinite where only one is.
fn errors<'a>(got: &'a [f64], reference: &'a Output, to: &'a Output) -> impl Iterator<Item = f64> + 'a {
    let whole = row_scale(&reference.values, to.round);
    got.chunks(to.row).zip(reference.values.chunks(to.row)).flat_map(move |(got, reference)| {
        let scale =
            [row_scale(reference, to.round), whole, 1.0].into_iter().find(|&s| s > 0.0).unwrap_or(1.0);
        got.iter().zip(reference).map(move |(&x, &r)| {
            let rounded = (to.round)(r);
            if !x.is_finite() || !rounded.is_finite() {
                let same = x == rounded || x.is_nan() && rounded.is_nan();
                return if same { 0.0 } else { f64::INFINITY };
            }
            (x - r).abs() / scale
        })
    })
}

fn check_output(context: &str, got: &Output, reference: &Output, naive: &Output) {
    assert_eq!(got.name, reference.name, "{context}: outputs come in one order on every backend");
    assert_eq!(got.values.len(), reference.values.len(), "{context}: {}", got.name);
    // Where the naive implementation fails altogether, it excuses nothing.
    let excused = errors(&naive.values, reference, got).filter(|e| e.is_finite()).fold(0.0, f64::max);
    let of_sums = (FLOOR * 0.5 + got.cuts as f64) * f64::from(f32::EPSILON);
    let bound = 2.0 * excused + 0.5 * got.epsilon + of_sums;
    let worst = errors(&got.values, reference, got).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    let Some((at, error)) = worst else { return };
    assert!(
        error <= bound,
        "{context}: {}[{at}] (row {}, column {}) is {:e}, right is {:e}, naive {:e}: error {error:.3e} of the row's \
         scale, bound {bound:.3e}",
        got.name,
        at / got.row,
        at % got.row,
        got.values[at],
        reference.values[at],
        naive.values[at],
    );
}
