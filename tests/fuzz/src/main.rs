//! `duel-fuzz`, which `cargo xtask fuzz` starts.

use clap::Parser;
use duel_fuzz::{KINDS, Kind, Plan, Source, find, fuzz};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// Damages right files of every kind that duel reads, and loads them: what is wrong is refused with an error, never
/// with a panic, a hang, or all the memory.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz")]
struct Args {
    /// How long to go on.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What all inputs come from. [default: another one each time, and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Kinds of files to try. [default: all]
    #[arg(long, value_parser = kind)]
    kind: Vec<&'static Kind>,
    /// Write one input, and load it in plain sight: one that failed, or the folder of one that is kept.
    #[arg(long, value_name = "KIND:SEED:NUMBER", value_parser = input)]
    input: Option<Input>,
    /// Folder for inputs that fail.
    #[arg(long, default_value = "target/fuzz")]
    out: PathBuf,
    /// Be a worker with this folder.
    #[arg(long, hide = true)]
    worker: Option<PathBuf>,
    /// The worker's first input.
    #[arg(long, hide = true, default_value_t = 0)]
    first: u64,
    /// From one input of the worker to its next.
    #[arg(long, hide = true, default_value_t = 1)]
    step: usize,
}

/// An input by its name.
#[derive(Clone)]
enum Input {
    /// One that is made anew.
    Made { kind: &'static Kind, seed: u64, number: u64 },
    /// One that is kept, in a folder `KIND/NAME`.
    Kept { kind: &'static Kind, folder: PathBuf },
}

fn kind(name: &str) -> Result<&'static Kind, String> {
    find(name).ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        format!("there is no kind `{name}`; it is one of {}", names.join(", "))
    })
}

fn input(text: &str) -> Result<Input, String> {
    let parts: Vec<&str> = text.split(':').collect();
    if let [name, seed, number] = parts[..] {
        let parse = |text: &str| text.parse().map_err(|e| format!("`{text}`: {e}"));
        return Ok(Input::Made { kind: kind(name)?, seed: parse(seed)?, number: parse(number)? });
    }
    let folder = PathBuf::from(text);
    let name = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    Ok(Input::Kept { kind: kind(name.unwrap_or_default())?, folder })
}

/// Loads one input without any net.
fn show(input: &Input, out: &Path) -> std::io::Result<()> {
    let (kind, name, files) = match input {
        Input::Made { kind, seed, number } => {
            (kind, format!("{seed}-{number}"), Source::new(kind).input(*seed, *number))
        }
        Input::Kept { kind, folder } => {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (kind, name, Source::new(kind).kept(folder)?)
        }
    };
    let folder = out.join(format!("{}-{name}", kind.name));
    duel_fuzz::write(&folder, &files)?;
    println!("{}", folder.display());
    match (kind.load)(&folder) {
        Ok(()) => println!("accepted"),
        Err(message) => println!("refused: {message}"),
    }
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let seed = args.seed.unwrap_or_else(clock);
    let kinds = if args.kind.is_empty() { KINDS.iter().collect() } else { args.kind };
    let result = match (args.input, args.worker) {
        (Some(input), _) => show(&input, &args.out).map(|()| true),
        (None, Some(folder)) => duel_fuzz::work(&kinds, &folder, seed, args.first, args.step).map(|()| true),
        (None, None) => {
            println!("seed {seed}");
            fuzz(&Plan { seconds: args.seconds, seed, kinds, out: args.out })
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}
