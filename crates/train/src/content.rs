//! What files hold, as a number: the same content has the same one, wherever it lies.

use crate::Error;
use duel_data::Files;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Adds a file's bytes to a hash, a block at a time.
///
/// # Errors
/// It cannot be read.
pub fn feed(hash: &mut Xxh3, path: &Path) -> Result<(), Error> {
    let failed = |e| Error::new(format!("{}: cannot be read: {e}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(()),
            n => hash.update(&block[..n]),
        }
    }
}

/// The hash of files, in hexadecimal digits: of one that of its content, of several that of each and of their order.
///
/// # Errors
/// One cannot be read.
pub fn digest(files: &Files) -> Result<String, Error> {
    let mut hash = Xxh3::new();
    for (i, path) in files.parts().iter().enumerate() {
        if i > 0 {
            hash.update(&hash.digest128().to_le_bytes());
        }
        feed(&mut hash, path)?;
    }
    Ok(format!("{:032x}", hash.digest128()))
}
