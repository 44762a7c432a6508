//! Reading a table of `iptables-legacy` (`IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES` of `linux/netfilter_ipv4/ip_tables.h`; the numbers of
//! the IPv6 twin are the same).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// A table's name, NUL included.
const NAME: usize = 32;
const INFO: usize = 84;
const HOOKS: usize = 5;

/// How often the table may change between asking for its size and for its entries.
const ATTEMPTS: u32 = 5;

/// Where the built-in chains are among the entries, by number of the hook.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Info {
    /// Offset of the first rule.
    pub(crate) hook_entry: [usize; HOOKS],
    /// Offset of the policy.
    pub(crate) underflow: [usize; HOOKS],
}

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) info: Info,
    /// All entries, one behind the other.
    pub(crate) entries: Vec<u8>,
}

/// Reads a table of the calling thread's network namespace. A table that is not there is made by the kernel.
pub(crate) fn read(name: &str, ipv6: bool) -> Result<Table, Errno> {
    let (family, level) =
        if ipv6 { (AddressFamily::Inet6, libc::SOL_IPV6) } else { (AddressFamily::Inet, libc::SOL_IP) };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut answer = request(name, INFO)?;
        get_option(&socket, level, GET_INFO, &mut answer)?;
        let number = |index: usize| -> usize {
            let bytes = answer.get(NAME + 4 * index..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| usize::try_from(u32::from_ne_bytes(*bytes)).unwrap_or(0))
        };
        // valid_hooks, hook_entry[5], underflow[5], num_entries, size
        let info = Info {
            hook_entry: std::array::from_fn(|hook| number(1 + hook)),
            underflow: std::array::from_fn(|hook| number(1 + HOOKS + hook)),
        };
        let size = number(2 + 2 * HOOKS);
        // Entries have 64-bit counters, and are aligned as those are.
        let start = (NAME + 4).next_multiple_of(align_of::<u64>());
        let mut answer = request(name, start + size)?;
        answer[NAME..NAME + 4].copy_from_slice(&u32::try_from(size).unwrap_or(0).to_ne_bytes());
        match get_option(&socket, level, GET_ENTRIES, &mut answer) {
            Ok(()) => return Ok(Table { info, entries: answer.split_off(start) }),
            Err(Errno::EAGAIN) if attempt < ATTEMPTS => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A buffer that begins with the table's name.
fn request(name: &str, length: usize) -> Result<Vec<u8>, Errno> {
    if name.len() >= NAME {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut buffer = vec![0; length];
    buffer[..name.len()].copy_from_slice(name.as_bytes());
    Ok(buffer)
}

/// getsockopt(2) for options whose answer is written over the question.
fn get_option(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_too_large| Errno::EINVAL)?;
    // SAFETY: the kernel reads and writes at most `length` bytes, which the buffer has, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    Errno::result(result).map(drop)
}
