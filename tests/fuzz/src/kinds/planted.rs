//! Faults on purpose.

use super::file;
use crate::Files;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

const FAULTS: [&str; 4] = ["panic", "hang", "overflow", "memory"];

/// A folder for each fault.
pub fn seeds() -> Vec<Files> {
    FAULTS.map(|fault| Files::from([file("fault", fault)])).to_vec()
}

/// Does what the folder asks for.
pub fn load(dir: &Path) -> Result<(), String> {
    match std::fs::read_to_string(dir.join("fault")).map_err(|e| e.to_string())?.as_str() {
        "panic" => panic!("as planted"),
        "hang" => std::thread::sleep(Duration::from_secs(3600)),
        "overflow" => drop(black_box(deeper(u64::MAX))),
        // Never touched: only the limit on addresses refuses it.
        _ => drop(black_box(vec![0u8; 16 << 30])),
    }
    Ok(())
}

fn deeper(levels: u64) -> u64 {
    if levels == 0 { 0 } else { black_box(deeper(black_box(levels - 1))) + 1 }
}
