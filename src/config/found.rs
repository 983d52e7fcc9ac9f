//! Detects the memory and the cores that the process may use: those of its container, or of the
//! machine.
//!
//! The limit is the minimum of the machine's memory and the limits of the control group of the
//! process and its ancestors, in version 2 (`memory.max`) and version 1 (`memory.limit_in_bytes`).
//! Inside a container the path of the group often differs from that of the mount, so the root of
//! the mount is always read as well.

use std::fs;
use std::path::Path;

/// Memory that is assumed if the system does not report any.
const ASSUMED: u64 = 4 << 30;

/// Detected resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes of memory that the process may use.
    pub memory: u64,
    /// Cores that the process may use.
    pub cores: u64,
}

impl Found {
    /// Detects the resources of the system that this process runs on.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let groups = read("/proc/self/cgroup");
        let memory = limit(Path::new("/sys/fs/cgroup"), &groups, &read("/proc/meminfo"));
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
        Self { memory, cores: u64::try_from(cores).unwrap_or(2) }
    }
}

/// Returns the lowest limit of the groups below `root` and of the machine.
fn limit(root: &Path, groups: &str, meminfo: &str) -> u64 {
    let machine = machine(meminfo);
    let limits = groups.lines().flat_map(|line| group_limits(root, line));
    limits.chain(machine).filter(|bytes| *bytes > 0).min().unwrap_or(ASSUMED)
}

/// Returns the limits that one line of `/proc/self/cgroup`, such as `0::/a/b` or `4:memory:/a/b`,
/// leads to: those of the group and of its ancestors.
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next())
    else {
        return Vec::new();
    };
    let (mounts, file) = match controllers {
        "" => (vec![root.to_owned(), root.join("unified")], "memory.max"),
        list if list.split(',').any(|name| name == "memory") => {
            (vec![root.join("memory")], "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let mut limits = Vec::new();
    for mount in mounts {
        for ancestor in Path::new(group.trim_start_matches('/')).ancestors() {
            let text = fs::read_to_string(mount.join(ancestor).join(file)).unwrap_or_default();
            // Without a limit, version 2 reports `max`, and version 1 a number beyond any machine's
            // memory.
            limits.extend(text.trim().parse::<u64>());
        }
    }
    limits
}

/// Returns the bytes of memory of the machine, given the text of `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:        2097152 kB\nMemFree:          100 kB\n";

    fn found(files: &[(&str, &str)], groups: &str) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit(root.path(), groups, MEMINFO)
    }

    #[test]
    fn the_least_limit_of_groups_and_machine_holds() {
        let max = "9223372036854771712\n";
        for (files, groups, expected) in [
            (&[][..], "", 2 << 30),
            (&[("memory.max", "max\n")], "0::/\n", 2 << 30),
            (&[("memory.max", "268435456\n")], "0::/\n", 256 << 20),
            (
                &[("a/b/memory.max", "max\n"), ("a/memory.max", "536870912\n")],
                "0::/a/b\n",
                512 << 20,
            ),
            (&[("memory.max", "536870912\n")], "0::/docker/not-mounted-here\n", 512 << 20),
            (&[("unified/a/memory.max", "1048576\n")], "0::/a\n", 1 << 20),
            (&[("memory/memory.limit_in_bytes", max)], "4:memory:/\n", 2 << 30),
            (
                &[("memory/a/memory.limit_in_bytes", "1048576\n")],
                "9:cpu:/a\n4:memory:/a\n",
                1 << 20,
            ),
            (&[("memory/memory.limit_in_bytes", "4194304\n")], "5:cpu,memory:/docker/x\n", 4 << 20),
            (&[("memory/memory.limit_in_bytes", "99999999999999\n")], "4:memory:/\n", 2 << 30),
            (&[("memory/memory.limit_in_bytes", "4194304\n")], "garbage\n5:cpu:/\n", 2 << 30),
        ] {
            assert_eq!(found(files, groups), expected, "{groups}");
        }
        assert_eq!(limit(Path::new("/nowhere"), "", ""), ASSUMED);
    }

    #[test]
    fn this_machine_has_memory_and_cores() {
        let here = Found::here();
        assert!(here.memory > 16 << 20 && here.cores >= 1, "{here:?}");
    }
}
