//! Collects what criterion wrote into a table for each instruction set, and into one JSON file under `benches/results`.
//!
//! `report CRITERION_DIR SINCE full|quick|filtered ISA...`: the estimates of an instruction set are in the folder of
//! its name; only those from `SINCE` on (seconds after 1970) count, and a filtered run, which lacks rows, leaves no
//! file.
//!
//! `report --isas [ISA...]` prints the names of those instruction sets, or of all that are worth measuring here.

mod criterion;
mod machine;
mod rows;
mod table;

use duel_cpu::Isa;
use machine::Machine;
use rows::Rows;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// How much was measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Full,
    Quick,
    Filtered,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    if let Some(("--isas", named)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        instruction_sets(&Isa::available(), named)?.iter().for_each(|isa| println!("{}", isa.name()));
        return Ok(());
    }
    let usage = || "report CRITERION_DIR SINCE full|quick|filtered ISA... | --isas [ISA...]".to_owned();
    let [dir, since, extent, isas @ ..] = args else { return Err(usage()) };
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(since.parse().map_err(|_| usage())?);
    let extent = match extent.as_str() {
        "full" => Extent::Full,
        "quick" => Extent::Quick,
        "filtered" => Extent::Filtered,
        _ => return Err(usage()),
    };
    let machine = Machine::this();
    let (mut all, mut missing) = (Map::new(), Vec::new());
    for isa in instruction_sets(&Isa::available(), isas)? {
        let rows = Rows::new(&criterion::read(&Path::new(dir).join(isa.name()), since)?, &machine)?;
        println!("\n{}", table::markdown(&rows, &machine, isa));
        missing.extend(rows.missing.iter().map(|what| format!("{what} on {isa}")));
        all.insert(isa.name().to_owned(), rows.json());
    }
    if extent == Extent::Filtered {
        return Ok(());
    }
    if !missing.is_empty() {
        return Err(format!("criterion left no estimates of: {}", missing.join("; ")));
    }
    let path = results_file(&machine, extent);
    let text = serde_json::to_string_pretty(&results(&machine, extent, all));
    let written = text.map_err(|e| e.to_string()).and_then(|text| write(&path, &(text + "\n")));
    written.map_err(|e| format!("{}: {e}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

/// Those of `here` that are named; without names all but the baseline, which is slow, where there is more, and AMX,
/// which makes nothing of what is measured here: that is in float32.
fn instruction_sets(here: &[Isa], named: &[String]) -> Result<Vec<Isa>, String> {
    if named.is_empty() {
        let fast = here[usize::from(here.len() > 1)..].iter();
        return Ok(fast.copied().filter(|isa| *isa != Isa::Amx).collect());
    }
    let find = |name: &String| {
        let found = here.iter().find(|isa| isa.name() == name).copied();
        found.ok_or_else(|| {
            let names: Vec<_> = here.iter().map(|isa| isa.name()).collect();
            format!("--isa {name}: this machine has {}; name one of these", names.join(", "))
        })
    };
    named.iter().map(find).collect()
}

/// The results file: what was measured on each instruction set, by its name.
fn results(machine: &Machine, extent: Extent, isas: Map<String, Value>) -> Value {
    json!({
        "date": machine.date, "machine": machine.json(), "rustc": machine.rustc, "quick": extent == Extent::Quick,
        "isas": isas,
    })
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text)).map_err(|e| e.to_string())
}

fn results_file(machine: &Machine, extent: Extent) -> PathBuf {
    let quick = if extent == Extent::Quick { "-quick" } else { "" };
    let name = format!("{}-{}{quick}.json", machine.date, machine.slug());
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_sets_are_found_by_name() {
        let all = [Isa::Baseline, Isa::Avx2, Isa::Avx512, Isa::Amx];
        let named = |names: &[&str], here: &[Isa]| {
            instruction_sets(here, &names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(named(&[], &all), Ok(vec![Isa::Avx2, Isa::Avx512]));
        assert_eq!(named(&[], &all[..1]), Ok(vec![Isa::Baseline]));
        assert_eq!(named(&["avx512", "baseline"], &all), Ok(vec![Isa::Avx512, Isa::Baseline]));
        let wrong = "--isa avx512: this machine has baseline, avx2; name one of these";
        assert_eq!(named(&["avx512"], &all[..2]), Err(wrong.into()));
    }

    /// Instruction sets do not mix, and what all have in common is said once.
    #[test]
    fn results_are_keyed_by_the_instruction_set() {
        let isas = ["avx2", "avx512"].map(|isa| (isa.to_owned(), json!({ "steps": [isa] })));
        let all = results(&Machine::this(), Extent::Quick, Map::from_iter(isas));
        assert_eq!(all["isas"]["avx512"]["steps"][0], "avx512");
        assert_eq!((&all["quick"], &all["machine"]["isa"]), (&json!(true), &Value::Null));
    }
}
