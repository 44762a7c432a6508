//! What the fuzz targets (`fuzz/`) call: readers of what others have written, which are private. Compiled for them only.

use cni::{Failure, Request};

pub use crate::store::fuzzing::{cursor, index, lease};

/// Reads a configuration. What is accepted can be searched from the first address to the last.
pub fn configuration(request: &Request) -> Result<(), Failure> {
    crate::config::data_dir(request).map_err(Failure::from)?;
    let config = crate::config::Config::read(request)?;
    for set in &config.sets {
        for span in set.round(None) {
            let ends = [span.first, span.last].map(crate::range::address);
            assert!(
                span.first <= span.last
                    && ends.iter().all(|end| set.allows(*end) && set.range_of(*end).is_some())
            );
            let excluded = |other: &crate::range::Span| span.first <= other.last && other.first <= span.last;
            assert!(!config.exclude.iter().any(excluded), "{span:?} is handed out although excluded");
        }
    }
    assert!(config.exclude.iter().all(|span| span.first <= span.last));
    Ok(())
}

/// Reads a `resolv.conf`: what was found is words.
pub fn resolv_conf(content: &[u8]) {
    let dns = crate::resolv::parse(&String::from_utf8_lossy(content));
    let words = dns
        .nameservers
        .iter()
        .chain(&dns.search)
        .chain(&dns.options)
        .chain((!dns.domain.is_empty()).then_some(&dns.domain));
    for word in words {
        assert!(!word.is_empty() && !word.contains(char::is_whitespace), "{word:?}");
    }
}
