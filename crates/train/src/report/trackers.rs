//! Where the metrics of a run go: `metrics.jsonl`, and what else `report_to` names, made of the same records.

use super::events::{self, Event, What};
use super::metrics::{self, MetricsWriter, Record, is_evaluation, step_of};
use crate::Error;
use crate::config::ReportTo;
use duel_disk::{Draft, File};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const METRICS: &str = "metrics.jsonl";
const CSV: &str = "metrics.csv";
/// The folder of TensorBoard's files, each in one of its own.
const RUNS: &str = "runs";
const EVENTS: &str = "events.out.tfevents.";

/// All of them.
#[derive(Debug)]
pub struct Trackers {
    metrics: MetricsWriter,
    events: Option<Events>,
    csv: Option<Csv>,
}

/// Where a run goes on: after this step, and whether the evaluation at it is made again.
pub type Resumed = Option<(u64, bool)>;

impl Trackers {
    /// Those of the run in the folder `dir`: empty, or where it goes on up to there.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn open(dir: &Path, report_to: ReportTo, resumed: Resumed) -> Result<Self, Error> {
        let path = dir.join(METRICS);
        let (step, unevaluated) = (resumed.map(|(step, _)| step), resumed.is_some_and(|(_, due)| due));
        let metrics = MetricsWriter::open(&path, step, unevaluated)?;
        let history = metrics::read(&path)?;
        Ok(Trackers {
            metrics,
            events: report_to
                .tensorboard
                .then(|| Events::open(dir, &history, resumed.is_some()))
                .transpose()?,
            csv: report_to.csv.then(|| Csv::open(dir, &history)).transpose()?,
        })
    }

    /// Writes the metrics of a step.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&mut self, step: u64, metrics: &[(&str, Value)]) -> Result<(), Error> {
        let record = metrics::record(step, metrics);
        self.metrics.write(&record)?;
        self.events.iter_mut().try_for_each(|events| events.write(&record))?;
        self.csv.iter_mut().try_for_each(|csv| csv.write(&record))
    }
}

fn cannot(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::new(format!("{}: cannot be written: {e}", path.display()))
}

/// Writes a file anew; whoever reads meets the old one or the new one.
fn replace(path: &Path, content: &[u8]) -> Result<File, Error> {
    let replace = || {
        let mut draft = Draft::new(path)?;
        draft.write_all(content)?;
        draft.keep()?;
        File::append(path)
    };
    replace().map_err(cannot(path))
}

/// An event file.
#[derive(Debug)]
struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// The newest of a run that goes on, or a new one; with all that was logged, at the times that the file said so
    /// far.
    fn open(dir: &Path, history: &[Record], goes_on: bool) -> Result<Self, Error> {
        let old = event_files(dir).pop().filter(|_| goes_on);
        let bytes = old.as_ref().map(|path| fs::read(path).map_err(cannot(path))).transpose()?;
        let (mut times, mut first) = (HashMap::new(), Event::version());
        for event in events::read(&bytes.unwrap_or_default()) {
            match &event.what {
                What::Version(_) => first = event,
                What::Scalars(scalars) => {
                    let evaluation = scalars.iter().any(|(tag, _)| tag.starts_with("eval/"));
                    times.insert((event.step, evaluation), event.wall_time);
                }
            }
        }
        let path = match old {
            Some(path) => path,
            None => new_file(dir)?,
        };
        let mut content = first.record();
        for record in history {
            let mut event = event(record);
            if let Some(time) = times.get(&(event.step, is_evaluation(record))) {
                event.wall_time = *time;
            }
            content.extend(event.record());
        }
        Ok(Events { file: replace(&path, &content)?, path })
    }

    fn write(&mut self, record: &Record) -> Result<(), Error> {
        // One call, unbuffered: a killed process leaves at most one torn record, at the end.
        self.file.write_all(&event(record).record()).map_err(cannot(&self.path))
    }
}

/// Where a new event file goes, in a folder of its own, which is made.
fn new_file(dir: &Path) -> Result<PathBuf, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    let folder = dir.join(RUNS).join(format!("{seconds}_{host}"));
    duel_disk::create_dir_all(&folder).map_err(cannot(&folder))?;
    Ok(folder.join(format!("{EVENTS}{seconds}.{host}.{}.0", std::process::id())))
}

/// A record under transformers' tags: `eval_loss` is `eval/loss`, everything of a step `train/...`.
fn event(record: &Record) -> Event {
    let evaluation = is_evaluation(record);
    let tag = |name: &str| match name.strip_prefix("eval_") {
        Some(rest) => format!("eval/{rest}"),
        None => format!("train/{name}"),
    };
    // The epoch of a step is said by the step itself.
    let told = |name: &str| name != "step" && !(evaluation && name == "epoch");
    let numbers = record.iter().filter(|(name, _)| told(name));
    let scalars = numbers.filter_map(|(name, value)| Some((tag(name), value.as_f64()? as f32)));
    Event::scalars(step_of(record).unwrap_or(0), scalars.collect())
}

/// The event files of a run, the newest last. Those of others in the same place have folders with names of other kinds.
pub fn event_files(dir: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(EVENTS) && !name.ends_with(".partial")
    };
    let own = |folder: &PathBuf| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split_once('_').is_some_and(|(seconds, _)| seconds.parse::<u64>().is_ok())
    };
    let folders = entries(&dir.join(RUNS)).filter(own);
    let mut all: Vec<PathBuf> = folders.flat_map(|folder| entries(&folder)).filter(is_one).collect();
    all.sort();
    all
}

/// Removes what the trackers of an earlier run left, and the folders that are empty then.
///
/// # Errors
/// A file cannot be removed.
pub fn remove(dir: &Path) -> std::io::Result<()> {
    for path in event_files(dir) {
        duel_disk::remove_file(&path)?;
        // Others may have put something there.
        let _ = path.parent().map(duel_disk::remove_dir);
    }
    let _ = duel_disk::remove_dir(&dir.join(RUNS));
    for path in [METRICS, CSV].map(|name| dir.join(name)) {
        if path.exists() {
            duel_disk::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A table of comma-separated values, a line a record and a column a metric; empty where a record has it not.
#[derive(Debug)]
struct Csv {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    columns: Vec<String>,
}

impl Csv {
    fn open(dir: &Path, history: &[Record]) -> Result<Self, Error> {
        let path = dir.join(CSV);
        let (text, columns) = table(history);
        Ok(Csv { dir: dir.to_path_buf(), file: replace(&path, text.as_bytes())?, path, columns })
    }

    /// Appends a record; one that has what none had before it makes the table anew, with one more column.
    fn write(&mut self, record: &Record) -> Result<(), Error> {
        if record.keys().all(|name| self.columns.contains(name)) {
            return self.file.write_all(line(&self.columns, record).as_bytes()).map_err(cannot(&self.path));
        }
        *self = Csv::open(&self.dir, &metrics::read(&self.dir.join(METRICS))?)?;
        Ok(())
    }
}

fn table(records: &[Record]) -> (String, Vec<String>) {
    let mut columns: Vec<String> = Vec::new();
    for name in records.iter().flat_map(Record::keys) {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    let lines = records.iter().map(|record| line(&columns, record));
    let head = columns.join(",") + "\n";
    let text = if columns.is_empty() { String::new() } else { head + &lines.collect::<String>() };
    (text, columns)
}

fn line(columns: &[String], record: &Record) -> String {
    let cell = |name: &String| match record.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(value) => value.to_string(),
    };
    columns.iter().map(cell).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A folder that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("duel-trackers-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn csv(&self) -> String {
            fs::read_to_string(self.0.join(CSV)).unwrap()
        }

        /// Steps with their tags, of the only event file.
        fn events(&self) -> Vec<(i64, Vec<String>)> {
            let [file] = &event_files(&self.0)[..] else { panic!("one file") };
            let all = events::read(&fs::read(file).unwrap()).into_iter();
            all.filter_map(|event| match event.what {
                What::Version(_) => None,
                What::Scalars(s) => Some((event.step, s.into_iter().map(|(tag, _)| tag).collect())),
            })
            .collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const ALL: ReportTo = ReportTo { tensorboard: true, csv: true };

    fn step(trackers: &mut Trackers, step: u64) {
        let metrics = [("loss", json!(0.5)), ("learning_rate", json!(1e-6)), ("epoch", json!(step))];
        trackers.write(step, &metrics).unwrap();
    }

    fn evaluation(trackers: &mut Trackers, step: u64) {
        trackers
            .write(
                step,
                &[("eval_rewards/margins", json!(null)), ("eval_loss", json!(0.25)), ("epoch", json!(step))],
            )
            .unwrap();
    }

    #[test]
    fn every_tracker_has_every_record_and_a_run_that_goes_on_doubles_none() {
        let folder = Folder::new("resume");
        let mut trackers = Trackers::open(&folder.0, ALL, None).unwrap();
        assert_eq!(folder.csv(), "");
        (1..=2).for_each(|i| step(&mut trackers, i));
        evaluation(&mut trackers, 2);
        step(&mut trackers, 3);
        let head = "step,loss,learning_rate,epoch,eval_rewards/margins,eval_loss\n";
        let upto_2 = format!("{head}1,0.5,1e-6,1,,\n2,0.5,1e-6,2,,\n");
        let evaluated = format!("{upto_2}2,,,2,,0.25\n");
        assert_eq!(folder.csv(), format!("{evaluated}3,0.5,1e-6,3,,\n"));
        let tags = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let of_step = tags(&["train/loss", "train/learning_rate", "train/epoch"]);
        let of_evaluation = tags(&["eval/loss"]);
        let events =
            |steps: &[(i64, &Vec<String>)]| steps.iter().map(|(i, t)| (*i, (*t).clone())).collect::<Vec<_>>();
        let first = [(1, &of_step), (2, &of_step), (2, &of_evaluation), (3, &of_step)];
        assert_eq!(folder.events(), events(&first));

        drop(Trackers::open(&folder.0, ALL, Some((2, false))).unwrap());
        assert_eq!((folder.csv(), folder.events()), (evaluated.clone(), events(&first[..3])));
        // The evaluation was stopped: it is made again.
        let mut trackers = Trackers::open(&folder.0, ALL, Some((2, true))).unwrap();
        // The column of a metric that is gone is gone.
        assert_eq!(folder.csv(), "step,loss,learning_rate,epoch\n1,0.5,1e-6,1\n2,0.5,1e-6,2\n");
        assert_eq!(folder.events(), events(&first[..2]));
        evaluation(&mut trackers, 2);
        assert_eq!((folder.csv(), folder.events()), (evaluated, events(&first[..3])));
        // One that was left out for a while has what was logged meanwhile.
        let csv = ReportTo { tensorboard: false, csv: true };
        let mut without = Trackers::open(&folder.0, csv, Some((2, false))).unwrap();
        step(&mut without, 3);
        // What transformers left in the same place stays as it is.
        let foreign = folder.0.join(RUNS).join("Nov27_06-51-00_host");
        fs::create_dir_all(&foreign).unwrap();
        fs::write(foreign.join(format!("{EVENTS}9.host.1.0")), "not ours").unwrap();
        drop(Trackers::open(&folder.0, ALL, Some((3, false))).unwrap());
        assert_eq!(folder.events(), events(&first));
        drop(Trackers::open(&folder.0, ALL, Some((2, false))).unwrap());
        // One that is asked for later has what was logged before.
        remove_events(&folder.0);
        drop(Trackers::open(&folder.0, ALL, Some((2, false))).unwrap());
        assert_eq!(folder.events(), events(&first[..3]));
        remove(&folder.0).unwrap();
        assert_eq!(fs::read(foreign.join(format!("{EVENTS}9.host.1.0"))).unwrap(), b"not ours");
    }

    fn remove_events(dir: &Path) {
        event_files(dir).iter().for_each(|file| fs::remove_file(file).unwrap());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let folder = Folder::new("remove");
        step(&mut Trackers::open(&folder.0, ALL, None).unwrap(), 1);
        fs::write(folder.0.join(RUNS).join("notes.txt"), "mine").unwrap();
        remove(&folder.0).unwrap();
        let left: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [RUNS]);
        assert_eq!(fs::read_dir(folder.0.join(RUNS)).unwrap().count(), 1);
        fs::remove_file(folder.0.join(RUNS).join("notes.txt")).unwrap();
        remove(&folder.0).unwrap();
    }
}
