//! Where CUDA's libraries are: nothing of CUDA is linked, so a program that uses this crate starts anywhere.

use duel_backend::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A library of CUDA that is loaded when it is first needed.
pub(crate) struct Library {
    /// Its name, and what it is.
    what: &'static str,
    /// Whether the loader finds it by name.
    is_present: unsafe fn() -> bool,
    /// Beginnings of the names of its files, those that others need first.
    files: &'static [&'static str],
    /// Folders of site-packages that its wheels put it in: those of CUDA 13, then those of CUDA 12.
    of_wheels: [&'static str; 2],
    /// The wheel.
    wheel: &'static str,
    found: OnceLock<std::result::Result<(), String>>,
}

pub(crate) static NVRTC: Library = Library {
    what: "libnvrtc, the compiler of CUDA,",
    is_present: cudarc::nvrtc::sys::is_culib_present,
    // NVRTC asks the loader for its builtins by name.
    files: &["libnvrtc-builtins.so.1", "libnvrtc.so.1"],
    of_wheels: ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"],
    wheel: "nvidia-cuda-nvrtc==13.0.88",
    found: OnceLock::new(),
};

pub(crate) static CUBLASLT: Library = Library {
    what: "libcublasLt, CUDA's library of matrix products,",
    is_present: cudarc::cublaslt::sys::is_culib_present,
    files: &["libcublasLt.so.1"],
    of_wheels: ["nvidia/cu13/lib", "nvidia/cublas/lib"],
    wheel: "nvidia-cublas==13.0.2.14",
    found: OnceLock::new(),
};

pub(crate) static NCCL: Library = Library {
    what: "libnccl.so.2, by which processes on GPUs send to each other,",
    is_present: has_nccl,
    files: &["libnccl.so.2"],
    of_wheels: ["nvidia/nccl/lib"; 2],
    wheel: "nvidia-nccl-cu13",
    found: OnceLock::new(),
};

/// NCCL, if the loader finds it by name.
///
/// # Safety
/// As of [`libloading::Library::new`]: its initialisers ask nothing of who loads it.
pub(crate) unsafe fn nccl() -> std::result::Result<libloading::Library, libloading::Error> {
    // SAFETY: the caller's promise.
    unsafe { libloading::Library::new("libnccl.so.2") }
}

unsafe fn has_nccl() -> bool {
    // SAFETY: the caller's promise.
    unsafe { nccl() }.is_ok()
}

impl Library {
    /// Loads it: from the loader path, or else from the toolkits and the Python environments that there are
    /// ([`Places`]). Must have succeeded before any call of it, because a function of an absent library panics.
    ///
    /// # Errors
    /// When it is in none of these; says where it was looked for.
    pub(crate) fn load(&self) -> Result<()> {
        self.found.get_or_init(|| self.find()).clone().map_err(Error::NoDevice)
    }

    fn find(&self) -> std::result::Result<(), String> {
        // SAFETY: loads a library by name; the initialisers of NVIDIA's libraries ask nothing of who loads them.
        let is_present = || unsafe { (self.is_present)() };
        if is_present() {
            return Ok(());
        }
        let places = Places::of(|name| std::env::var_os(name));
        for folder in places.folders(self.of_wheels) {
            self.preload(&folder);
            if is_present() {
                return Ok(());
            }
        }
        Err(format!(
            "{} is not on the loader path (LD_LIBRARY_PATH, ldconfig), nor in a toolkit ({}), nor in the site-packages of \
             a Python ({}); it comes with the CUDA toolkit, or with `pip install --target DIR {}` and DUEL_CUDA_ROOT=DIR",
            self.what,
            listed(&places.toolkits),
            listed(&places.packages),
            self.wheel
        ))
    }

    /// Loads the files of a folder for the rest of the process: from then on the loader finds them by name.
    fn preload(&self, folder: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        for beginning in self.files {
            for name in names.iter().filter(|name| name.starts_with(beginning)) {
                // SAFETY: as in `find`, and they are never unloaded.
                if let Ok(library) = unsafe { libloading::Library::new(folder.join(name)) } {
                    std::mem::forget(library);
                }
            }
        }
    }
}

fn listed(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "there is none".into();
    }
    folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
}

// ---- places ---------------------------------------------------------------------------------------------------------

/// Where CUDA can be besides the loader path.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    /// Of `DUEL_CUDA_ROOT`, `CUDA_HOME` and `CUDA_PATH`, then the toolkit's usual one.
    toolkits: Vec<PathBuf>,
    /// Site-packages of `VIRTUAL_ENV` and `CONDA_PREFIX`, then those of each `python3` on the `PATH`.
    packages: Vec<PathBuf>,
}

impl Places {
    /// Those that exist; `variable` reads the environment.
    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let given = ["DUEL_CUDA_ROOT", "CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(&variable);
        let usual = std::iter::once("/usr/local/cuda".into());
        let mut toolkits: Vec<PathBuf> = given.map(PathBuf::from).chain(usual).collect();
        let mut prefixes: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(&variable).map(PathBuf::from).collect();
        for folder in std::env::split_paths(&variable("PATH").unwrap_or_default()) {
            prefixes.extend(prefixes_of_python(folder.join("python3")));
        }
        let mut packages: Vec<PathBuf> = prefixes.iter().flat_map(|prefix| packages_of(prefix)).collect();
        for list in [&mut toolkits, &mut packages] {
            list.retain(|folder| folder.is_dir());
            let mut seen = std::collections::HashSet::new();
            list.retain(|folder| seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.clone())));
        }
        Places { toolkits, packages }
    }

    /// Folders that libraries are looked for in, in this order.
    fn folders(&self, of_wheels: [&str; 2]) -> Vec<PathBuf> {
        // A root may also be a folder that pip installed to.
        let of_root = |root: &PathBuf| {
            let own = ["lib64", "lib"].map(|inside| root.join(inside));
            own.into_iter().chain(of_wheels.map(|wheel| root.join(wheel))).collect::<Vec<_>>()
        };
        let of_packages = |packages: &PathBuf| of_wheels.map(|wheel| packages.join(wheel));
        self.toolkits.iter().flat_map(of_root).chain(self.packages.iter().flat_map(of_packages)).collect()
    }
}

/// Prefix of an interpreter, and of each that it is a link to: a virtual environment's links to that of its base.
fn prefixes_of_python(mut python: PathBuf) -> Vec<PathBuf> {
    const LONGEST_CHAIN: usize = 8;
    let mut prefixes = Vec::new();
    if !python.exists() {
        return prefixes;
    }
    for _ in 0..LONGEST_CHAIN {
        prefixes.extend(python.parent().and_then(Path::parent).map(PathBuf::from));
        let Ok(target) = python.read_link() else { break };
        python = python.parent().map_or_else(|| target.clone(), |folder| folder.join(&target));
    }
    prefixes
}

/// Where packages of a Python are: by version, or by major version alone where Debian's own are.
fn packages_of(prefix: &Path) -> Vec<PathBuf> {
    let pythons = std::fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten();
    let pythons = pythons.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    pythons.flat_map(|p| ["site-packages", "dist-packages"].map(|inside| p.path().join(inside))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own for a test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("duel-libraries-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("the temporary folder can be written");
            Folder(path.canonicalize().expect("it was just made"))
        }

        fn make(&self, inside: &str) -> PathBuf {
            let path = self.0.join(inside);
            std::fs::create_dir_all(&path).expect("the temporary folder can be written");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn only(wanted: &'static str, value: &Path) -> impl Fn(&str) -> Option<OsString> {
        let value = value.as_os_str().to_owned();
        move |name| (name == wanted).then(|| value.clone())
    }

    #[test]
    fn roots_are_toolkits_and_folders_of_pip() {
        let folder = Folder::new("roots");
        for name in ["DUEL_CUDA_ROOT", "CUDA_HOME", "CUDA_PATH"] {
            let mut places = Places::of(only(name, &folder.0));
            assert_eq!(places.toolkits.remove(0), folder.0, "{name}");
        }
        let places = Places { toolkits: vec!["root".into()], packages: vec!["packages".into()] };
        let folders = places.folders(["nvidia/cu13/lib", "nvidia/cublas/lib"]);
        let expected = [
            "root/lib64",
            "root/lib",
            "root/nvidia/cu13/lib",
            "root/nvidia/cublas/lib",
            "packages/nvidia/cu13/lib",
            "packages/nvidia/cublas/lib",
        ];
        assert_eq!(folders, expected.map(PathBuf::from));
    }

    #[test]
    fn a_virtual_environment_has_its_packages_by_version() {
        let folder = Folder::new("environment");
        let packages = folder.make("lib/python3.12/site-packages");
        folder.make("lib/pkgconfig");
        assert_eq!(Places::of(only("VIRTUAL_ENV", &folder.0)).packages, [packages]);
    }

    #[cfg(unix)]
    #[test]
    fn the_python_of_the_path_is_followed_through_its_links() {
        let folder = Folder::new("path");
        let (bin, own) = (folder.make("bin"), folder.make("environment/lib/python3.12/site-packages"));
        let base = folder.make("base/lib/python3.12/dist-packages");
        folder.make("base/bin");
        folder.make("environment/bin");
        let link = |from: &str, to: &str| {
            std::os::unix::fs::symlink(from, folder.0.join(to)).expect("a link can be made");
        };
        std::fs::write(folder.0.join("base/bin/python3"), "").expect("a file can be written");
        link("../../base/bin/python3", "environment/bin/python3");
        link("../environment/bin/python3", "bin/python3");
        let canonical = |all: Vec<PathBuf>| -> Vec<PathBuf> {
            all.into_iter().map(|p| p.canonicalize().expect("it exists")).collect()
        };
        assert_eq!(canonical(Places::of(only("PATH", &bin)).packages), [own, base]);
    }
}
