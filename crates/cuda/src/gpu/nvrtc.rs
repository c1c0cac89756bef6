//! NVRTC, the compiler of CUDA C++ that is a library: compiles the kernels for one device.

use super::libraries;
use cudarc::nvrtc::sys::{self, nvrtcResult};
use duel_backend::{Error, Result};
use duel_kernels::{HEADERS, Source};
use std::ffi::{CStr, CString, c_char, c_int};

// ---- the library ----------------------------------------------------------------------------------------------------

/// Major and minor version of the compiler, NVRTC. Needs no device.
///
/// # Errors
/// When there is no NVRTC; says where it was looked for.
pub fn version() -> Result<[i32; 2]> {
    libraries::NVRTC.load()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is loaded, and both numbers live through the call.
    let result = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    ok(result).map_err(|e| Error::Device(format!("the version of NVRTC: {}", meaning(e))))?;
    Ok([major, minor])
}

/// Compute capabilities that this NVRTC compiles for, ten times the major number plus the minor one.
fn known_capabilities() -> std::result::Result<Vec<c_int>, nvrtcResult> {
    let mut count = 0;
    // SAFETY: the library is loaded (`compile`), and the number lives through the call.
    ok(unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) })?;
    let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: as above, and there is room for as many as it has just counted.
    ok(unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) })?;
    Ok(known)
}

// ---- errors ---------------------------------------------------------------------------------------------------------

fn ok(result: nvrtcResult) -> std::result::Result<(), nvrtcResult> {
    if result == nvrtcResult::NVRTC_SUCCESS { Ok(()) } else { Err(result) }
}

/// What an error means to someone who has not written the kernels.
fn meaning(error: nvrtcResult) -> &'static str {
    use nvrtcResult::*;
    match error {
        NVRTC_ERROR_COMPILATION => "the compiler rejects the source",
        NVRTC_ERROR_OUT_OF_MEMORY => "the host has no memory left",
        NVRTC_ERROR_INVALID_OPTION => "this version does not know an option that the kernels need",
        NVRTC_ERROR_BUILTIN_OPERATION_FAILURE => {
            "libnvrtc-builtins of the same version is neither beside libnvrtc nor on the loader path"
        }
        NVRTC_ERROR_PROGRAM_CREATION_FAILURE | NVRTC_ERROR_INVALID_INPUT | NVRTC_ERROR_INVALID_PROGRAM => {
            "the compiler does not take the source"
        }
        _ => "the compiler failed",
    }
}

// ---- compilation ----------------------------------------------------------------------------------------------------

/// The architecture of a device as the compiler calls it: that of compute capability 9.0 with its own instructions.
pub(crate) fn architecture(compute_capability: u32) -> String {
    let own = if compute_capability == 90 { "a" } else { "" };
    format!("sm_{compute_capability}{own}")
}

/// Options of the compiler.
pub(crate) fn options(compute_capability: u32) -> [String; 2] {
    [format!("--gpu-architecture={}", architecture(compute_capability)), "--std=c++17".into()]
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("no zero in the text of a kernel or an option")
}

/// A source with all headers, given from memory.
struct Program {
    raw: sys::nvrtcProgram,
    /// Text and name of the source and of each header, which the program may refer to.
    _texts: Vec<[CString; 2]>,
}

impl Program {
    fn new(source: &Source) -> std::result::Result<Self, nvrtcResult> {
        let files = std::iter::once(source).chain(HEADERS);
        let texts: Vec<_> = files.map(|file| [c_string(file.text), c_string(file.name)]).collect();
        let headers: Vec<_> = texts[1..].iter().map(|[text, _]| text.as_ptr()).collect();
        let names: Vec<_> = texts[1..].iter().map(|[_, name]| name.as_ptr()).collect();
        let [text, name] = &texts[0];
        let mut raw = std::ptr::null_mut();
        // SAFETY: the library is loaded (`compile`); all texts are C strings that live as long as the program, and
        // there are as many headers as names.
        ok(unsafe {
            sys::nvrtcCreateProgram(
                &mut raw,
                text.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                headers.as_ptr(),
                names.as_ptr(),
            )
        })?;
        Ok(Program { raw, _texts: texts })
    }

    fn compile(&self, options: &[String]) -> std::result::Result<Vec<u8>, nvrtcResult> {
        let options: Vec<_> = options.iter().map(|option| c_string(option)).collect();
        let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program is alive, and the options are as many C strings that live through the call.
        ok(unsafe { sys::nvrtcCompileProgram(self.raw, pointers.len() as c_int, pointers.as_ptr()) })?;
        let mut bytes = 0;
        // SAFETY: the program is alive and compiled, and the number lives through the call.
        ok(unsafe { sys::nvrtcGetCUBINSize(self.raw, &mut bytes) })?;
        let mut cubin = vec![0u8; bytes];
        // SAFETY: as above, and there is room for as many bytes as it has just said.
        ok(unsafe { sys::nvrtcGetCUBIN(self.raw, cubin.as_mut_ptr().cast()) })?;
        Ok(cubin)
    }

    /// What the compiler said.
    fn log(&self) -> String {
        let mut bytes = 0;
        // SAFETY: the program is alive, and the number lives through the call.
        if ok(unsafe { sys::nvrtcGetProgramLogSize(self.raw, &mut bytes) }).is_err() {
            return String::new();
        }
        let mut log = vec![0u8; bytes];
        // SAFETY: as above, and there is room for as many bytes as it has just said.
        if ok(unsafe { sys::nvrtcGetProgramLog(self.raw, log.as_mut_ptr().cast::<c_char>()) }).is_err() {
            return String::new();
        }
        let text = CStr::from_bytes_until_nul(&log).unwrap_or_default();
        text.to_string_lossy().trim_end().to_string()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is alive, and nobody uses it any more. There is nothing to do about a failure.
        unsafe { sys::nvrtcDestroyProgram(&mut self.raw) };
    }
}

/// Compiles a source of `duel-kernels` with NVRTC into machine code (a CUBIN) for devices of one compute capability,
/// ten times the major number plus the minor one. Needs no device and writes no file.
///
/// # Errors
/// When NVRTC is not here, is too old for the device or rejects the source; then with what it said about that.
pub fn compile(source: &Source, compute_capability: u32) -> Result<Vec<u8>> {
    let [major, minor] = version()?;
    let target = architecture(compute_capability);
    let failed =
        |what: String| Error::Device(format!("{} for {target}, NVRTC {major}.{minor}: {what}", source.name));
    let refused =
        |e: nvrtcResult, log: &str| failed(format!("{} ({e:?})\n{log}", meaning(e)).trim_end().into());

    let known = known_capabilities().map_err(|e| refused(e, ""))?;
    if !known.iter().any(|&k| u32::try_from(k) == Ok(compute_capability)) {
        let newest = known.iter().max().copied().unwrap_or(0);
        return Err(failed(format!(
            "this version does not compile for such devices; the newest it knows is sm_{newest}"
        )));
    }
    let program = Program::new(source).map_err(|e| refused(e, ""))?;
    program.compile(&options(compute_capability)).map_err(|e| refused(e, &program.log()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compute_capability_9_0_is_compiled_with_its_own_instructions() {
        assert_eq!([80, 90, 120].map(architecture), ["sm_80", "sm_90a", "sm_120"]);
    }
}
