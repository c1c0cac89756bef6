//! Kernels on the device, compiled and loaded when they are first used.

use super::cache;
use super::error::failed;
use cudarc::driver::CudaContext;
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUfunction_attribute};
use duel_backend::{Error, Result};
use duel_kernels::{KERNELS, SOURCES};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;

/// Dynamic shared memory that a block can have without asking for more, in bytes.
const SHARED_UNASKED: usize = 48 << 10;

/// Machine code on the device.
struct Module {
    raw: sys::CUmodule,
    context: Arc<CudaContext>,
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the module is loaded; `Device` has waited for its kernels and drops its functions with it. A
            // failure leaves a module that goes with the context.
            _ = unsafe { result::module::unload(self.raw) };
        }
    }
}

/// A kernel on the device.
#[derive(Clone, Copy)]
pub(super) struct Function {
    pub raw: sys::CUfunction,
    /// Dynamic shared memory that a block can have, in bytes.
    shared: usize,
}

/// The kernels that were used so far.
pub(super) struct Kernels {
    /// Where compiled kernels are kept.
    cache: Option<PathBuf>,
    compute_capability: u32,
    functions: RefCell<HashMap<&'static str, Function>>,
    /// By the name of the source.
    modules: RefCell<HashMap<&'static str, Module>>,
    context: Arc<CudaContext>,
}

impl Kernels {
    pub fn new(cache: Option<PathBuf>, compute_capability: u32, context: Arc<CudaContext>) -> Self {
        Kernels {
            cache,
            compute_capability,
            functions: RefCell::default(),
            modules: RefCell::default(),
            context,
        }
    }

    /// Compiles a source and loads it.
    fn load(&self, source: &str) -> Result<Module> {
        let source = SOURCES.iter().find(|s| s.name == source).expect("the table of kernels names sources");
        let code = cache::cubin(self.cache.as_deref(), source, self.compute_capability)?;
        let about = |e| failed(&format!("{} cannot be loaded", source.name), e);
        self.context.bind_to_thread().map_err(about)?;
        // SAFETY: the context is current, and the code is a whole CUBIN: of the compiler, or with a right checksum.
        let raw = unsafe { result::module::load_data(code.as_ptr().cast()) }.map_err(about)?;
        Ok(Module { raw, context: self.context.clone() })
    }

    /// The kernel of this name, its source compiled and loaded if it is the first of it.
    fn find(&self, kernel: &'static str) -> Result<Function> {
        let entry = KERNELS.iter().find(|k| k.name == kernel);
        let entry = entry.ok_or_else(|| Error::Device(format!("there is no kernel {kernel}")))?;
        let mut modules = self.modules.borrow_mut();
        if !modules.contains_key(entry.source) {
            modules.insert(entry.source, self.load(entry.source)?);
        }
        let name = CString::new(kernel).expect("a kernel's name has no zero in it");
        // SAFETY: the module is loaded and lives as long as the device.
        let raw = unsafe { result::module::get_function(modules[entry.source].raw, name) };
        let raw = raw.map_err(|e| failed(&format!("{kernel} of {}", entry.source), e))?;
        Ok(Function { raw, shared: SHARED_UNASKED })
    }

    /// The kernel of this name, allowed so much dynamic shared memory a block.
    pub fn function(&self, kernel: &'static str, shared: usize) -> Result<Function> {
        let known = self.functions.borrow().get(kernel).copied();
        let mut function = match known {
            Some(function) if function.shared >= shared => return Ok(function),
            Some(function) => function,
            None => self.find(kernel)?,
        };
        if function.shared < shared {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(shared).unwrap_or(i32::MAX);
            // SAFETY: the function's module is loaded and lives as long as the device.
            unsafe { result::function::set_function_attribute(function.raw, attribute, bytes) }
                .map_err(|e| failed(&format!("{kernel} with {shared} bytes of shared memory"), e))?;
            function.shared = shared;
        }
        self.functions.borrow_mut().insert(kernel, function);
        Ok(function)
    }
}
