//! `cargo xtask gpu-pack`: all that a bare machine with a GPU needs to check and measure duel, in one folder.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const HELP: &str = "cargo xtask gpu-pack [--out DIR] [--no-wheels]

  --out DIR    the folder that is made [default: target/gpu-bundle]
  --no-wheels  leave out TRL and Liger, which come from PyPI: only what the machine's Python has is measured then

The machine needs an NVIDIA driver, CUDA and a Python with PyTorch and transformers; no Rust, no network.";

/// What the peers need and a Python with PyTorch and transformers does not have: TRL, Liger, and their requirements.
const WHEELS: [&str; 5] =
    ["trl==1.16.0", "liger-kernel==0.8.5", "datasets==5.2.0", "dill==0.4.1", "multiprocess==0.70.19"];

/// Python of the machine that the wheels are for.
const PYTHON: &str = "3.12";

/// More than this many bytes are not carried to a lent machine.
const MOST_BYTES: u64 = 60_000_000;

/// A program of the bundle: its name there, cargo's name of the target, and how cargo builds it.
const PROGRAMS: [(&str, &str, &[&str]); 3] = [
    ("duel", "duel", &["build", "--release", "--package", "duel"]),
    (
        "conformance",
        "device",
        &["test", "--release", "--package", "duel-kernel-tests", "--test", "device", "--no-run"],
    ),
    ("bench", "gpu", &["bench", "--package", "duel-benches", "--bench", "gpu", "--no-run"]),
];

/// Makes the bundle as the arguments say.
pub fn run(args: &[String]) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut out = None;
    let mut wheels = true;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => out = Some(PathBuf::from(args.next().ok_or(HELP)?)),
            "--no-wheels" => wheels = false,
            "--help" => {
                println!("{HELP}");
                return Ok(());
            }
            _ => return Err(HELP.into()),
        }
    }
    let out = out.unwrap_or_else(|| crate::target_dir().join("gpu-bundle"));
    pack(&root, &out, wheels)
}

fn pack(root: &Path, out: &Path, wheels: bool) -> Result<(), String> {
    clear(out)?;
    let out = &fs::canonicalize(out).map_err(|e| format!("{}: {e}", out.display()))?;
    if wheels {
        // First, because it is what may fail for a reason that lies elsewhere.
        download(&make(out.join("wheels"))?)?;
    }
    let bin = make(out.join("bin"))?;
    for (name, target, how) in PROGRAMS {
        // The line tables of a release build are larger than its code.
        let program = build(target, how)?;
        text(Command::new("strip").arg("-o").arg(bin.join(name)).arg(program))?;
    }

    let tracked = text(git(root).args(["ls-files", "-z"]))?;
    let tracked: Vec<&str> = tracked.split_terminator('\0').collect();
    let sources = tracked.iter().copied().filter(|file| !file.starts_with("benches/results/"));
    archive(root, sources, &out.join("source.tar.gz"))?;
    for file in tracked.iter().filter(|file| is_script(file)) {
        let copy = out.join(file);
        make(copy.parent().unwrap_or(out).into())?;
        fs::copy(root.join(file), &copy).map_err(|e| format!("{file}: {e}"))?;
    }
    let commit = text(git(root).args(["rev-parse", "HEAD"]))?;
    let changed = text(git(root).args(["status", "--porcelain"]))?;
    let version = format!("{}{}", commit.trim(), if changed.is_empty() { "" } else { " with changes" });
    write(&out.join(VERSION), &version)?;

    let bytes = size(out)?;
    if bytes > MOST_BYTES {
        return Err(format!(
            "the bundle has {bytes} bytes, more than {MOST_BYTES}; {} is kept",
            out.display()
        ));
    }
    println!(
        "{:.1} MB of {version} are in {}; on the GPU's machine, from there:",
        bytes as f64 / 1e6,
        out.display()
    );
    println!("  python3 benches/gpu/run.py --quick");
    Ok(())
}

/// Says which commit a bundle is of, and so which folder is a bundle.
const VERSION: &str = "VERSION";

/// What runs there, and what explains it.
fn is_script(file: &str) -> bool {
    file.starts_with("benches/gpu/") || ["benches/peers/contest.py", "benches/peers/ready.py"].contains(&file)
}

/// Removes an earlier bundle, and nothing else.
fn clear(out: &Path) -> Result<(), String> {
    if !out.exists() {
        make(out.into())?;
        // From the start, so that a bundle that was not finished can be made again.
        return write(&out.join(VERSION), "unfinished");
    }
    if !out.join(VERSION).is_file() {
        return Err(format!("{} is there and is no bundle; give --out another folder", out.display()));
    }
    fs::remove_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    clear(out)
}

pub fn make(dir: PathBuf) -> Result<PathBuf, String> {
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

fn write(file: &Path, line: &str) -> Result<(), String> {
    fs::write(file, format!("{line}\n")).map_err(|e| format!("{}: {e}", file.display()))
}

pub fn git(root: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(root);
    git
}

/// Runs a command; what it prints.
pub fn text(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|e| format!("{name} cannot be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name} failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("{name}: {e}"))
}

/// Builds a target; the path of its executable.
pub fn build(target: &str, how: &[&str]) -> Result<PathBuf, String> {
    let messages = text(crate::command(how, &[]).arg("--message-format=json-render-diagnostics"))?;
    let program = executable(&messages, target);
    program.ok_or_else(|| format!("cargo names no executable of the target {target}"))
}

/// The executable of a target in cargo's messages, which are a JSON object a line.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let name = format!("\"name\":\"{target}\"");
    let mut artifacts = messages.lines().filter(|line| line.contains(&name));
    artifacts.find_map(|line| line.split("\"executable\":\"").nth(1)?.split('"').next().map(PathBuf::from))
}

/// Packs files of the repository.
fn archive<'a>(root: &Path, files: impl Iterator<Item = &'a str>, to: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("tar cannot be started: {e}");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--null", "--files-from=-", "--file"]).arg(to);
    let mut tar = tar.current_dir(root).stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut names) = tar.stdin.take() {
        let list: String = files.map(|file| format!("{file}\0")).collect();
        names.write_all(list.as_bytes()).map_err(failed)?;
    }
    let status = tar.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("tar failed: {status}")) }
}

/// Gets the wheels from PyPI. Only pure Python is taken, which runs on every machine and is installed by unpacking.
fn download(to: &Path) -> Result<(), String> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--retries", "1", "--timeout", "20", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--implementation", "py", "--abi", "none", "--platform", "any"]);
    pip.args(["--python-version", PYTHON, "--dest"]).arg(to).args(WHEELS);
    let output = pip.output().map_err(|e| format!("python3 cannot be started: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = said.lines().rfind(|line| line.starts_with("ERROR")).unwrap_or("it says nothing").to_owned();
    Err(format!("pip cannot get TRL and Liger from PyPI ({last}); --no-wheels makes the bundle without them"))
}

/// Bytes of all files in a folder.
fn size(dir: &Path) -> Result<u64, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_the_executable_of_a_target() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"device"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"device"},"executable":"/t/deps/device-1f"}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"duel"},"executable":"/t/duel"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "device"), Some("/t/deps/device-1f".into()));
        assert_eq!(executable(messages, "duel"), Some("/t/duel".into()));
        assert_eq!(executable(messages, "gpu"), None);
    }

    #[test]
    fn only_a_bundle_is_replaced() {
        let folder = std::env::temp_dir().join(format!("duel-pack-{}", std::process::id()));
        let bundle = folder.join("bundle");
        clear(&bundle).expect("there was nothing");
        fs::write(bundle.join("old"), "12345").expect("a folder of our own");
        assert_eq!(size(&folder), Ok(5 + "unfinished\n".len() as u64));
        clear(&bundle).expect("it is a bundle");
        assert!(!bundle.join("old").exists());
        fs::remove_file(bundle.join(VERSION)).expect("it was just written");
        assert!(clear(&bundle).expect_err("it is none").contains("is no bundle"));
        fs::remove_dir_all(folder).expect("a folder of our own");
    }
}
