//! `duel report`: what runs left, on one page that needs no network.

mod html;
mod left;

use super::plot;
use crate::Error;
use html::{Cell, escaped, image, table, tabled};
use left::Left;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const STYLE: &str = include_str!("page.css");

/// Prompts of which samples are shown.
const PROMPTS: usize = 12;

/// Writes the page of the folders `runs` to `path`: curves, settings, last metrics, samples of the first evaluation and
/// of the last, and the pictures and tables of studies.
///
/// # Errors
/// A folder holds neither a run nor a study, what it holds is damaged, or the page cannot be written.
pub fn write(path: &Path, runs: &[PathBuf]) -> Result<(), Error> {
    let named = runs.iter().zip(left::names(runs));
    let left = named.map(|(dir, name)| Left::read(dir, name)).collect::<Result<Vec<_>, _>>()?;
    if path.exists() && !std::fs::read(path).is_ok_and(|old| old.starts_with(BEGINNING.as_bytes())) {
        return Err(Error::new(format!(
            "{}: is there already, and is no page of reports; give another --output",
            path.display()
        )));
    }
    duel_model::write_synced(path, page(&left)?.as_bytes())?;
    Ok(())
}

/// What a page begins with.
const BEGINNING: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n";

fn page(left: &[Left]) -> Result<String, Error> {
    let (runs, studies): (Vec<&Left>, Vec<&Left>) = left.iter().partition(|l| !l.records.is_empty());
    let names: Vec<&str> = left.iter().map(|l| l.name.as_str()).collect();
    let title = escaped(&names.join(", "));
    let mut body = format!("<h1>{title}</h1>\n");
    if !runs.is_empty() {
        body += &curves(&runs)?;
        body += &section("Last metrics", &metrics(&runs));
        body += &settings(&runs);
        body += &samples(&runs);
    }
    for one in runs.iter().chain(&studies) {
        for (name, svg) in &one.pictures {
            body += &section(&format!("{}: {name}", one.name), &image(name, svg));
        }
        for (name, text) in &one.reports {
            let content = match name.ends_with(".md") {
                true => tabled(text),
                false => format!("<pre>{}</pre>", escaped(text)),
            };
            body += &section(&format!("{}: {name}", one.name), &content);
        }
    }
    Ok(format!(
        "{BEGINNING}<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n{body}</body>\n</html>\n"
    ))
}

fn section(heading: &str, content: &str) -> String {
    format!("<h2>{}</h2>\n{content}\n", escaped(heading))
}

fn curves(runs: &[&Left]) -> Result<String, Error> {
    let named: Vec<_> = runs.iter().map(|run| (run.name.as_str(), run.records.as_slice())).collect();
    let svg = plot::compared(&named)?;
    Ok(section("Curves", &image("curves", &svg)))
}

/// Every key of some tables, in order.
fn keys<'a>(of: impl Iterator<Item = impl Iterator<Item = &'a String>>) -> BTreeSet<&'a String> {
    of.flatten().collect()
}

fn head(first: &str, runs: &[&Left]) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(runs.iter().map(|run| run.name.clone())).collect()
}

/// The last value of each metric that a run logged.
fn metrics(runs: &[&Left]) -> String {
    let all = runs.iter().map(|run| run.last_metrics()).collect::<Vec<_>>();
    let row = |key: &String| {
        let values = all.iter().map(|one| Cell::Number(one.get(key).copied()));
        std::iter::once(Cell::Name(key.clone())).chain(values).collect()
    };
    table(&head("metric", runs), keys(all.iter().map(|one| one.keys())).into_iter().map(row))
}

/// Settings that differ between the runs, and all of them behind a fold.
fn settings(runs: &[&Left]) -> String {
    let all = keys(runs.iter().map(|run| run.settings.keys()));
    let differs = |key: &&String| runs.iter().any(|run| run.settings.get(*key) != runs[0].settings.get(*key));
    let row = |key: &String| {
        let value = |run: &&Left| Cell::Text(run.settings.get(key).cloned().unwrap_or_default());
        std::iter::once(Cell::Name(key.clone())).chain(runs.iter().map(value)).collect()
    };
    let different: Vec<_> = all.iter().copied().filter(differs).map(row).collect();
    let whole = table(&head("setting", runs), all.iter().copied().map(row));
    let whole = format!("<details><summary>All settings</summary>\n{whole}\n</details>");
    if runs.len() == 1 {
        return section("Settings", &whole);
    }
    let different = match different.is_empty() {
        true => "<p>The runs have the same settings.</p>".to_owned(),
        false => table(&head("setting", runs), different.into_iter()),
    };
    section("Settings that differ", &format!("{different}\n{whole}"))
}

/// What each run wrote to the same prompts, at the first evaluation and at the last.
fn samples(runs: &[&Left]) -> String {
    let drew: Vec<&Left> = runs.iter().copied().filter(|run| !run.samples.is_empty()).collect();
    if drew.is_empty() {
        return String::new();
    }
    let mut prompts: Vec<&String> = Vec::new();
    for sample in drew.iter().flat_map(|run| &run.samples) {
        if !prompts.contains(&&sample.prompt) {
            prompts.push(&sample.prompt);
        }
    }
    let mut head = vec!["prompt".to_owned()];
    for run in &drew {
        head.extend(run.sampled().map(|step| format!("{}, step {step}", run.name)));
    }
    let row = |prompt: &&String| {
        let said = drew.iter().flat_map(|run| {
            run.sampled().map(|step| {
                let at = run.samples.iter().find(|s| s.prompt == **prompt && s.step == step);
                Cell::Text(at.map_or(String::new(), |s| s.completion.clone()))
            })
        });
        std::iter::once(Cell::Text((*prompt).clone())).chain(said).collect()
    };
    let more = prompts.len().saturating_sub(PROMPTS);
    let mut content = table(&head, prompts.iter().take(PROMPTS).map(row));
    if more > 0 {
        content += &format!("<p>{more} more prompts are in samples.jsonl.</p>");
    }
    section("Samples, at the first evaluation and at the last", &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("duel-report-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&dir));
            fs::create_dir_all(&dir).unwrap();
            Folder(dir)
        }

        fn run(&self, name: &str, beta: f64, completion: &str) -> PathBuf {
            let dir = self.0.join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("duel.toml"), format!("beta = {beta}\nseed = 7\n")).unwrap();
            let metrics =
                [json!({"step": 1, "loss": 0.69, "eval_loss": 0.7}), json!({"step": 2, "loss": 0.5})];
            fs::write(dir.join("metrics.jsonl"), metrics.map(|m| format!("{m}\n")).concat()).unwrap();
            let sample =
                |step: u64, text: &str| json!({"step": step, "prompt": "the film", "completion": text});
            let samples = [sample(1, "was dull"), sample(2, completion)];
            fs::write(dir.join("samples.jsonl"), samples.map(|s| format!("{s}\n")).concat()).unwrap();
            dir
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn what_runs_left_is_on_the_page() {
        let folder = Folder::new("two");
        let runs =
            [folder.run("one", 0.1, "was <script>alert('x')</script>"), folder.run("two", 0.5, "was fine")];
        let path = folder.0.join("report.html");
        write(&path, &runs).unwrap();
        let page = fs::read_to_string(&path).unwrap();
        assert!(
            !page.contains("<script") && page.contains("was &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;")
        );
        // Nothing is fetched: an image holds its data, and there is no link and no style elsewhere.
        assert!(page.split("src=").skip(1).all(|source| source.starts_with("\"data:")));
        assert!(!["href", "url(", "@import"].iter().any(|way| page.contains(way)));
        let (different, all) = page.split_once("<details>").unwrap();
        assert!(different.contains("<th scope=\"row\">beta</th><td>0.1</td><td>0.5</td>"), "{different}");
        assert!(
            !different.contains("seed") && all.contains("<th scope=\"row\">seed</th><td>7</td><td>7</td>")
        );
        // The last evaluation was before the last step.
        assert!(page.contains("<th scope=\"row\">eval_loss</th><td class=\"number\">0.7</td>"));
        assert!(page.contains("was dull") && page.contains("one, step 2"));
        write(&folder.0.join("again.html"), &runs).unwrap();
        assert_eq!(fs::read_to_string(folder.0.join("again.html")).unwrap(), page);
    }

    #[test]
    fn studies_have_their_pictures_and_others_an_error() {
        let folder = Folder::new("study");
        let dir = folder.0.join("theorem");
        fs::create_dir_all(&dir).unwrap();
        let path = folder.0.join("report.html");
        let error = write(&path, std::slice::from_ref(&dir)).unwrap_err().to_string();
        assert!(error.contains("theorem") && error.contains("holds neither a run nor a study"), "{error}");
        fs::write(
            dir.join("theorem.svg"),
            "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>x</script>#%</svg>",
        )
        .unwrap();
        fs::write(dir.join("theorem.md"), "| a | <b> |\n").unwrap();
        write(&path, &[dir]).unwrap();
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.contains("src=\"data:image/svg+xml,%3Csvg") && page.contains("%23%25"));
        assert!(page.contains("<th scope=\"col\">&lt;b&gt;</th>") && !page.contains("<script"));
    }

    #[test]
    fn damage_is_named() {
        let folder = Folder::new("damage");
        let dir = folder.run("run", 0.1, "x");
        fs::write(dir.join("samples.jsonl"), "{\"step\": 1}\n").unwrap();
        let error = write(&folder.0.join("r.html"), std::slice::from_ref(&dir)).unwrap_err().to_string();
        assert!(error.contains("samples.jsonl, line 1") && error.contains("prompt"), "{error}");
        fs::write(dir.join("duel.toml"), "beta = = 1").unwrap();
        let error = write(&folder.0.join("r.html"), &[dir]).unwrap_err().to_string();
        assert!(error.contains("duel.toml"), "{error}");
    }
}
