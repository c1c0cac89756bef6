//! A backward does no work that no gradient needs: counted in the kernels that it starts.

use duel_backend::Result;
use duel_backend::Storage as _;
use duel_cuda::{Argument, Cuda, Driver, Grid, Properties, sys};
use duel_model::{Family, Keep, Trained};
use duel_tests::{Batch, Case, Random, activations, tiny};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A device that computes nothing and writes down the kernels that it is asked for.
#[derive(Default)]
struct Names {
    started: Rc<RefCell<Vec<&'static str>>>,
    addresses: Cell<u64>,
}

impl Driver for Names {
    type Memory = u64;
    type Recording = ();

    fn describe(&self) -> String {
        "a list of names".into()
    }
    fn properties(&self) -> Properties {
        Properties { compute_capability: 80, multiprocessors: 8, max_shared: 99 << 10 }
    }
    fn alloc(&self, bytes: usize) -> Result<u64> {
        Ok(self.addresses.replace(self.addresses.get() + (bytes as u64).next_multiple_of(256)) + 256)
    }
    fn address(&self, memory: &u64) -> u64 {
        *memory
    }
    fn upload(&self, _: &mut u64, _: usize, _: &[u8]) {}
    fn download(&self, dst: &mut [u8], _: &u64, _: usize) -> Result<()> {
        dst.fill(0);
        Ok(())
    }
    fn copy(&self, _: &mut u64, _: &u64, _: usize) {}
    fn zero(&self, _: &mut u64, _: usize) {}
    fn tensor_map(&self, _: &sys::TensorMapSpec) -> sys::TensorMap {
        unreachable!("kernels of this compute capability have none")
    }
    unsafe fn launch(&self, kernel: &'static str, _: Grid, _: &[Argument]) {
        self.started.borrow_mut().push(kernel);
    }
    fn repeat(&self, (): &mut (), mut work: impl FnMut()) {
        work();
    }
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Kernels of a backward that trains the parameters whose names in the file hold one of `parts`.
fn kernels(family: Family, keep: Keep, parts: &[&str]) -> Vec<&'static str> {
    let names = Names::default();
    let started = names.started.clone();
    let (b, case) = (Cuda::<_, f32>::new(names), Case::new(tiny(family), 1));
    let batch = Batch::packed(&[Random(1).group(case.config.vocab, 3..4, 2, 2..4)]);
    let (weights, layout) = (case.upload(&b), batch.layout(&b));
    let is_trained = |s: &duel_model::Shape| parts.iter().any(|part| s.pieces[0].name.contains(part));
    let mut grads = Trained::new(&b, &case.manifest(), is_trained).expect("room for a test");
    let mut a = activations(&b, &case.config, layout.rows, keep);
    duel_model::forward(&b, &case.config, &weights, &layout, &mut a);
    b.finish().expect("the device works");
    started.borrow_mut().clear();
    duel_model::backward(&b, &case.config, &weights, &mut grads, &layout, &mut a);
    started.take()
}

/// How many kernels of each kind there are: `dx` and `dw` of products, attention's backward, all.
fn counts(kernels: &[&str]) -> [usize; 4] {
    let of = |part: &str| kernels.iter().filter(|name| name.contains(part)).count();
    [of("gemm_dx_f32"), of("gemm_dw_f32"), of("attention_bw_q_"), kernels.len()]
}

/// Of two layers with four products each; the second is the upper one.
#[test]
fn nothing_runs_below_what_is_trained() {
    for family in [Family::Llama, Family::Qwen3, Family::Gpt2] {
        let (block, up, down, norm) = match family {
            Family::Gpt2 => ("transformer.h", "mlp.c_fc.weight", "mlp.c_proj.weight", "transformer.ln_f"),
            _ => ("model.layers", "mlp.gate_proj.weight", "mlp.down_proj.weight", "model.norm"),
        };
        let qkv = if family == Family::Gpt2 { "attn.c_attn.weight" } else { "self_attn.q_proj.weight" };
        let at = |layer: usize, name: &str| format!("{block}.{layer}.{name}");
        let count = |names: &[String]| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            counts(&kernels(family, Keep::All, &names))
        };
        let whole = count(&["".into()]);
        assert_eq!(whole[..3], [8, 8, 2], "{family:?}: {whole:?}");
        assert_eq!(count(&["nothing".into()]), [0; 4], "{family:?}");
        assert_eq!(count(&[norm.into()])[..3], [0, 0, 0], "{family:?}");
        assert_eq!(count(&[at(1, down)])[..3], [0, 1, 0], "{family:?}");
        assert_eq!(count(&[at(1, up)])[..3], [1, 1, 0], "{family:?}");
        assert_eq!(count(&[at(1, qkv)])[..3], [3, 1, 1], "{family:?}");
        assert_eq!(count(&[at(0, down), at(1, qkv)])[..3], [4, 2, 1], "{family:?}");
        let embed = if family == Family::Gpt2 { "wte" } else { "embed_tokens" };
        let through = count(&[embed.into()]);
        assert_eq!(through[..3], [8, 0, 2], "{family:?}");
        assert!(through[3] < whole[3], "{family:?}: {through:?}");
    }
}

/// With activation checkpointing the layers below are not computed again either.
#[test]
fn layers_below_are_not_computed_again() {
    let again = |parts: &[&str]| {
        let kernels = kernels(Family::Llama, Keep::Residuals, parts);
        kernels.iter().filter(|name| name.starts_with("gemm_f32")).count()
    };
    // All products of a layer but the last.
    assert_eq!([again(&["layers.1.mlp"]), again(&["layers.0.mlp"])], [3, 6]);
}
