//! What the kernel says of the pod's memory.

use std::path::{Path, PathBuf};

/// How often the kernel has killed a process of this container for its memory, as its cgroup counts it.
#[derive(Debug)]
pub(crate) struct KillCounter {
    /// Version 2 first, as every current node has it.
    files: [PathBuf; 2],
    before: Option<u64>,
}

impl KillCounter {
    /// Counts from now on.
    pub(crate) fn begin(cgroup_dir: &Path) -> Self {
        let files = [
            cgroup_dir.join("memory.events"),
            cgroup_dir.join("memory/memory.oom_control"),
        ];
        let before = count(&files);
        Self { files, before }
    }

    /// Whether there was a kill since. What cannot be read says nothing: then it is no.
    pub(crate) fn has_risen(&self) -> bool {
        match (self.before, count(&self.files)) {
            (Some(before), Some(after)) => after > before,
            _ => false,
        }
    }
}

fn count(files: &[PathBuf]) -> Option<u64> {
    let texts = files.iter().map(std::fs::read_to_string);
    let text = texts.flatten().next()?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, file: &str, text: &str) {
        let file = folder.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    #[test]
    fn a_kill_is_counted_on_either_version_of_cgroups() {
        for file in ["memory.events", "memory/memory.oom_control"] {
            let folder = tempfile::tempdir().unwrap();
            written(folder.path(), file, "oom 3\noom_kill 2\noom_group_kill 7\n");
            let counter = KillCounter::begin(folder.path());
            written(folder.path(), file, "oom 9\noom_kill 2\noom_group_kill 9\n");
            assert!(!counter.has_risen());
            written(folder.path(), file, "oom 9\noom_kill 3\n");
            assert!(counter.has_risen());
        }
    }

    #[test]
    fn what_is_not_there_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let counter = KillCounter::begin(folder.path());
        assert!(!counter.has_risen());
        written(folder.path(), "memory.events", "oom_kill 1\n");
        assert!(!counter.has_risen(), "it was not there before");
    }
}
