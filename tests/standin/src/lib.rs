#![doc = include_str!("../README.md")]

mod cublaslt;
mod driver;
mod ffi;
mod kernels;
mod matmul;
mod memory;
mod nccl;
mod nvrtc;
mod world;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The shared library as cargo calls it.
const LIBRARY: &str = "libduel_cuda_standin.so";
/// What NVIDIA's libraries are called where programs look for them.
const NAMES: [&str; 5] =
    ["libcuda.so", "libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libnccl.so.2"];

/// Where cargo put the shared library, beside the running test.
///
/// # Errors
/// When it is not there.
fn library() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let near = program.ancestors().skip(1).take(3).flat_map(|folder| [folder.join("deps"), folder.into()]);
    let found = near.map(|folder| folder.join(LIBRARY)).find(|path| path.exists());
    found.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{LIBRARY} is not near {}", program.display()))
    })
}

/// Fills a folder with links under which programs find the stand-in, and gives the value of `LD_LIBRARY_PATH` with
/// which they look there first. The folder is made if it is not there.
///
/// # Errors
/// When the shared library is not where cargo puts it, or the folder cannot be written.
pub fn install(folder: &Path) -> io::Result<OsString> {
    let library = library()?;
    std::fs::create_dir_all(folder)?;
    for name in NAMES {
        let link = folder.join(name);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(&library, link)?,
        }
    }
    let before = std::env::var_os("LD_LIBRARY_PATH");
    let before = before.iter().flat_map(std::env::split_paths);
    std::env::join_paths(std::iter::once(folder.to_path_buf()).chain(before)).map_err(io::Error::other)
}
