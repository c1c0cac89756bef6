//! What the numbers were measured on, and when.

use duel_benches::{ceiling, cores};
use serde_json::{Value, json};
use std::process::Command;
use std::time::SystemTime;

/// The machine, the day and the compiler.
pub struct Machine {
    /// Name of the CPU.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of the last-level cache, where the system says.
    pub cache: Option<usize>,
    /// Day in UTC, as `YYYY-MM-DD`.
    pub date: String,
    /// `rustc --version`.
    pub rustc: String,
}

impl Machine {
    /// Asks the system.
    pub fn this() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Machine {
            cpu: cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: cores(),
            cache: ceiling::cache_bytes(),
            date: date(now / 86_400),
            rustc: rustc().unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// CPU and cores as a part of a file's name.
    pub fn slug(&self) -> String {
        let name = format!("{} {} cores", self.cpu, self.cores).to_lowercase();
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
        words.collect::<Vec<_>>().join("-")
    }

    /// For the results file.
    pub fn json(&self) -> Value {
        json!({ "cpu": self.cpu, "cores": self.cores, "last_level_cache_bytes": self.cache })
    }
}

fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn rustc() -> Option<String> {
    let out = Command::new("rustc").arg("--version").output().ok()?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned())
}

/// Gregorian date of a day counted from 1970-01-01. A year is taken to start in March, so that the leap day is its
/// last: 400 such years have 146,097 days, and 153 days are five months of 31, 30, 31, 30 and 31 days.
fn date(days_since_1970: u64) -> String {
    const FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    let days = days_since_1970 + FROM_MARCH_OF_YEAR_0;
    let (era, day) = (days / 146_097, days % 146_097);
    // Day of the era without its leap days, of which there is one in 4 years but none in 3 of 4 centuries.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", 400 * era + year + carry)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a calendar that counts day by day.
    #[test]
    fn dates() {
        let leap = |y: u32| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
        let mut days = 0;
        for year in 1970..2403 {
            let february = if leap(year) { 29 } else { 28 };
            for (month, length) in
                [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate()
            {
                for day in 1..=length {
                    assert_eq!(date(days), format!("{year:04}-{:02}-{day:02}", month + 1));
                    days += 1;
                }
            }
        }
    }
}
