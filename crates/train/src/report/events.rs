//! TensorBoard's event files: records behind their lengths with checksums (TensorFlow's `record_writer`), each a
//! protocol buffer `Event` of `event.proto`, of which the fields that scalars need are written and read.

use std::time::{SystemTime, UNIX_EPOCH};

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Seconds since 1970.
    pub wall_time: f64,
    /// Step of the run.
    pub step: i64,
    /// What it says.
    pub what: What,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The version of the file, which is first in it.
    Version(String),
    /// Numbers, each by its tag.
    Scalars(Vec<(String, f32)>),
}

/// The version that every reader knows.
const VERSION: &str = "brain.Event:2";

// Fields and types of the buffers: number << 3 | type, where 0 is a varint, 1 eight bytes, 2 a length and so many
// bytes, 5 four bytes.
const WALL_TIME: u8 = 1 << 3 | 1;
const STEP: u8 = 2 << 3;
const FILE_VERSION: u8 = 3 << 3 | 2;
const SUMMARY: u8 = 5 << 3 | 2;
const VALUE: u8 = 1 << 3 | 2;
const TAG: u8 = 1 << 3 | 2;
const SIMPLE_VALUE: u8 = 2 << 3 | 5;

impl Event {
    /// The first of a file, now.
    pub fn version() -> Self {
        Event { wall_time: now(), step: 0, what: What::Version(VERSION.into()) }
    }

    /// Numbers of a step, now.
    pub fn scalars(step: u64, scalars: Vec<(String, f32)>) -> Self {
        Event { wall_time: now(), step: step as i64, what: What::Scalars(scalars) }
    }

    /// It as a record of a file.
    pub fn record(&self) -> Vec<u8> {
        let data = self.buffer();
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend_from_slice(&data);
        record.extend(masked(&data).to_le_bytes());
        record
    }

    fn buffer(&self) -> Vec<u8> {
        let mut all = vec![WALL_TIME];
        all.extend(self.wall_time.to_le_bytes());
        all.push(STEP);
        varint(&mut all, self.step as u64);
        match &self.what {
            What::Version(version) => field(&mut all, FILE_VERSION, version.as_bytes()),
            What::Scalars(scalars) => {
                let mut summary = Vec::new();
                for (tag, number) in scalars {
                    let mut value = Vec::new();
                    field(&mut value, TAG, tag.as_bytes());
                    value.push(SIMPLE_VALUE);
                    value.extend(number.to_le_bytes());
                    field(&mut summary, VALUE, &value);
                }
                field(&mut all, SUMMARY, &summary);
            }
        }
        all
    }

    /// That of a buffer; `None`: it is none, or of another kind.
    fn of(mut buffer: &[u8]) -> Option<Self> {
        let mut event = Event { wall_time: 0.0, step: 0, what: What::Scalars(Vec::new()) };
        while let Some((&key, rest)) = buffer.split_first() {
            buffer = rest;
            match key {
                WALL_TIME => event.wall_time = f64::from_le_bytes(take(&mut buffer, 8)?.try_into().ok()?),
                STEP => event.step = read_varint(&mut buffer)? as i64,
                FILE_VERSION => event.what = What::Version(text(read_field(&mut buffer)?)?),
                SUMMARY => event.what = What::Scalars(scalars(read_field(&mut buffer)?)?),
                _ => return None,
            }
        }
        Some(event)
    }
}

/// Every event of a file, up to where one is torn, damaged or of another kind.
pub fn read(mut file: &[u8]) -> Vec<Event> {
    let mut record = || {
        let length = take(&mut file, 8)?;
        let right = masked(length).to_le_bytes() == take(&mut file, 4)?;
        let data = take(&mut file, usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?)?;
        let right = right && masked(data).to_le_bytes() == take(&mut file, 4)?;
        Event::of(data).filter(|_| right)
    };
    std::iter::from_fn(&mut record).collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn field(to: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    to.push(key);
    varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn take<'b>(from: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(from, 1)?[0];
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn read_field<'b>(from: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(read_varint(from)?).ok()?;
    take(from, length)
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn scalars(mut summary: &[u8]) -> Option<Vec<(String, f32)>> {
    let mut all = Vec::new();
    while let Some((&VALUE, rest)) = summary.split_first() {
        summary = rest;
        let mut value = read_field(&mut summary)?;
        let (mut tag, mut number) = (String::new(), 0.0);
        while let Some((&key, rest)) = value.split_first() {
            value = rest;
            match key {
                TAG => tag = text(read_field(&mut value)?)?,
                SIMPLE_VALUE => number = f32::from_le_bytes(take(&mut value, 4)?.try_into().ok()?),
                _ => return None,
            }
        }
        all.push((tag, number));
    }
    summary.is_empty().then_some(all)
}

/// The checksum of bytes as records have it: turned and shifted, so that one of bytes with checksums in them is none.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut crc, mut bit) = (i as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, byte| TABLE[(crc as u8 ^ byte) as usize] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    #[test]
    fn checksums_are_castagnolis() {
        let rising: Vec<u8> = (0..32).collect();
        let of = [crc32c(&[0; 32]), crc32c(&[0xff; 32]), crc32c(&rising), crc32c(b"123456789")];
        assert_eq!(of, [0x8a91_36aa, 0x62a8_ab43, 0x46dd_794e, 0xe306_9283]);
    }

    /// A record of TensorBoard's own `EventFileWriter`, of wall time 1.5, step 300 and `train/loss` 0.25.
    #[test]
    fn records_are_tensorboards() {
        let scalars = What::Scalars(vec![("train/loss".into(), 0.25)]);
        let event = Event { wall_time: 1.5, step: 300, what: scalars };
        let hex: String = event.record().iter().map(|byte| format!("{byte:02x}")).collect();
        let theirs = "2100000000000000017becf609000000000000f83f10ac022a130a110a0a747261696e2f6c6f7373150000803e6557981f";
        assert_eq!(hex, theirs);
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_end_is_not() {
        let events = [
            Event::version(),
            Event::scalars(1, vec![("train/loss".into(), f32::NAN.max(0.5)), ("train/epoch".into(), 0.1)]),
            Event::scalars(u64::from(u32::MAX), vec![("eval/loss".into(), -1e-30)]),
            Event::scalars(7, Vec::new()),
        ];
        let file: Vec<u8> = events.iter().flat_map(Event::record).collect();
        assert_eq!(read(&file), events);
        let last = events[3].record().len();
        for torn in 1..=last {
            assert_eq!(read(&file[..file.len() - torn]), events[..3]);
        }
        let mut damaged = file.clone();
        let at = events[0].record().len() + 20;
        damaged[at] ^= 1;
        assert_eq!(read(&damaged), events[..1]);
    }
}
