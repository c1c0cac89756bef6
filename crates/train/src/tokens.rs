//! The tokens of files on disk, by content: a file that was tokenised once is read as fast as the disk can.
//!
//! A file is the word `duel tokens`, what chat templates were told of the time (the length of its JSON in eight bytes,
//! the JSON), the dataset as [`Dataset::store`] has it, and a checksum of all that, seeded by the key: what a crash has
//! torn, a disk has damaged, or other content has left is none. It is written beside its place and moved there whole.
//!
//! The key is a hash of all that decides the tokens: every byte of the files of rows, how they are read, the
//! tokenizer's files, the options, and the program itself, of which another version may read rows otherwise. Dates and
//! sizes of files prove nothing, and none is looked at.

use crate::Error;
use crate::content::{feed, feed_tokenizer};
use duel_data::{Dataset, Files, Options, Tokenizer};
use duel_disk::Draft;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const MAGIC: &[u8; 12] = b"duel tokens\n";

/// Files of fewer bytes are tokenised in a second or two; what is kept of them would only fill the folder.
pub const LEAST: u64 = 4 << 20;

/// What is kept of the tokens of one file.
pub struct Tokens {
    path: PathBuf,
    key: u128,
}

/// What a place for tokens holds.
pub enum Found {
    /// The dataset.
    Whole(Box<Dataset>),
    /// Nothing, or what chat templates would write otherwise today.
    Nothing,
    /// What is no dataset any more.
    Damaged,
}

impl Tokens {
    /// Those of `files`, tokenised by the tokenizer in the folder `tokenizer` with these options, in the folder `dir`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of(dir: &Path, files: &Files, tokenizer: &Path, options: &Options) -> Result<Self, Error> {
        let mut hash = Xxh3::new();
        feed(&mut hash, &program()?)?;
        feed_tokenizer(&mut hash, tokenizer)?;
        hash.update(format!("{options:?}").as_bytes());
        for file in files.parts() {
            // The end of its name says how it is read, a packed one's twice.
            for name in [Some(file.as_path()), file.file_stem().map(Path::new)].into_iter().flatten() {
                let kind = name.extension().unwrap_or_default().to_ascii_lowercase();
                hash.update(kind.as_encoded_bytes());
                hash.update(b"/");
            }
            feed(&mut hash, file)?;
        }
        files.reading().iter().for_each(|how| hash.update(how.as_bytes()));
        let key = hash.digest128();
        Ok(Tokens { path: dir.join(format!("tokens-{key:032x}.bin")), key })
    }

    /// Which they are: a hash of what decides them.
    pub fn key(&self) -> String {
        format!("{:032x}", self.key)
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there, of a dataset with these options.
    pub fn read(&self, options: &Options) -> Found {
        match File::open(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Found::Nothing,
            opened => opened.and_then(|file| self.dataset(file, options)).unwrap_or(Found::Damaged),
        }
    }

    fn dataset(&self, file: File, options: &Options) -> io::Result<Found> {
        let mut from = Summed { of: file, hash: Xxh3::with_seed(self.key as u64) };
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        let mut length = [0; 8];
        from.read_exact(&mut length)?;
        let mut told = Vec::new();
        Read::by_ref(&mut from).take(u64::from_le_bytes(length)).read_to_end(&mut told)?;
        let ds = Dataset::restore(&mut from, options)?;
        let (sum, mut given) = (from.hash.digest128().to_le_bytes(), Vec::new());
        from.of.read_to_end(&mut given)?;
        if magic != *MAGIC || given != sum {
            return Ok(Found::Damaged);
        }
        let told: Vec<(String, String)> = serde_json::from_slice(&told)?;
        let same = told.iter().all(|(format, text)| Tokenizer::tells(format).as_ref() == Some(text));
        Ok(if same { Found::Whole(Box::new(ds)) } else { Found::Nothing })
    }

    /// Puts a dataset there, whose templates were `told` of the time. Where another process is at it, that one does.
    ///
    /// # Errors
    /// The disk has no room, or fails; nothing is there then.
    pub fn write(&self, ds: &Dataset, told: &[(String, String)]) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            duel_disk::create_dir_all(dir)?;
        }
        let draft = match Draft::new(&self.path) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            opened => opened?,
        };
        let mut to = Summed { of: draft, hash: Xxh3::with_seed(self.key as u64) };
        let told = serde_json::to_vec(told)?;
        to.write_all(MAGIC)?;
        to.write_all(&(told.len() as u64).to_le_bytes())?;
        to.write_all(&told)?;
        ds.store(&mut to)?;
        to.of.write_all(&to.hash.digest128().to_le_bytes())?;
        to.of.keep().map(drop)
    }
}

/// The file that runs.
pub fn program() -> Result<PathBuf, Error> {
    // Where another was put in its place since, this is still the one that runs.
    let linux = Path::new("/proc/self/exe");
    match linux.exists() {
        true => Ok(linux.into()),
        false => std::env::current_exe().map_err(|e| Error::new(format!("the program's own file: {e}"))),
    }
}

/// What adds all that goes through it to a hash.
struct Summed<T> {
    of: T,
    hash: Xxh3,
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.of.read(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.of.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.of.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_data::{Builder, Task, Truncation, Whole};
    use std::fs;

    const OPTIONS: Options = Options {
        task: Task::Preference,
        whole: Whole { completions: false, conversations: false },
        max_length: Some(8),
        truncation: Truncation::KeepStart,
    };

    /// A folder of a tokenizer, rows and what is kept, that goes with the value.
    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("duel-tokens-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&dir));
            fs::create_dir_all(dir.join("additional_chat_templates")).unwrap();
            fs::write(dir.join("tokenizer.json"), "{}").unwrap();
            fs::write(dir.join("additional_chat_templates/tool_use.jinja"), "{{ tools }}").unwrap();
            fs::write(dir.join("rows.jsonl"), "{}\n").unwrap();
            Temp(dir)
        }

        fn tokens(&self, rows: &str, options: &Options) -> Tokens {
            Tokens::of(&self.0.join("kept"), &Files::from(&self.0.join(rows)), &self.0, options).unwrap()
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn dataset() -> Dataset {
        let mut builder = Builder::new(&OPTIONS);
        for row in 1..5 {
            builder.push(row as usize, &[row, 5], &[&[row, 6], &[7]]).unwrap();
        }
        builder.finish().unwrap()
    }

    fn is_whole(tokens: &Tokens) -> bool {
        match tokens.read(&OPTIONS) {
            Found::Whole(ds) => {
                assert_eq!(format!("{ds:?}"), format!("{:?}", dataset()));
                true
            }
            _ => false,
        }
    }

    #[test]
    fn what_is_kept_is_found_by_all_that_decides_it() {
        let temp = Temp::new("key");
        let tokens = temp.tokens("rows.jsonl", &OPTIONS);
        assert!(matches!(tokens.read(&OPTIONS), Found::Nothing));
        tokens.write(&dataset(), &[]).unwrap();
        assert!(is_whole(&tokens) && is_whole(&temp.tokens("rows.jsonl", &OPTIONS)));
        // Elsewhere, the same.
        fs::copy(temp.0.join("rows.jsonl"), temp.0.join("same.jsonl")).unwrap();
        assert!(is_whole(&temp.tokens("same.jsonl", &OPTIONS)));
        let changed = |name: &str, text: &str| {
            let before = fs::read(temp.0.join(name)).unwrap_or_default();
            fs::write(temp.0.join(name), text).unwrap();
            let other = temp.tokens("rows.jsonl", &OPTIONS);
            assert_ne!(other.path(), tokens.path(), "{name}");
            assert!(matches!(other.read(&OPTIONS), Found::Nothing), "{name}");
            fs::write(temp.0.join(name), before).unwrap();
        };
        changed("rows.jsonl", "{} \n");
        changed("tokenizer.json", "[]");
        changed("additional_chat_templates/tool_use.jinja", "{{ messages }}");
        changed("chat_template.jinja", "x");
        fs::remove_file(temp.0.join("chat_template.jinja")).unwrap();
        assert!(is_whole(&temp.tokens("rows.jsonl", &OPTIONS)));
        // Read another way, or for another purpose.
        fs::copy(temp.0.join("rows.jsonl"), temp.0.join("rows.json")).unwrap();
        for other in [
            temp.tokens("rows.json", &OPTIONS),
            temp.tokens("rows.jsonl", &Options { max_length: Some(9), ..OPTIONS }),
            temp.tokens("rows.jsonl", &Options { task: Task::Reward, ..OPTIONS }),
        ] {
            assert_ne!(other.path(), tokens.path());
        }
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let temp = Temp::new("damage");
        let tokens = temp.tokens("rows.jsonl", &OPTIONS);
        tokens.write(&dataset(), &[("%Y".into(), Tokenizer::tells("%Y").unwrap())]).unwrap();
        let good = fs::read(tokens.path()).unwrap();
        assert!(is_whole(&tokens));
        let is_damaged = |bytes: &[u8]| {
            fs::write(tokens.path(), bytes).unwrap();
            matches!(tokens.read(&OPTIONS), Found::Damaged)
        };
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 0x40;
            assert!(is_damaged(&flipped), "byte {at} flipped");
            assert!(is_damaged(&good[..at]), "cut at {at}");
        }
        assert!(is_damaged(&[&good[..], b"x"].concat()));
        // That of other content in its place.
        let other = temp.tokens("rows.jsonl", &Options { max_length: None, ..OPTIONS });
        fs::write(other.path(), &good).unwrap();
        assert!(matches!(other.read(&OPTIONS), Found::Damaged));
    }

    #[test]
    fn another_day_is_another_text() {
        let temp = Temp::new("day");
        let tokens = temp.tokens("rows.jsonl", &OPTIONS);
        tokens.write(&dataset(), &[("%Y".into(), "1970".into())]).unwrap();
        assert!(matches!(tokens.read(&OPTIONS), Found::Nothing));
        tokens.write(&dataset(), &[("%Y".into(), Tokenizer::tells("%Y").unwrap())]).unwrap();
        assert!(is_whole(&tokens));
    }

    #[test]
    fn one_process_writes_and_a_dead_one_does_not_bar_others() {
        let temp = Temp::new("part");
        let tokens = temp.tokens("rows.jsonl", &OPTIONS);
        fs::create_dir_all(tokens.path().parent().unwrap()).unwrap();
        let another = Draft::new(tokens.path()).unwrap();
        tokens.write(&dataset(), &[]).unwrap();
        assert!(!is_whole(&tokens));
        drop(another);
        fs::write(tokens.path().with_extension("bin.partial"), "what a crash left").unwrap();
        tokens.write(&dataset(), &[]).unwrap();
        assert!(is_whole(&tokens));
        assert_eq!(fs::read_dir(tokens.path().parent().unwrap()).unwrap().count(), 1);
    }
}
