use crate::config::Config;
use crate::error::{Error, Result};
use crate::weights::{Frozen, Model, Shape, Stored};
use duel_backend::{Acc, Backend, Element, Float, Real};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use serde_json::Value;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Memory-mapped safetensors files of a folder.
struct Shards {
    files: Vec<(PathBuf, Mmap)>,
    /// Tensor name to file, where an index says so; otherwise the only file.
    index: Option<(PathBuf, HashMap<String, usize>)>,
}

impl Shards {
    fn open(dir: &Path) -> Result<Self> {
        let index = dir.join("model.safetensors.index.json");
        if !index.exists() {
            let path = dir.join("model.safetensors");
            return Ok(Shards { files: vec![map(path)?], index: None });
        }
        let text = std::fs::read_to_string(&index)
            .map_err(|e| Error::file(&index, format!("cannot be read: {e}")))?;
        let json: Value =
            serde_json::from_str(&text).map_err(|e| Error::file(&index, format!("is not JSON: {e}")))?;
        let weight_map = json["weight_map"]
            .as_object()
            .ok_or_else(|| Error::file(&index, "has no `weight_map` object"))?;
        let mut numbers = BTreeMap::new();
        let mut tensors = HashMap::new();
        for (tensor, file) in weight_map {
            let file = file.as_str().filter(|f| !f.contains(['/', '\\'])).ok_or_else(|| {
                Error::file(&index, format!("`{tensor}` is not mapped to a file of this folder"))
            })?;
            let next = numbers.len();
            tensors.insert(tensor.clone(), *numbers.entry(file.to_string()).or_insert(next));
        }
        let mut names: Vec<_> = numbers.into_iter().collect();
        names.sort_by_key(|(_, n)| *n);
        let files = names.into_iter().map(|(name, _)| map(dir.join(name))).collect::<Result<_>>()?;
        Ok(Shards { files, index: Some((index, tensors)) })
    }
}

fn map(path: PathBuf) -> Result<(PathBuf, Mmap)> {
    let file = File::open(&path).map_err(|e| Error::file(&path, format!("cannot be opened: {e}")))?;
    // SAFETY: the mapping is only read, while it is held. Another process that truncates the file meanwhile can
    // stop this one with a signal; that is the price of every memory-mapped loader and does no harm to memory.
    let map =
        unsafe { Mmap::map(&file) }.map_err(|e| Error::file(&path, format!("cannot be mapped: {e}")))?;
    Ok((path, map))
}

fn dims(shape: &Shape, piece_rows: usize) -> Vec<usize> {
    match (shape.vector, shape.transposed) {
        (true, _) => vec![piece_rows * shape.cols],
        (false, false) => vec![piece_rows, shape.cols],
        (false, true) => vec![shape.cols, piece_rows],
    }
}

fn element(bytes: &[u8], dtype: Dtype) -> f64 {
    match dtype {
        Dtype::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
        Dtype::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
        Dtype::F32 => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        _ => f64::from_le_bytes(bytes.try_into().unwrap_or_default()),
    }
}

/// Copies a tensor into rows `first..first + rows` of a parameter; the index of the first non-finite element is
/// returned as the error.
fn read<R: Float>(
    host: &mut [R],
    view: &TensorView,
    shape: &Shape,
    first: usize,
    rows: usize,
) -> std::result::Result<(), usize> {
    let dtype = view.dtype();
    let size = view.data().len() / (rows * shape.cols).max(1);
    for (i, bytes) in view.data().chunks_exact(size).enumerate() {
        let x = element(bytes, dtype);
        if !x.is_finite() {
            return Err(i);
        }
        let at = if shape.transposed {
            (first + i % rows) * shape.cols + i / rows
        } else {
            first * shape.cols + i
        };
        host[at] = R::from_f64(x);
    }
    Ok(())
}

/// Reads the weights of a Hugging Face folder onto the device.
///
/// # Errors
/// A file that is missing, truncated or lies about its content; a tensor that is missing, or of another shape or
/// type than `config.json` asks for; a weight that is not a number. Each names the file and the tensor.
pub fn load<B: Backend>(b: &B, dir: &Path, config: &Config) -> Result<Model<Real<B>>> {
    read_all(dir, config, |_, host: &[B::Real]| upload(b, host))
}

/// The weights of a Hugging Face folder in the precision of sums, as a list in the order of [`Model::iter`]: masters for
/// an optimizer.
///
/// # Errors
/// As [`load`].
pub fn load_masters<B: Backend>(b: &B, dir: &Path, config: &Config) -> Result<Vec<Acc<B>>> {
    let mut all = Vec::new();
    read_all(dir, config, |_, host: &[B::Acc]| {
        all.push(upload(b, host)?);
        Ok(())
    })?;
    Ok(all)
}

/// As [`load`], for a model that is only read.
///
/// # Errors
/// As [`load`].
pub fn load_frozen<B: Backend>(b: &B, dir: &Path, config: &Config) -> Result<Frozen<B>> {
    let positions = Model::manifest(config).positions;
    let parameters = read_all(dir, config, |shape, host: &[B::Real]| {
        let narrow = |x: &B::Real| bf16::from_f32(x.to_f32());
        let exact = |x: &B::Real| narrow(x).to_f64() == x.to_f64();
        // The table of positions is added to rows, and vectors are too short to matter.
        let matrix = !shape.vector && positions.as_ref() != Some(shape);
        if b.reads_bf16() && matrix && host.iter().all(exact) {
            let narrow: Vec<bf16> = host.iter().map(narrow).collect();
            return Ok(Stored::Bf16(upload(b, &narrow)?));
        }
        Ok(Stored::Real(upload(b, host)?))
    })?;
    Ok(Frozen { parameters })
}

fn upload<B: Backend, T: Element>(b: &B, host: &[T]) -> Result<B::Buf<T>> {
    let mut buf = b.alloc(host.len())?;
    b.upload(&mut buf, 0, host);
    Ok(buf)
}

/// Reads every parameter and hands it to `keep`.
fn read_all<R: Float, T>(
    dir: &Path,
    config: &Config,
    mut keep: impl FnMut(&Shape, &[R]) -> Result<T>,
) -> Result<Model<T>> {
    let shards = Shards::open(dir)?;
    let mut parsed = Vec::new();
    for (path, bytes) in &shards.files {
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| {
            Error::file(path, format!("is not a whole safetensors file ({e}); download or copy it again"))
        })?;
        parsed.push((path, tensors));
    }
    let find = |name: &str| -> Result<(&PathBuf, TensorView<'_>)> {
        let (path, tensors) = match &shards.index {
            None => &parsed[0],
            Some((index, map)) => match map.get(name) {
                Some(&n) => &parsed[n],
                None => return Err(Error::file(index, format!("does not list tensor `{name}`"))),
            },
        };
        match tensors.tensor(name) {
            Ok(view) => Ok((path, view)),
            // Base checkpoints of GPT-2 are saved without the outer name.
            Err(_) => match name.strip_prefix("transformer.").map(|n| tensors.tensor(n)) {
                Some(Ok(view)) => Ok((path, view)),
                _ => Err(Error::file(path, format!("tensor `{name}` is missing; config.json asks for it"))),
            },
        }
    };
    Model::manifest(config).map(|shape| {
        // The pieces first: the parameter's size is only config.json's word until the file has shown as much data.
        let mut views = Vec::new();
        for piece in &shape.pieces {
            let (path, view) = find(&piece.name)?;
            let fail = |what: String| Error::file(path, format!("tensor `{}` {what}", piece.name));
            let want = dims(shape, piece.rows);
            if view.shape() != want {
                return Err(fail(format!("has shape {:?}, config.json asks for {want:?}", view.shape())));
            }
            if !matches!(view.dtype(), Dtype::F64 | Dtype::F32 | Dtype::BF16 | Dtype::F16) {
                return Err(fail(format!("is {:?}; weights must be F32, BF16 or F16", view.dtype())));
            }
            views.push((path, view));
        }
        let mut host = vec![R::default(); shape.len()];
        let mut first = 0;
        for (piece, (path, view)) in shape.pieces.iter().zip(&views) {
            read(&mut host, view, shape, first, piece.rows).map_err(|i| {
                let what =
                    format!("tensor `{}` holds a value that is not finite, at element {i}", piece.name);
                Error::file(path, what)
            })?;
            first += piece.rows;
        }
        keep(shape, &host)
    })
}

/// What went wrong while the bytes of a file's tensors were made: safetensors asks for bytes alone.
type Failure = Cell<Option<duel_backend::Error>>;

/// Writes a file of tensors, of a device that may fail while it is read.
fn write_tensors<'a, V: View + 'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, V)>,
    metadata: Option<HashMap<String, String>>,
    failure: &Failure,
) -> Result<()> {
    safetensors::serialize_to_file(tensors, metadata, path)
        .map_err(|e| Error::file(path, format!("cannot be written ({e}); is the disk full?")))?;
    failure.take().map_or(Ok(()), |e| Err(e.into()))
}

/// One tensor of a file to be written; its bytes are made when its turn comes, so that a model is never held twice.
struct Outgoing<'a, B: Backend> {
    b: &'a B,
    failure: &'a Failure,
    buf: &'a Real<B>,
    shape: &'a Shape,
    first: usize,
    rows: usize,
    dims: Vec<usize>,
}

impl<B: Backend> View for &Outgoing<'_, B> {
    fn dtype(&self) -> Dtype {
        match B::Real::DTYPE {
            duel_backend::Dtype::Bf16 => Dtype::BF16,
            duel_backend::Dtype::F64 => Dtype::F64,
            _ => Dtype::F32,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.dims
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let cols = self.shape.cols;
        let range = self.first * cols..(self.first + self.rows) * cols;
        let bytes = bytes_of(self.b, self.failure, self.buf, range);
        if !self.shape.transposed {
            return bytes;
        }
        let size = size_of::<B::Real>();
        let at = |r: usize, c: usize| &bytes[(r * cols + c) * size..][..size];
        let mut turned = Vec::with_capacity(bytes.len());
        for (c, r) in (0..cols).flat_map(|c| (0..self.rows).map(move |r| (c, r))) {
            turned.extend_from_slice(at(r, c));
        }
        turned.into()
    }
    fn data_len(&self) -> usize {
        self.rows * self.shape.cols * size_of::<B::Real>()
    }
}

/// Files of a model folder besides config and weights: carried along so that what is saved can be loaded anywhere.
pub const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
];

/// Writes config and weights into `dir` (which exists), in the precision they have, with the names and layout that
/// transformers loads. Files reach the disk before this returns.
pub fn save<B: Backend>(b: &B, dir: &Path, config: &Config, model: &Model<Real<B>>) -> Result<()> {
    let mut json = config.json.clone();
    let key = if json.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
    let dtype = match B::Real::DTYPE {
        duel_backend::Dtype::Bf16 => "bfloat16",
        duel_backend::Dtype::F64 => "float64",
        _ => "float32",
    };
    json.insert(key.into(), Value::String(dtype.into()));
    let path = dir.join("config.json");
    let text = serde_json::to_string_pretty(&json).map_err(|e| Error::file(&path, e))?;
    write_synced(&path, text.as_bytes())?;

    let manifest = Model::manifest(config);
    let failure = &Failure::default();
    let mut tensors = Vec::new();
    for (shape, buf) in manifest.iter().into_iter().zip(model.iter()) {
        let mut first = 0;
        for piece in &shape.pieces {
            let (rows, dims) = (piece.rows, dims(shape, piece.rows));
            tensors.push((piece.name.as_str(), Outgoing { b, failure, buf, shape, first, rows, dims }));
            first += piece.rows;
        }
    }
    let path = dir.join("model.safetensors");
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors(&path, tensors.iter().map(|(name, t)| (*name, t)), Some(metadata), failure)?;
    // The safetensors crate writes for the owner alone; a model is for whoever may read its config.
    std::fs::metadata(dir.join("config.json"))
        .and_then(|config| std::fs::set_permissions(&path, config.permissions()))
        .map_err(|e| Error::file(&path, format!("cannot be made readable: {e}")))?;
    sync(&path)
}

/// Copies [`COMPANIONS`] that `from` has into `to`.
pub fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    for name in COMPANIONS {
        let source = from.join(name);
        if source.exists() {
            let target = to.join(name);
            let bytes =
                std::fs::read(&source).map_err(|e| Error::file(&source, format!("cannot be read: {e}")))?;
            write_synced(&target, &bytes)?;
        }
    }
    Ok(())
}

/// Writes a whole file and waits until the disk has it.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::file(path, format!("cannot be written: {e}")))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(|e| Error::file(path, format!("did not reach the disk: {e}")))
}

/// Elements that are copied from a device at a time.
const STAGED: usize = 1 << 20;

/// Elements `range` of a buffer as files hold them: borrowed where they lie in the host's memory anyway, so that
/// saving a model needs no second copy of its largest tensor. After a failure they are as many zeros.
fn bytes_of<'a, B: Backend, T: Float>(
    b: &B,
    failure: &Failure,
    buf: &'a B::Buf<T>,
    range: Range<usize>,
) -> Cow<'a, [u8]> {
    let size = size_of::<T>();
    if let Some(bytes) = b.host_bytes(buf) {
        return Cow::Borrowed(&bytes[range.start * size..range.end * size]);
    }
    let mut bytes = Vec::with_capacity(range.len() * size);
    let mut staging = vec![T::default(); STAGED.min(range.len())];
    for from in range.clone().step_by(STAGED) {
        let part = &mut staging[..STAGED.min(range.end - from)];
        if let Err(e) = b.download(part, buf, from) {
            failure.set(Some(e));
            return vec![0; range.len() * size].into();
        }
        for x in part {
            match T::DTYPE {
                duel_backend::Dtype::Bf16 => bytes.extend(bf16::from_f32(x.to_f32()).to_le_bytes()),
                duel_backend::Dtype::F64 => bytes.extend(x.to_f64().to_le_bytes()),
                _ => bytes.extend(x.to_f32().to_le_bytes()),
            }
        }
    }
    bytes.into()
}

/// Name of the first tensor with a value that is not a finite number, if there is one. Fails when the device did.
pub fn first_not_finite<B: Backend>(
    b: &B,
    manifest: &Model<Shape>,
    model: &Model<Real<B>>,
) -> Result<Option<String>> {
    // Not an array: it is too large for a stack.
    let mut staging = Vec::new();
    staging.resize(STAGED, B::Real::default());
    for (shape, buf) in manifest.iter().into_iter().zip(model.iter()) {
        for from in (0..shape.len()).step_by(STAGED) {
            let part = &mut staging[..STAGED.min(shape.len() - from)];
            b.download(part, buf, from)?;
            if part.iter().any(|x| !x.to_f64().is_finite()) {
                return Ok(Some(shape.pieces[0].name.clone()));
            }
        }
    }
    Ok(None)
}

/// A buffer as a tensor of one axis, in its own precision.
struct Flat<'a, B: Backend> {
    b: &'a B,
    failure: &'a Failure,
    buf: &'a Acc<B>,
    len: [usize; 1],
}

impl<B: Backend> View for &Flat<'_, B> {
    fn dtype(&self) -> Dtype {
        if B::Acc::DTYPE == duel_backend::Dtype::F64 { Dtype::F64 } else { Dtype::F32 }
    }
    fn shape(&self) -> &[usize] {
        &self.len
    }
    fn data(&self) -> Cow<'_, [u8]> {
        bytes_of(self.b, self.failure, self.buf, 0..self.len[0])
    }
    fn data_len(&self) -> usize {
        self.len[0] * size_of::<B::Acc>()
    }
}

/// Writes buffers (an optimizer's state) under the given names; they reach the disk before this returns.
pub fn save_flat<B: Backend>(b: &B, path: &Path, buffers: &[(String, &Acc<B>)]) -> Result<()> {
    let failure = &Failure::default();
    let flat = |buf| Flat { b, failure, buf, len: [b.len(buf)] };
    let flats: Vec<_> = buffers.iter().map(|(name, buf)| (name.as_str(), flat(*buf))).collect();
    write_tensors(path, flats.iter().map(|(name, f)| (*name, f)), None, failure)?;
    sync(path)
}

/// Reads what [`save_flat`] wrote, bit for bit, into buffers of the same lengths.
///
/// # Errors
/// The file is damaged, or a tensor is missing or of another length or precision.
pub fn load_flat<B: Backend>(b: &B, path: &Path, buffers: Vec<(String, &mut Acc<B>)>) -> Result<()> {
    let (_, bytes) = map(path.to_path_buf())?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::file(path, format!("is not a whole safetensors file ({e})")))?;
    for (name, buf) in buffers {
        let fail = |what| Error::file(path, format!("tensor `{name}` {what}"));
        let view = tensors.tensor(&name).map_err(|_| fail("is missing"))?;
        let want = if B::Acc::DTYPE == duel_backend::Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
        if view.dtype() != want || view.shape() != [b.len(buf)] {
            return Err(fail("has another length or precision than this run needs"));
        }
        let size = size_of::<B::Acc>();
        let host: Vec<B::Acc> =
            view.data().chunks_exact(size).map(|x| B::Acc::from_f64(element(x, want))).collect();
        b.upload(buf, 0, &host);
    }
    Ok(())
}
