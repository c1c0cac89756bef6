//! What ranks tell each other, as bytes: numbers little-endian, lists with their length before them.

use crate::Error;
use crate::engine::Tokens;
use duel_backend::{Dtype, Float};
use duel_judge::{Opinion, Tally, Verdict};
use duel_loss::{ResponseStats, Row};
use duel_rollout::Sample;

/// What ranks can tell each other, to the bit.
pub trait Wire: Sized {
    /// Appends it.
    fn put(&self, to: &mut Vec<u8>);
    /// Takes it from the beginning of `from`; `None`: it is something else.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(<$t>::from_le_bytes(*bytes))
            }
        }
    )*};
}
numbers!(u8, u32, u64, f64);

impl Wire for () {
    fn put(&self, _to: &mut Vec<u8>) {}
    fn take(_from: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl Wire for bool {
    fn put(&self, to: &mut Vec<u8>) {
        u8::from(*self).put(to);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(u8::take(from)? != 0)
    }
}

impl Wire for usize {
    fn put(&self, to: &mut Vec<u8>) {
        (*self as u64).put(to);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        usize::try_from(u64::take(from)?).ok()
    }
}

impl Wire for String {
    fn put(&self, to: &mut Vec<u8>) {
        self.len().put(to);
        to.extend(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let n = usize::take(from)?;
        let (bytes, rest) = from.split_at_checked(n)?;
        *from = rest;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.len().put(to);
        self.iter().for_each(|x| x.put(to));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let n = usize::take(from)?;
        (0..n).map(|_| T::take(from)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        self.iter().for_each(|x| x.put(to));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_ok().put(to);
        match self {
            Ok(x) => x.put(to),
            Err(e) => e.put(to),
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? { Ok(T::take(from)?) } else { Err(E::take(from)?) })
    }
}

impl<T: Wire, U: Wire> Wire for (T, U) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((T::take(from)?, U::take(from)?))
    }
}

/// Structs, field by field.
macro_rules! fields {
    ($($t:ty {$($field:ident),*})*) => {$(
        impl Wire for $t {
            fn put(&self, to: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.put(to);)*
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                $(let $field = Wire::take(from)?;)*
                Some(Self { $($field),* })
            }
        }
    )*};
}
fields! {
    ResponseStats { tokens, logp, entropy, mean_logit, hits, certainty, value }
    Row { logp, entropy, mean_logit, hit, collision }
    Tokens { rows, reference, kl, values }
    Sample { tokens, logps, text, truncated }
    Verdict { scores, compared }
    Tally {
        requests, cached, tokens, shown, first_won_twice, both_orders, disagreed, cut, encoded_again
    }
}

impl Wire for Opinion {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Opinion::Said(x) => Ok::<f64, String>(*x).put(to),
            Opinion::Unjudged(why) => Err::<f64, String>(why.clone()).put(to),
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(match Result::<f64, String>::take(from)? {
            Ok(x) => Opinion::Said(x),
            Err(why) => Opinion::Unjudged(why),
        })
    }
}

impl Wire for Error {
    fn put(&self, to: &mut Vec<u8>) {
        (self.to_string(), self.is_of_judge()).put(to);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let (message, of_judge) = <(String, bool)>::take(from)?;
        Some(Error::told(message, of_judge))
    }
}

/// Appends numbers of a device.
pub fn put_numbers<T: Float>(numbers: &[T], to: &mut Vec<u8>) {
    match T::DTYPE {
        Dtype::F64 => to.extend(numbers.iter().flat_map(|x| x.to_f64().to_le_bytes())),
        // The upper half of a single.
        Dtype::Bf16 => {
            to.extend(numbers.iter().flat_map(|x| ((x.to_f32().to_bits() >> 16) as u16).to_le_bytes()));
        }
        _ => to.extend(numbers.iter().flat_map(|x| x.to_f32().to_le_bytes())),
    }
}

/// The numbers that [`put_numbers`] wrote, one after another.
pub fn each_number<T: Float>(bytes: &[u8], numbers: &mut [T], mut each: impl FnMut(&mut T, T)) {
    match T::DTYPE {
        Dtype::F64 => {
            let all = bytes.as_chunks().0.iter().map(|x| T::from_f64(f64::from_le_bytes(*x)));
            numbers.iter_mut().zip(all).for_each(|(to, x)| each(to, x));
        }
        Dtype::Bf16 => {
            let wide = |x: &[u8; 2]| T::from_f32(f32::from_bits(u32::from(u16::from_le_bytes(*x)) << 16));
            let all = bytes.as_chunks().0.iter().map(wide);
            numbers.iter_mut().zip(all).for_each(|(to, x)| each(to, x));
        }
        _ => {
            let all = bytes.as_chunks().0.iter().map(|x| T::from_f32(f32::from_le_bytes(*x)));
            numbers.iter_mut().zip(all).for_each(|(to, x)| each(to, x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_to_the_bit() {
        let stats = ResponseStats {
            tokens: 3,
            logp: f64::NEG_INFINITY,
            value: 0.1 + 0.2,
            ..ResponseStats::default()
        };
        let said = (vec![Some(stats), None], (Ok::<String, Error>("ä".into()), true));
        let mut bytes = Vec::new();
        said.put(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(Wire::take(&mut rest), Some(said.clone()));
        assert!(rest.is_empty());
        type Said = (Vec<Option<ResponseStats>>, (Result<String, Error>, bool));
        for cut in 0..bytes.len() {
            assert_eq!(Said::take(&mut &bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn numbers_arrive_to_the_bit() {
        fn check<T: Float>(numbers: &[f64]) {
            let numbers: Vec<T> = numbers.iter().map(|x| T::from_f64(*x)).collect();
            let (mut bytes, mut read) = (Vec::new(), vec![T::default(); numbers.len()]);
            put_numbers(&numbers, &mut bytes);
            assert_eq!(bytes.len(), size_of_val(&numbers[..]));
            each_number(&bytes, &mut read, |to, x| *to = x);
            assert_eq!(read, numbers);
        }
        let numbers = [0.1, -1e-40, f64::INFINITY, 3e38, 1.0];
        check::<f64>(&numbers);
        check::<f32>(&numbers);
        check::<<duel_cpu::Cpu<f32> as duel_backend::Storage>::Narrow>(&numbers);
    }
}
