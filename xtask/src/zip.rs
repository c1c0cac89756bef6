//! Zip archives, as wheels are. What gzip makes of a file is what an archive has of it, in another wrapping: a deflated
//! stream, the CRC-32 and the length (RFC 1952; PKWARE's APPNOTE 6.3).

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of an archive.
pub struct Entry {
    /// Its name there.
    pub name: String,
    /// Where it is.
    pub file: PathBuf,
    /// Whether it is a program.
    pub runs: bool,
}

/// Version of the format that a reader must know to find deflated files.
const NEEDED: u16 = 20;
/// The same, made on Unix, whose modes are those of the entries.
const MADE: u16 = 3 << 8 | NEEDED;
const DEFLATED: u16 = 8;
/// The first day that the format knows: archives of the same files are the same bytes.
const DATE: u16 = 1 << 5 | 1;
/// Of gzip without a name in it.
const HEADER: usize = 10;
const TRAILER: usize = 8;

/// The archive of these files.
///
/// # Errors
/// gzip cannot be started, or a file is not there or 4 GB large.
pub fn archive(entries: &[Entry]) -> Result<Vec<u8>, String> {
    let (mut all, mut directory) = (Vec::new(), Vec::new());
    for Entry { name, file, runs } in entries {
        let packed = gzip(file)?;
        let (stream, trailer) = packed.split_at(packed.len() - TRAILER);
        let stream = &stream[HEADER..];
        let small = |n: usize| u32::try_from(n).map_err(|_| format!("{}: is too large", file.display()));
        let offset = small(all.len())?;
        let mut described = Vec::new();
        for field in [NEEDED, 0, DEFLATED, 0, DATE] {
            described.extend(field.to_le_bytes());
        }
        described.extend(&trailer[..4]);
        described.extend(small(stream.len())?.to_le_bytes());
        described.extend(&trailer[4..]);
        described.extend((name.len() as u16).to_le_bytes());
        described.extend([0; 2]);

        all.extend(b"PK\x03\x04");
        all.extend(&described);
        all.extend(name.as_bytes());
        all.extend(stream);

        let mode: u32 = if *runs { 0o100_755 } else { 0o100_644 };
        directory.extend(b"PK\x01\x02");
        directory.extend(MADE.to_le_bytes());
        directory.extend(&described);
        directory.extend([0; 6]);
        directory.extend((mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (all.len() as u32, (entries.len() as u16).to_le_bytes());
    all.extend(&directory);
    all.extend(b"PK\x05\x06");
    all.extend([0; 4]);
    all.extend(count);
    all.extend(count);
    all.extend((directory.len() as u32).to_le_bytes());
    all.extend(start.to_le_bytes());
    all.extend([0; 2]);
    Ok(all)
}

fn gzip(file: &Path) -> Result<Vec<u8>, String> {
    let output = Command::new("gzip").args(["-9", "--no-name", "--stdout"]).arg(file).output();
    let output = output.map_err(|e| format!("gzip cannot be started: {e}"))?;
    if output.status.success() && output.stdout.len() >= HEADER + TRAILER {
        return Ok(output.stdout);
    }
    Err(format!("{}: gzip failed: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim()))
}
