//! The format: a header of keys and tensors, then the tensors, each at a multiple of [`ALIGNMENT`]. All numbers are
//! little-endian. (ggml, docs/gguf.md, version 3.)

use crate::kind::Kind;
use std::io::{Result, Write};

/// Where tensors may begin, in bytes from the end of the header; that is what readers take where no key says another.
pub(crate) const ALIGNMENT: u64 = 32;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;

/// What a key says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Texts(Vec<String>),
}

/// A key and what it says.
pub(crate) type Entry = (String, Value);

/// A tensor as the header names it.
pub(crate) struct Info<'a> {
    pub name: &'a str,
    /// Columns first.
    pub dims: Vec<u64>,
    pub kind: Kind,
    /// Bytes.
    pub len: u64,
}

/// Numbers of the types of values.
mod types {
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const ARRAY: u32 = 9;
}

/// Writes the header, and what fills it up to where the first tensor begins.
pub(crate) fn write_header(out: &mut impl Write, entries: &[Entry], tensors: &[Info]) -> Result<()> {
    let mut header = Vec::new();
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        text(&mut header, key);
        put(&mut header, value);
    }
    let mut offset = 0u64;
    for Info { name, dims, kind, len } in tensors {
        text(&mut header, name);
        header.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| header.extend(dim.to_le_bytes()));
        header.extend(kind.number().to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset += len.next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&header)
}

/// Writes what fills a tensor of `len` bytes up to where the next one begins.
pub(crate) fn fill(out: &mut impl Write, len: u64) -> Result<()> {
    let rest = len.next_multiple_of(ALIGNMENT) - len;
    out.write_all(&[0; ALIGNMENT as usize][..rest as usize])
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

/// A value behind the number of its type.
fn put(to: &mut Vec<u8>, value: &Value) {
    let number = |to: &mut Vec<u8>, n: u32| to.extend(n.to_le_bytes());
    let array = |to: &mut Vec<u8>, of: u32, len: usize| {
        number(to, types::ARRAY);
        number(to, of);
        to.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::U32(x) => {
            number(to, types::U32);
            to.extend(x.to_le_bytes());
        }
        Value::F32(x) => {
            number(to, types::F32);
            to.extend(x.to_le_bytes());
        }
        Value::Bool(x) => {
            number(to, types::BOOL);
            to.push((*x).into());
        }
        Value::Text(x) => {
            number(to, types::TEXT);
            text(to, x);
        }
        Value::I32s(all) => {
            array(to, types::I32, all.len());
            all.iter().for_each(|x| to.extend(x.to_le_bytes()));
        }
        Value::F32s(all) => {
            array(to, types::F32, all.len());
            all.iter().for_each(|x| to.extend(x.to_le_bytes()));
        }
        Value::Texts(all) => {
            array(to, types::TEXT, all.len());
            all.iter().for_each(|x| text(to, x));
        }
    }
}
