//! Delegates that are part of this program, so that they can be asked without executing one.
//!
//! To start a program costs more than most IPAM plugins' work. Where the file that `CNI_PATH` leads to was built together with the program
//! that is running, executing it would do what calling it does: its code is here. The file says so by a mark at its end, and this program has the same
//! one among its constants; the build puts both there (`tools/build`). A wrapper, another version or another suite's plugin has another mark or
//! none, and is executed.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::plugin::Plugin;

/// The plugins that are part of a program.
#[derive(Clone, Copy, Default)]
pub(crate) struct Contained(&'static [&'static (dyn Plugin + Sync)]);

impl Contained {
    pub(crate) fn of(plugin: &dyn Plugin) -> Self {
        Self(plugin.contained())
    }

    /// The plugin that a program is, if it is one of these.
    pub(super) fn find(self, kind: &str, program: &Path) -> Option<&'static (dyn Plugin + Sync)> {
        let plugin = self.0.iter().copied().find(|plugin| plugin.name() == kind)?;
        // Read at run time: what the compiler has seen of it is not what is in the file.
        let ours = verified(*std::hint::black_box(&MARK))?;
        (mark(program)? == ours).then_some(plugin)
    }
}

impl fmt::Debug for Contained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|plugin| plugin.name())).finish()
    }
}

/// What the mark begins with. Behind it are 64 hexadecimal digits, which are the same for programs built together, and a line end.
const PREFIX: &[u8] = b"\nprograms built together: ";
const LENGTH: usize = PREFIX.len() + 64 + 1;

/// This program's mark, once `tools/mark-built` has put digits in place of the dashes.
static MARK: [u8; LENGTH] =
    *b"\nprograms built together: ----------------------------------------------------------------\n";

/// The mark at the end of a file.
fn mark(path: &Path) -> Option<[u8; LENGTH]> {
    let mut file = File::open(path).ok()?;
    let mut end = [0; LENGTH];
    file.seek(SeekFrom::End(-i64::try_from(LENGTH).ok()?)).ok()?;
    file.read_exact(&mut end).ok()?;
    verified(end)
}

fn verified(mark: [u8; LENGTH]) -> Option<[u8; LENGTH]> {
    let digits = mark.strip_prefix(PREFIX)?.strip_suffix(b"\n")?;
    digits.iter().all(u8::is_ascii_hexdigit).then_some(mark)
}
