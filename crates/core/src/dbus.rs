//! Calls over the system bus, with deadlines.
//!
//! `rustbus` encodes and decodes messages. Its own connections know no deadline while they authenticate, and no
//! `DBUS_SYSTEM_BUS_ADDRESS`, so the socket is ours. See the [D-Bus specification](https://dbus.freedesktop.org/doc/dbus-specification.html).

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use rustbus::message_builder::MarshalledMessage;
use rustbus::wire::errors::{MarshalError, UnmarshalError};
use rustbus::wire::marshal::marshal;
use rustbus::wire::unmarshal::{unmarshal_dynamic_header, unmarshal_header, unmarshal_next_message};
use rustbus::{MessageBuilder, MessageType};
use thiserror::Error;

/// Where the bus is unless the environment says otherwise.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// Flag of a call that must not start the service it is for.
const NO_AUTO_START: u8 = 2;

/// Longer answers than this are no answers to any question asked here.
const LARGEST_MESSAGE: usize = 1 << 20;

/// A call over the bus that failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BusError {
    /// An address that is none, or of a transport other than Unix sockets.
    #[error("can't use the address {address:?} of the system bus")]
    Address {
        /// The address.
        address: String,
    },
    /// There is no bus.
    #[error("can't connect to the system bus")]
    Connect {
        /// Why.
        source: io::Error,
    },
    /// The bus does not take our credentials.
    #[error("the system bus refused us: {answer:?}")]
    Refused {
        /// Its answer.
        answer: String,
    },
    /// The socket failed, or no answer came before the deadline.
    #[error("can't {operation}: no answer over the system bus")]
    Socket {
        /// What was asked.
        operation: String,
        /// Why.
        source: io::Error,
    },
    /// The service's own error.
    #[error("can't {operation}: {name}: {message}")]
    Service {
        /// What was asked.
        operation: String,
        /// The error's name.
        name: String,
        /// Its message.
        message: String,
    },
    /// A question that can't be put into a message, such as one with a NUL.
    #[error("can't {operation}: it can't be written as a message")]
    Encode {
        /// What was asked.
        operation: String,
        /// Why.
        source: MarshalError,
    },
    /// An answer that is not in the format it should be in.
    #[error("can't {operation}: the answer is not understood")]
    Decode {
        /// What was asked.
        operation: String,
        /// Why.
        source: UnmarshalError,
    },
}

impl BusError {
    /// Whether there is no bus at all.
    pub fn is_absent(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, Self::Connect { source } if matches!(source.kind(), NotFound | ConnectionRefused))
    }

    /// Whether the time was up.
    pub fn is_timeout(&self) -> bool {
        use io::ErrorKind::{TimedOut, WouldBlock};
        matches!(self, Self::Socket { source, .. } if matches!(source.kind(), TimedOut | WouldBlock))
    }

    /// The message of the service's own error.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Service { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// A method to call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method {
    pub(crate) service: &'static str,
    pub(crate) object: &'static str,
    pub(crate) interface: &'static str,
    pub(crate) name: &'static str,
}

/// A connection to the system bus.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    deadline: Instant,
    serial: u32,
}

impl Bus {
    /// Connects to the bus that `DBUS_SYSTEM_BUS_ADDRESS` names, else to the usual one. All that is done over the connection has to be
    /// done before the deadline.
    pub(crate) fn connect(deadline: Instant) -> Result<Self, BusError> {
        let named = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok().filter(|address| !address.is_empty());
        let address = named.as_deref().unwrap_or(SYSTEM_BUS);
        let mut bus = Self { stream: open(address)?, deadline, serial: 0 };
        bus.authenticate()?;
        let hello = Method {
            service: "org.freedesktop.DBus",
            object: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            name: "Hello",
        };
        bus.call(hello, &[])?;
        Ok(bus)
    }

    /// Whether somebody owns a name. Starts nobody.
    pub(crate) fn has_owner(&mut self, name: &str) -> Result<bool, BusError> {
        let method = Method {
            service: "org.freedesktop.DBus",
            object: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            name: "NameHasOwner",
        };
        let answer = self.call(method, &[name])?;
        answer
            .body
            .parser()
            .get()
            .map_err(|source| BusError::Decode { operation: describe(method, &[name]), source })
    }

    /// Calls a method with texts as arguments and returns the answer.
    pub(crate) fn call(&mut self, method: Method, arguments: &[&str]) -> Result<MarshalledMessage, BusError> {
        let operation = describe(method, arguments);
        self.serial += 1;
        let question = encode(method, arguments, self.serial)
            .map_err(|source| BusError::Encode { operation: operation.clone(), source })?;
        self.write(&question).map_err(|source| BusError::Socket { operation: operation.clone(), source })?;
        loop {
            let bytes = self
                .read_message()
                .map_err(|source| BusError::Socket { operation: operation.clone(), source })?;
            let answer =
                decode(&bytes).map_err(|source| BusError::Decode { operation: operation.clone(), source })?;
            // Signals come in between, such as that our name is ours.
            if answer.dynheader.response_serial != Some(self.serial) {
                continue;
            }
            if answer.typ == MessageType::Error {
                let name = answer.dynheader.error_name.clone().unwrap_or_default();
                let message = answer.body.parser().get::<String>().unwrap_or_default();
                return Err(BusError::Service { operation, name, message });
            }
            return Ok(answer);
        }
    }

    /// SASL EXTERNAL: the bus takes our identity from the socket; the user id we say must be the same.
    fn authenticate(&mut self) -> Result<(), BusError> {
        let failed = |source| BusError::Socket { operation: "authenticate".to_owned(), source };
        // Hexadecimal digits of the decimal digits: `0` is 30.
        let uid: String = nix::unistd::geteuid().to_string().chars().flat_map(|digit| ['3', digit]).collect();
        self.write(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        // Byte by byte, so that nothing of what follows is taken.
        while !answer.ends_with(b"\r\n") && answer.len() < 1024 {
            let mut byte = [0];
            self.read(&mut byte).map_err(failed)?;
            answer.extend(byte);
        }
        if !answer.starts_with(b"OK ") {
            return Err(BusError::Refused { answer: String::from_utf8_lossy(&answer).trim_end().to_owned() });
        }
        self.write(b"BEGIN\r\n").map_err(failed)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => bytes = &mut bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One message: a fixed part that ends with the length of the fields behind it, the fields, padding to eight bytes, the body.
    fn read_message(&mut self) -> io::Result<Vec<u8>> {
        let mut message = vec![0; 16];
        self.read(&mut message)?;
        let number = |bytes: &[u8]| -> usize {
            let bytes: [u8; 4] = bytes.try_into().unwrap_or_default();
            let number =
                if message[0] == b'B' { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
            usize::try_from(number).unwrap_or(usize::MAX)
        };
        let (body, fields) = (number(&message[4..8]), number(&message[12..16]));
        if body > LARGEST_MESSAGE || fields > LARGEST_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        message.resize(16 + fields.next_multiple_of(8) + body, 0);
        self.read(&mut message[16..])?;
        Ok(message)
    }
}

fn describe(method: Method, arguments: &[&str]) -> String {
    format!("call {}({})", method.name, arguments.join(", "))
}

fn encode(method: Method, arguments: &[&str], serial: u32) -> Result<Vec<u8>, MarshalError> {
    let mut message = MessageBuilder::new()
        .call(method.name)
        .on(method.object)
        .with_interface(method.interface)
        .at(method.service)
        .build();
    message.flags |= NO_AUTO_START;
    for argument in arguments {
        message.body.push_param(*argument)?;
    }
    let mut bytes = Vec::new();
    marshal(&message, serial, &mut bytes)?;
    bytes.extend_from_slice(message.get_buf());
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<MarshalledMessage, UnmarshalError> {
    let (start, header) = unmarshal_header(bytes, 0)?;
    let (length, fields) = unmarshal_dynamic_header(&header, bytes, start)?;
    let (_, message) = unmarshal_next_message(&header, fields, bytes, start + length)?;
    Ok(message)
}

/// Connects to the first address of a list that takes a connection.
fn open(addresses: &str) -> Result<UnixStream, BusError> {
    let mut last = BusError::Address { address: addresses.to_owned() };
    for address in addresses.split(';').filter(|address| !address.is_empty()) {
        let Some(socket) = socket_address(address) else { continue };
        match UnixStream::connect_addr(&socket) {
            Ok(stream) => return Ok(stream),
            Err(source) => last = BusError::Connect { source },
        }
    }
    Err(last)
}

/// The socket of an address such as `unix:path=/run/dbus/system_bus_socket,guid=…`.
fn socket_address(address: &str) -> Option<SocketAddr> {
    let pairs = address.strip_prefix("unix:")?;
    pairs.split(',').find_map(|pair| match pair.split_once('=')? {
        ("path", value) => SocketAddr::from_pathname(std::ffi::OsString::from_vec(unescape(value)?)).ok(),
        ("abstract", value) => SocketAddr::from_abstract_name(unescape(value)?).ok(),
        _ => None,
    })
}

/// Values are written with `%` and two hexadecimal digits for all but a few characters.
fn unescape(value: &str) -> Option<Vec<u8>> {
    let mut bytes = value.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            plain.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            plain.push(byte);
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_specification_writes_them() {
        let path = |address| socket_address(address)?.as_pathname().map(|path| path.display().to_string());
        assert_eq!(path("unix:path=/run/bus").as_deref(), Some("/run/bus"));
        assert_eq!(path("unix:guid=1234,path=/run/my%20bus").as_deref(), Some("/run/my bus"));
        assert_eq!(path("tcp:host=localhost,port=1"), None);
        assert_eq!(path("unix:path=/run/%zz"), None);
        let name = socket_address("unix:abstract=/tmp/bus").unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"/tmp/bus"[..]));
    }

    #[test]
    fn no_bus_is_told_from_a_bus_that_fails() {
        assert!(open("unix:path=/nonexistent/bus").unwrap_err().is_absent());
        assert!(!open("tcp:host=localhost").unwrap_err().is_absent());
    }

    #[test]
    fn what_is_asked_can_be_read_back() {
        let method = Method { service: "a.b", object: "/a", interface: "a.c", name: "Do" };
        let bytes = encode(method, &["x", "10.0.0.1/32"], 7).unwrap();
        let message = decode(&bytes).unwrap();
        assert_eq!(message.dynheader.member.as_deref(), Some("Do"));
        assert_eq!(message.dynheader.serial, Some(7));
        assert_eq!(message.body.parser().get2::<&str, &str>().unwrap(), ("x", "10.0.0.1/32"));
        assert_eq!(message.flags & NO_AUTO_START, NO_AUTO_START);
    }
}
