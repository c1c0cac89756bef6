//! What files hold, as a number: the same content has the same one, wherever it lies.

use crate::Error;
use duel_data::Files;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
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

/// Names that files of a tokenizer begin with.
const TOKENIZER: [&str; 6] =
    ["tokenizer", "chat_template", "special_tokens", "added_tokens", "vocab", "merges"];

/// Adds the files of the tokenizer in a folder to a hash: all that decides what becomes of a text.
///
/// # Errors
/// One cannot be read.
pub fn feed_tokenizer(hash: &mut Xxh3, dir: &Path) -> Result<(), Error> {
    let files = |dir: &Path| -> Result<Vec<PathBuf>, Error> {
        let entries =
            fs::read_dir(dir).map_err(|e| Error::new(format!("{}: cannot be read: {e}", dir.display())))?;
        Ok(entries.filter_map(|e| Some(e.ok()?.path())).filter(|path| path.is_file()).collect())
    };
    let mut all = files(dir)?;
    all.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        TOKENIZER.iter().any(|begin| name.starts_with(begin))
    });
    let more = dir.join("additional_chat_templates");
    if more.is_dir() {
        all.extend(files(&more)?);
    }
    all.sort();
    for file in all {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(b"/");
        feed(hash, &file)?;
    }
    Ok(())
}

/// The hash of files, in hexadecimal digits: of one that of its content, of several that of each and of their order,
/// and of what is read of them where that is not all as it stands.
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
    files.reading().iter().for_each(|how| hash.update(how.as_bytes()));
    Ok(format!("{:032x}", hash.digest128()))
}
