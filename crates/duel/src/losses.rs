//! `duel losses`: the table of losses, as the objectives say it.

use duel_loss::{WORDS, Word, policy};
use std::io::{ErrorKind, Write};

/// Prints every loss: its name, its formula, where it comes from and the settings that change it.
///
/// # Errors
/// Standard output cannot be written; that nobody reads on is none.
pub fn print() -> std::io::Result<()> {
    let mut text = String::from(
        "u: log-ratio of policy and reference; h = u_w - u_l of a pair; m: margin of its row; ls(z) = ln sigmoid(z)\n",
    );
    for Word { name, formula, source, uses, reference, .. } in WORDS.iter().copied() {
        let reference = if *reference { "with a reference" } else { "without a reference" };
        text += &format!("\n{name}\n    {formula}\n    {source}; {reference}\n");
        if !uses.is_empty() {
            text += &format!("    changed by {}\n", uses.join(", "));
        }
    }
    text += "\nOf samples, r: what a judge says; l, o, f: log-probabilities of a token under the policy, the policy that drew\n\
             it, and the reference; rho = exp(l - o); n: tokens of a response\n";
    for policy::Word { name, formula, source } in policy::WORDS {
        text += &format!("\n{name}\n    {formula}\n    {source}\n");
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
