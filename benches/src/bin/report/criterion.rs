//! Criterion's own files: `**/new/benchmark.json` and `**/new/estimates.json`.

use duel_benches::verb::Work;
use serde_json::Value;
use std::path::Path;
use std::time::SystemTime;

/// One benchmark as criterion keeps it.
#[derive(Debug, PartialEq)]
pub struct Measured {
    /// Group, function and parameter.
    pub id: [String; 3],
    /// Work of an iteration.
    pub work: Work,
    /// Median time of an iteration, which a few disturbed samples do not move.
    pub seconds: f64,
    /// Its 95 % confidence interval.
    pub interval: [f64; 2],
}

/// Every benchmark under `dir` that was measured at `since` or later.
pub fn read(dir: &Path, since: SystemTime) -> Result<Vec<Measured>, String> {
    let mut all = Vec::new();
    collect(dir, since, &mut all).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(all)
}

fn collect(dir: &Path, since: SystemTime, all: &mut Vec<Measured>) -> Result<(), String> {
    let failed = |e: std::io::Error| e.to_string();
    let estimates = dir.join("new/estimates.json");
    if estimates.is_file() {
        let time = std::fs::metadata(&estimates).and_then(|m| m.modified()).map_err(failed)?;
        if time >= since {
            all.push(parse(&load(&dir.join("new/benchmark.json"))?, &load(&estimates)?)?);
        }
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(&path, since, all)?;
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn parse(benchmark: &Value, estimates: &Value) -> Result<Measured, String> {
    let missing = |what: &str| format!("`{what}` is missing; is this another version of criterion?");
    let text = |key| benchmark[key].as_str().map(str::to_owned).ok_or_else(|| missing(key));
    let throughput = &benchmark["throughput"];
    let work = match (throughput["Elements"].as_u64(), throughput["BytesDecimal"].as_u64()) {
        (Some(n), _) => Work::Flops(n),
        (_, Some(n)) => Work::Bytes(n),
        _ => return Err(missing("throughput")),
    };
    let median = &estimates["median"];
    let seconds = |value: &Value| value.as_f64().map(|ns| ns * 1e-9).ok_or_else(|| missing("median"));
    let bounds = &median["confidence_interval"];
    Ok(Measured {
        id: [text("group_id")?, text("function_id")?, text("value_str")?],
        work,
        seconds: seconds(&median["point_estimate"])?,
        interval: [seconds(&bounds["lower_bound"])?, seconds(&bounds["upper_bound"])?],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_criterion() {
        let mut benchmark = json!({
            "group_id": "a", "function_id": "b", "value_str": "2x3", "throughput": { "BytesDecimal": 24 }
        });
        let bounds = json!({ "confidence_level": 0.95, "lower_bound": 1e9, "upper_bound": 3e9 });
        let estimates =
            json!({ "median": { "confidence_interval": bounds, "point_estimate": 2e9 }, "slope": null });
        let measured = parse(&benchmark, &estimates).unwrap();
        assert_eq!(measured.id, ["a", "b", "2x3"]);
        assert_eq!(measured.work, Work::Bytes(24));
        for (seconds, want) in
            [measured.seconds, measured.interval[0], measured.interval[1]].iter().zip([2.0, 1.0, 3.0])
        {
            assert!((seconds - want).abs() < 1e-12);
        }
        benchmark["throughput"] = Value::Null;
        assert!(parse(&benchmark, &estimates).unwrap_err().contains("throughput"));
    }
}
