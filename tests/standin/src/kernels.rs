//! What the stand-in knows about the parameters of a kernel: their sizes, from the emulation, and where addresses are
//! in them, from the text of `params.h`.

use duel_kernel_tests::Emulation;
use duel_kernels::HEADERS;
use duel_kernels::sys::TensorMapSpec;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::LazyLock;

/// A parameter of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) bytes: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    TensorMap,
    /// A struct, with the offset and the name of each address in it.
    Struct(Vec<(usize, String)>),
}

/// Size and alignment of a type of C.
fn scalar(name: &str) -> Option<usize> {
    match name {
        "unsigned" | "int" | "float" => Some(4),
        "unsigned long long" | "double" => Some(8),
        _ => None,
    }
}

/// Size of a struct of `params.h`, and the offset and name of every address in it.
struct Layout {
    bytes: usize,
    addresses: Vec<(usize, String)>,
}

/// Reads the fields of a struct; `None` when they are not of the few kinds that `params.h` has.
fn layout(fields: &str) -> Option<Layout> {
    let (mut at, mut align, mut addresses) = (0usize, 1, Vec::new());
    for declaration in fields.split(';').map(str::trim).filter(|d| !d.is_empty()) {
        // Several of one type may be declared at once, each perhaps an address or an array.
        let declaration = declaration.strip_prefix("const ").unwrap_or(declaration);
        let (first, more) = declaration.split_once(',').unwrap_or((declaration, ""));
        let begins = first.find('*').or_else(|| first.rfind(' '))?;
        let (kind, first) = first.split_at(begins);
        for name in std::iter::once(first).chain(more.split(',').filter(|name| !name.is_empty())) {
            let (name, count) = match name.split_once('[') {
                Some((name, count)) => (name, count.trim_end_matches(']').parse().ok()?),
                None => (name, 1),
            };
            let address = name.trim().strip_prefix('*');
            let size = if address.is_some() { 8 } else { scalar(kind.trim())? };
            align = align.max(size);
            at = at.next_multiple_of(size);
            if let Some(name) = address {
                addresses.extend((0..count).map(|i| (at + i * size, name.trim().to_string())));
            }
            at += count * size;
        }
    }
    Some(Layout { bytes: at.next_multiple_of(align), addresses })
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let mut plain: String = parts.next().unwrap_or_default().into();
    for part in parts {
        plain += part.split_once("*/").expect("a comment ends").1;
    }
    plain
}

/// The structs of `params.h` by name.
static STRUCTS: LazyLock<HashMap<String, Layout>> = LazyLock::new(|| {
    let params = HEADERS.iter().find(|header| header.name == "params.h").expect("it is one of the headers");
    let text = without_comments(params.text);
    let mut all = HashMap::new();
    for definition in text.split("typedef struct ").skip(1) {
        let (head, rest) = definition.split_once('{').expect("a struct has fields");
        let (fields, _) = rest.split_once('}').expect("and they end");
        let name = head.split_whitespace().last().unwrap_or_default();
        if let Some(layout) = layout(fields) {
            all.insert(name.to_string(), layout);
        }
    }
    all
});

/// What a kernel takes, or `None` where there is no such kernel.
///
/// # Panics
/// When `params.h` and the emulation disagree about it.
pub(crate) fn parameters(kernel: &str) -> Option<Vec<Parameter>> {
    let known = |p: duel_kernel_tests::Parameter| {
        if p.kind == "TensorMap" {
            return Parameter { bytes: p.bytes, kind: Kind::TensorMap };
        }
        let layout = STRUCTS.get(&p.kind).unwrap_or_else(|| panic!("params.h has no struct {}", p.kind));
        assert_eq!(layout.bytes, p.bytes, "the size of {} in params.h and in the emulation", p.kind);
        Parameter { bytes: p.bytes, kind: Kind::Struct(layout.addresses.clone()) }
    };
    Some(Emulation::parameters(kernel)?.into_iter().map(known).collect())
}

/// 64 aligned bytes, as a tensor map wants to be.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

/// A copy of what a kernel was launched with.
pub(crate) struct Arguments {
    parameters: Vec<Parameter>,
    values: Vec<Vec<Line>>,
}

impl Arguments {
    /// From the bytes of each parameter.
    pub(crate) fn new(parameters: Vec<Parameter>, values: &[Vec<u8>]) -> Self {
        let lines = |bytes: &Vec<u8>| {
            let line = |part: &[u8]| {
                let mut line = Line([0; 64]);
                line.0[..part.len()].copy_from_slice(part);
                line
            };
            bytes.chunks(64).map(line).collect()
        };
        Arguments { parameters, values: values.iter().map(lines).collect() }
    }

    /// As the emulation takes them.
    pub(crate) fn pointers(&self) -> Vec<*const c_void> {
        self.values.iter().map(|lines| lines.as_ptr().cast()).collect()
    }

    fn bytes(&self, parameter: usize) -> Vec<u8> {
        self.values[parameter].iter().flat_map(|line| line.0).collect()
    }

    /// Every address in them, with how many bytes it certainly leads to and its name. An array may be empty.
    pub(crate) fn addresses(&self) -> Vec<(u64, usize, String)> {
        let mut all = Vec::new();
        for (i, parameter) in self.parameters.iter().enumerate() {
            let bytes = self.bytes(i);
            match &parameter.kind {
                Kind::TensorMap => {
                    let spec = map_spec(&bytes);
                    let last = (1..spec.rank as usize).map(|d| (spec.extents[d] - 1) * spec.strides[d - 1]);
                    let span = spec.extents[0] * u64::from(spec.element_bytes) + last.sum::<u64>();
                    all.push((spec.base, span as usize, format!("tensor map {i}")));
                }
                Kind::Struct(addresses) => {
                    for (at, name) in addresses {
                        let word = bytes[*at..at + 8].try_into().expect("eight bytes are eight bytes");
                        all.push((u64::from_le_bytes(word), 0, name.clone()));
                    }
                }
            }
        }
        all
    }
}

/// The emulation keeps the specification at the beginning of a tensor map.
fn map_spec(bytes: &[u8]) -> TensorMapSpec {
    assert!(bytes.len() >= size_of::<TensorMapSpec>());
    // SAFETY: there are enough bytes, and any bytes are a specification: it has only numbers.
    unsafe { bytes.as_ptr().cast::<TensorMapSpec>().read_unaligned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_kernels::{KERNELS, sys};
    use std::mem::offset_of;

    #[test]
    fn the_parameters_of_every_kernel_are_known() {
        for kernel in KERNELS {
            let parameters = parameters(kernel.name).unwrap_or_else(|| panic!("no kernel {}", kernel.name));
            assert!(!parameters.is_empty(), "{} takes nothing", kernel.name);
        }
        assert!(parameters("nothing").is_none());
    }

    #[test]
    fn addresses_are_where_the_compiler_puts_them() {
        let layout = &STRUCTS["AttentionBwParams"];
        let offset = |name: &str| layout.addresses.iter().find(|(_, n)| n == name).map(|(at, _)| *at);
        assert_eq!(layout.bytes, size_of::<sys::AttentionBwParams>());
        assert_eq!(offset("qkv"), Some(offset_of!(sys::AttentionBwParams, qkv)));
        assert_eq!(offset("key_tiles"), Some(offset_of!(sys::AttentionBwParams, key_tiles)));
        assert_eq!(offset("rows"), None);
        let spec = &STRUCTS["TensorMapSpec"];
        assert_eq!((spec.bytes, spec.addresses.len()), (size_of::<TensorMapSpec>(), 0));
    }
}
