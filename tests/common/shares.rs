//! Shared directories as the host sees them.

/// The processes that serve an instance's shares.
pub fn servers(id: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("__share") && words.contains(id)
    };
    numbers.filter(ours).collect()
}
