//! Skipping a test aloud: a test that cannot run here says why, and is counted at the end of `make test`.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Names the file that collects one line per skipped test.
pub const LOG_VARIABLE: &str = "FERRULE_SKIP_LOG";

/// Ends the calling test (a function returning `()`), saying why it cannot run here.
///
/// The line `SKIP <test>: <reason>` goes to standard error and to the file named by `FERRULE_SKIP_LOG`. `make test`
/// lists those lines at its end, and in CI fails on any that `testdata/allowed-skips.txt` does not expect.
///
/// ```
/// fn vlan_on_a_bridge() {
///     if !std::path::Path::new("/proc/net/vlan").exists() {
///         testkit::skip!("this kernel has no VLAN devices (CONFIG_VLAN_8021Q)");
///     }
/// }
/// ```
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        fn here() {}
        $crate::skip::report(::std::any::type_name_of_val(&here), &::std::format!($($reason)+));
        return;
    }};
}

/// Writes the line of a skipped test; `place` is the type name of an item inside the test function, which is the one
/// way to its full path that works under every test runner. Called by [`skip!`](crate::skip!).
pub fn report(place: &str, reason: &str) {
    let line = format!("{}: {}\n", test_name(place), reason.replace('\n', " "));
    eprint!("SKIP {line}");
    if let Some(path) = std::env::var_os(LOG_VARIABLE) {
        // One short write in append mode: lines of parallel tests do not mix.
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut log| log.write_all(line.as_bytes()));
        assert!(written.is_ok(), "cannot record a skip in {}: {written:?}", path.display());
    }
}

fn test_name(place: &str) -> &str {
    let mut name = place.strip_suffix("::here").unwrap_or(place);
    while let Some(outer) = name.strip_suffix("::{{closure}}") {
        name = outer;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::test_name;

    #[test]
    fn a_skip_is_named_after_its_test() {
        assert_eq!(test_name("bridge::tests::vlan::here"), "bridge::tests::vlan");
        assert_eq!(test_name("bridge::vlan::{{closure}}::{{closure}}::here"), "bridge::vlan");
    }
}
