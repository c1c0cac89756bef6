//! `cargo xtask embed`: every library crate in a program of its own outside the workspace, as users embed it: with the
//! features that it asks for alone, not those that another crate here happens to ask for.

use crate::pack::make;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Builds a program around each crate, and says how long it took.
pub fn run() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = fs::canonicalize(&root).map_err(|e| format!("{}: {e}", root.display()))?;
    let outside = std::env::temp_dir().join(format!("duel-embed-{}", std::process::id()));
    let done = write(&root, &make(outside.clone())?).and_then(|crates| build(&outside, &crates));
    drop(fs::remove_dir_all(&outside));
    done
}

/// A workspace of such programs in `outside`; the names of the crates.
fn write(root: &Path, outside: &Path) -> Result<Vec<String>, String> {
    let put =
        |file: PathBuf, text: &str| fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()));
    let mut crates = Vec::new();
    for (name, path) in libraries(root)? {
        let src = make(outside.join(&name).join("src"))?;
        let manifest = format!(
            "[package]\nname = \"embeds-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n{name} = {{ path = {:?} }}\n",
            path.display().to_string()
        );
        put(outside.join(&name).join("Cargo.toml"), &manifest)?;
        put(src.join("main.rs"), &format!("use {} as _;\n\nfn main() {{}}\n", name.replace('-', "_")))?;
        crates.push(name);
    }
    let members: Vec<String> = crates.iter().map(|name| format!("{name:?}")).collect();
    put(
        outside.join("Cargo.toml"),
        &format!("[workspace]\nresolver = \"3\"\nmembers = [{}]\n", members.join(", ")),
    )?;
    // The versions that are tested here.
    let lock = root.join("Cargo.lock");
    fs::copy(&lock, outside.join("Cargo.lock")).map_err(|e| format!("{}: {e}", lock.display()))?;
    Ok(crates)
}

/// The library crates with their folders, in the order of their names.
fn libraries(root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let folder = root.join("crates");
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut all = vec![("duel-kernels".to_owned(), root.join("kernels"))];
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != "duel" {
            all.push((format!("duel-{name}"), path));
        }
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

    #[test]
    fn every_library_is_found() {
        let all = libraries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).expect("the crates are there");
        let has =
            |name: &str| all.iter().any(|(known, path)| known == name && path.join("Cargo.toml").exists());
        assert!(has("duel-model") && has("duel-kernels") && !has("duel"));
    }
}
