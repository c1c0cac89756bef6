//! A folder's model and tokenizer into one file.

use crate::arch::{Arch, Described, describe};
use crate::error::{Error, Result};
use crate::file::{Info, Value, fill, write_header};
use crate::kind::{Kind, Outtype};
use crate::layout::{Tensor, tensors};
use crate::vocabulary::vocabulary;
use duel_data::Tokenizer;
use duel_disk::Draft;
use duel_model::{Folder, Model, Reader, Source};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Numbers that are read at a time, about.
const AT_A_TIME: usize = 1 << 18;

/// Version of ggml's blocks, `general.quantization_version`.
const QUANTISATION: u32 = 2;

/// What was written.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Tensors.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// What llama.cpp does otherwise, a line each.
    pub notes: Vec<String>,
}

/// Writes the model of `folder`, an adapter merged, with its tokenizer as the GGUF file `to`, whose matrices are of
/// `outtype`. Tensors are read, turned and written some rows at a time; the file is whole before it has its name.
///
/// # Errors
/// llama.cpp has no such model or tokenizer, or would compute something else; a weight is not finite, or beyond what
/// the type holds; the file is there already, or cannot be written.
pub fn export(folder: &Folder, tokenizer: &Tokenizer, to: &Path, outtype: Outtype) -> Result<Exported> {
    let (c, path) = (folder.config(), folder.path());
    if to.exists() {
        return Err(Error::file(to, "is there already; remove it, or name another file"));
    }
    let refused = |what: String| Error::file(path, format!("has no GGUF file: {what}"));
    let arch = Arch::of(c.family).map_err(refused)?;
    let Described { keys, divisors, mut notes } = describe(c, &arch).map_err(refused)?;
    let of_tokenizer = vocabulary(tokenizer, c.vocab);
    let (words, more) = of_tokenizer.map_err(|what| refused(format!("of its tokenizer, {what}")))?;
    notes.extend(more);
    let mut entries = general(path, &arch, outtype);
    entries.extend(keys);
    entries.extend(words);

    let manifest = Model::manifest(c);
    let tensors = tensors(&manifest, c, &arch, outtype);
    let of_divisors = divisors.iter().map(|(name, all)| {
        let len = Kind::F32.bytes(all.len()) as u64;
        Info { name, dims: vec![all.len() as u64], kind: Kind::F32, len }
    });
    let of_model = tensors.iter().map(|tensor| {
        let len = tensor.kind.bytes(tensor.len()) as u64;
        Info { name: &tensor.name, dims: tensor.dims(), kind: tensor.kind, len }
    });
    let infos: Vec<Info> = of_divisors.chain(of_model).collect();
    let reader = Reader::new(folder, c);
    let mut out = Output::new(to)?;
    out.write(|file| write_header(file, &entries, &infos))?;
    for (_, all) in &divisors {
        let bytes: Vec<u8> = all.iter().flat_map(|x| x.to_le_bytes()).collect();
        out.write(|file| file.write_all(&bytes).and_then(|()| fill(file, bytes.len() as u64)))?;
    }
    for tensor in &tensors {
        copy(&reader.source(tensor.shape)?, tensor, &mut out)?;
    }
    Ok(Exported { tensors: infos.len(), bytes: out.finish()?, notes })
}

/// What is said of every file.
fn general(path: &Path, arch: &Arch, outtype: Outtype) -> Vec<(String, Value)> {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = |key: &str, text: &str| (format!("general.{key}"), Value::Text(text.into()));
    vec![
        text("architecture", arch.name),
        text("type", "model"),
        text("name", &name),
        ("general.file_type".into(), Value::U32(outtype.file_type())),
        ("general.quantization_version".into(), Value::U32(QUANTISATION)),
    ]
}

/// Writes one tensor.
fn copy(source: &Source<'_>, tensor: &Tensor<'_>, out: &mut Output) -> Result<()> {
    let cols = tensor.shape.cols;
    let portion = (AT_A_TIME / cols.max(1)).max(1);
    let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
    for rows in tensor.rows.chunks(portion) {
        numbers.resize(rows.len() * cols, 0f32);
        // Rows that follow each other are read together.
        let mut left = &mut numbers[..];
        for run in rows.chunk_by(|row, next| row + 1 == *next) {
            let (now, rest) = left.split_at_mut(run.len() * cols);
            source.read(run[0]..run[0] + run.len(), now)?;
            left = rest;
        }
        if tensor.plus != 0.0 {
            numbers.iter_mut().for_each(|x| *x += tensor.plus);
        }
        bytes.clear();
        tensor.kind.write(&numbers, &mut bytes).map_err(|x| out.beyond(tensor, x))?;
        out.write(|file| file.write_all(&bytes))?;
    }
    source.give_back();
    out.write(|file| fill(file, tensor.kind.bytes(tensor.len()) as u64))
}

/// The file that is made.
struct Output {
    path: PathBuf,
    file: Draft,
}

impl Output {
    fn new(path: &Path) -> Result<Self> {
        let file = Draft::new(path).map_err(|e| {
            Error::file(path, format!("cannot be made: {e}; name a file in a folder that is there"))
        })?;
        Ok(Output { path: path.to_path_buf(), file })
    }

    fn write(&mut self, write: impl FnOnce(&mut Draft) -> std::io::Result<()>) -> Result<()> {
        write(&mut self.file).map_err(|e| failed(&self.path, &e))
    }

    /// Gives the file its name; its bytes.
    fn finish(self) -> Result<u64> {
        self.file.keep().map_err(|e| failed(&self.path, &e))
    }

    fn beyond(&self, tensor: &Tensor<'_>, x: f32) -> Error {
        let name = &tensor.shape.pieces[0].name;
        let what = format!("{name} holds {x}, which half precision does not; take --outtype bf16 or f32");
        Error::file(&self.path, what)
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::file(path, format!("cannot be written ({e}); is the disk full?"))
}
