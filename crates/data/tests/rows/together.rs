//! Processes, here threads, that read the same rows and tokenise a part each: all of them have what one alone has.

use crate::common::{CHAT, Dir, PREFERENCE, SFT, TINY, Tiny, UNPAIRED};
use duel_data::{Dataset, Files, Options, Prompt, Prompts, Result, Together, Tokenizer};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

/// A table that every process lays its message on.
struct Table {
    said: Mutex<Vec<Vec<u8>>>,
    all: Barrier,
    /// Things that were worked on, whoever did it.
    done: AtomicUsize,
}

struct At<'t>(&'t Table, usize);

impl Together for At<'_> {
    fn rank(&self) -> usize {
        self.1
    }

    fn size(&self) -> usize {
        self.0.said.lock().unwrap().len()
    }

    fn all(&self, mine: &[u8]) -> std::result::Result<Vec<Vec<u8>>, String> {
        let things: Vec<serde_json::Value> = serde_json::from_slice(mine).unwrap();
        self.0.done.fetch_add(things.len(), Ordering::Relaxed);
        self.0.said.lock().unwrap()[self.1] = mine.to_vec();
        self.0.all.wait();
        let said = self.0.said.lock().unwrap().clone();
        self.0.all.wait();
        Ok(said)
    }
}

/// What each of `n` processes comes to, and how many things they worked on.
fn among<T: Send>(n: usize, work: impl Fn(&dyn Together) -> T + Sync) -> (Vec<T>, usize) {
    let (said, all) = (Mutex::new(vec![Vec::new(); n]), Barrier::new(n));
    let table = Table { said, all, done: AtomicUsize::new(0) };
    let came = thread::scope(|scope| {
        let one = |rank| {
            let (table, work) = (&table, &work);
            scope.spawn(move || work(&At(table, rank)))
        };
        let ranks: Vec<_> = (0..n).map(one).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    (came, table.done.into_inner())
}

fn loaded(path: &Path, tok: &Tokenizer, opt: &Options, together: Option<&dyn Together>) -> String {
    let loaded = Dataset::load_watched(&Files::from(path), tok, opt, together, &mut |_| true);
    loaded.map_or_else(|e| e.to_string(), |ds| format!("{ds:?}"))
}

fn prompts(path: &Path, tok: &Tokenizer, together: Option<&dyn Together>) -> (Vec<Prompt>, Option<String>) {
    let (files, mut all) = (Files::from(path), Vec::new());
    let each = |prompt| -> Result<()> {
        all.push(prompt);
        Ok(())
    };
    let file = Prompts { files: &files, tokenizer: tok, as_messages: false };
    let read = match together {
        Some(together) => file.each_together(together, each),
        None => file.each(each),
    };
    (all, read.err().map(|e| e.to_string()))
}

/// 3500 rows, some of which are dropped; of rows `bad` the chat template refuses the turns.
fn rows(dir: &Dir, bad: &[usize]) -> PathBuf {
    let row = |i: usize| {
        let role = if bad.contains(&i) { "refused" } else { "user" };
        let (chosen, rejected) =
            ("y".repeat(1 + i % 7), "n".repeat(if i.is_multiple_of(11) { 40 } else { 1 + i % 3 }));
        let rejected = if i.is_multiple_of(13) { &chosen } else { &rejected };
        format!(
            "{{\"prompt\": [{{\"role\": \"{role}\", \"content\": \"Q{i}\"}}], \"chosen\": \"{chosen}\", \
             \"rejected\": \"{rejected}\", \"score\": {}}}\n",
            i as f64 / 7.0
        )
    };
    dir.write("rows.jsonl", (1..=3500).map(row).collect::<String>())
}

#[test]
fn processes_share_the_rows_out_and_have_the_same() {
    let dir = Dir::new();
    let refusing =
        format!("{{% if messages[0].role == 'refused' %}}{{{{ raise_exception('no') }}}}{{% endif %}}{CHAT}");
    let tok = Tiny { template: Some(&refusing), ..TINY }.build();
    for bad in [&[][..], &[1500, 2400]] {
        let path = rows(&dir, bad);
        for opt in [SFT, Options { max_length: Some(40), ..UNPAIRED }, PREFERENCE] {
            let alone = loaded(&path, &tok, &opt, None);
            assert_eq!(alone.contains("row 1500: "), !bad.is_empty(), "{alone:.200}");
            for n in [1, 3] {
                let (all, done) = among(n, |together| loaded(&path, &tok, &opt, Some(together)));
                assert!(all.iter().all(|one| *one == alone), "{n} processes have other groups than one");
                // One alone tells nobody; after an error there is nothing more to be done.
                let known = if n == 1 { 0 } else { 3500 };
                assert!(if bad.is_empty() { done == known } else { done <= known }, "{done} of {known} rows");
            }
        }
        let alone = prompts(&path, &tok, None);
        let (kept, failed) = if bad.is_empty() { (3500, false) } else { (1499, true) };
        assert_eq!((alone.0.len(), alone.1.is_some()), (kept, failed));
        let (all, done) = among(3, |together| prompts(&path, &tok, Some(together)));
        assert!(all.iter().all(|one| *one == alone) && done <= 3500);
    }
}
