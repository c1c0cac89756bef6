//! The functions of libnvrtc. "Compiled" code names the source and its kernels, which the emulation has.

#![allow(non_snake_case)] // the names are NVIDIA's

use crate::ffi::{Bytes, In, Out, Room, Text};
use cudarc::nvrtc::sys::nvrtcResult::{self as Status, *};
use duel_kernels::{HEADERS, KERNELS, SOURCES, Source, Target};
use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::sync::{LazyLock, Mutex, MutexGuard};

type Done<T = ()> = Result<T, Status>;

/// A minor version that no real NVRTC has: compiled code is kept on disk by the version, and neither may be given what
/// the other compiled.
const VERSION: [i32; 2] = [13, 99];
/// What it compiles for.
const CAPABILITIES: [i32; 8] = [75, 80, 86, 89, 90, 100, 103, 120];
/// Beginning of the code: that of ELF, and a mark.
const MAGIC: &[u8; 8] = b"\x7fELFDUEL";

// ---- code -----------------------------------------------------------------------------------------------------------

/// What code says about itself.
pub(crate) struct Code {
    /// `sm_80`, `sm_90a`.
    pub(crate) architecture: String,
    pub(crate) kernels: Vec<String>,
}

impl Code {
    fn pack(&self) -> Vec<u8> {
        let mut text = format!("{}\0", self.architecture);
        for kernel in &self.kernels {
            text += &format!(".text.{kernel}\0"); // as a section of real code is called
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    /// From where a caller says that there is code.
    pub(crate) fn unpack(image: Bytes) -> Option<Self> {
        let head = image.copy(MAGIC.len() + 8)?;
        if !head.starts_with(MAGIC) {
            return None;
        }
        let length = u64::from_le_bytes(head[MAGIC.len()..].try_into().ok()?) as usize;
        let text = String::from_utf8(image.copy(head.len() + length)?.split_off(head.len())).ok()?;
        let mut parts = text.split_terminator('\0');
        let architecture = parts.next()?.to_string();
        let kernels = parts.filter_map(|part| part.strip_prefix(".text.")).map(str::to_string).collect();
        Some(Code { architecture, kernels })
    }

    /// Whether a device of this compute capability runs it: that with its own instructions runs on no other.
    pub(crate) fn runs_on(&self, capability: u32) -> bool {
        let name = self.architecture.trim_start_matches("sm_");
        match name.strip_suffix('a') {
            Some(own) => own.parse() == Ok(capability),
            None => name.parse().is_ok_and(|of: u32| of / 10 == capability / 10 && of <= capability),
        }
    }
}

// ---- programs -------------------------------------------------------------------------------------------------------

struct Program {
    name: String,
    text: String,
    /// Name and text of each.
    headers: Vec<(String, String)>,
    code: Option<Vec<u8>>,
    log: String,
}

#[derive(Default)]
struct Programs {
    all: HashMap<usize, Program>,
    made: usize,
}

fn programs() -> MutexGuard<'static, Programs> {
    static ALL: LazyLock<Mutex<Programs>> = LazyLock::new(Mutex::default);
    ALL.lock().expect("a panic in the stand-in ends the process")
}

fn with_program(handle: usize, f: impl FnOnce(&mut Program) -> Done) -> Status {
    let mut programs = programs();
    let done = programs.all.get_mut(&handle).ok_or(NVRTC_ERROR_INVALID_PROGRAM).and_then(f);
    done.err().unwrap_or(NVRTC_SUCCESS)
}

fn stored(done: bool) -> Done {
    if done { Ok(()) } else { Err(NVRTC_ERROR_INVALID_INPUT) }
}

/// The files that a text includes by name, each with the number of its line.
fn includes(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(i, line)| {
        let rest = line.trim_start().strip_prefix("#include \"")?;
        Some((i + 1, rest.split('"').next()?))
    })
}

impl Program {
    /// What a compiler would complain about, and what this one cannot do.
    fn complaint(&self) -> Option<String> {
        let files = std::iter::once((&self.name, &self.text)).chain(self.headers.iter().map(|(n, t)| (n, t)));
        for (name, text) in files {
            // The emulation's header is not for this compiler, which the text knows.
            for (line, wanted) in includes(text).filter(|(_, wanted)| *wanted != "host/simt.h") {
                if !self.headers.iter().any(|(known, _)| known == wanted) {
                    return Some(format!("{name}({line}): error: cannot open source file \"{wanted}\""));
                }
            }
        }
        if !["EXPORT_KERNEL", "REGISTER_KERNEL"].iter().any(|word| self.text.contains(word)) {
            let last = self.text.lines().count();
            let line = self.text.lines().last().unwrap_or_default();
            return Some(format!("{}({last}): error: no kernel up to here\n  {line}", self.name));
        }
        let built_in =
            |list: &[Source], name: &str, text: &str| list.iter().any(|s| s.name == name && s.text == text);
        let foreign = (!built_in(SOURCES, &self.name, &self.text)).then_some(&self.name).or(self
            .headers
            .iter()
            .find(|(name, text)| !built_in(HEADERS, name, text))
            .map(|(name, _)| name));
        foreign.map(|name| {
            format!("{name}(1): error: the stand-in runs the kernels that it was built with, of another text")
        })
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcVersion(major: Out<i32>, minor: Out<i32>) -> Status {
    if major.put(VERSION[0]) && minor.put(VERSION[1]) { NVRTC_SUCCESS } else { NVRTC_ERROR_INVALID_INPUT }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetNumSupportedArchs(count: Out<i32>) -> Status {
    if count.put(CAPABILITIES.len() as i32) { NVRTC_SUCCESS } else { NVRTC_ERROR_INVALID_INPUT }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetSupportedArchs(all: Out<i32>) -> Status {
    let stored = CAPABILITIES.iter().enumerate().all(|(i, &capability)| all.put_at(i, capability));
    if stored { NVRTC_SUCCESS } else { NVRTC_ERROR_INVALID_INPUT }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetErrorString(status: u32) -> *const c_char {
    let text: &CStr = match status {
        0 => c"NVRTC_SUCCESS",
        3 => c"NVRTC_ERROR_INVALID_INPUT",
        4 => c"NVRTC_ERROR_INVALID_PROGRAM",
        5 => c"NVRTC_ERROR_INVALID_OPTION",
        6 => c"NVRTC_ERROR_COMPILATION",
        _ => c"NVRTC_ERROR unknown",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcCreateProgram(
    handle: Out<usize>,
    text: Text,
    name: Text,
    count: i32,
    headers: In<Text>,
    names: In<Text>,
) -> Status {
    let own = |text: Text| text.get().map(|text| text.into_owned());
    let run = || {
        let mut all = Vec::new();
        for i in 0..usize::try_from(count).map_err(|_| NVRTC_ERROR_INVALID_INPUT)? {
            let header = names.get(i).and_then(own).zip(headers.get(i).and_then(own));
            all.push(header.ok_or(NVRTC_ERROR_INVALID_INPUT)?);
        }
        let program = Program {
            name: own(name).unwrap_or_else(|| "default_program".into()),
            text: own(text).ok_or(NVRTC_ERROR_INVALID_INPUT)?,
            headers: all,
            code: None,
            log: String::new(),
        };
        let mut programs = programs();
        programs.made += 1;
        let number = 0x20_0000 + 0x10 * programs.made;
        programs.all.insert(number, program);
        stored(handle.put(number))
    };
    run().err().unwrap_or(NVRTC_SUCCESS)
}

/// The architecture that the options ask for.
fn architecture(options: &[String]) -> Done<String> {
    let mut found = None;
    for option in options {
        if let Some(name) = option.strip_prefix("--gpu-architecture=") {
            let number = name.trim_start_matches("sm_").trim_end_matches('a');
            if !name.starts_with("sm_") || !CAPABILITIES.iter().any(|c| number.parse() == Ok(*c)) {
                return Err(NVRTC_ERROR_INVALID_OPTION);
            }
            found = Some(name.to_string());
        } else if !["--std=c++17", "--generate-line-info"].contains(&option.as_str()) {
            return Err(NVRTC_ERROR_INVALID_OPTION);
        }
    }
    found.ok_or(NVRTC_ERROR_INVALID_OPTION)
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcCompileProgram(handle: usize, count: i32, options: In<Text>) -> Status {
    with_program(handle, |program| {
        let mut all = Vec::new();
        for i in 0..usize::try_from(count).map_err(|_| NVRTC_ERROR_INVALID_INPUT)? {
            let option = options.get(i).and_then(|o| o.get().map(|o| o.into_owned()));
            all.push(option.ok_or(NVRTC_ERROR_INVALID_INPUT)?);
        }
        let architecture = architecture(&all)?;
        if let Some(complaint) = program.complaint() {
            program.log =
                format!("{complaint}\n\n1 error detected in the compilation of \"{}\".\n", program.name);
            return Err(NVRTC_ERROR_COMPILATION);
        }
        let runs = |target| target == Target::Sm80 || architecture == "sm_90a";
        let kernels = KERNELS.iter().filter(|k| k.source == program.name && runs(k.target));
        let kernels = kernels.map(|k| k.name.to_string()).collect();
        program.code = Some(Code { architecture, kernels }.pack());
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetCUBINSize(handle: usize, bytes: Out<usize>) -> Status {
    // Before the compilation there is nothing, which is no error.
    with_program(handle, |program| stored(bytes.put(program.code.as_ref().map_or(0, Vec::len))))
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetCUBIN(handle: usize, code: Room) -> Status {
    with_program(handle, |program| {
        stored(code.put(program.code.as_ref().ok_or(NVRTC_ERROR_INVALID_PROGRAM)?))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetProgramLogSize(handle: usize, bytes: Out<usize>) -> Status {
    with_program(handle, |program| stored(bytes.put(program.log.len() + 1)))
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetProgramLog(handle: usize, log: Room) -> Status {
    with_program(handle, |program| stored(log.put(&[program.log.as_bytes(), &[0]].concat())))
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcDestroyProgram(handle: Out<usize>) -> Status {
    let known = handle.get().is_some_and(|number| programs().all.remove(&number).is_some());
    if known && handle.put(0) { NVRTC_SUCCESS } else { NVRTC_ERROR_INVALID_PROGRAM }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_where_the_real_one_would() {
        let code = |name: &str| Code { architecture: name.into(), kernels: Vec::new() };
        assert!(code("sm_80").runs_on(80) && code("sm_80").runs_on(89) && !code("sm_80").runs_on(90));
        assert!(!code("sm_89").runs_on(86));
        assert!(code("sm_90a").runs_on(90) && !code("sm_90a").runs_on(100));
    }

    #[test]
    fn includes_are_found_with_their_lines() {
        let text = "#pragma once\n#include \"params.h\"\n  #include \"ptx.cuh\"\n#include <cmath>\n";
        assert_eq!(includes(text).collect::<Vec<_>>(), [(2, "params.h"), (3, "ptx.cuh")]);
    }
}
