//! Whether all ranks are about to do the same.

use super::Ranks;
use crate::Error;
use crate::config::Config;
use crate::content::feed;
use crate::tokens::program;
use xxhash_rust::xxh3::Xxh3;

/// Keys that may differ between ranks: where and how fast, not what.
const OWN: [&str; 3] = ["device", "threads", "cache_dir"];

/// Whether all ranks are the same program with the same configuration.
///
/// # Errors
/// One is not, and what it has in its place; or it is lost.
pub fn check_program(ranks: &Ranks<'_>, config: &Config) -> Result<(), Error> {
    if ranks.size() == 1 {
        return Ok(());
    }
    check_shares(config, ranks.size())?;
    let said: toml::Table = config
        .to_toml()?
        .parse()
        .map_err(|e| Error::new(format!("the configuration cannot be read again: {e}")))?;
    let keys = said.iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
    let mut hash = Xxh3::new();
    feed(&mut hash, &program()?)?;
    let version = format!("{} ({:032x})", env!("CARGO_PKG_VERSION"), hash.digest128());
    let mut mine = vec![("program".to_owned(), version)];
    mine.extend(keys.map(|(key, value)| (format!("`{key}`"), value.to_string())));
    check(ranks, mine)
}

/// Whether each of so many processes has a share of a batch.
///
/// # Errors
/// One has none.
pub fn check_shares(config: &Config, processes: usize) -> Result<(), Error> {
    if config.gradient_shares >= processes {
        return Ok(());
    }
    Err(Error::new(format!(
        "`gradient_shares = {}` is less than the {processes} processes, each of which takes a share of a batch; raise \
         it, or start fewer",
        config.gradient_shares
    )))
}

/// Whether all ranks have the same model, reference and rows, `made_of`, and compute the same.
///
/// # Errors
/// As [`check_program`].
pub fn check_run(ranks: &Ranks<'_>, made_of: &[(&str, String)]) -> Result<(), Error> {
    if ranks.size() == 1 {
        return Ok(());
    }
    check(ranks, made_of.iter().map(|(what, is)| ((*what).to_owned(), is.clone())).collect())
}

fn check(ranks: &Ranks<'_>, mine: Vec<(String, String)>) -> Result<(), Error> {
    let all = ranks.all(mine)?;
    for (rank, said) in all.iter().enumerate().skip(1) {
        let of = |all: &[(String, String)], what: &str| {
            all.iter().find(|(name, _)| name == what).map_or("not set".to_owned(), |(_, is)| is.clone())
        };
        let names = all[0].iter().chain(said).map(|(name, _)| name);
        if let Some(what) = names.into_iter().find(|what| of(&all[0], what) != of(said, what)) {
            return Err(Error::new(format!(
                "rank {rank} has another {what} than rank 0: {} and not {}; start all processes with the same program, \
                 configuration, model and data",
                of(said, what),
                of(&all[0], what)
            )));
        }
    }
    Ok(())
}
