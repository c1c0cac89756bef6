//! Work that repeats.

use crate::Devices;
use duel_backend::{Acc, Backend, Gemm, Products, Real, Repetition, Storage};
use duel_cuda::{Cuda, Driver};
use duel_tests::{Random, host};
use half::bf16;

/// A product, whose kernel reads tensor maps on a device that has them, and the norm of a gradient, which needs
/// scratch.
struct Work<D: Driver> {
    x: Real<Cuda<D, bf16>>,
    w: Real<Cuda<D, bf16>>,
    y: Real<Cuda<D, bf16>>,
    db: Acc<Cuda<D, bf16>>,
}

const DIMS: Gemm = Gemm { m: 40, n: 512, k: 64, stride: 512 };

impl<D: Driver> Work<D> {
    fn new(b: &Cuda<D, bf16>) -> Self {
        let room = "room for a test";
        Work {
            x: b.alloc(DIMS.m * DIMS.k).expect(room),
            w: b.alloc(DIMS.n * DIMS.k).expect(room),
            y: b.alloc(DIMS.m * DIMS.n).expect(room),
            db: b.alloc(DIMS.n).expect(room),
        }
    }

    fn fill(&mut self, b: &Cuda<D, bf16>, seed: u64) {
        let mut random = Random(seed);
        for buf in [&mut self.x, &mut self.w] {
            let values: Vec<bf16> = random.vec(b.len(buf)).into_iter().map(bf16::from_f64).collect();
            b.upload(buf, 0, &values);
        }
        b.zero(&mut self.db);
    }

    fn call(&mut self, b: &Cuda<D, bf16>) {
        b.gemm(&mut self.y, &self.x, &self.w, None, None, DIMS);
        b.bias_dw(&mut self.db, &self.y, DIMS);
    }

    fn results(&self, b: &Cuda<D, bf16>) -> [Vec<f64>; 2] {
        [host::<_, bf16>(b, &self.y), host::<_, f32>(b, &self.db)]
    }
}

/// However often it was done before, and wherever the scratch memory has gone meanwhile, work that repeats does what it
/// does the first time, on what the buffers hold now.
pub fn repetition(devices: &impl Devices) {
    for driver in devices.devices() {
        let b = Cuda::<_, bf16>::new(driver);
        let (mut repeated, mut plain) = (Work::new(&b), Work::new(&b));
        let mut recording = Default::default();
        for round in 0..7 {
            repeated.fill(&b, round);
            plain.fill(&b, round);
            let mut asked = false;
            b.repeat(&mut recording, || {
                asked = true;
                repeated.call(&b);
            });
            // Done, recorded, then repeated; and anew once the scratch memory has moved.
            assert_eq!(asked, [0, 1, 4, 5].contains(&round), "round {round} on {}", b.describe());
            plain.call(&b);
            assert!(repeated.results(&b) == plain.results(&b), "round {round} on {}", b.describe());
            if round == 3 {
                // Needs more scratch memory than anything before: it goes to another place.
                let wide = Gemm::dense(64, 4096, 1);
                let dy = b.alloc::<bf16>(wide.m * wide.n).expect("room for a test");
                let mut db = b.alloc::<f32>(wide.n).expect("room for a test");
                b.bias_dw(&mut db, &dy, wide);
            }
        }
    }
}
