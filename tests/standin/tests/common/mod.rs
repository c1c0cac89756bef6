//! Starts a test in a process of its own that finds the stand-in where NVIDIA's libraries would be.

use std::process::Command;

/// Set in the process that has the stand-in.
const MARK: &str = "DUEL_STANDIN_INSIDE";

/// Runs a test on the stand-in: starts this program again for the test of this name alone, with these environment
/// variables, and there calls `body`.
///
/// # Panics
/// When it fails there.
pub fn on_the_stand_in(test: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        let is_set = |&(name, value): &(&str, &str)| std::env::var(name).is_ok_and(|v| v == value);
        if variables.iter().all(is_set) {
            body();
        }
        return;
    }
    let values: String = variables.iter().map(|(_, value)| format!("-{value}")).collect();
    let folder = std::env::temp_dir().join(format!("duel-{}-{test}{values}", std::process::id()));
    let path = duel_cuda_standin::install(&folder).expect("the temporary folder can be written");
    let program = std::env::current_exe().expect("this program is a file");
    let output = Command::new(program)
        .args([test, "--exact"])
        .env(MARK, "1")
        .env("LD_LIBRARY_PATH", path)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .envs(variables.iter().copied())
        .output()
        .expect("it can be started again");
    std::fs::remove_dir_all(&folder).expect("the folder was just made");
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{} with {variables:?}\n{text}", output.status);
    assert!(text.contains("running 1 test"), "no test is called {test}\n{text}");
}
