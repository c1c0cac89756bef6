//! Log-probabilities of a dataset's groups in a file that only grows: what was computed stays, however a run ends.
//!
//! A record is the number of a group, the log-probability of each of its responses, and a checksum. The checksum is
//! seeded by the key of the content, so what a crash has torn, a disk has damaged, or other content has left is no
//! record, and reading goes on at the next whole one. Each micro-batch is appended by one write, which the system does
//! not mix with that of another process.

use crate::Error;
use duel_data::Dataset;
use duel_disk::File;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Part of the checksums' seed: changes with the layout of a record.
const FORMAT: u64 = 5;

/// A group of the dataset and the log-probabilities of its responses.
pub type Record = (u32, Vec<f64>);

/// The file of one model and one dataset.
pub struct Cache {
    path: PathBuf,
    seed: u64,
}

impl Cache {
    /// The file of the content `key` in the folder `dir`; either need not be there.
    pub fn new(dir: &Path, key: &str) -> Self {
        let path = dir.join(format!("reference-{key}.logps"));
        Cache { path, seed: xxh3_64_with_seed(key.as_bytes(), FORMAT) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All whole records, in the order in which they were written; none where there is no file that can be read.
    pub fn read(&self, ds: &Dataset) -> Vec<Record> {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let mut rest = &bytes[..];
        let mut records = Vec::new();
        while !rest.is_empty() {
            match self.record(rest, ds) {
                Some((record, after)) => {
                    records.push(record);
                    rest = after;
                }
                None => rest = &rest[1..],
            }
        }
        records
    }

    /// The record that `bytes` begin with, and what follows it.
    fn record<'a>(&self, bytes: &'a [u8], ds: &Dataset) -> Option<(Record, &'a [u8])> {
        let (group, _) = bytes.split_first_chunk()?;
        let group = u32::from_le_bytes(*group);
        if group as usize >= ds.len() {
            return None;
        }
        let responses = ds.group(group as usize).responses().len();
        let (content, rest) = bytes.split_at_checked(size_of::<u32>() + responses * size_of::<f64>())?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (logps, _) = content[size_of::<u32>()..].as_chunks();
        let record = (group, logps.iter().map(|x| f64::from_le_bytes(*x)).collect());
        (self.checksum(content) == u64::from_le_bytes(*sum)).then_some((record, rest))
    }

    fn checksum(&self, content: &[u8]) -> u64 {
        xxh3_64_with_seed(content, self.seed)
    }

    /// Opens the file to append to it, and makes it and its folder where they are not there.
    ///
    /// # Errors
    /// That cannot be done.
    pub fn appender(&self) -> Result<Appender<'_>, Error> {
        if let Some(dir) = self.path.parent() {
            duel_disk::create_dir_all(dir).map_err(|e| self.failed(&e))?;
        }
        let file = File::append(&self.path).map_err(|e| self.failed(&e))?;
        Ok(Appender { cache: self, file })
    }

    fn failed(&self, e: &std::io::Error) -> Error {
        Error::new(format!(
            "{}: cannot be written ({e}); set cache_dir to a folder with room",
            self.path.display()
        ))
    }
}

/// A [`Cache`] that is being added to.
pub struct Appender<'c> {
    cache: &'c Cache,
    file: File,
}

impl Appender<'_> {
    /// Adds records, all in one write.
    ///
    /// # Errors
    /// The disk has no room, or fails; what was added before stays.
    pub fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for (group, logps) in records {
            let begin = bytes.len();
            bytes.extend(group.to_le_bytes());
            bytes.extend(logps.iter().flat_map(|x| x.to_le_bytes()));
            let sum = self.cache.checksum(&bytes[begin..]);
            bytes.extend(sum.to_le_bytes());
        }
        self.file.write_all(&bytes).map_err(|e| self.cache.failed(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_data::{Builder, Options, Task, Truncation, Whole};

    /// A folder that goes with the value.
    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("duel-cache-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&dir));
            Temp(dir)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    /// `groups` groups, of two, three and four responses in turn.
    fn dataset(groups: u32) -> Dataset {
        let options = Options {
            task: Task::Preference,
            whole: Whole::default(),
            max_length: None,
            truncation: Truncation::KeepStart,
        };
        let mut builder = Builder::new(&options);
        for row in 0..groups {
            let responses: Vec<[u32; 1]> = (0..2 + row % 3).map(|r| [r]).collect();
            let responses: Vec<&[u32]> = responses.iter().map(|r| &r[..]).collect();
            builder.push(row as usize + 1, &[row], &responses).unwrap();
        }
        builder.finish().unwrap()
    }

    fn record(ds: &Dataset, group: u32) -> Record {
        let responses = ds.group(group as usize).responses().len();
        (group, (0..responses).map(|r| -f64::from(group) - 0.1 * r as f64).collect())
    }

    fn records(ds: &Dataset, groups: impl IntoIterator<Item = u32>) -> Vec<Record> {
        groups.into_iter().map(|g| record(ds, g)).collect()
    }

    #[test]
    fn what_was_appended_is_read_in_its_order() {
        let (temp, ds) = (Temp::new("order"), dataset(9));
        let cache = Cache::new(&temp.0.join("deep"), "key");
        assert_eq!(cache.read(&ds), []);
        let mut appender = cache.appender().unwrap();
        appender.append(&records(&ds, [3, 1])).unwrap();
        appender.append(&records(&ds, [8])).unwrap();
        // Another process with the same file.
        cache.appender().unwrap().append(&records(&ds, [2])).unwrap();
        appender.append(&records(&ds, [0])).unwrap();
        assert_eq!(cache.read(&ds), records(&ds, [3, 1, 8, 2, 0]));
    }

    #[test]
    fn damage_anywhere_costs_the_records_that_it_hits_and_no_other() {
        let (temp, ds) = (Temp::new("damage"), dataset(6));
        let cache = Cache::new(&temp.0, "key");
        cache.appender().unwrap().append(&records(&ds, 0..6)).unwrap();
        let good = fs::read(cache.path()).unwrap();
        let ends: Vec<usize> = (0..6)
            .scan(0, |at, g| {
                *at += 12 + 8 * record(&ds, g).1.len();
                Some(*at)
            })
            .collect();
        assert_eq!(ends[5], good.len());
        for at in 0..good.len() {
            let hit = ends.partition_point(|&end| end <= at) as u32;
            let mut flipped = good.clone();
            flipped[at] ^= 0x40;
            fs::write(cache.path(), &flipped).unwrap();
            assert_eq!(cache.read(&ds), records(&ds, (0..6).filter(|g| *g != hit)), "byte {at} flipped");

            // Torn there, and then appended to.
            fs::write(cache.path(), &good[..at]).unwrap();
            assert_eq!(cache.read(&ds), records(&ds, 0..hit), "cut at {at}");
            cache.appender().unwrap().append(&records(&ds, [hit, 5])).unwrap();
            assert_eq!(
                cache.read(&ds),
                records(&ds, (0..hit).chain([hit, 5])),
                "appended after a cut at {at}"
            );
        }
    }

    #[test]
    fn a_file_of_other_content_is_as_good_as_none() {
        let (temp, ds) = (Temp::new("other"), dataset(6));
        let (cache, other) = (Cache::new(&temp.0, "key"), Cache::new(&temp.0, "another"));
        other.appender().unwrap().append(&records(&ds, 0..6)).unwrap();
        fs::rename(other.path(), cache.path()).unwrap();
        assert_eq!(cache.read(&ds), []);
        cache.appender().unwrap().append(&records(&ds, [4])).unwrap();
        assert_eq!(cache.read(&ds), records(&ds, [4]));
        for junk in [vec![0; 1000], vec![255; 1000]] {
            fs::write(cache.path(), junk).unwrap();
            assert_eq!(cache.read(&ds), []);
        }
    }

    #[test]
    fn a_file_that_cannot_be_is_named() {
        let temp = Temp::new("file");
        fs::create_dir_all(&temp.0).unwrap();
        fs::write(temp.0.join("file"), "").unwrap();
        let cache = Cache::new(&temp.0.join("file"), "key");
        let error = cache.appender().err().unwrap().to_string();
        for part in ["reference-key.logps", "cannot be written", "set cache_dir"] {
            assert!(error.contains(part), "`{part}`: {error}");
        }
    }
}
