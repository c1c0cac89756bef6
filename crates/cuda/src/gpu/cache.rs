//! Compiled kernels, kept on disk.

use super::nvrtc;
use duel_backend::Result;
use duel_disk::Draft;
use duel_kernels::{HEADERS, Source};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Bytes of the checksum at the end of a file.
const CHECKSUM: usize = size_of::<u128>();

/// The folder of this user for them, in `XDG_CACHE_HOME` or in `.cache` of `HOME`; none where there is neither.
/// `variable` reads the environment.
pub(crate) fn default_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path there is to be ignored (XDG Base Directory Specification, "Environment variables").
    let of_user = variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = of_user.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(folder.join("duel/kernels"))
}

/// What determines the machine code: source, headers, options and the version of the compiler.
fn key(source: &Source, options: &[String], version: [i32; 2]) -> u128 {
    let mut hasher = Xxh3::new();
    let mut add = |bytes: &[u8]| {
        // Lengths keep apart what would otherwise read the same.
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for file in std::iter::once(source).chain(HEADERS) {
        add(file.name.as_bytes());
        add(file.text.as_bytes());
    }
    options.iter().for_each(|option| add(option.as_bytes()));
    version.iter().for_each(|number| add(&number.to_le_bytes()));
    hasher.digest128()
}

/// The machine code in a file, unless it is damaged.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(path).ok()?;
    let code = bytes.len().checked_sub(CHECKSUM)?;
    let intact = xxh3_128(&bytes[..code]).to_le_bytes() == bytes[code..];
    bytes.truncate(code);
    intact.then_some(bytes)
}

/// Puts machine code into a file, at once for whoever reads it meanwhile.
fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    duel_disk::create_dir_all(folder)?;
    let mut draft = Draft::new(path)?;
    draft.write_all(code)?;
    draft.write_all(&xxh3_128(code).to_le_bytes())?;
    draft.keep().map(drop)
}

/// The machine code of a source for a device: from `folder`, or compiled and then put there.
///
/// # Errors
/// When there is no compiler, or it rejects the source.
pub(crate) fn cubin(folder: Option<&Path>, source: &Source, compute_capability: u32) -> Result<Vec<u8>> {
    // Threads that need the same source wait for the first of them; drafts of one process never meet.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());

    let Some(folder) = folder else { return nvrtc::compile(source, compute_capability) };
    let key = key(source, &nvrtc::options(compute_capability), nvrtc::version()?);
    let target = nvrtc::architecture(compute_capability);
    let path = folder.join(format!("{}.{target}.{key:032x}.cubin", source.name));
    if let Some(code) = read(&path) {
        return Ok(code);
    }
    let code = nvrtc::compile(source, compute_capability)?;
    // A folder that cannot be written costs time at the next start, and nothing else.
    drop(write(&path, &code));
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_folder_is_that_of_the_user() {
        let environment = |xdg: Option<&'static str>, home: Option<&'static str>| {
            default_folder(move |name| match name {
                "XDG_CACHE_HOME" => xdg.map(OsString::from),
                "HOME" => home.map(OsString::from),
                _ => None,
            })
        };
        assert_eq!(environment(Some("/x"), Some("/h")), Some("/x/duel/kernels".into()));
        assert_eq!(environment(Some("relative"), Some("/h")), Some("/h/.cache/duel/kernels".into()));
        assert_eq!(environment(None, None), None);
    }

    #[test]
    fn everything_that_changes_the_code_changes_the_key() {
        let source = Source { name: "a.cu", text: "text" };
        let options = nvrtc::options(90);
        let all = [
            key(&source, &options, [13, 0]),
            key(&Source { name: "b.cu", ..source }, &options, [13, 0]),
            key(&Source { text: "texts", ..source }, &options, [13, 0]),
            key(&source, &nvrtc::options(80), [13, 0]),
            key(&source, &options, [13, 1]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one), "key {i} is that of another");
        }
        assert_eq!(all[0], key(&source, &options, [13, 0]));
    }

    #[test]
    fn a_damaged_file_is_not_read() {
        let folder = std::env::temp_dir().join(format!("duel-cache-{}", std::process::id()));
        let path = folder.join("kernel.cubin");
        write(&path, b"machine code").expect("the temporary folder can be written");
        assert_eq!(read(&path).as_deref(), Some(&b"machine code"[..]));
        let whole = std::fs::read(&path).expect("it was just written");
        for damaged in [&whole[..whole.len() - 1], &whole[1..], b""] {
            std::fs::write(&path, damaged).expect("it can be written");
            assert_eq!(read(&path), None);
        }
        std::fs::remove_dir_all(&folder).expect("the folder was just made");
        assert_eq!(read(&path), None);
    }

    #[test]
    fn what_was_compiled_once_is_read() {
        if let Err(error) = nvrtc::version() {
            assert!(std::env::var_os("REQUIRE_NVRTC").is_none(), "{error}");
            // Not eprintln: the test harness would keep that to itself.
            drop(writeln!(std::io::stderr(), "SKIPPED: nothing is compiled into the cache ({error})"));
            return;
        }
        let folder = std::env::temp_dir().join(format!("duel-compiled-{}", std::process::id()));
        let source = duel_kernels::SOURCES.iter().find(|s| s.name == "gelu.cu").expect("there is one");
        let compiled = cubin(Some(&folder), source, 80).expect("gelu.cu compiles");
        let files: Vec<_> = std::fs::read_dir(&folder).expect("it was made").flatten().collect();
        assert_eq!(files.len(), 1);
        assert_eq!(read(&files[0].path()), Some(compiled));
        write(&files[0].path(), b"other code").expect("it can be written");
        assert_eq!(cubin(Some(&folder), source, 80), Ok(b"other code".to_vec()));
        std::fs::remove_dir_all(&folder).expect("the folder was just made");
    }
}
