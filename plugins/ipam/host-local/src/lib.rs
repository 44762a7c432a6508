//! The `host-local` IPAM plugin: addresses from ranges of this node, one file per lease.
//!
//! It keeps the Go plugin's directory format and lock, so that both can serve one network at the same time, and adds an index beside the
//! leases that makes every call cost the same however many there are (`docs/adr/0006-host-local-index.md`). Keys, files and differences
//! are described in `docs/plugins/host-local.md`.
#![forbid(unsafe_code)]

mod allocate;
mod config;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod range;
mod resolv;
mod store;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use cni::{AddResult, Attachment, Cidr, Code, Failure, Ip, Plugin, Request, Target, ValidAttachments};

use config::Config;
use store::{Location, Owner, Store};

pub use error::Error;
pub use range::RangeProblem;

/// How long to wait for another process to release the store, unless `CNI_LOCK_TIMEOUT` (seconds) says otherwise. The Go plugin holds the
/// lock for a third of a second at 50,000 leases: this is enough for a node's worth of pods at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// The plugin.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostLocal;

impl Plugin for HostLocal {
    fn name(&self) -> &'static str {
        "host-local"
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        let config = Config::read(request)?;
        let mut result = AddResult { routes: config.routes.clone(), ..AddResult::default() };
        if let Some(path) = &config.resolv_conf {
            result.dns = resolv::read(path)?;
        }
        let mut store = Store::create(&location(request)?, patience(request)?)?;
        let owners = owners(&target.attachment);
        let [owner, _] = &owners;
        let container = target.container_id().as_str();
        let claimed = store.settled(|store| {
            let choices = allocate::choose(store, &config, &owners, container)?;
            let ips = choices.iter().filter_map(ip).collect::<Vec<_>>();
            let mut wanted =
                choices.into_iter().map(|choice| (choice.address, choice.cursor)).collect::<Vec<_>>();
            store.claim(owner, &mut wanted)?;
            Ok(ips)
        });
        leave(request, store);
        result.ips = claimed?;
        Ok(result)
    }

    fn del(&self, request: &Request, attachment: &Attachment, _: Option<&Path>) -> Result<(), Failure> {
        let Some(mut store) = Store::existing(&location(request)?, patience(request)?)? else {
            return Ok(());
        };
        let released = store.settled(|store| {
            for owner in owners(attachment) {
                if store.release(&owner)? {
                    break;
                }
            }
            Ok(())
        });
        leave(request, store);
        Ok(released?)
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        let config = Config::read(request)?;
        let previous = request.config().prev_result()?.unwrap_or_default();
        let container = target.container_id().to_string();
        let Some(mut store) = Store::existing(&location(request)?, patience(request)?)? else {
            return Err(Error::NoLease { container }.into());
        };
        let leased = store.settled(|store| {
            let mut leased = Vec::new();
            for owner in owners(&target.attachment) {
                leased.extend(store.leases(&owner)?);
            }
            Ok(leased)
        });
        leave(request, store);
        let leased = leased?;
        if leased.is_empty() {
            return Err(Error::NoLease { container }.into());
        }
        // Addresses of other IPAM plugins, or of sets that were since taken out of the configuration, are not ours to judge.
        let ours = |ip: &&Ip| config.sets.iter().any(|set| set.allows(ip.address.address()));
        match previous.ips.iter().filter(ours).find(|ip| !leased.contains(&ip.address.address())) {
            Some(ip) => {
                let attachment = target.attachment.to_string();
                Err(Error::NotLeased { address: ip.address.address(), attachment }.into())
            }
            None => Ok(()),
        }
    }

    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure> {
        let Some(mut store) = Store::existing(&location(request)?, patience(request)?)? else {
            return Ok(());
        };
        let errors = store.retain(|owner| match owner.interface() {
            Some(ifname) => valid.contains(owner.container(), ifname),
            // A lease of old does not say which interface it is for.
            None => valid.contains_container(owner.container()),
        });
        leave(request, store);
        let errors = errors?;
        Failure::join(errors.into_iter().map(Failure::from).collect())
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        let config = Config::read(request)?;
        let unavailable = |error: Error| Failure::from(error).with_code(Code::NotAvailable);
        if let Some(path) = &config.resolv_conf {
            resolv::read(path).map_err(unavailable)?;
        }
        let location = location(request)?;
        writable(location.leases()).map_err(unavailable)?;
        let Some(mut store) = Store::existing(&location, patience(request)?)? else { return Ok(()) };
        let exhausted = store.settled(|store| allocate::exhausted(store, &config));
        leave(request, store);
        match exhausted? {
            Some(error) => Err(unavailable(error)),
            None => Ok(()),
        }
    }
}

fn location(request: &Request) -> Result<Location, Error> {
    Ok(Location::new(&config::data_dir(request)?, request.config().name()))
}

/// Ends the use of a store, whatever came of it: what was learnt by reading it is kept, what was put right is told.
fn leave(request: &Request, mut store: Store) {
    store.save();
    for note in store.take_notes() {
        request.note(format!("host-local: network {}: {note}", request.config().name()));
    }
}

/// Whose leases an attachment's are: its own, and those of old, which name the container only.
fn owners(attachment: &Attachment) -> [Owner; 2] {
    [Owner::of(attachment), Owner::legacy(attachment.container_id.as_str())]
}

fn ip(choice: &allocate::Choice<'_>) -> Option<Ip> {
    let address = Cidr::new(choice.address, choice.range.subnet.prefix())?;
    Some(Ip { gateway: choice.range.gateway, ..Ip::new(address) })
}

fn patience(request: &Request) -> Result<Duration, Failure> {
    match request.environment().text("CNI_LOCK_TIMEOUT")? {
        None => Ok(PATIENCE),
        Some(text) => text
            .parse::<f64>()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| Error::LockTimeout { text: cni::json::shorten(text) }.into()),
    }
}

/// Whether files could be made in a directory, or where it would be created: asked with a file that never gets a name.
fn writable(directory: &Path) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_TMPFILE).mode(0o600);
    for ancestor in directory.ancestors() {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match options.open(ancestor) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The file system has no unnamed files; whether it is writable is seen by ADD.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                return File::open(ancestor).map(drop).map_err(Error::io("open", ancestor));
            }
            other => return other.map(drop).map_err(Error::io("create files in", ancestor)),
        }
    }
    Ok(())
}
