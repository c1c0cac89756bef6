//! The theorem, as the command studies it, in half a minute.

use super::counted::number;
use super::growth::Growth;
use super::labels::{CASES, SURE};
use super::*;
use duel_cpu::Cpu;
use std::fs;
use std::path::PathBuf;

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("duel-theorem-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        Folder(dir)
    }

    fn study(&self) -> Study {
        Study::open(&self.0, &Map::new()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Steps after which a transformer is nearer to the optimum of its loss than can be seen beside a million labels.
const STEPS: u64 = 300;

#[test]
fn on_endless_data_the_policy_becomes_the_optimum() {
    let (b, folder) = (Cpu::<f32>::new(1), Folder::new("endless"));
    let mut counted = Counted::new(&b, 42).unwrap();
    let seen = trace(&mut folder.study(), &mut counted, STEPS).unwrap();
    let seen = seen.as_array().unwrap();
    let (first, last) = (&seen[0], seen.last().unwrap());
    assert!(number(first, "kl") > 0.1 && number(first, "drift") == 0.0, "{first}");
    // What each says of the others: both KLs are half the squared error, Pinsker's inequality, the gap of section 7.
    for name in ["kl", "reverse"] {
        let kl = number(last, name);
        assert!(kl < 1e-8 && number(last, "variation") <= (kl / 2.0).sqrt(), "{last}");
    }
    for at in seen {
        assert!((number(at, "gap") - counted.aim.beta * number(at, "kl")).abs() < 1e-14, "{at}");
    }
    assert!(number(last, "deviation") < 1e-3, "{last}");
}

/// The mean KL of `n` labels is that of the delta method over `n`, to sampling noise: of transformers, and of many more
/// tables; and a transformer is the table of its labels to an error that does not count beside it.
#[test]
fn kl_falls_at_the_predicted_rate() {
    let (b, folder) = (Cpu::<f32>::new(1), Folder::new("rate"));
    let mut counted = Counted::new(&b, 42).unwrap();
    let sizes = [10_000, 1_000_000];
    let questions = counted.pairs();
    let growth = Growth { name: "pairs", loss: "sigmoid", questions, sizes: &sizes, seeds: 3, replicas: 100 };
    let grown = growth.study(&mut folder.study(), &mut counted, STEPS).unwrap();
    for row in &grown.rows {
        let predicted = grown.prediction.kl / row.n as f64;
        assert_eq!(row.none, 0);
        // The KLs of two policies near each other differ by up to twice the root of their product.
        assert!(row.learned.iter().all(|l| 2.0 * (l.behind / predicted).sqrt() < 0.01), "{} labels", row.n);
        let error = grown.prediction.error / (row.n as f64).sqrt();
        let deviation = grown.prediction.error_deviation / (row.n as f64).sqrt();
        let mean = row.exact.iter().map(|e| e.1).sum::<f64>() / row.exact.len() as f64;
        let allowed = 4.0 * deviation / (row.exact.len() as f64).sqrt();
        // Of ten thousand labels the next order is a few hundredths.
        let next = if row.n < 100_000 { 0.1 * error } else { 0.0 };
        assert!((mean - error).abs() < allowed + next, "{} labels: {mean}, predicted {error}", row.n);
    }
    for (who, fit) in [("transformers", grown.learned()), ("tables", grown.exact())] {
        let fit = fit.unwrap();
        let (slope, ratio) = (fit.slope.unwrap(), fit.ratio);
        assert!((slope.0 + 1.0).abs() < 4.0 * slope.1, "{who}: to the power {slope:?}");
        assert!((ratio.0 - 1.0).abs() < 4.0 * ratio.1, "{who}: {ratio:?} of the prediction");
    }
}

/// Rankings do the same by Plackett and Luce's loss.
#[test]
fn rankings_teach_the_same() {
    let (b, folder) = (Cpu::<f32>::new(1), Folder::new("rankings"));
    let mut counted = Counted::new(&b, 42).unwrap();
    let sizes = [100_000];
    let questions = counted.rankings();
    let growth =
        Growth { name: "rankings", loss: "plackett_luce", questions, sizes: &sizes, seeds: 1, replicas: 40 };
    let grown = growth.study(&mut folder.study(), &mut counted, STEPS).unwrap();
    let ratio = grown.exact().unwrap().ratio;
    assert!((ratio.0 - 1.0).abs() < 4.0 * ratio.1, "{ratio:?}");
    let learned = &grown.rows[0].learned[0];
    assert!(
        learned.behind < 1e-4 * learned.kl,
        "{} from its table, {} from the optimum",
        learned.behind,
        learned.kl
    );
}

/// Where the better response always wins, DPO goes on for ever and IPO ends at its own optimum.
#[test]
fn sure_labels_drive_dpo_away_and_ipo_stays() {
    let (b, folder) = (Cpu::<f32>::new(1), Folder::new("labels"));
    let mut counted = Counted::new(&b, 42).unwrap();
    let mut study = folder.study();
    let mut reverse = |name: &str| {
        let case = CASES.iter().find(|case| case.labels == SURE && case.name == name).unwrap();
        let found = study.point(name, || case.learn(&mut counted, 160)).unwrap();
        let seen = found["seen"].as_array().unwrap().clone();
        let at =
            |step: f64| number(seen.iter().rev().find(|at| number(at, "step") <= step).unwrap(), "reverse");
        (found["optimum"].clone(), [at(40.0), at(80.0), at(160.0)])
    };
    let (optimum, [early, later, last]) = reverse("DPO, beta 0.5");
    assert!(optimum.is_null() && later > 1.1 * early && last > 1.1 * later, "{early} {later} {last}");
    let (optimum, [.., last]) = reverse("IPO");
    let stays = number(&optimum, "reverse");
    assert!((last / stays - 1.0).abs() < 0.02, "{last}, at its optimum {stays}");
}

/// The same bytes on one thread and on two, and of a study that was gone on with.
#[test]
fn a_study_repeats_bit_for_bit() {
    let extent =
        Extent { pairs: vec![1000], rankings: vec![1000], seeds: 1, replicas: 3, steps: 12, long: 12 };
    let files = ["points.jsonl", "theorem.svg", "theorem.csv", "theorem.md"];
    let read = |folder: &Folder| files.map(|name| fs::read(folder.0.join(name)).unwrap());
    let (one, two) = (Folder::new("one"), Folder::new("two"));
    run(&Cpu::<f32>::new(1), &one.0, 5, &extent).unwrap();
    run(&Cpu::<f32>::new(2), &two.0, 5, &extent).unwrap();
    let whole = read(&one);
    assert!(whole == read(&two), "one thread and two");
    let points = fs::read(one.0.join("points.jsonl")).unwrap();
    fs::write(one.0.join("points.jsonl"), &points[..points.len() / 2]).unwrap();
    run(&Cpu::<f32>::new(2), &one.0, 5, &extent).unwrap();
    assert!(whole == read(&one), "gone on with");
    let error = run(&Cpu::<f32>::new(1), &one.0, 6, &extent).unwrap_err().to_string();
    assert!(error.contains("another seed (5, now 6)"), "{error}");
}
