//! The formats that rows lie in: CSV, TSV and Parquet give what the same rows give as JSON.

use crate::common::{CHAT, Dir, PREFERENCE, TINY, Tiny, UNPAIRED};
use duel_data::{Columns, Dataset, Error, Factory, Files, Form, Options, Tokenizer};
use std::path::{Path, PathBuf};

/// The tokens of a group's prompt and responses.
type Tokens = (Vec<u32>, Vec<Vec<u32>>);

/// All groups, or what is wrong with a row.
fn groups(path: &Path, tok: &Tokenizer, opt: &Options) -> Result<Vec<Tokens>, String> {
    let of = |e: Error| e.to_string().replace(&path.display().to_string(), "FILE");
    let data = Dataset::load(path, tok, opt).map_err(of)?;
    Ok(data.groups().map(|g| (g.prompt.to_vec(), g.responses().map(<[u32]>::to_vec).collect())).collect())
}

#[test]
fn columns_of_text_are_rows() {
    let (dir, tok) = (Dir::new(), TINY.build());
    let rows = concat!(
        "{\"prompt\": \"say \\\"a, b\\\"\", \"chosen\": \"a,\\nb\", \"rejected\": \"c\"}\n",
        "{\"prompt\": \"42\", \"chosen\": \"x\", \"rejected\": \"true\"}\n"
    );
    let want = groups(&dir.write("rows.jsonl", rows), &tok, &PREFERENCE);
    assert_eq!(want.as_ref().map(Vec::len), Ok(2));
    let csv = "\u{feff}prompt,chosen,rejected,note\r\n\"say \"\"a, b\"\"\",\"a,\nb\",c,\r\n42,x,true,1\r\n";
    assert_eq!(groups(&dir.write("rows.csv", csv), &tok, &PREFERENCE), want);
    let tsv = "rejected\tprompt\tchosen\nc\t\"say \"\"a, b\"\"\"\t\"a,\nb\"\ntrue\t42\tx\n";
    assert_eq!(groups(&dir.write("rows.TSV", tsv), &tok, &PREFERENCE), want);
    let labelled = "prompt,completion,label\nQ,y,True\nQ,n,False\n";
    let data = Dataset::load(&dir.write("kto.csv", labelled), &tok, &UNPAIRED).unwrap();
    assert_eq!((data.len(), data.report().rows), (2, 2));
}

/// Rows in parts are the rows of one file, and what is wrong with one is said of its part.
#[test]
fn parts_are_one_data_set() {
    let (dir, tok) = (Dir::new(), TINY.build());
    let row = |n: usize| format!("{{\"prompt\": \"p{n}\", \"chosen\": \"x\", \"rejected\": \"y\"}}\n");
    let all = Dataset::load(&dir.write("all.jsonl", (0..5).map(row).collect::<String>()), &tok, &PREFERENCE)
        .unwrap();
    let parts = vec![
        dir.write("b.jsonl", format!("{}{}", row(0), row(1))),
        dir.write("empty.jsonl", ""),
        dir.write("a.csv", "prompt,chosen,rejected\np2,x,y\np3,x,y\n"),
        dir.write("c.json", format!("[{}]", row(4))),
    ];
    let read = |parts: &[PathBuf]| {
        let mut bytes = 0;
        let files = Files::new("rows", parts.to_vec());
        let data = Dataset::load_watched(&files, &tok, &PREFERENCE, None, &mut |at| {
            bytes = at.bytes;
            assert!(at.bytes <= at.total, "{at:?}");
            true
        });
        (data, bytes)
    };
    let (data, bytes) = read(&parts);
    let data = data.unwrap();
    let tokens = |data: &Dataset| data.groups().map(|g| (g.row, g.prompt.to_vec())).collect::<Vec<_>>();
    assert_eq!(tokens(&data), tokens(&all));
    let total: u64 = parts.iter().map(|part| std::fs::metadata(part).unwrap().len()).sum();
    assert_eq!((bytes, data.report().rows), (total, 5));
    std::fs::write(&parts[2], "prompt,chosen,rejected\np2,x,y\np3,,y\n").unwrap();
    let error = read(&parts).0.unwrap_err().to_string();
    assert!(error.contains("a.csv: row 2: "), "{error}");
    let error = read(&parts[1..2]).0.unwrap_err().to_string();
    assert_eq!(error, "rows: there are no rows to train on");
}

#[cfg(feature = "gzip")]
#[test]
fn packed_rows_are_unpacked() {
    use std::io::Write;
    let (dir, tok) = (Dir::new(), TINY.build());
    let rows = "{\"prompt\": \"a\", \"chosen\": \"x\", \"rejected\": \"y\"}\n".repeat(3);
    let want = groups(&dir.write("rows.jsonl", &rows), &tok, &PREFERENCE);
    let pack = |text: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let packed = pack(&rows);
    assert_eq!(groups(&dir.write("rows.jsonl.gz", &packed), &tok, &PREFERENCE), want);
    let cells = pack(&format!("\u{feff}prompt,chosen,rejected\n{}", "a,x,y\n".repeat(3)));
    assert_eq!(groups(&dir.write("rows.csv.gz", &cells), &tok, &PREFERENCE), want);
    let tabs = pack(&format!("prompt\trejected\tchosen\n{}", "a\ty\tx\n".repeat(3)));
    assert_eq!(groups(&dir.write("rows.tsv.GZ", &tabs), &tok, &PREFERENCE), want);
    let error = |name: &str, bytes: &[u8]| groups(&dir.write(name, bytes), &tok, &PREFERENCE).unwrap_err();
    let whole = [("cut.jsonl.gz", &packed), ("cut.csv.gz", &cells)];
    for (name, packed) in whole {
        let cut = error(name, &packed[..packed.len() - 9]);
        assert!(cut.contains("is no whole gzip file, download it again: "), "{cut}");
    }
    assert_eq!(error("rows.parquet.gz", &packed), "FILE: is compressed; unpack it");
}

/// Columns by other names, in every format and of several files as one.
#[test]
fn columns_by_other_names_are_the_same_rows() {
    let (dir, tok) = (Dir::new(), TINY.build());
    let plain = dir.write("plain.jsonl", "{\"prompt\": \"Q\", \"chosen\": \"y\", \"rejected\": \"n\"}\n");
    let want = groups(&plain, &tok, &PREFERENCE).unwrap();
    let columns: Columns = "prompt=question,chosen=good,rejected=bad".parse().unwrap();
    let form = Form::Named(columns);
    let lines = dir.write("rows.jsonl", "{\"question\": \"Q\", \"good\": \"y\", \"bad\": \"n\"}\n");
    let array = dir.write("rows.json", "[{\"question\": \"Q\", \"good\": \"y\", \"bad\": \"n\"}]");
    let cells = dir.write("rows.csv", "bad,question,good\nn,Q,y\n");
    let mut all = vec![Files::from(&plain)];
    for path in [&lines, &array, &cells] {
        let files = Files::from(path).in_form(form.clone());
        let data = Dataset::load(files.clone(), &tok, &PREFERENCE).unwrap();
        assert_eq!((data.len(), data.group(0).prompt), (1, &want[0].0[..]), "{}", path.display());
        all.push(files);
    }
    let joined = Files::joined("all", all).unwrap();
    assert_eq!((joined.count(), Dataset::load(joined.clone(), &tok, &PREFERENCE).unwrap().len()), (Ok(4), 4));
    // The first and the last of them.
    let some = joined.clone().keeping(4, |row| row % 3 == 0);
    let data = Dataset::load(some.clone(), &tok, &PREFERENCE).unwrap();
    assert_eq!((some.count(), data.len(), data.report().rows), (Ok(2), 2, 2));
    assert_eq!(some.clone().keeping(4, |row| row == 1).count(), Ok(1));
    assert_ne!(some.reading(), joined.reading());
    assert_eq!(Files::from(&plain).reading(), None);
    // A row that has not what is named is named by its file and its number there.
    let bad = dir
        .write("bad.jsonl", "{\"question\": \"Q\", \"good\": \"y\", \"bad\": \"n\"}\n{\"query\": \"Q\"}\n");
    let files = Files::joined(
        "all",
        vec![Files::from(&lines).in_form(form.clone()), Files::from(&bad).in_form(form)],
    );
    let e = Dataset::load(files.unwrap(), &tok, &PREFERENCE).unwrap_err().to_string();
    assert!(e.contains("bad.jsonl: row 2: has no column `question`, which is to be `prompt`"), "{e}");
}

/// A column that LLaMA-Factory's entry names may be missing in a row, or in a file of several, and not in all.
#[test]
fn a_column_that_is_named_is_somewhere() {
    let (dir, tok) = (Dir::new(), Tiny { template: Some(CHAT), ..TINY }.build());
    let pairs = [("prompt", "q"), ("query", "more"), ("chosen", "c"), ("rejected", "r")];
    let pairs = pairs.map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())).to_vec();
    let form = Form::Factory(Factory::new("alpaca", true, Some(pairs), None).unwrap());
    let file = |name: &str, rows: &str| Files::from(&dir.write(name, rows)).in_form(form.clone());
    let load = |files: Files| {
        Dataset::load(files, &tok, &PREFERENCE).map(|data| data.len()).map_err(|e| e.to_string())
    };
    let without = file("without.jsonl", "{\"q\": \"Q\", \"c\": \"y\", \"r\": \"n\"}\n");
    let with = file(
        "with.jsonl",
        "{\"q\": \"Q\", \"c\": \"y\", \"r\": \"n\"}\n{\"q\": \"Q\", \"more\": \"?\", \"c\": \"y\", \"r\": \"n\"}\n",
    );
    let both = Files::joined("all", vec![without.clone(), with.clone()]).unwrap();
    assert_eq!((load(with), load(both)), (Ok(2), Ok(3)));
    let e = load(without).unwrap_err();
    assert!(e.contains("without.jsonl: no row has the column `more`, which is to be `query`"), "{e}");
}

#[test]
fn broken_columns_are_named() {
    let (dir, tok) = (Dir::new(), TINY.build());
    let error = |name: &str, bytes: &[u8]| {
        Dataset::load(&dir.write(name, bytes), &tok, &PREFERENCE).map(|_| ()).expect_err(name).to_string()
    };
    let header = "prompt,chosen,rejected\n";
    for (bytes, what) in [
        (
            format!("{header}a,b,c\nd,e\n").into_bytes(),
            "f.csv: row 2: has 2 cells where the first line names 3",
        ),
        (format!("{header}a,b,c,d\n").into_bytes(), "f.csv: row 1: has 4 cells"),
        ([header.as_bytes(), b"a,\xe9,c\n"].concat(), "f.csv: row 1: is not UTF-8"),
        (b"prompt,prompt\na,b\n".to_vec(), "f.csv: has two columns `prompt`"),
        (header.as_bytes().to_vec(), "f.csv: there are no rows to train on"),
        (b"".to_vec(), "f.csv: there are no rows to train on"),
        (b"PAR1 and more".to_vec(), "f.csv: is a Parquet file by another name"),
    ] {
        let e = error("f.csv", &bytes);
        assert!(e.contains(what), "{e}");
    }
}

#[cfg(feature = "parquet")]
mod parquet {
    use super::*;
    use crate::common::{SFT, shared};

    /// Files of several writers, packings and groups of rows, beside the same rows as JSON lines.
    #[test]
    fn packed_columns_are_rows() {
        let Some(folder) = shared("tokenizers/smollm2") else { return };
        let chat = Tokenizer::from_dir(&folder).unwrap();
        let mut seen = 0;
        for (file, expected, opt) in [
            ("polite_datasets", "polite", PREFERENCE),
            ("polite_snappy", "polite", PREFERENCE),
            ("polite_zstd", "polite", PREFERENCE),
            ("polite_gzip", "polite", PREFERENCE),
            ("polite_none", "polite", PREFERENCE),
            ("polite_large_string_delta", "polite", PREFERENCE),
            ("conversational_snappy", "conversational", PREFERENCE),
            ("conversational_nulls", "conversational_nulls", PREFERENCE),
            ("messages_snappy", "messages", SFT),
            ("messages_struct_of_lists", "messages", SFT),
        ] {
            let Some(path) = shared(&format!("golden2/files/{file}.parquet")) else { return };
            let Some(lines) = shared(&format!("golden2/files/{expected}.expected.jsonl")) else { return };
            let want = groups(&lines, &chat, &opt);
            assert!(groups(&path, &chat, &opt) == want, "{file}");
            // A row without a prompt is one that neither is read beyond.
            assert_eq!(want.is_err(), expected == "conversational_nulls", "{file}: {:?}", want.err());
            seen += want.map_or(0, |of| of.len());
        }
        assert!(seen > 1000, "{seen} rows");
    }

    #[test]
    fn cut_files_are_named() {
        let Some(path) = shared("golden2/files/polite_snappy.parquet") else { return };
        let (dir, tok, whole) = (Dir::new(), TINY.build(), std::fs::read(path).unwrap());
        let error = |bytes: &[u8]| {
            let path = dir.write("cut.parquet", bytes);
            Dataset::load(&path, &tok, &PREFERENCE).map(|_| ()).expect_err("cut").to_string()
        };
        for end in [0, 3, 4, 100, whole.len() / 2, whole.len() - 1] {
            let e = error(&whole[..end]);
            assert!(e.contains("cut.parquet: is no whole Parquet file, download it again"), "{end}: {e}");
        }
        // Pages that are not what the file's end says.
        let mut damaged = whole.clone();
        damaged[4..2000].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let e = error(&damaged);
        assert!(e.contains("cut.parquet: row 1: "), "{e}");
    }
}
