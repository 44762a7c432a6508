//! Choosing addresses: one of each set, before anything is changed.

use std::net::IpAddr;

use crate::config::Config;
use crate::error::Error;
use crate::range::{Range, RangeSet, Span};
use crate::store::{Attempt, Cursor, Owner, Store};

/// An address chosen of a set.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) address: IpAddr,
    pub(crate) range: &'a Range,
    pub(crate) cursor: Cursor,
}

/// Chooses an address of every set for an attachment that has none there yet.
pub(crate) fn choose<'a>(
    store: &mut Store,
    config: &'a Config,
    owners: &[Owner],
    container: &str,
) -> Attempt<Vec<Choice<'a>>> {
    let requests = requests(config)?;
    refuse_duplicates(store, config, owners, container)?;
    let mut choices = Vec::new();
    for (index, (set, request)) in config.sets.iter().zip(requests).enumerate() {
        let cursor = store.cursor(index);
        let address = match request {
            Some(address) => requested(store, config, index, set, address)?,
            None => next(store, index, set, &cursor)?,
        };
        // A set allows only what is in one of its ranges.
        let Some(range) = set.range_of(address) else { continue };
        choices.push(Choice { address, range, cursor });
    }
    Ok(choices)
}

/// Each set takes the first requested address that lies in it; none may be left over.
fn requests(config: &Config) -> Result<Vec<Option<IpAddr>>, Error> {
    let mut left = config.requested.clone();
    let taken = config
        .sets
        .iter()
        .map(|set| {
            let found = left.iter().position(|address| set.range_of(*address).is_some())?;
            Some(left.remove(found))
        })
        .collect();
    if left.is_empty() {
        return Ok(taken);
    }
    let addresses = left.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    Err(Error::Unfulfilled { addresses })
}

/// The Go plugin overlooks this where an address is requested. Leases outside all sets do not count: the configuration may have changed.
fn refuse_duplicates(store: &mut Store, config: &Config, owners: &[Owner], container: &str) -> Attempt<()> {
    for owner in owners {
        for address in store.leases(owner)? {
            if let Some(set) = config.sets.iter().position(|set| set.range_of(address).is_some()) {
                return Err(Error::Duplicate { set, address, container: container.to_owned() }.into());
            }
        }
    }
    Ok(())
}

fn requested(
    store: &mut Store,
    config: &Config,
    set: usize,
    ranges: &RangeSet,
    address: IpAddr,
) -> Attempt<IpAddr> {
    let span = Span::single(address);
    if !ranges.allows(address) {
        let own = ranges.range_of(address).map(|range| range.exclude.as_slice()).unwrap_or_default();
        let excluded = config.exclude.iter().chain(own).any(|hole| hole.contains(span.first));
        return Err(if excluded {
            Error::Excluded { set, address }
        } else {
            Error::Gateway { set, address }
        }
        .into());
    }
    store.first_free(span)?.ok_or_else(|| {
        let owner = store.holder(address);
        Error::Taken { set, address, ranges: ranges.to_string(), owner }.into()
    })
}

fn next(store: &mut Store, set: usize, ranges: &RangeSet, cursor: &Cursor) -> Attempt<IpAddr> {
    for span in ranges.round(cursor.address()) {
        if let Some(address) = store.first_free(span)? {
            return Ok(address);
        }
    }
    Err(Error::Exhausted { set, ranges: ranges.to_string() }.into())
}

/// The first set that has no free address.
pub(crate) fn exhausted(store: &mut Store, config: &Config) -> Attempt<Option<Error>> {
    for (index, set) in config.sets.iter().enumerate() {
        let cursor = store.cursor(index);
        match next(store, index, set, &cursor) {
            Err(crate::store::Interrupt::Failed(error @ Error::Exhausted { .. })) => return Ok(Some(error)),
            other => other.map(|_| ())?,
        }
    }
    Ok(None)
}
