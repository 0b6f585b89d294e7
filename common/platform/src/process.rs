//! Facts about this process and its machine, for heartbeats and for people.

use std::fs;

/// Resident memory of this process in bytes; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| resident_of(&status))
        .unwrap_or(0)
}

/// `VmRSS` of proc_pid_status(5), which is in KiB whatever the page size.
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// The machine's name as people call it, or `localhost`.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_string())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_memory_and_its_machine_a_name() {
        let bytes = super::resident_bytes();
        assert!((100_000..1 << 40).contains(&bytes), "{bytes} bytes");
        assert!(!super::host_name().contains(char::is_whitespace));
    }
}
