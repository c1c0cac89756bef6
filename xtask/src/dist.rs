//! `cargo xtask dist`: what is installed without compiling: an archive with the program, and a wheel that carries it.

use crate::pack::{build, git, make, text};
use crate::wheel::{self, Wheel};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const HELP: &str = "cargo xtask dist [--out DIR] [--check]

  --out DIR  the folder for the archive and the wheel [default: target/dist]
  --check    installs each of them into a clean folder, asks it for its version, and trains a tiny model with it

The program needs the glibc of the machine that it is built on, or a newer one. With cargo-zigbuild (`pip install
cargo-zigbuild ziglang`) it is built for glibc 2.17, which every Linux since 2014 has.";

/// The oldest glibc that Rust's standard library works with.
const OLDEST: &str = "2.17";

/// Makes them as the arguments say.
pub fn run(args: &[String]) -> Result<(), String> {
    let (mut out, mut check) = (None, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => out = Some(PathBuf::from(args.next().ok_or(HELP)?)),
            "--check" => check = true,
            "--help" => {
                println!("{HELP}");
                return Ok(());
            }
            _ => return Err(HELP.into()),
        }
    }
    let out = make(out.unwrap_or_else(|| crate::target_dir().join("dist")))?;
    let made = dist(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &out)?;
    if check { try_out(&made, &make(out.join("check"))?) } else { Ok(()) }
}

struct Made {
    /// Name of the archive's folder.
    name: String,
    archive: PathBuf,
    wheel: PathBuf,
}

fn dist(root: &Path, out: &Path) -> Result<Made, String> {
    let flags = std::env::vars().filter(|(name, _)| name.ends_with("RUSTFLAGS"));
    if let Some(name) = for_one_processor(flags) {
        return Err(format!(
            "{name} names a processor; a program for all of them chooses its instruction set when it runs, so that \
             nothing has to be said: unset it"
        ));
    }
    let target = host(&text(Command::new("rustc").arg("-vV"))?)?;
    let zig = Command::new("cargo-zigbuild").arg("--version").output().is_ok_and(|o| o.status.success());
    let older = format!("{target}.{OLDEST}");
    let program = match zig {
        true => build("duel", &["zigbuild", "--release", "--package", "duel", "--target", &older])?,
        false => build("duel", &["build", "--release", "--package", "duel"])?,
    };
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("duel-{version}-{target}");
    let folder = out.join(&name);
    drop(fs::remove_dir_all(&folder));
    make(folder.clone())?;
    let stripped = folder.join("duel");
    text(Command::new("strip").arg("-o").arg(&stripped).arg(&program))?;
    let bytes = fs::read(&stripped).map_err(|e| format!("{}: {e}", stripped.display()))?;
    let glibc = glibc(&bytes).ok_or("the program names no version of glibc; is it a static one?")?;

    for file in ["LICENSE", "README.md", "CHANGELOG.md", "crates/duel/bridge/track.py"] {
        let name = file.rsplit('/').next().unwrap_or(file);
        fs::copy(root.join(file), folder.join(name)).map_err(|e| format!("{file}: {e}"))?;
    }
    let completions = make(folder.join("completions"))?;
    let files = [("bash", "duel.bash"), ("zsh", "_duel"), ("fish", "duel.fish"), ("powershell", "_duel.ps1")];
    for (shell, file) in files {
        let said = text(Command::new(&stripped).args(["completions", shell]))?;
        fs::write(completions.join(file), said).map_err(|e| format!("{file}: {e}"))?;
    }
    text(Command::new(&stripped).args(["man", "--output-dir"]).arg(folder.join("man")))?;

    let archive = out.join(format!("{name}.tar.gz"));
    let time = text(git(root).args(["log", "-1", "--format=%cI"]))?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime"]);
    text(tar.arg(time.trim()).arg("--file").arg(&archive).arg("--directory").arg(out).arg(&name))?;

    let platform = platform(&target, &glibc)?;
    let work = make(out.join("wheel"))?;
    let wheel = Wheel {
        version,
        platform: &platform,
        program: &stripped,
        readme: &root.join("README.md"),
        license: &root.join("LICENSE"),
    };
    let wheel = wheel::write(&wheel, &work, out)?;
    let mb =
        |path: &Path| Ok::<f64, String>(fs::metadata(path).map_err(|e| e.to_string())?.len() as f64 / 1e6);
    println!(
        "duel {version} for {target}, glibc {glibc} or newer: {:.1} MB, {:.1} MB with its lines and symbols",
        mb(&stripped)?,
        mb(&program)?
    );
    println!("{}: {:.1} MB", archive.display(), mb(&archive)?);
    println!("{}: {:.1} MB", wheel.display(), mb(&wheel)?);
    Ok(Made { name, archive, wheel })
}

/// The variable that binds what is built to a processor.
fn for_one_processor(mut flags: impl Iterator<Item = (String, String)>) -> Option<String> {
    let binds = |flags: &str| ["target-cpu", "target-feature"].iter().any(|flag| flags.contains(flag));
    flags.find(|(_, flags)| binds(flags)).map(|(name, _)| name)
}

/// What rustc builds for by itself.
fn host(said: &str) -> Result<String, String> {
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc names no host".into())
}

/// The newest version of glibc that a program asks for.
fn glibc(program: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"GLIBC_";
    let version = |at: usize| {
        let rest = &program[at + MARK.len()..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        let text = std::str::from_utf8(&rest[..digits]).ok()?;
        text.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    };
    let marks = program.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let newest = marks.filter_map(|(at, _)| version(at)).max()?;
    Some(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

/// The systems that a program runs on, as wheels name them (PEP 600).
fn platform(target: &str, glibc: &str) -> Result<String, String> {
    let (arch, _) = target
        .split_once("-unknown-linux-gnu")
        .ok_or_else(|| format!("{target} is no Linux with glibc, and wheels are made for that alone"))?;
    let mut parts = glibc.split('.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => Ok(format!("manylinux_{major}_{minor}_{arch}")),
        _ => Err(format!("glibc {glibc} is no version")),
    }
}

/// Installs each into a folder of its own and uses it.
fn try_out(made: &Made, folder: &Path) -> Result<(), String> {
    drop(fs::remove_dir_all(folder));
    let unpacked = make(folder.join("archive"))?;
    text(
        Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(&made.archive)
            .arg("--directory")
            .arg(&unpacked),
    )?;
    use_it(&unpacked.join(&made.name).join("duel"), &make(folder.join("run-archive"))?)?;
    println!("the archive's program runs and trains");
    let venv = folder.join("venv");
    if !Command::new("python3").args(["-m", "venv"]).arg(&venv).status().is_ok_and(|s| s.success()) {
        println!("SKIPPED: the wheel is not installed; python3 makes no virtual environment here");
        return Ok(());
    }
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--no-index", "--disable-pip-version-check"]);
    text(pip.arg(&made.wheel))?;
    use_it(&venv.join("bin/duel"), &make(folder.join("run-wheel"))?)?;
    println!("the wheel's program runs and trains");
    Ok(())
}

/// Asks a program for its version, and trains two steps with it.
fn use_it(program: &Path, folder: &Path) -> Result<(), String> {
    let said = text(Command::new(program).arg("--version"))?;
    let version = env!("CARGO_PKG_VERSION");
    if said.trim() != format!("duel {version}") {
        return Err(format!("{} says {said:?}, and is duel {version}", program.display()));
    }
    let model = crate::tiny::write(&make(folder.join("model"))?)?;
    let rows = folder.join("pairs.jsonl");
    let row = r#"{"prompt": "a", "chosen": " b", "rejected": " c"}"#;
    fs::write(&rows, [row; 4].join("\n")).map_err(|e| format!("{}: {e}", rows.display()))?;
    let out = folder.join("out");
    let mut train = Command::new(program);
    // What it keeps for later runs stays in the folder too.
    train.env("XDG_CACHE_HOME", folder);
    train.args(["train", "--device", "cpu", "--max-steps", "2", "--model"]).arg(model);
    text(train.arg("--dataset").arg(&rows).arg("--output-dir").arg(&out))?;
    match out.join("model.safetensors").is_file() {
        true => Ok(()),
        false => Err(format!("{} trained, and left no model in {}", program.display(), out.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_found() {
        let program = b"\0GLIBC_2.9\0x\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.2.5\0";
        assert_eq!(glibc(program).as_deref(), Some("2.34"));
        assert_eq!(glibc(b"none"), None);
        assert_eq!(platform("x86_64-unknown-linux-gnu", "2.34").as_deref(), Ok("manylinux_2_34_x86_64"));
        assert!(platform("aarch64-apple-darwin", "2.34").is_err());
    }

    #[test]
    fn no_processor_is_named() {
        let of = |flags: &str| {
            for_one_processor([("A".into(), String::new()), ("RUSTFLAGS".into(), flags.into())].into_iter())
        };
        assert_eq!(of("-C debuginfo=1"), None);
        assert_eq!(of("-Ctarget-cpu=native").as_deref(), Some("RUSTFLAGS"));
    }

    #[test]
    fn rustc_names_its_host() {
        assert_eq!(
            host("rustc 1\nhost: x86_64-unknown-linux-gnu\n").as_deref(),
            Ok("x86_64-unknown-linux-gnu")
        );
    }
}
