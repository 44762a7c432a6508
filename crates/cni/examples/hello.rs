//! A whole CNI plugin that knows no kernel: it keeps a greeting for every attachment, one file each.
//!
//! ```json
//! { "cniVersion": "1.1.0", "name": "demo", "type": "hello", "greeting": "good morning", "stateDir": "/run/hello" }
//! ```
//!
//! It works first in a list or later, with `ipam` or without. Read it as a pattern: validate everything, then change things, take them
//! back where a later step fails, and let DEL succeed in any state.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cni::{AddResult, Attachment, Code, Failure, Interface, Plugin, Request, Target, ValidAttachments, Verb};

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    greeting: String,
    state_dir: PathBuf,
}

impl Config {
    fn read(request: &Request) -> Result<Self, Failure> {
        let config: Self = request.config().decode()?;
        if config.greeting.is_empty() {
            return Err(Failure::new(Code::InvalidConfig, "greeting: is empty").hint("say hello"));
        }
        Ok(config)
    }

    /// State is kept by network, container and interface. None of the three can contain a `/`, the last two no `:`.
    fn network(&self, request: &Request) -> PathBuf {
        self.state_dir.join(request.config().name().as_str())
    }

    fn file(&self, request: &Request, attachment: &Attachment) -> PathBuf {
        self.network(request).join(format!("{}:{}", attachment.container_id, attachment.ifname))
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Io, format!("can't {what} {}", path.display())).detail(error.to_string())
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Passes a verb on to the IPAM plugin, if one is configured.
fn ipam(request: &Request, verb: Verb) -> Result<(), Failure> {
    match request.config().ipam_type()? {
        Some(kind) => request.delegate(&kind)?.call(verb),
        None => Ok(()),
    }
}

struct Hello;

impl Plugin for Hello {
    fn name(&self) -> &'static str {
        "hello"
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        let config = Config::read(request)?;
        let file = config.file(request, &target.attachment);
        // Before anything is changed, a delegate included: its DEL after a failed ADD would release what the first ADD took.
        if file.exists() {
            let message = format!("{} has been greeted already", target.attachment);
            return Err(Failure::new(Code::Conflict, message).hint("call DEL before another ADD"));
        }
        let mut result = request.config().prev_result()?.unwrap_or_default();
        // An IPAM plugin that fails has been run with DEL by the time its error is here.
        let addresses = match request.config().ipam_type()? {
            Some(kind) => request.delegate(&kind)?.add()?,
            None => AddResult::default(),
        };
        let written =
            fs::create_dir_all(config.network(request)).and_then(|()| fs::write(&file, &config.greeting));
        if let Err(error) = written {
            let failure = failed("write", &file, &error);
            return Err(match ipam(request, Verb::Del) {
                Ok(()) => failure,
                Err(cleanup) => failure.detail(cleanup.message()),
            });
        }
        let sandbox = target.netns().display().to_string();
        let name = target.ifname().as_str();
        let known = result.interfaces.iter().position(|i| i.name == name && i.sandbox == sandbox);
        let index = known.unwrap_or_else(|| {
            result.interfaces.push(Interface { name: name.to_owned(), sandbox, ..Interface::default() });
            result.interfaces.len() - 1
        });
        result.ips.extend(addresses.ips.into_iter().map(|mut ip| {
            ip.interface = Some(index);
            ip
        }));
        result.routes.extend(addresses.routes);
        if !addresses.dns.is_empty() {
            result.dns = addresses.dns;
        }
        Ok(result)
    }

    fn del(&self, request: &Request, attachment: &Attachment, _: Option<&Path>) -> Result<(), Failure> {
        // Own things first, to the end; then the delegate, whose error counts as much.
        let config: Config = request.config().decode()?;
        let steps = [remove(&config.file(request, attachment)), ipam(request, Verb::Del)];
        Failure::join(steps.into_iter().filter_map(Result::err).collect())
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        let config = Config::read(request)?;
        let previous = request.config().required_prev_result()?;
        if !previous.interfaces.iter().any(|i| i.name == target.ifname().as_str()) {
            let message = format!("prevResult has no interface {}", target.ifname());
            return Err(Failure::new(Code::CheckFailed, message));
        }
        let file = config.file(request, &target.attachment);
        match fs::read_to_string(&file) {
            Ok(greeting) if greeting == config.greeting => ipam(request, Verb::Check),
            Ok(greeting) => Err(Failure::new(
                Code::CheckFailed,
                format!("{} was greeted with {greeting:?}, not {:?}", target.attachment, config.greeting),
            )),
            Err(error) => {
                Err(Failure::new(Code::CheckFailed, format!("{} was not greeted", target.attachment))
                    .detail(failed("read", &file, &error).message()))
            }
        }
    }

    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure> {
        let config: Config = request.config().decode()?;
        let network = config.network(request);
        let entries = match fs::read_dir(&network) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return ipam(request, Verb::Gc),
            Err(error) => return Err(failed("list", &network, &error)),
        };
        let mut failures = Vec::new();
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.split_once(':'));
            let stale = owner.is_some_and(|(container, ifname)| !valid.contains(container, ifname));
            if stale && let Err(failure) = remove(&entry.path()) {
                failures.push(failure);
            }
        }
        failures.extend(ipam(request, Verb::Gc).err());
        Failure::join(failures)
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        let config = Config::read(request)?;
        fs::create_dir_all(&config.state_dir)
            .map_err(|error| failed("create", &config.state_dir, &error).with_code(Code::NotAvailable))?;
        ipam(request, Verb::Status)
    }
}

cni::main!(Hello);
