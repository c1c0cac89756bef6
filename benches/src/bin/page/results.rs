//! Results of a GPU, as the script that measures there leaves them. Any field may be missing.

use serde_json::Value;
use std::path::Path;

/// The newest complete results in `folder` with their file's name: `gpu-*.json` that are not quick, by their date.
///
/// # Errors
/// When a file cannot be read, is no JSON, or has no date.
pub fn newest(folder: &Path) -> Result<Option<(String, Value)>, String> {
    let about = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| about(&folder.display().to_string(), &e))? {
        let entry = entry.map_err(|e| about(&folder.display().to_string(), &e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !(name.starts_with("gpu-") && name.ends_with(".json")) {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).map_err(|e| about(&name, &e))?;
        let results: Value = serde_json::from_str(&text).map_err(|e| about(&name, &e))?;
        if results["quick"] == true {
            continue;
        }
        let date = results["date"].as_str().ok_or_else(|| format!("{name} has no date"))?.to_owned();
        all.push((date, name, results));
    }
    let last = all.into_iter().max_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    Ok(last.map(|(_, name, results)| (name, results)))
}

/// A list, empty where there is none.
pub fn list<'v>(results: &'v Value, name: &str) -> &'v [Value] {
    results[name].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complete_results_count() {
        let folder = std::env::temp_dir().join(format!("duel-page-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("2030-01-01-a-cpu.json", r#"{"date": "2030-01-01"}"#);
        write("gpu-a-quick.json", r#"{"date": "2030-01-02", "quick": true}"#);
        assert_eq!(newest(&folder), Ok(None));
        write("gpu-b.json", r#"{"date": "2029-12-31", "quick": false}"#);
        write("gpu-c.json", r#"{"date": "2029-11-30", "quick": false}"#);
        assert_eq!(newest(&folder).unwrap().unwrap().0, "gpu-b.json");
        write("gpu-d.json", "{}");
        assert!(newest(&folder).is_err_and(|what| what == "gpu-d.json has no date"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
