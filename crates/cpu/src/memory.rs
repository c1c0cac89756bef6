//! How much memory there is: of the machine, and of the control groups that this process is in.

use duel_backend::Memory;
use std::fs;
use std::path::Path;

/// The environment variable that holds a process to so many bytes, as if there were no more.
pub const VARIABLE: &str = "DUEL_MEMORY";

/// What the system says now.
pub fn memory() -> Memory {
    let used = kilobytes("/proc/self/status", "VmRSS:");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = of_groups(Path::new("/sys/fs/cgroup"), &own);
    let limits = [
        kilobytes("/proc/meminfo", "MemAvailable:"),
        of_groups,
        said().map(|n| n.saturating_sub(used.unwrap_or(0))),
    ];
    Memory { free: limits.into_iter().flatten().min(), used, peak: kilobytes("/proc/self/status", "VmHWM:") }
}

/// What the environment variable `DUEL_MEMORY` says, if it is a number.
fn said() -> Option<u64> {
    std::env::var(VARIABLE).ok()?.parse().ok()
}

/// The least that a control group above a process leaves to it, where one has a limit; `own` is the process's list of
/// its groups, and `root` where they lie. Pages of files count as left: the system takes them when it wants memory.
fn of_groups(root: &Path, own: &str) -> Option<u64> {
    // `number:controllers:path`; of the second version there is one line, without controllers.
    let lines = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    let groups = lines.filter_map(|(controllers, path)| match controllers {
        "" => Some((root.to_path_buf(), path, ["memory.max", "memory.current"], "")),
        all if all.split(',').any(|one| one == "memory") => {
            let files = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
            Some((root.join("memory"), path, files, "total_"))
        }
        _ => None,
    });
    let left = groups.flat_map(|(root, path, [limit, used], total)| {
        let above = Path::new(path).ancestors();
        let all: Vec<u64> = above
            .filter_map(|group| {
                let group = root.join(group.strip_prefix("/").unwrap_or(group));
                let number =
                    |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
                let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
                let files = ["inactive_file ", "active_file "].map(|name| {
                    let line = stat.lines().find_map(|l| l.strip_prefix(total)?.strip_prefix(name));
                    line.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0)
                });
                let used = number(used)?.saturating_sub(files.iter().sum());
                Some(number(limit)?.saturating_sub(used))
            })
            .collect();
        all
    });
    left.min()
}

/// The bytes that the system gives in kilobytes in the line of `file` that begins with `name`, where it does.
fn kilobytes(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folders of groups as Linux has them.
    fn groups(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("duel-groups-{}-{name}", std::process::id()));
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_narrowest_group_counts() {
        let second = groups(
            "2",
            &[
                ("a/memory.max", "5000\n"),
                ("a/memory.current", "4000\n"),
                ("a/memory.stat", "anon 3000\ninactive_file 600\nactive_file 100\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.current", "4000\n"),
            ],
        );
        assert_eq!(of_groups(&second, "0::/a/b\n"), Some(1700));
        assert_eq!(of_groups(&second, "0::/\n"), None, "the root has no limit");
        let first = groups(
            "1",
            &[
                ("memory/memory.limit_in_bytes", "9000\n"),
                ("memory/memory.usage_in_bytes", "8000\n"),
                ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 0\n"),
            ],
        );
        // Within a container the path is that outside of it, which is not there.
        assert_eq!(of_groups(&first, "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n"), Some(1500));
        assert_eq!(of_groups(&first, "nonsense"), None);
        [second, first].iter().for_each(|root| fs::remove_dir_all(root).unwrap());
    }
}
