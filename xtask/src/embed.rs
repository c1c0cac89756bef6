//! `cargo xtask embed`: every library crate in a program of its own outside the workspace, as users embed it: from the
//! package that would be published, with the features that it asks for alone, not those that another crate here happens
//! to ask for.

use crate::pack::{make, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The program, which is published and cannot be embedded.
const PROGRAM: &str = "duel";

/// Builds a program around each crate, and says how long it took.
pub fn run() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = fs::canonicalize(&root).map_err(|e| format!("{}: {e}", root.display()))?;
    let outside = std::env::temp_dir().join(format!("duel-embed-{}", std::process::id()));
    let done = make(outside.clone()).and_then(|_| {
        let crates = published(&root)?;
        unpack(&outside, &crates)?;
        build(&outside, &write(&root, &outside, &crates)?)
    });
    drop(fs::remove_dir_all(&outside));
    done
}

/// Packages all crates, and unpacks them into a folder `NAME-VERSION` each.
fn unpack(outside: &Path, crates: &[(String, PathBuf)]) -> Result<(), String> {
    // As they are now, committed or not. Nothing is built: what is embedded is.
    let mut cargo = crate::command(&["package", "--quiet", "--offline", "--no-verify", "--allow-dirty"], &[]);
    cargo.env("CARGO_TARGET_DIR", outside.join("target"));
    for (name, _) in crates {
        cargo.args(["--package", name]);
    }
    crate::start(&mut cargo).map_err(|_| "the crates cannot be packaged")?;
    for (name, _) in crates {
        let file = outside.join("target/package").join(format!("{}.crate", versioned(name)));
        let mut tar = Command::new("tar");
        text(tar.arg("--extract").arg("--gzip").arg("--file").arg(file).arg("--directory").arg(outside))?;
    }
    Ok(())
}

/// A package's name with its version, which all have together.
fn versioned(name: &str) -> String {
    format!("{name}-{}", env!("CARGO_PKG_VERSION"))
}

/// A workspace of programs in `outside`, each around a library that is unpacked there; the names of those.
fn write(root: &Path, outside: &Path, crates: &[(String, PathBuf)]) -> Result<Vec<String>, String> {
    let put =
        |file: PathBuf, text: &str| fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()));
    let names: Vec<String> =
        crates.iter().map(|(name, _)| name.clone()).filter(|name| name != PROGRAM).collect();
    for name in &names {
        let src = make(outside.join(name).join("src"))?;
        let manifest = format!(
            "[package]\nname = \"embeds-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [dependencies]\n{name} = \"{}\"\n",
            env!("CARGO_PKG_VERSION")
        );
        put(outside.join(name).join("Cargo.toml"), &manifest)?;
        put(src.join("main.rs"), &format!("use {} as _;\n\nfn main() {{}}\n", name.replace('-', "_")))?;
    }
    let members: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    // In the place of what a registry would have.
    let patches: String =
        names.iter().map(|name| format!("{name} = {{ path = {:?} }}\n", versioned(name))).collect();
    put(
        outside.join("Cargo.toml"),
        &format!(
            "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[patch.crates-io]\n{patches}",
            members.join(", ")
        ),
    )?;
    // The versions that are tested here.
    let lock = root.join("Cargo.lock");
    fs::copy(&lock, outside.join("Cargo.lock")).map_err(|e| format!("{}: {e}", lock.display()))?;
    Ok(names)
}

/// The crates that are published, with their folders, in the order of their names.
fn published(root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let folder = root.join("crates");
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut all = vec![("duel-kernels".to_owned(), root.join("kernels"))];
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push((if name == PROGRAM { name } else { format!("duel-{name}") }, path));
    }
    all.sort();
    Ok(all)
}

fn build(outside: &Path, crates: &[String]) -> Result<(), String> {
    for name in crates {
        let begun = Instant::now();
        let args = ["build", "--quiet", "--offline", "--package", &format!("embeds-{name}")];
        let mut cargo = crate::command(&args, &[]);
        // Beside what is built here, and not in its place.
        cargo.current_dir(outside).env("CARGO_TARGET_DIR", crate::target_dir().join("embed"));
        crate::start(&mut cargo).map_err(|_| format!("{name} does not build in a program of its own"))?;
        println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What cargo would publish of each: its licence, what it says of itself, and all that it is built from.
    #[test]
    fn packages_are_whole() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let all = published(&root).expect("the crates are there");
        assert!(
            all.iter().any(|(name, _)| name == "duel-model") && all.iter().any(|(name, _)| name == PROGRAM)
        );
        for (name, path) in all {
            let args = ["package", "--quiet", "--offline", "--allow-dirty", "--list", "--package", &name];
            let listed = text(crate::command(&args, &[]).current_dir(&root)).expect("it can be published");
            let listed: BTreeSet<PathBuf> = listed.lines().map(PathBuf::from).collect();
            let has = |file: &Path| assert!(listed.contains(file), "{name} leaves out {}", file.display());
            ["Cargo.toml", "LICENSE", "README.md"].iter().for_each(|file| has(Path::new(file)));
            sources(&path).iter().for_each(|file| has(file.strip_prefix(&path).expect("it is below")));
        }
    }

    /// What a crate is built from, beside its manifest.
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a folder of ours");
        let mut all = Vec::new();
        for path in entries.map(|entry| entry.expect("a folder of ours").path()) {
            if path.is_dir() {
                all.extend(sources(&path));
            } else if path.extension().is_some_and(|e| ["rs", "cu", "cuh", "h"].iter().any(|of| e == *of)) {
                all.push(path);
            }
        }
        all
    }
}
