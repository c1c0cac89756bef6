//! Compiles the kernels and the emulation that runs them on the host.
//!
//! Every compilation unit is a wrapper that includes a kernel file inside a namespace of its own, so that variants of
//! one file (the planted bugs) and helpers of the same name in two files can be linked together.
//!
//! `DUEL_SIMT_SANITIZE` may be `address` or `thread`; `cargo xtask kernels` sets it and loads the runtime it needs.

#[path = "src/plants.rs"]
mod plants;

use plants::PLANTS;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Kernels of the tests themselves, in the folder `cu`.
const TEST_KERNELS: &[&str] = &["mistakes.cu", "ring.cu"];

/// The CUDA language on the host, and what runs it.
const LANGUAGE: &str = "host/simt.h";
const SCHEDULER: &str = "host/simt.cpp";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sanitizer {
    None,
    Address,
    Thread,
}

impl Sanitizer {
    fn from_env() -> Self {
        println!("cargo:rerun-if-env-changed=DUEL_SIMT_SANITIZE");
        match std::env::var("DUEL_SIMT_SANITIZE").as_deref() {
            Err(_) | Ok("") => Sanitizer::None,
            Ok("address") => Sanitizer::Address,
            Ok("thread") => Sanitizer::Thread,
            Ok(other) => panic!("DUEL_SIMT_SANITIZE is address or thread, not {other}"),
        }
    }
}

/// Something to compile: `source` in the folder `dir`, its kernels registered under `name + variant`. `headers` is
/// where the headers are: in the package, or changed beside the changed kernel.
struct Unit {
    namespace: String,
    headers: PathBuf,
    dir: PathBuf,
    source: String,
    variant: String,
}

fn stem(source: &str) -> &str {
    source.trim_end_matches(".cu")
}

/// The folder of a plant: every kernel file, one of them with the change.
fn write_plant(plant: &plants::Plant, files: &[(String, String)], dir: &Path) {
    for (name, text) in files {
        let text = if name == plant.file {
            let found = text.matches(plant.right).count();
            assert_eq!(found, 1, "plant {}: its right text must be in {name} once", plant.name);
            text.replace(plant.right, plant.wrong)
        } else {
            text.clone()
        };
        let file = dir.join(name);
        fs::create_dir_all(file.parent().expect("it lies in the folder")).expect("OUT_DIR can be written");
        write_if_changed(&file, &text);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn write_if_changed(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::write(path, text).expect("OUT_DIR can be written");
}

fn units(kernels: &Path, tests: &Path, out: &Path, files: &[(String, String)]) -> Vec<Unit> {
    let mut units = Vec::new();
    for source in duel_kernels::SOURCES {
        units.push(Unit {
            namespace: format!("unit_{}", stem(source.name)),
            headers: kernels.into(),
            dir: kernels.into(),
            source: source.name.into(),
            variant: String::new(),
        });
    }
    for source in TEST_KERNELS {
        units.push(Unit {
            namespace: format!("test_{}", stem(source)),
            headers: kernels.into(),
            dir: tests.into(),
            source: source.to_string(),
            variant: "@test".into(),
        });
    }
    for plant in PLANTS {
        let dir = out.join(plant.name);
        write_plant(plant, files, &dir);
        units.push(Unit {
            namespace: format!("plant_{}", plant.name),
            headers: dir.clone(),
            dir,
            source: plant.source.into(),
            variant: format!("@{}", plant.name),
        });
    }
    units
}

fn build(kernels: &Path, out: &Path, sanitizer: Sanitizer) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .out_dir(out)
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        // Kernels read bf16 pairs as words, as they do on the device.
        .flag("-fno-strict-aliasing")
        .flag("-Wno-unknown-pragmas")
        // A kernel file need not use every helper that it includes.
        .flag("-Wno-unused-function")
        // Tensor maps are passed by value, and only between files compiled here.
        .flag("-Wno-psabi");
    // Matrix instructions are emulated in loops that vectorise.
    if cfg!(target_arch = "x86_64")
        && std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
    {
        build.flag("-march=x86-64-v3");
    }
    match sanitizer {
        Sanitizer::None => {}
        Sanitizer::Address => {
            build.flag("-fsanitize=address").flag("-fno-omit-frame-pointer").debug(true);
        }
        Sanitizer::Thread => {
            build.define("DUEL_SIMT_RACE", None).debug(true);
        }
    }
    build.include(kernels);
    build
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Compiles one file, unless that was done from the same `fingerprint` before.
fn compile(build: &cc::Build, file: &Path, fingerprint: &str) -> PathBuf {
    let stamp = file.with_extension("stamp");
    let old = fs::read_to_string(&stamp).unwrap_or_default();
    if let Some((made_from, object)) = old.split_once('\n')
        && made_from == fingerprint
        && Path::new(object).exists()
    {
        return object.into();
    }
    let object = build.clone().file(file).compile_intermediates().remove(0);
    fs::write(&stamp, format!("{fingerprint}\n{}", object.display())).expect("OUT_DIR can be written");
    object
}

/// Calls `f` on every job, on as many threads as cargo allows.
fn in_parallel<T: Sync, R: Send>(jobs: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.len().min(threads) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = f(job);
                    done.lock().expect("no other thread panicked").push(result);
                }
            });
        }
    });
    done.into_inner().expect("no thread panicked")
}

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kernels = here.join("../../kernels");
    let tests = here.join("cu");
    let sanitizer = Sanitizer::from_env();
    let mode = format!("{sanitizer:?}").to_lowercase();
    // What one mode compiled stays while another is in use.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join(&mode);
    fs::create_dir_all(&out).expect("OUT_DIR can be written");
    println!("cargo:rerun-if-changed={}", kernels.display());
    println!("cargo:rerun-if-changed={}", tests.display());
    println!("cargo:rustc-check-cfg=cfg(sanitized, values(\"address\", \"thread\"))");

    let own = duel_kernels::HEADERS.iter().chain(duel_kernels::SOURCES).chain(duel_kernels::EMULATION);
    let mut files: Vec<_> = own.map(|s| (s.name.to_string(), s.text.to_string())).collect();
    for name in TEST_KERNELS {
        files.push((name.to_string(), read(&tests.join(name))));
    }
    let headers: Vec<&str> = duel_kernels::HEADERS.iter().map(|h| h.name).chain([LANGUAGE]).collect();
    let headers_in = |dir: &Path| headers.iter().map(|h| read(&dir.join(h))).collect::<String>();

    let mut kernel_build = build(&kernels, &out, sanitizer);
    if sanitizer == Sanitizer::Thread {
        kernel_build.flag("-fsanitize=thread");
    }
    let mut objects = in_parallel(&units(&kernels, &tests, &out, &files), |unit| {
        let wrapper = out.join(format!("{}.cpp", unit.namespace));
        let source = unit.dir.join(&unit.source);
        let text = format!(
            "#define DUEL_VARIANT \"{}\"\n#include \"{}\"\nnamespace {} {{\n#include \"{}\"\n}}\n",
            unit.variant,
            unit.headers.join(LANGUAGE).display(),
            unit.namespace,
            source.display()
        );
        write_if_changed(&wrapper, &text);
        let all = [mode.as_str(), &text, &read(&source), &headers_in(&unit.headers)];
        compile(&kernel_build, &wrapper, &hash(&all))
    });
    // The scheduler is never compiled with ThreadSanitizer: its own state is no memory of a kernel.
    let scheduler = out.join("scheduler.cpp");
    write_if_changed(&scheduler, &format!("#include \"{}\"\n", kernels.join(SCHEDULER).display()));
    let all = [mode.as_str(), &read(&kernels.join(SCHEDULER)), &headers_in(&kernels)];
    objects.push(compile(&build(&kernels, &out, sanitizer), &scheduler, &hash(&all)));
    objects.sort();

    cc::Build::new()
        .cpp(true)
        .objects(objects)
        // Nothing refers to the kernels: they enter themselves into the registry when the program starts.
        .link_lib_modifier("+whole-archive")
        .out_dir(&out)
        .compile("duel_kernels_emulated");
    match sanitizer {
        Sanitizer::None => {}
        Sanitizer::Address => {
            println!("cargo:rustc-cfg=sanitized=\"address\"\ncargo:rustc-link-lib=dylib=asan")
        }
        Sanitizer::Thread => {
            println!("cargo:rustc-cfg=sanitized=\"thread\"\ncargo:rustc-link-lib=dylib=tsan")
        }
    }
}
