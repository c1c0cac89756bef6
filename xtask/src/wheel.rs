//! A wheel that carries a program: what `pip install` and `uvx` put on the path, without any Python in it.

use crate::pack::text;
use crate::zip::{Entry, archive};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a wheel is made of.
pub struct Wheel<'a> {
    /// Of the package.
    pub version: &'a str,
    /// The systems that it is for, as `manylinux_2_34_x86_64`.
    pub platform: &'a str,
    /// The program, as it is named there.
    pub program: &'a Path,
    /// The description that the package's page shows, as Markdown.
    pub readme: &'a Path,
    pub license: &'a Path,
}

/// Name of the package and of the program.
const NAME: &str = "duel";

/// Writes a wheel into the folder `out`, with `work` as a place for its parts; its path.
///
/// # Errors
/// A file is not there, or cannot be written.
pub fn write(wheel: &Wheel<'_>, work: &Path, out: &Path) -> Result<PathBuf, String> {
    let Wheel { version, platform, .. } = wheel;
    let tag = format!("py3-none-{platform}");
    let info = format!("{NAME}-{version}.dist-info");
    let readme = read(wheel.readme)?;
    let metadata = format!(
        "Metadata-Version: 2.4\nName: {NAME}\nVersion: {version}\n\
         Summary: Preference training of language models in Rust and CUDA, as one program\n\
         License-Expression: MIT OR Apache-2.0\nLicense-File: LICENSE\nRequires-Python: >=3.8\n\
         Description-Content-Type: text/markdown\n\n{readme}"
    );
    let tagged = format!("Wheel-Version: 1.0\nGenerator: duel-xtask\nRoot-Is-Purelib: false\nTag: {tag}\n");
    let made = |name: &str, text: &str| -> Result<Entry, String> {
        let file = work.join(name);
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(Entry { name: format!("{info}/{name}"), file, runs: false })
    };
    let mut entries = vec![
        Entry {
            name: format!("{NAME}-{version}.data/scripts/{NAME}"),
            file: wheel.program.into(),
            runs: true,
        },
        Entry { name: format!("{info}/licenses/LICENSE"), file: wheel.license.into(), runs: false },
        made("METADATA", &metadata)?,
        made("WHEEL", &tagged)?,
    ];
    let mut record = String::new();
    for Entry { name, file, .. } in &entries {
        let bytes = fs::metadata(file).map_err(|e| format!("{}: {e}", file.display()))?.len();
        record += &format!("{name},sha256={},{bytes}\n", digest(file)?);
    }
    record += &format!("{info}/RECORD,,\n");
    entries.push(made("RECORD", &record)?);
    let path = out.join(format!("{NAME}-{version}-{tag}.whl"));
    fs::write(&path, archive(&entries)?).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))
}

/// SHA-256 of a file, as records of wheels have it: base64 for names of files, without filling.
fn digest(file: &Path) -> Result<String, String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let said = text(Command::new("sha256sum").arg("--").arg(file))?;
    // A name with odd letters is marked before the digest.
    let hex = said.trim_start_matches('\\').get(..64).ok_or("sha256sum says no digest")?;
    let bits: String = hex.chars().filter_map(|c| Some(format!("{:04b}", c.to_digit(16)?))).collect();
    let bits = format!("{bits:0<258}");
    let letter = |six: &[u8]| six.iter().fold(0, |n, bit| 2 * n + usize::from(bit - b'0'));
    Ok(bits.as_bytes().chunks(6).map(|six| LETTERS[letter(six)] as char).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("duel-wheel-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).expect("a folder of our own");
        folder
    }

    #[test]
    fn digests_are_base64() {
        let folder = folder("digest");
        let file = folder.join("abc");
        fs::write(&file, "abc").expect("a folder of our own");
        // FIPS 180-4's example, in base64.
        assert_eq!(digest(&file).as_deref(), Ok("ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"));
        fs::remove_dir_all(folder).expect("a folder of our own");
    }

    /// By pip itself, which checks the record, into a folder of its own; and what it put there runs.
    #[test]
    fn pip_installs_the_program() {
        let pip = |args: &[&str]| Command::new("python3").args(["-m", "pip"]).args(args).output();
        if !pip(&["--version"]).is_ok_and(|output| output.status.success()) {
            // Past what the harness keeps back.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: that pip installs a wheel; python3 has no pip here");
            return;
        }
        let folder = folder("pip");
        let at = |name: &str| folder.join(name);
        fs::write(at("duel"), "#!/bin/sh\necho duel 1.2.3\n").expect("a folder of our own");
        fs::write(at("README.md"), "# duel\n").expect("a folder of our own");
        fs::write(at("LICENSE"), "MIT\n").expect("a folder of our own");
        let wheel = Wheel {
            version: "1.2.3",
            platform: "any",
            program: &at("duel"),
            readme: &at("README.md"),
            license: &at("LICENSE"),
        };
        let wheel = write(&wheel, &folder, &folder).expect("all of it is there");
        let (wheel, target) = (wheel.to_str().expect("UTF-8"), at("installed"));
        let target_name = target.to_str().expect("UTF-8");
        let args = [
            "install",
            "--no-index",
            "--no-deps",
            "--no-cache-dir",
            "--disable-pip-version-check",
            "--target",
        ];
        let output = pip(&[&args[..], &[target_name, wheel]].concat()).expect("it started before");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = text(&mut Command::new(target.join("bin/duel")));
        assert_eq!(said.as_deref(), Ok("duel 1.2.3\n"));
        fs::remove_dir_all(folder).expect("a folder of our own");
    }
}
